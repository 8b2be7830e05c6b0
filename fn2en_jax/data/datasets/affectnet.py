"""AffectNet, the manually annotated part, first edition: two CSV lists, and folders of pictures of all formats."""

import collections
import csv
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from fn2en_jax.data import images
from fn2en_jax.data.datasets.counted import counted
from fn2en_jax.data.landmarks import FivePoints, five_of_68
from fn2en_jax.data.records import Box, Dataset, Found, Record, Tree
from fn2en_jax.data.tables import quoted

# The codes of `expression`; those without an expression are counted and left out.
LABELS = {
    0: 'neutral',
    1: 'happiness',
    2: 'sadness',
    3: 'surprise',
    4: 'fear',
    5: 'disgust',
    6: 'anger',
    7: 'contempt',
}
LEFT_OUT = {8: 'none', 9: 'uncertain', 10: 'non-face'}
TRAINING = dict(zip(LABELS.values(), (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750), strict=True))

MAX_LIST_BYTES = 1 << 31  # the published ones have half a gigabyte

_LISTS = {'training.csv': 'train', 'validation.csv': 'validation'}
_EXPECTED = {f'train/{label}': count for label, count in TRAINING.items()}
_EXPECTED |= dict.fromkeys((f'validation/{label}' for label in LABELS.values()), 500)

# The columns of a list without a header; a header may have the first with '#' before it.
_FILE, _BOX, _LANDMARKS, _CODE = (
    'subdirectory_filepath',
    ('x', 'y', 'width', 'height'),
    'facial_landmarks',
    'expression',
)
_NOTHING = {'', 'null', 'nan', 'none'}  # in a cell that tells nothing
_COLUMNS = (_FILE, *(f'face_{side}' for side in _BOX), _LANDMARKS, _CODE, 'valence', 'arousal')

Value = TypeVar('Value')


class AffectNet(Dataset):
    """The edition with lists.

    A picture that is listed more than once, mostly with another box, gives a record each time; from the second on
    their `file` ends in '#2', '#3' and so on.
    """

    def wants(self, archive: str) -> bool:
        """Leaves out the automatically annotated part, which is larger and not used."""
        return 'automatically' not in archive.lower()

    def find(self, tree: Tree) -> Found:
        """Reads both lists and looks up their pictures."""
        reading = _Reading(_Pictures(tree))
        lists = _lists(tree)
        for name, split in _LISTS.items():
            paths = lists.get(name, [])
            reading.skipped += [f'{_end(path)}: {_end(paths[0])} is read instead' for path in paths[1:]]
            if paths:
                reading.read(paths[0], split)
            else:
                reading.missing.append(f'{name} of Manually_Annotated_file_lists')
        if not reading.rows:
            raise self.foreign(tree, 'training.csv or validation.csv with the columns of AffectNet')
        if not reading.records:
            raise self.foreign(tree, 'picture among those that the lists name')
        return Found(
            records=tuple(reading.records),
            edition=reading.edition(),
            expected=_EXPECTED,
            missing=tuple(reading.missing),
            skipped=(
                *reading.skipped,
                *counted(reading.bad_boxes, 'lines with a box that is none'),
                *counted(reading.bad_landmarks, 'lines with landmarks that are not 68'),
            ),
        )


AFFECTNET = AffectNet(
    name='affectnet',
    title='AffectNet (manually annotated, CSV lists)',
    access='the request form of the AffectNet page at mohammadmahoor.com (academic use)',
    layout='Manually_Annotated_file_lists/{training,validation}.csv (or its .zip), and the folder '
    'Manually_Annotated_Images unpacked from Manually_Annotated.part*.rar',
    faces='align',
)


def _lists(tree: Tree) -> Mapping[str, list[Path]]:
    """The candidates for each list, best first."""
    found: dict[str, list[Path]] = collections.defaultdict(list)
    for match, path in tree.match('|'.join(_LISTS)):
        if 'automatically' not in path.parent.name.lower():
            found[match.group(0).lower().rpartition('/')[2]].append(path)
    for paths in found.values():
        paths.sort(key=lambda path: ('manually' not in path.parent.name.lower(), len(path.parts)))
    return found


def _end(path: Path) -> str:
    return '/'.join(path.parts[-2:])


class _Pictures:
    """The pictures on disk by the last two parts of their path: a list may have another case or extension."""

    def __init__(self, tree: Tree):
        self._paths: dict[str, list[Path]] = {}
        for name, path in tree.files.items():
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in images.SUFFIXES and 'automatically' not in name.lower():
                self._paths.setdefault('/'.join(stem.rsplit('/', 2)[-2:]).lower(), []).append(path)

    def find(self, listed: str) -> Path | None:
        """Looks a name of a list up among the files found, so no name can lead anywhere else."""
        stem, suffix = os.path.splitext(listed)
        paths = self._paths.get(stem.lower(), ())
        if len(paths) == 1:
            return paths[0]
        name = listed.rpartition('/')[2]
        return min(
            paths, key=lambda path: (path.name != name, path.suffix.lower() != suffix.lower(), path), default=None
        )


