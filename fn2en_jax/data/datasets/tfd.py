"""TFD, the Toronto Face Database: cropped grey faces of many sets, in one MATLAB file with five official folds."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io

from fn2en_jax.data.datasets import tfd_names
from fn2en_jax.data.datasets.beside import distance
from fn2en_jax.data.datasets.counted import apart
from fn2en_jax.data.records import Dataset, Found, Record, Tree
from fn2en_jax.errors import UserError

PUBLISHED = {'labelled': 4178, 'unlabelled': 98_058}  # the latter are not used
FOLDS = 5

_EXPRESSIONS = {
    1: 'anger',
    2: 'disgust',
    3: 'fear',
    4: 'happiness',
    5: 'sadness',
    6: 'surprise',
    7: 'neutral',
}
_NOBODY = -1  # in labs_ex: no expression is known; in labs_id: no person
_PARTS = np.array(['', 't', 'v', 'e'])  # by code in `folds`; 0 is unlabelled
_FILE = r'TFD_(ranzato_)?(48x48|96x96)\.mat'
_INFO = r'TFD_info\.mat'
_VARIABLES = ('images', 'labs_ex', 'labs_id', 'folds')
_NUMERIC = {
    *('int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64'),
    *('single', 'double', 'logical'),
}
_MOST_IMAGES = 1_000_000  # the published files hold about 100,000


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """The labelled rows of a file.

    Attributes:
        numbers: their rows in the file, int [n], counted from 0.
        images: uint8 [n,s,s].
        labels: n expressions.
        identities: int [n], _NOBODY where unknown.
        parts: codes 1 train, 2 validation, 3 test, int [n,5].
        images_in_file: how many rows the file has.
        unlabelled: how many of them have neither an expression nor folds.
        skipped: what the file holds besides, for people.
    """

    numbers: np.ndarray
    images: np.ndarray
    labels: tuple[str, ...]
    identities: np.ndarray
    parts: np.ndarray
    images_in_file: int
    unlabelled: int
    skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TorontoFaces(Dataset):
    """The 48x48 file where there is one, else the 96x96 file."""

    def find(self, tree: Tree) -> Found:
        found = [(match[2], match[1] or '', match.string, path) for match, path in tree.match(_FILE)]
        if not found:
            raise self.foreign(tree, 'TFD_48x48.mat or TFD_96x96.mat')
        _, _, listed, path = min(found)
        rows = _labelled(path, _load(path))
        if not len(rows.numbers):
            raise self.foreign(tree, f'row with an expression and folds in {path.name}')
        names, named, notes = _names(tree, listed, rows.images_in_file)
        records = tuple(
            Record(
                image=image,
                file=f'row {number} {names[number]}'.rstrip(),
                label=label,
                subject='' if identity == _NOBODY else f'id {identity}',
                folds=''.join(_PARTS[parts]),
            )
            for number, image, label, identity, parts in zip(
                rows.numbers, rows.images, rows.labels, rows.identities, rows.parts, strict=True
            )
        )
        missing, surplus = apart({'labelled': len(records), 'unlabelled': rows.unlabelled}, PUBLISHED)
        return Found(
            records,
            edition=f'{path.name}, {len(records)} faces with an expression, {named}',
            expected={},  # nobody published the numbers per class
            missing=tuple(missing),
            skipped=(*rows.skipped, *_shared(rows), *notes),
            surplus=tuple(surplus),
        )


TFD = TorontoFaces(
    name='tfd',
    title='TFD (Toronto Face Database)',
    access='from its author, J. Susskind, for holders of the licences of the sets it is made of: JACFEE, POFA, KDEF, '
    'CK+, MMI, MSFDE, NimStim, RaFD (http://aclab.ca/users/josh/TFD.html)',
    layout='TFD_48x48.mat or TFD_ranzato_48x48.mat (preferred), or TFD_96x96.mat; TFD_info.mat beside it '
    'tells the original file names',
    faces='none',
)


def _names(tree: Tree, listed: str, images: int) -> tuple[Sequence[str], str, list[str]]:
    """The original name of every image ('' where it is unknown), where names come from, and why not, for people.

    listed: the images' file in the tree; of several files with names the nearest is read.
    """
    found = sorted((distance(match.string, listed), match.string, path) for match, path in tree.match(_INFO))
    notes: list[str] = []
    if found:
        _, name, path = found[0]
        try:
            return tfd_names.read(path, images), f'with the file names of {path.name}', notes
        except UserError as error:
            notes.append(f'{name}: {error}')
    return [''] * images, 'named by their rows', notes


def _load(path: Path) -> dict[str, np.ndarray]:
    """The four variables; their sizes are checked before any of them is read."""
    # SciPy raises whatever comes to hand on damaged files; to the user it is all the same.
    try:
        shapes = {name: (shape, kind) for name, shape, kind in io.whosmat(str(path))}
    except NotImplementedError:
        raise UserError(f'{path}: is of MATLAB 7.3, which cannot be read; save it again in MATLAB with -v7') from None
    except Exception as error:
        raise UserError(f'{path}: is no readable MATLAB file ({_first_line(error)})') from error
    _check_shapes(path, shapes)
    try:
        content: dict[str, Any] = io.loadmat(str(path), variable_names=_VARIABLES)
    except Exception as error:
        raise UserError(f'{path}: is damaged ({_first_line(error)})') from error
    for name in _VARIABLES:
        if name not in content or content[name].shape != shapes[name][0] or content[name].dtype.kind not in 'buif':
            raise UserError(f'{path}: the variable {name} does not hold the real numbers that its header announces')
    return content


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.splitlines()[0][:120]


def _check_shapes(path: Path, shapes: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Shapes are as in the file, with what MATLAB calls their type."""
    for name in _VARIABLES:
        if name not in shapes:
            raise UserError(f'{path}: holds no variable {name}; found {", ".join(sorted(shapes)[:10]) or "none"}')
        if shapes[name][1] not in _NUMERIC:
            raise UserError(f'{path}: the variable {name} is of type {shapes[name][1]}, not numbers')
    images, folds = shapes['images'][0], shapes['folds'][0]
    if len(images) != 3 or images[1:] not in ((48, 48), (96, 96)) or not 0 < images[0] <= _MOST_IMAGES:
        raise UserError(f'{path}: images have the shape {images}, not (N, 48, 48) or (N, 96, 96)')
    if folds != (images[0], FOLDS):
        raise UserError(f'{path}: folds have the shape {folds}, not {(images[0], FOLDS)}')
    for name in ('labs_ex', 'labs_id'):
        if shapes[name][0] not in ((images[0], 1), (1, images[0])):
            raise UserError(f'{path}: {name} has the shape {shapes[name][0]}, not {(images[0], 1)}')


