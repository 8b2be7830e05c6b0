"""MATLAB files of level 5 (`save -v6`, `-v7`): numbers, texts, cells and structs, read as data.

A variable is an element: a type, a length, and inside a matrix the elements of its parts, compressed as a whole with
`-v7`. Everything is read in one pass; what is not asked for is stepped over without being kept.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Container, Iterator
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights.binary import MAX_VALUES, Bytes, damaged, shown

HEADER = 128  # bytes
_MATRIX, _COMPRESSED = 14, 15  # element types
_TYPES = {1: 'i1', 2: 'u1', 3: '<i2', 4: '<u2', 5: '<i4', 6: '<u4', 7: '<f4', 9: '<f8', 12: '<i8', 13: '<u8'}
_TEXTS = {1: 'latin-1', 2: 'latin-1', 4: 'utf-16-le', 16: 'utf-8', 17: 'utf-16-le'}
_CELL, _STRUCT, _CHAR = 1, 2, 4  # array classes
_NUMERIC = range(6, 16)
_COMPLEX = 0x800
_DEEPEST = 20
_SMALL = 1 << 26  # bytes inflated in any case
_MOST_PER_BYTE = 50  # and beyond that for every compressed one: weights hardly shrink
_LONGEST_TEXT = 1 << 12  # bytes
_PIECE = 1 << 22  # bytes read at a time
_PACKED_PIECE = 1 << 16  # compressed bytes: what the inflater leaves of them is copied every time


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a file may hold: anything larger is not what it is taken for.

    Attributes:
        content: what it is taken for, for people.
        items: cells, fields and variables together.
        text: bytes of all texts.
        inflated: bytes of all variables.
    """

    content: str
    items: int
    text: int
    inflated: int


NET = Limits(
    'a VGG-16 net',
    items=20_000,  # a net of 40 layers with 2,622 names has 7,000
    text=1 << 20,
    inflated=3 << 29,  # the published net is 0.6 GB, 1.2 in double precision
)


@dataclasses.dataclass
class Struct:
    """A struct array: its elements in column order, each a dict of the fields that were asked for."""

    shape: tuple[int, ...]
    elements: list[dict[str, Any]]


