"""Reading a foreign file by position, never beyond its end."""

import copy
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError

MAX_VALUES = 200_000_000  # of all tensors of one net together; the published net has 145 million
_SHOWN = 60  # characters of a name out of a file


def shown(name: object) -> str:
    """A name out of a file as it may stand in a message: one short line whatever it holds."""
    text = name if isinstance(name, str) else f'<{type(name).__name__}>'
    text = text[: _SHOWN + 1].encode('unicode_escape').decode('ascii')
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'


def damaged(what: str) -> UserError:
    """The error for a file whose bytes contradict each other."""
    return UserError(f'the file is truncated or damaged ({what}); download it again')


class Bytes:
    """A file opened for reading, as a context manager.

    Attributes:
        size: in bytes.
    """

    def __init__(self, path: str | Path):
        self._file = Path(path).open('rb')  # noqa: SIM115 (closed by __exit__)
        self._begin, self.size = 0, os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> 'Bytes':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def part(self, offset: int, length: int) -> 'Bytes':
        """A stretch of the file as a file of its own. Raises UserError when the file does not hold it."""
        self._check(offset, length)
        stretch = copy.copy(self)
        stretch._begin, stretch.size = self._begin + offset, length
        return stretch

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Raises UserError when the file does not hold them."""
        self._check(offset, length)
        self._file.seek(self._begin + offset)
        return self._file.read(length)

    def array(self, offset: int, dtype: Any, count: int) -> np.ndarray:
        """`count` values of `dtype` from `offset`, [count]. Raises UserError when the file does not hold them."""
        dtype = np.dtype(dtype)
        self._check(offset, count * dtype.itemsize)
        self._file.seek(self._begin + offset)
        return np.fromfile(self._file, dtype, count)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise damaged(f'{length} bytes at {offset} are needed, of {self.size}')