def _labelled(path: Path, content: dict[str, np.ndarray]) -> _Rows:
    """Drops what has no expression; of 100,000 images few have one."""
    codes, identities, parts = (_integers(path, name, content[name]) for name in ('labs_ex', 'labs_id', 'folds'))
    codes, identities = codes.ravel(), identities.ravel()
    if parts.min() < 0 or parts.max() > 3:
        raise UserError(f'{path}: folds hold {parts.min()} ... {parts.max()}, not 0 ... 3')
    known = np.isin(codes, list(_EXPRESSIONS))
    divided = (parts > 0).all(1)
    odd = collections.Counter(codes[~known & (codes != _NOBODY)].tolist())
    notes = [f'{count} rows: labs_ex is {code}, neither -1 nor 1 ... 7' for code, count in sorted(odd.items())]
    notes += [
        f'row {row}: an expression, but no part in some of the five folds' for row in np.flatnonzero(known & ~divided)
    ]
    lost = int((~known & (parts > 0).any(1)).sum())
    notes += [f'{lost} rows: a part in the folds, but no expression'] if lost else []
    numbers = np.flatnonzero(known & divided)
    return _Rows(
        numbers=numbers,
        images=_pixels(path, content['images'][numbers]),
        labels=tuple(_EXPRESSIONS[code] for code in codes[numbers].tolist()),
        identities=identities[numbers],
        parts=parts[numbers],
        images_in_file=len(codes),
        unlabelled=int((~known & (parts == 0).all(1)).sum()),
        skipped=tuple(notes),
    )


def _integers(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """MATLAB keeps labels as floats; int64 of the same shape."""
    if values.dtype.kind == 'f' and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise UserError(f'{path}: {name} holds values that are no whole numbers')
    return values.astype(np.int64)


def _pixels(path: Path, images: np.ndarray) -> np.ndarray:
    """uint8 [n,s,s] of values 0 ... 255 of any type, rounded."""
    if not images.size or images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()
    if not (low >= 0 and 1 < high <= 255):  # NaN fails as well
        raise UserError(f'{path}: images have values {low:g} ... {high:g}; 0 ... 255 are expected')
    return np.rint(images).astype(np.uint8)


def _shared(rows: _Rows) -> list[str]:
    """Persons on both sides of an official fold: reported, since the folds are what others report on."""
    notes = []
    for fold in range(FOLDS):
        trained, tested = (set(rows.identities[rows.parts[:, fold] == code].tolist()) for code in (1, 3))
        both = sorted(trained & tested - {_NOBODY})
        if both:
            some = ', '.join(f'id {identity}' for identity in both[:5]) + (' ...' if len(both) > 5 else '')
            notes.append(f'fold {fold}: {len(both)} persons are both trained on and tested ({some})')
    return notes
