"""The safetensors container: a length, a JSON header, raw values.

Read here rather than by the library because that one maps the file and copies out of the map, which holds a large net
in memory twice.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights.binary import Bytes, damaged, shown
from fn2en_jax.weights.canonical import Tensor

LONGEST_HEADER = 1 << 20  # bytes; the published net with its 2622 names takes 60 thousand
MOST_TENSORS = 1000  # the face net with batch norm has 92
_DTYPES = {'F16': '<f2', 'F32': '<f4', 'F64': '<f8', 'I32': '<i4', 'I64': '<i8', 'U8': 'u1'}
_WRITTEN = {'<f4': 'F32', '<i8': 'I64'}
_METADATA = '__metadata__'


def read(file: Bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of an open file by name, in the order of the file, and its metadata.

    Raises:
        UserError: when the header is not sound, or does not account for every byte of the file.
    """
    length = int.from_bytes(file.read(0, 8), 'little')
    if length > LONGEST_HEADER:
        raise damaged(f'a header of {length} bytes')
    header = _header(file.read(8, length))
    metadata = header.pop(_METADATA, {})
    if not _is_texts(metadata):
        raise damaged('metadata that are not texts')
    if len(header) > MOST_TENSORS:
        raise UserError(f'it holds {len(header)} tensors; a VGG-16 net has fewer than {MOST_TENSORS}')
    entries = {name: _entry(name, fields) for name, fields in header.items()}
    end = 0
    for name, (_, _, begin, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise damaged(f'{shown(name)} does not begin where the tensor before it ends')
        end = stop
    if 8 + length + end != file.size:
        raise damaged(f'{8 + length + end} bytes are needed, there are {file.size}')
    return {name: _tensor(file, 8 + length, name, entry) for name, entry in entries.items()}, metadata


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a whole file in one step: a crash leaves the old file or the new one.

    Args:
        path: of the file.
        tensors: float32 or int64 by name.
        metadata: texts by name.

    Raises:
        UserError: when names and metadata are longer than `read` takes.
        OSError: as the disk does.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for name, array in tensors.items():
        header[name] = {
            'dtype': _WRITTEN[array.dtype.str],
            'shape': list(array.shape),
            'data_offsets': [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise UserError(f'the names in the net take {len(text)} bytes, more than the {LONGEST_HEADER} of a file')
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')  # two processes may write the same file
    try:
        with temporary.open('wb') as file:
            file.write(len(text).to_bytes(8, 'little') + text)
            for array in tensors.values():
                np.ascontiguousarray(array).tofile(file)
            file.flush()
            os.fsync(file.fileno())  # or the name may reach the disk before the values
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode('utf-8'), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise damaged('the header is not JSON') from error
    if not isinstance(header, dict):
        raise damaged('the header is not a JSON object')
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError('a name is there twice')
    return found


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def _entry(name: str, fields: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, begin and end of a tensor."""
    if not isinstance(fields, dict):
        raise damaged(f'{shown(name)} is not described')
    dtype, shape, offsets = fields.get('dtype'), fields.get('shape', 0), fields.get('data_offsets', 0)
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise UserError(f'{shown(name)} is of type {shown(dtype)}; this program reads {", ".join(_DTYPES)}')
    if not _is_sizes(shape) or len(shape) > 8 or not _is_sizes(offsets) or len(offsets) != 2:
        raise damaged(f'{shown(name)} has no sound shape or place')
    begin, end = offsets
    if end - begin != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
        raise damaged(f'{shown(name)} has a shape of another size than its values')
    return _DTYPES[dtype], tuple(shape), begin, end


def _tensor(file: Bytes, start: int, name: str, entry: tuple[str, tuple[int, ...], int, int]) -> Tensor:
    dtype, shape, begin, _ = entry
    return Tensor(name, shape, lambda: file.array(start + begin, dtype, math.prod(shape)).reshape(shape))
