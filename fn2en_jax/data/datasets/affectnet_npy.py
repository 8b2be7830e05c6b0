"""AffectNet as given out since 2021: face crops of 224 × 224 pixels, and four small .npy files for each."""

import collections
import concurrent.futures
import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fn2en_jax.data.datasets.affectnet import LABELS, LEFT_OUT, TRAINING
from fn2en_jax.data.datasets.copies import first_of_each
from fn2en_jax.data.datasets.counted import counted
from fn2en_jax.data.landmarks import FivePoints, five_of_68
from fn2en_jax.data.records import Dataset, Found, Record, Tree
from fn2en_jax.data.tables import quoted
from fn2en_jax.errors import UserError

_SPLITS = {'train_set': 'train', 'val_set': 'validation', 'valid_set': 'validation'}
_IMAGE = r'(?P<set>train_set|val_set|valid_set)/images/(?P<id>\d{1,12})\.(jpe?g|png)'
_ARRAY = r'(?P<set>train_set|val_set|valid_set)/annotations/(?P<id>\d{1,12})_(?P<what>exp|lnd)\.npy'

_EXPECTED = {f'train/{label}': count for label, count in TRAINING.items()}
_EXPECTED |= {f'validation/{label}': 499 if label == 'contempt' else 500 for label in LABELS.values()}

_SIDE = 224  # pixels of a crop; landmarks beyond are not those of the crop
_HEADER = re.compile(
    rb"\{'descr': '(?P<type>[<>|=][iufUS][1-9]\d{0,4})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[\d, ]{,40})\), \}\s*"
)
_MAX_BYTES = 1 << 16  # of an annotation, which has 136 numbers at most
_CHUNK = 256  # pictures whose annotations one thread reads at a time


class AffectNetNpy(Dataset):
    """The edition with a label file for each picture; their numbers have gaps."""

    def find(self, tree: Tree) -> Found:
        """Reads the annotations of every picture."""
        skipped: list[str] = []
        images = _by_number(tree, _IMAGE, skipped)
        arrays = _by_number(tree, _ARRAY, skipped)
        labelled = [_Key(split, number, '') for split, number, what in arrays if what == 'exp']
        if not labelled:
            raise self.foreign(tree, 'train_set/annotations/<number>_exp.npy')
        if not images:
            raise self.foreign(tree, 'train_set/images/<number>.jpg')
        skipped += [
            f'{_name(path)}: has no label file'
            for key, path in images.items()
            if key._replace(what='exp') not in arrays
        ]
        absent = [arrays[key._replace(what='exp')] for key in labelled if key not in images]
        present = [key for key in labelled if key in images]
        records, left_out = _records(present, images, arrays, skipped)
        return Found(
            records=tuple(records),
            edition=_edition(records, left_out),
            expected=_EXPECTED,
            missing=tuple(f'the picture of {_name(path)}' for path in absent),
            skipped=tuple(skipped),
        )


AFFECTNET_NPY = AffectNetNpy(
    name='affectnet_npy',
    title='AffectNet (npy edition)',
    access='the request form of the AffectNet page at mohammadmahoor.com (academic use)',
    layout='{train_set,val_set}/{images,annotations}',
    faces='none',
)


class _Key(NamedTuple):
    """A picture (`what` is '') or one of its annotations; sorts by number."""

    split: str
    number: int
    what: str


def _by_number(tree: Tree, pattern: str, skipped: list[str]) -> dict[_Key, Path]:
    """The files of a kind, in the order of their numbers; a split that is there twice is read once."""
    found = first_of_each(tree.match(pattern), _key, skipped)
    return {key: found[key][1] for key in sorted(found)}


def _key(match: re.Match[str]) -> _Key:
    return _Key(_SPLITS[match['set'].lower()], int(match['id']), match.groupdict().get('what', '').lower())


def _name(path: Path) -> str:
    """'train_set/images/7.jpg'."""
    return '/'.join(path.parts[-3:])


