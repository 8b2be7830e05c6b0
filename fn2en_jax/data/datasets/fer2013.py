"""FER2013: 48x48 grey faces of a web search, as a table of pixels or as folders of images."""

import collections
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fn2en_jax.data.datasets.beside import distance
from fn2en_jax.data.datasets.copies import notes
from fn2en_jax.data.records import Dataset, Found, Record, Tree
from fn2en_jax.errors import UserError

SIDE = 48  # pixels
SPLITS = {'Training': 'train', 'PublicTest': 'validation', 'PrivateTest': 'test'}
TABLES = ('fer2013.csv', 'icml_face_data.csv')  # the same rows; the first is taken where both are there

_CODES = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')
_COUNTS = {
    'train': (3995, 436, 4097, 7215, 4830, 3171, 4965),
    'validation': (467, 56, 496, 895, 653, 415, 607),
    'test': (491, 55, 528, 879, 594, 416, 626),
}  # in the order of the codes
PUBLISHED = {
    f'{split}/{label}': count for split, counts in _COUNTS.items() for label, count in zip(_CODES, counts, strict=True)
}
PUBLISHED_FOLDERS = {
    **{name: count for name, count in PUBLISHED.items() if name.startswith('train/')},
    **{f'test/{label}': PUBLISHED[f'validation/{label}'] + PUBLISHED[f'test/{label}'] for label in _CODES},
}  # where file names do not tell the two test sets apart

_COLUMNS = ('emotion', 'pixels', 'usage')
_LONGEST_LINE = 1 << 16  # bytes; 2304 numbers take 9216 at most

