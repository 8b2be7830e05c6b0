"""RAF-DB, the subset with basic expressions: a list of labels, and the faces aligned or as they were."""

import dataclasses
import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from fn2en_jax.data.datasets.copies import first_of_each
from fn2en_jax.data.datasets.counted import counted
from fn2en_jax.data.records import Dataset, Found, Point, Record, Tree
from fn2en_jax.data.tables import quoted

_LABELS = {
    '1': 'surprise',
    '2': 'fear',
    '3': 'disgust',
    '4': 'happiness',
    '5': 'sadness',
    '6': 'anger',
    '7': 'neutral',
}
_COMPOUND_CODES = {'8', '9', '10', '11'}  # that set has eleven classes, and its codes below 8 mean other things
_COUNTS = {'train': (1290, 281, 717, 4772, 1982, 705, 2524), 'test': (329, 74, 160, 1185, 478, 162, 680)}
_DIGITS = {'train': 5, 'test': 4}  # of a number in a name; pictures are numbered from 1 without gaps
_EXPECTED = {
    f'{split}/{label}': count
    for split, counts in _COUNTS.items()
    for label, count in zip(_LABELS.values(), counts, strict=True)
}

_LIST = r'list_par?tition_label\.txt'  # published with one letter less
_NAME = r'(?P<split>train|test)_(?P<number>\d{1,9})'
_IMAGE = rf'{_NAME}(?P<aligned>_aligned)?\.(jpe?g|png)'
_ATTRIBUTES = rf'{_NAME}_manu_attri\.txt'
_MAX_LIST_BYTES = 1 << 24
_MAX_ATTRIBUTE_BYTES = 1 << 12

_Key = tuple[str, int]  # split and number of a picture


class RafDb(Dataset):
    """The basic subset; the compound one has a list of the same name, with other codes, and is passed over."""

    def wants(self, archive: str) -> bool:
        """Leaves out the compound subset."""
        return not _is_compound(archive)

    def find(self, tree: Tree) -> Found:
        """Takes the aligned faces where there are any, else the original pictures with their five points."""
        basic = _Basic(tree)
        path = basic.list_path()
        if not path:
            raise self.foreign(tree, 'EmoLabel/list_patition_label.txt of the basic subset')
        labels = basic.labels(path)
        if not labels:
            raise self.foreign(tree, f'list of the basic subset, with lines such as "train_00001.jpg 5", in {path}')
        aligned, original = basic.pictures()
        if not aligned and not original:
            raise self.foreign(tree, 'Image/aligned/train_00001_aligned.jpg')
        pictures, points = (aligned, {}) if aligned else (original, basic.attribute_files())
        records, pointless = [], []
        for key, (name, label) in labels.items():
            if key in pictures:
                five = _points(points[key]) if key in points else None
                pointless += [points[key].name] if key in points and not five else []
                records.append(Record(pictures[key], name, label, split=key[0], points=five))
        unlisted = [f'{path.name}: not in the list' for key, path in pictures.items() if key not in labels]
        return Found(
            records=tuple(records),
            edition='aligned faces' if aligned else 'original pictures',
            expected=_EXPECTED,
            missing=(*_unlisted(labels), *(name for key, (name, _) in labels.items() if key not in pictures)),
            skipped=(*basic.skipped, *unlisted, *counted(pointless, 'files without five points')),
            faces='' if aligned else 'align',
        )


RAFDB = RafDb(
    name='rafdb',
    title='RAF-DB (basic)',
    access='by mail from an academic address, see the RAF-DB page at whdeng.cn',
    layout='basic/EmoLabel/list_patition_label.txt and basic/Image/aligned (or aligned.zip)',
    faces='none',
)