def _records(
    keys: Sequence[_Key], images: Mapping[_Key, Path], arrays: Mapping[_Key, Path], skipped: list[str]
) -> tuple[list[Record], collections.Counter[str]]:
    """The pictures with an expression, and how many have none. Most of the time goes into opening files."""
    records, left_out, bad = [], collections.Counter[str](), []
    chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        annotated = pool.map(lambda chunk: [_annotation(key, arrays) for key in chunk], chunks)
        for key, (code, points, problem, unusable) in zip(
            keys, (one for chunk in annotated for one in chunk), strict=True
        ):
            if problem:
                skipped.append(f'{_name(images[key])}: {problem}')
            elif code in LEFT_OUT:
                left_out[LEFT_OUT[code]] += 1
            else:
                path = images[key]
                bad += [unusable] if unusable else []
                records.append(Record(path, _name(path), LABELS[code], split=key.split, points=points))
    skipped += counted(bad, 'files without 68 landmarks inside the picture')
    return records, left_out


def _edition(records: Sequence[Record], left_out: Mapping[str, int]) -> str:
    counts = collections.Counter(record.split for record in records)
    rest = ', '.join(f'{count:,} {name}' for name, count in sorted(left_out.items()))
    return f'npy files, {counts["train"]:,} + {counts["validation"]:,}' + (f' (left out: {rest})' if rest else '')


class _Annotation(NamedTuple):
    code: int
    points: FivePoints | None
    problem: str
    unusable: str  # the file that holds no landmarks of this picture


def _annotation(key: _Key, arrays: Mapping[_Key, Path]) -> _Annotation:
    try:
        code = _code(_array(arrays[key._replace(what='exp')]))
    except UserError as error:
        return _Annotation(-1, None, f'its label {error}', '')
    landmarks = arrays.get(key._replace(what='lnd'))
    points = _points(landmarks) if landmarks else None
    return _Annotation(code, points, '', _name(landmarks) if landmarks and not points else '')


def _code(label: np.ndarray) -> int:
    value = label.item() if label.size == 1 else ''
    text = value.decode('latin-1') if isinstance(value, bytes) else str(value)
    code = float(text) if re.fullmatch(r'\d{1,2}(\.0*)?', text.strip()) else math.nan
    if code not in LABELS and code not in LEFT_OUT:
        raise UserError(f'{quoted(text)} is no code of an expression')
    return int(code)


def _points(path: Path) -> FivePoints | None:
    """Five of the 68 landmarks, which are flat, x and y alternating; None unless they lie in the crop."""
    try:
        points = _array(path).astype(np.float64).reshape(68, 2)
    except (UserError, ValueError):
        return None
    five = five_of_68(points)
    return five if all(0 <= x <= _SIDE and 0 <= y <= _SIDE for x, y in five) else None


def _array(path: Path) -> np.ndarray:
    """Reads a small .npy file; ten times as fast as `np.load`, for there are half a million, and without pickles.

    Raises:
        UserError: says, without the file's name, why it cannot be read.
    """
    try:
        with path.open('rb', buffering=0) as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error
    start = 10 + int.from_bytes(data[8:10], 'little')
    if len(data) > _MAX_BYTES or data[:8] != b'\x93NUMPY\x01\x00' or len(data) < start:
        raise UserError('is no small .npy file')
    shape, dtype = _header(data[:start])
    count = math.prod(shape)
    if count * dtype.itemsize > len(data) - start:
        raise UserError('is truncated')
    return np.frombuffer(data, dtype, count, start).reshape(shape)


@functools.lru_cache(maxsize=64)  # a set has a few different headers
def _header(head: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array of plain numbers or texts; anything else, such as a pickle, has another header."""
    match = _HEADER.fullmatch(head[10:])
    if not match:
        raise UserError('holds no plain numbers')
    try:
        dtype = np.dtype(match['type'].decode())
    except TypeError as error:
        raise UserError(f'has values of the unknown type {match["type"].decode()}') from error
    return tuple(int(length) for length in re.findall(rb'\d+', match['shape'])), dtype
