"""The original names of TFD's images, out of the file that comes beside them."""

from pathlib import Path
from typing import Any

from fn2en_jax.errors import UserError
from fn2en_jax.weights import matlab
from fn2en_jax.weights.binary import Bytes

_LIMITS = matlab.Limits('a list of file names', items=1_000_000, text=1 << 26, inflated=1 << 28)
_STRUCT, _FIELD = 'tfd_info', 'imfiles'
_LONGEST = 200  # characters of a name


def read(path: Path, images: int) -> list[str]:
    """The names in the order of the images; the prefix tells of which set one is. They need not be unique.

    Characters that cannot be printed are spelled out; what the file does not name is ''.

    Args:
        path: `TFD_info.mat`.
        images: how many images there are.

    Raises:
        UserError: says, without the file's name, why it cannot be used.
    """
    try:
        with Bytes(path) as file:
            info = matlab.read(file, {_STRUCT}, {_FIELD}, _LIMITS).get(_STRUCT)
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error
    cells = info.elements[0].get(_FIELD) if isinstance(info, matlab.Struct) and info.elements else None
    if not isinstance(cells, list):
        raise UserError(f'holds no list {_STRUCT}.{_FIELD}')
    if len(cells) != images:
        raise UserError(f'names {len(cells):,} images, not {images:,}')
    return [_name(cell) for cell in cells]


def _name(cell: Any) -> str:
    while isinstance(cell, list) and len(cell) == 1:  # a cell within the cell
        cell = cell[0]
    if not isinstance(cell, str):  # an empty text is an empty matrix
        return ''
    text = cell.strip(' \t\r\n\0').replace('\\', '/')[:_LONGEST]
    return ''.join(one if one.isprintable() else one.encode('unicode_escape').decode() for one in text)