_CLASS_FOLDERS = {
    'angry': 'anger',
    'disgust': 'disgust',
    'fear': 'fear',
    'happy': 'happiness',
    'neutral': 'neutral',
    'sad': 'sadness',
    'surprise': 'surprise',
}
_SPLIT_FOLDERS = {'train': 'train', 'training': 'train', 'validation': 'validation', 'test': 'test'} | {
    usage.lower(): split for usage, split in SPLITS.items()
}
_IMAGE = rf'({"|".join(_SPLIT_FOLDERS)})/({"|".join(_CLASS_FOLDERS)})/([^/]+)\.(?:jpe?g|png)'
_IMAGE_NAME = re.compile(r'(?:(Training|PublicTest|PrivateTest)_|im)?\d+', re.IGNORECASE)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One row of a table.

    Attributes:
        number: counted from 0 after the header, as FER+ and pandas count.
        usage: 'Training', 'PublicTest' or 'PrivateTest'.
        label: the expression.
        image: uint8 [48,48].
        fault: what makes the row unusable; the other fields are empty then.
    """

    number: int
    usage: str = ''
    label: str = ''
    image: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0), np.uint8))
    fault: str = ''


def find_table(tree: Tree, skipped: list[str], beside: str = '') -> Path | None:
    """The table of a folder, by name; None without one. Others of the same name are noted in `skipped`.

    beside: a path of the tree: of several tables that is taken which lies fewest folders away from it.
    """
    found = [(name, match.string, path) for name in TABLES for match, path in tree.match(re.escape(name))]
    if beside:
        found.sort(key=lambda table: distance(table[1], beside))
    if not found:
        return None
    name, used, path = found[0]
    skipped += notes([(other, used) for same, other, _ in found[1:] if same == name])
    return path


def read_table(path: Path) -> Iterator[Row]:
    """The rows of `fer2013.csv` or `icml_face_data.csv`, whose columns differ in order and spacing.

    Raises:
        UserError: the file cannot be read, or its first line does not name the columns.
    """
    lines = _lines(path)
    names = [_cell(cell).casefold() for cell in next(lines, b'').removeprefix(b'\xef\xbb\xbf').split(b',')]
    if not set(_COLUMNS) <= set(names):
        found = ', '.join(names)[:100]
        raise UserError(f'{path}: line 1: the columns emotion, pixels, Usage are expected, found {found!r}')
    places = [names.index(name) for name in _COLUMNS]
    for number, line in enumerate(line for line in lines if line.strip()):
        cells = line.split(b',')
        if len(cells) == len(names):
            yield _row(number, *(cells[place] for place in places))
        else:
            yield Row(number, fault=f'{len(cells)} cells, not {len(names)}')


def _lines(path: Path) -> Iterator[bytes]:
    """A line that is too long is cut, so that a file without line ends does not fill the memory."""
    try:
        with path.open('rb') as file:
            while line := file.readline(_LONGEST_LINE):
                yield line
                while line and not line.endswith(b'\n'):
                    line = file.readline(_LONGEST_LINE)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error


def _cell(text: bytes) -> str:
    return text.decode('ascii', 'backslashreplace').strip().strip('"').strip()


def _row(number: int, emotion: bytes, pixels: bytes, usage: bytes) -> Row:
    code, use = _cell(emotion), _cell(usage)
    if use not in SPLITS:
        return Row(number, fault=f'Usage is {use[:40]!r}, none of {", ".join(SPLITS)}')
    if not re.fullmatch('[0-6]', code):
        return Row(number, fault=f'emotion is {code[:40]!r}, none of 0 ... 6')
    image = _pixels(pixels)
    if isinstance(image, str):
        return Row(number, fault=image)
    return Row(number, use, _CODES[int(code)], image)


def _pixels(text: bytes) -> np.ndarray | str:
    """The image, uint8 [48,48], or what is wrong with the numbers."""
    text = text.strip(b' "\r\n')
    if text.translate(None, b'0123456789 '):
        return 'pixels hold something else than whole numbers'
    values = np.fromstring(text.decode('ascii'), np.int64, sep=' ') if text else np.empty(0, np.int64)
    if len(values) != SIDE * SIDE:
        return f'{len(values)} pixels, not {SIDE * SIDE}'
    if values.max() > 255:
        return f'a pixel is {values.max()}, more than 255'
    return values.astype(np.uint8).reshape(SIDE, SIDE)


@dataclasses.dataclass(frozen=True)
class WebFaces(Dataset):
    """The table where there is one, else the folders."""

    def find(self, tree: Tree) -> Found:
        copies: list[str] = []
        path = find_table(tree, copies)
        found = _from_table(path, copies) if path else _from_folders(tree)
        if not found.records:
            reason = f' ({len(found.skipped)} could not be used: {found.skipped[0]})' if found.skipped else ''
            raise self.foreign(tree, f'image in {path.name if path else "a table or folders of FER2013"}{reason}')
        return found


FER2013 = WebFaces(
    name='fer2013',
    title='FER2013',
    access='https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge',
    layout='fer2013.csv or icml_face_data.csv, or folders train/angry ... test/surprise; train.csv and test.csv lack '
    'the labels of the test sets',
    faces='none',
)


def _from_table(path: Path, copies: Sequence[str]) -> Found:
    records, skipped = [], [*copies]
    for row in read_table(path):
        if row.fault:
            skipped.append(f'{path.name} row {row.number}: {row.fault}')
        else:
            file = f'row {row.number} {row.usage}'
            records.append(Record(row.image, file, row.label, split=SPLITS[row.usage]))
    return Found(tuple(records), edition=path.name, expected=PUBLISHED, skipped=tuple(skipped))


def _from_folders(tree: Tree) -> Found:
    records: dict[str, Record] = {}
    used: dict[str, str] = {}
    copies, skipped = [], []
    for match, path in tree.match(_IMAGE):
        folder, class_folder, stem = match.groups()
        file = f'{folder}/{class_folder}/{match.string.rpartition("/")[2]}'
        name = _IMAGE_NAME.fullmatch(stem)
        if not name:
            skipped.append(f'{file}: not named like an image of FER2013')
        elif file.lower() in records:
            copies.append((match.string, used[file.lower()]))
        else:
            split = _SPLIT_FOLDERS[(name[1] or folder).lower()]
            used[file.lower()] = match.string
            records[file.lower()] = Record(path, file, _CLASS_FOLDERS[class_folder.lower()], split=split)
    return _folders(tuple(records.values()), skipped + notes(copies))


def _folders(records: tuple[Record, ...], skipped: Sequence[str]) -> Found:
    counts = collections.Counter(f'{record.split}/{record.label}' for record in records)
    apart = any(record.split == 'validation' for record in records)
    expected = PUBLISHED if apart else PUBLISHED_FOLDERS
    edition = 'folders, PublicTest and PrivateTest ' + ('told apart by name' if apart else 'together as test')
    missing = tuple(f'{name}: no image' for name in expected if not counts[name])
    return Found(records, edition, expected, missing, tuple(skipped))