@dataclasses.dataclass
class _Basic:
    """The files of the basic subset."""

    tree: Tree
    skipped: list[str] = dataclasses.field(default_factory=list)

    def list_path(self) -> Path | None:
        """The list of labels, best one first in a folder that says so."""
        found = [(match.string, path) for match, path in self.tree.match(_LIST) if not _is_compound(match.string)]
        found.sort(key=lambda name_path: 'basic' not in name_path[0].lower())
        self.skipped += [f'{name}: {found[0][0]} is read instead' for name, _ in found[1:]]
        return found[0][1] if found else None

    def labels(self, path: Path) -> Mapping[_Key, tuple[str, str]]:
        """Name and label of every picture of the list; {} for a list that cannot be read or is another set's."""
        found: dict[_Key, tuple[str, str]] = {}
        for line, text in enumerate(_text(path, _MAX_LIST_BYTES).splitlines(), 1):
            match = re.fullmatch(rf'(?P<name>{_NAME}\.jpg)\s+(?P<code>\S+)', text.strip(), re.IGNORECASE)
            if match and match['code'] in _COMPOUND_CODES:
                return {}
            if not match or match['code'] not in _LABELS:
                problem = 'no name of a picture with the code of a basic expression' if text.strip() else ''
            elif _key(match) in found:
                problem = 'listed before'
            else:
                problem = ''
                found[_key(match)] = match['name'], _LABELS[match['code']]
            self.skipped += [f'{path.name}, line {line}: {problem} ({quoted(text)})'] if problem else []
        return found

    def pictures(self) -> tuple[dict[_Key, Path], dict[_Key, Path]]:
        """Aligned and original pictures; where one lies twice, the first by its path, which is noted."""
        editions: tuple[list, list] = [], []
        for match, path in self.tree.match(_IMAGE):
            if not _is_compound(match.string):
                is_original = not (match['aligned'] or match.string.lower().split('/')[-2:-1] == ['aligned'])
                editions[is_original].append((match, path))
        aligned, original = (self._first(found) for found in editions)
        return aligned, original

    def _first(self, found: Iterable[tuple[re.Match[str], Path]]) -> dict[_Key, Path]:
        return {key: path for key, (_, path) in first_of_each(found, _key, self.skipped).items()}

    def attribute_files(self) -> dict[_Key, Path]:
        """The manual annotations, which begin with five points of the original picture."""
        found = self.tree.match(_ATTRIBUTES)
        return self._first((match, path) for match, path in found if not _is_compound(match.string))


def _unlisted(labels: Container[_Key]) -> list[str]:
    """The pictures that the published list names and this one does not; neighbours on one line."""
    lines = []
    for split, counts in _COUNTS.items():
        runs: list[list[int]] = []
        for number in (number for number in range(1, sum(counts) + 1) if (split, number) not in labels):
            if runs and runs[-1][-1] == number - 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        lines += [_run(split, run) for run in runs]
    return lines


def _run(split: str, numbers: Sequence[int]) -> str:
    first, last = (f'{split}_{number:0{_DIGITS[split]}}.jpg' for number in (numbers[0], numbers[-1]))
    if len(numbers) == 1:
        return f'{first}: not in the list'
    return f'{first} to {last}: {len(numbers):,} pictures, not in the list'


def _is_compound(name: str) -> bool:
    return bool(re.search('(^|/)compound', name.lower()))


def _key(match: re.Match[str]) -> _Key:
    return match['split'].lower(), int(match['number'])


def _points(path: Path) -> tuple[Point, Point, Point, Point, Point] | None:
    """The first five lines: eyes, tip of the nose, corners of the mouth, each from the left of the image."""
    lines = [line.split() for line in _text(path, _MAX_ATTRIBUTE_BYTES).splitlines() if line.strip()][:5]
    try:
        points = [(float(x), float(y)) for x, y in lines]
    except ValueError:
        return None
    if len(points) < 5 or not all(math.isfinite(value) for point in points for value in point):
        return None
    left_eye, right_eye, nose, left_corner, right_corner = points
    return left_eye, right_eye, nose, left_corner, right_corner


def _text(path: Path, limit: int) -> str:
    """A small text file; '' where it is none."""
    try:
        with path.open('rb') as file:
            data = file.read(limit + 1)
    except OSError:
        return ''
    return data.decode('utf-8-sig', errors='replace') if len(data) <= limit else ''