@dataclasses.dataclass
class _Reading:
    """What has been read of the lists so far."""

    pictures: _Pictures
    records: list[Record] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    rows: int = 0  # that have the form of AffectNet
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    listed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    bad_boxes: list[str] = dataclasses.field(default_factory=list)
    bad_landmarks: list[str] = dataclasses.field(default_factory=list)

    def read(self, path: Path, split: str) -> None:
        """Adds the rows of one list."""
        try:
            if path.stat().st_size > MAX_LIST_BYTES:
                self.skipped.append(f'{path.name}: larger than {MAX_LIST_BYTES:,} bytes')
                return
            with path.open(encoding='utf-8-sig', errors='replace', newline='') as file:
                for line, row in _rows(file):
                    place = f'{path.name}, line {line}'
                    problem = self._add(row, split, place) if isinstance(row, dict) else row
                    if problem:
                        self.skipped.append(f'{place}: {problem}')
        except OSError as error:
            self.skipped.append(f'{path.name}: cannot be read ({error.strerror})')

    def edition(self) -> str:
        """For people: how many rows have an expression, and what the others are."""
        counts = collections.Counter(record.split for record in self.records)
        found = ' + '.join(f'{counts[split]:,}' for split in _LISTS.values())
        rest = ', '.join(f'{self.left_out[name]:,} {name}' for name in LEFT_OUT.values())
        return f'manually annotated, {found} with one of eight expressions (left out: {rest})'

    def _add(self, row: Mapping[str, str], split: str, place: str) -> str:
        """Takes one row; returns what is wrong with it, or ''."""
        code = _number(row[_CODE])
        if code not in LABELS and code not in LEFT_OUT:
            return f'{quoted(row[_CODE])} is no code of an expression'
        self.rows += 1
        if code in LEFT_OUT:
            self.left_out[LEFT_OUT[int(code)]] += 1
            return ''
        file = row[_FILE].strip().replace('\\', '/')
        path = self.pictures.find(file)
        if not path:
            self.missing.append(file)
            return ''
        self.listed[file] += 1
        self.records.append(
            Record(
                image=path,
                file=file if self.listed[file] == 1 else f'{file}#{self.listed[file]}',
                label=LABELS[int(code)],
                split=split,
                box=_if_sound(_box, row, place, self.bad_boxes),
                points=_if_sound(_points, row, place, self.bad_landmarks),
            )
        )
        return ''


def _rows(file: Iterator[str]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Line number with the cells by column, or with what is wrong."""
    reader = csv.reader(file)
    columns: Sequence[str] = _COLUMNS
    for first in itertools.count():
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, str(error)
            continue
        names = [cell.strip().lstrip('#').strip().lower() for cell in cells] if not first else []
        if _FILE in names:
            columns = names
            if _CODE not in names:
                yield 1, f'the column {_CODE} is missing'
                return
        elif cells:
            row = dict(zip(columns, cells, strict=False))
            yield reader.line_num, row if _CODE in row and _FILE in row else f'only {len(cells)} cells'


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _if_sound(
    read: Callable[[Mapping[str, str]], Value | None], row: Mapping[str, str], place: str, bad: list[str]
) -> Value | None:
    """What `read` makes of a row; None, and its place noted as bad, where that cannot be."""
    try:
        return read(row)
    except ValueError:
        bad.append(place)
        return None


def _box(row: Mapping[str, str]) -> Box | None:
    """The face; None where none is told, for which a negative size stands as well.

    Raises:
        ValueError: what is told is no box.
    """
    cells = [row.get(f'face_{side}', '').strip() for side in _BOX]
    if all(cell.lower() in _NOTHING for cell in cells):
        return None
    x, y, width, height = map(_number, cells)
    if width < 0 or height < 0:
        return None
    if not (0 <= x < math.inf and 0 <= y < math.inf and 0 < width < math.inf and 0 < height < math.inf):
        raise ValueError('no box')
    return x, y, width, height


def _points(row: Mapping[str, str]) -> FivePoints | None:
    """Five of the 68 landmarks, which are joined as x;y;x;y; None where none are told.

    Raises:
        ValueError: these are no such 136 numbers.
    """
    text = row.get(_LANDMARKS, '').strip()
    if text.lower() in _NOTHING:
        return None
    points = np.array([float(number) for number in text.split(';')]).reshape(68, 2)
    if not np.isfinite(points).all():
        raise ValueError('numbers that are not finite')
    return five_of_68(points)