class _Stream:
    """Bytes in order, from the file or inflated."""

    def __init__(self, source: Callable[[int], bytes]):
        self._source, self._rest, self._at, self.position = source, b'', 0, 0

    def read(self, length: int) -> bytes:
        pieces = []
        while length:
            if self._at == len(self._rest):
                self._rest, self._at = self._source(min(length, _PIECE)), 0
            piece = self._rest[self._at : self._at + length]
            self._at += len(piece)
            pieces.append(piece)
            length -= len(piece)
            self.position += len(piece)
        return b''.join(pieces)

    def pieces(self, length: int, unit: int) -> Iterator[bytes]:
        """`length` bytes in pieces whose lengths are multiples of `unit`."""
        while length:
            size = min(length, _PIECE // unit * unit)
            yield self.read(size)
            length -= size

    def skip(self, length: int) -> None:
        for _ in self.pieces(length, 1):
            pass


def read(file: Bytes, variables: Container[str], fields: Container[str], limits: Limits = NET) -> dict[str, Any]:
    """Reads the named variables.

    Args:
        file: open, of level 5.
        variables: which to read, where they are cells or structs.
        fields: which fields of structs to read.
        limits: how much it may hold.

    Returns:
        By name: numbers as float32 arrays in MATLAB's shape (Fortran order), texts as str, cells as lists in column
        order, structs as `Struct`; None for what is of any other kind.

    Raises:
        UserError: when the file is damaged, or larger than its limits.
    """
    if file.read(124, 4) != b'\x00\x01IM':
        raise UserError('the MATLAB file is of an unknown version or from a big-endian machine; save it again with -v7')
    reader = _Matrices(variables, fields, limits)
    found: dict[str, Any] = {}
    position = HEADER
    while position + 8 <= file.size:
        reader.charge_item()
        kind, length = np.frombuffer(file.read(position, 8), '<u4')
        position, end = position + 8, position + 8 + int(length)
        if end > file.size:
            raise damaged(f'a variable of {length} bytes does not fit into the file')
        if kind == _COMPRESSED:
            stream = _Stream(_inflated(file, position, end, reader))
            head = np.frombuffer(stream.read(8), '<u4')
            if head[0] != _MATRIX:
                raise damaged('a compressed element that is no variable')
            reader.variable(stream, int(head[1]), found)
        elif kind == _MATRIX:
            reader.variable(_Stream(_plain(file, position, end)), int(length), found)
        position = end
    return found


def _plain(file: Bytes, position: int, end: int) -> Callable[[int], bytes]:
    def source(length: int) -> bytes:
        nonlocal position
        length = min(length, end - position)
        if not length:
            raise damaged('a variable ends early')
        position += length
        return file.read(position - length, length)

    return source


def _inflated(file: Bytes, position: int, end: int, reader: '_Matrices') -> Callable[[int], bytes]:
    engine, packed = zlib.decompressobj(), b''

    def source(length: int) -> bytes:
        nonlocal position, packed
        piece = b''
        while not piece:
            if not packed:
                count = min(_PACKED_PIECE, end - position)
                if not count or engine.eof:
                    raise damaged('a compressed variable ends early')
                packed, position = file.read(position, count), position + count
                reader.allow_bytes(count)
            try:
                piece = engine.decompress(packed, max(length, 1 << 16))
            except zlib.error as error:
                raise damaged('a compressed variable cannot be inflated') from error
            packed = engine.unconsumed_tail
        reader.charge_bytes(len(piece))
        return piece

    return source


class _Matrices:
    """Reads variables out of streams, with limits that hold for all of them together."""

    def __init__(self, variables: Container[str], fields: Container[str], limits: Limits):
        self._variables, self._fields, self._limits = variables, fields, limits
        self._items = self._values = self._letters = self._bytes = 0
        self._allowed = _SMALL

    def charge_item(self) -> None:
        self._items += 1
        if self._items > self._limits.items:
            raise UserError(f'the file holds more than {self._limits.items} values; this is not {self._limits.content}')

    def allow_bytes(self, packed: int) -> None:
        """Lets as much be inflated as so many further compressed bytes can reasonably hold."""
        self._allowed = min(self._allowed + _MOST_PER_BYTE * packed, self._limits.inflated)

    def charge_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._allowed:
            raise UserError(
                f'the file inflates to more than {self._allowed >> 20} MB; this is not {self._limits.content}'
            )

    def variable(self, stream: _Stream, length: int, found: dict[str, Any]) -> None:
        if length:
            self._matrix(stream, length, 0, found)

    def _matrix(self, stream: _Stream, length: int, depth: int, named: dict[str, Any] | None = None) -> Any:
        """One matrix of `length` bytes behind its tag; with `named`, goes there by its name if it is asked for."""
        self.charge_item()
        if depth > _DEEPEST:
            raise UserError(f'the file nests deeper than {_DEEPEST}')
        if not length:
            return np.zeros((0, 0), np.float32)
        end = stream.position + length
        flags = self._small(stream, end, 8)
        if len(flags) != 8:
            raise damaged('a matrix without a class')
        kind, is_complex = flags[0], bool(int.from_bytes(flags[:4], 'little') & _COMPLEX)
        value = None
        if kind in (_CELL, _STRUCT, _CHAR, *_NUMERIC) and not is_complex:
            shape = self._shape(stream, end)
            name = self._small(stream, end, _LONGEST_TEXT).decode('latin-1')
            # Of the variables that a net consists of, none is a matrix of numbers.
            if named is None or (name in self._variables and kind in (_CELL, _STRUCT)):
                value = self._value(stream, end, kind, shape, depth)
                if named is not None and name in named:
                    raise damaged(f'the variable {shown(name)} is there twice')
                if named is not None:
                    named[name] = value
        if stream.position > end:
            raise damaged('a matrix is longer than it says')
        stream.skip(end - stream.position)
        return value

    def _value(self, stream: _Stream, end: int, kind: int, shape: tuple[int, ...], depth: int) -> Any:
        if kind == _CELL:
            return [self._element(stream, end, depth) for _ in range(self._count(shape))]
        if kind == _STRUCT:
            return self._struct(stream, end, shape, depth)
        return self._text(stream, end) if kind == _CHAR else self._numbers(stream, end, shape)

    def _count(self, shape: tuple[int, ...]) -> int:
        count = math.prod(shape)
        if count > self._limits.items:
            raise UserError(f'the file holds more than {self._limits.items} values in one cell or struct')
        return count

    def _element(self, stream: _Stream, end: int, depth: int, keep: bool = True) -> Any:
        kind, length, inside = self._tag(stream, end)
        if kind != _MATRIX or inside is not None:
            raise damaged('an element of a cell or struct is no matrix')
        if keep:
            return self._matrix(stream, length, depth + 1)
        self.charge_item()
        stream.skip(length)
        return None

    def _struct(self, stream: _Stream, end: int, shape: tuple[int, ...], depth: int) -> Struct:
        width = int.from_bytes(self._small(stream, end, 8), 'little')
        names = self._small(stream, end, _LONGEST_TEXT)
        if not 1 <= width <= 1024 or len(names) % width:
            raise damaged('a struct without names of its fields')
        fields = [names[at : at + width].split(b'\0')[0].decode('latin-1') for at in range(0, len(names), width)]
        self._count((*shape, max(1, len(fields))))
        elements = []
        for _ in range(math.prod(shape)):
            values = [(name, self._element(stream, end, depth, name in self._fields)) for name in fields]
            elements.append({name: value for name, value in values if name in self._fields})
        return Struct(shape, elements)

    def _text(self, stream: _Stream, end: int) -> str:
        kind, length, inside = self._tag(stream, end)
        if kind not in _TEXTS or length > _LONGEST_TEXT:
            raise damaged('a text that is none')
        self._letters += length
        if self._letters > self._limits.text:
            mega = self._limits.text >> 20
            raise UserError(f'the file holds more than {mega} MB of text; this is not {self._limits.content}')
        return (inside if inside is not None else self._body(stream, length)).decode(_TEXTS[kind], 'replace')

    def _numbers(self, stream: _Stream, end: int, shape: tuple[int, ...]) -> np.ndarray:
        kind, length, inside = self._tag(stream, end)
        count = math.prod(shape)
        self._values += count
        if self._values > MAX_VALUES:
            raise UserError(f'the file holds more than {MAX_VALUES // 10**6} million values')
        if kind not in _TYPES or length != count * np.dtype(_TYPES[kind]).itemsize:
            raise damaged('a matrix has a shape of another size than its values')
        dtype = np.dtype(_TYPES[kind])
        out = np.empty(count, np.float32)
        at = 0
        with np.errstate(over='ignore', invalid='ignore'):
            for piece in [inside] if inside is not None else stream.pieces(length, dtype.itemsize):
                values = np.frombuffer(piece, dtype)
                out[at : at + len(values)] = values
                at += len(values)
        if inside is None:
            stream.skip(-length % 8)
        return out.reshape(shape, order='F')

    # Elements.

    def _tag(self, stream: _Stream, end: int) -> tuple[int, int, bytes | None]:
        """Type and length of the next element; and its bytes, where they lie in the tag itself."""
        if stream.position + 8 > end:
            raise damaged('a matrix ends early')
        raw = stream.read(8)
        kind, length = int.from_bytes(raw[:2], 'little'), int.from_bytes(raw[2:4], 'little')
        if length:
            if length > 4:
                raise damaged('an element in its own tag is too long')
            return kind, length, raw[4 : 4 + length]
        length = int.from_bytes(raw[4:], 'little')
        if stream.position + length > end:
            raise damaged('an element is longer than what it is part of')
        return kind, length, None

    def _small(self, stream: _Stream, end: int, most: int) -> bytes:
        _, length, inside = self._tag(stream, end)
        if inside is not None:
            return inside
        if length > most:
            raise damaged('the description of a matrix is too long')
        return self._body(stream, length)

    def _body(self, stream: _Stream, length: int) -> bytes:
        body = stream.read(length)
        stream.skip(-length % 8)
        return body

    def _shape(self, stream: _Stream, end: int) -> tuple[int, ...]:
        raw = self._small(stream, end, 64)
        if len(raw) % 4 or not raw:
            raise damaged('a matrix without a shape')
        shape = tuple(int(size) for size in np.frombuffer(raw, '<i4'))
        if min(shape) < 0:
            raise damaged('a matrix of negative size')
        return shape
