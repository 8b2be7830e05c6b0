"""HDF5 files of the classic form, as Keras writes them: groups, attributes that are texts, plain datasets of reals.

Read here rather than by the HDF5 library, which damaged files can crash. What could lead elsewhere (soft and external
links, external and virtual datasets), is packed, or belongs to the newer forms of the format is refused by name.

Everything hangs on object headers, which are lists of messages: a group's says where its table of members is, a
dataset's gives type, shape and place.
"""

import math
from collections.abc import Iterator

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights.binary import Bytes, damaged, shown
from fn2en_jax.weights.canonical import Tensor

SIGNATURE = b'\x89HDF\r\n\x1a\n'
_NOWHERE = (1 << 64) - 1  # the address of what does not exist
_MOST_STEPS = 300_000
_MOST_LEVELS = 16
_MOST_AXES = 8
_MOST_NAMES = 2000
_MOST_BYTES = 1 << 26  # of everything but values
_LONGEST_NAME = 1 << 12  # bytes
_LONGEST_PATH = 6  # groups

# Message types.
_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS, _ATTRIBUTE, _MORE, _TABLE = (
    1, 2, 3, 6, 7, 8, 11, 12, 16, 17,
)  # fmt: skip
_SHARED = 2  # flag of a message that is kept elsewhere
_NEWER = 'of a newer form of HDF5 than Keras writes; save it again with h5py and libver="earliest"'
_PLAINLY = 'save it again with h5py as file[name] = array, without chunks= and compression='
_INSIDE = 4  # bytes of a layout message before values that lie in it
_FLOATS: dict[tuple[int, ...], str] = {  # size, bits, place and length of the exponent, of the fraction, and bias
    (2, 16, 10, 5, 0, 10, 15): 'f2',
    (4, 32, 23, 8, 0, 23, 127): 'f4',
    (8, 64, 52, 11, 0, 52, 1023): 'f8',
}


def _int(raw: bytes, at: int, size: int) -> int:
    if at + size > len(raw):
        raise damaged('a message ends early')
    return int.from_bytes(raw[at : at + size], 'little')


def _padded(length: int) -> int:
    return length + -length % 8


class Hdf5:
    """An open file; counts its steps, so that none goes on for ever."""

    def __init__(self, file: Bytes):
        """Raises UserError when the file is not of the classic form."""
        self.file, self._steps, self._bytes = file, 0, 0
        head = self.read(0, 96)
        version, sizes, base = head[8], head[13:15], _int(head, 24 if head[8] == 0 else 28, 8)
        if version > 1:
            raise UserError(f'the file is {_NEWER}')
        if sizes != b'\x08\x08' or base:
            raise UserError('the HDF5 file has addresses of another size or place than Keras writes')
        self.root = Node(self, _int(head, 64 if version == 0 else 68, 8))

    def step(self, length: int = 0) -> None:
        """Counts one step, and bytes to be read. Raises UserError when there were too many."""
        self._steps, self._bytes = self._steps + 1, self._bytes + length
        if self._steps > _MOST_STEPS or self._bytes > _MOST_BYTES:
            raise UserError('the HDF5 file says more of itself than any VGG-16 net needs to')

    def read(self, address: int, length: int) -> bytes:
        """Bytes of anything but values."""
        self.step(length)
        return self.file.read(address, length)

    def signed(self, address: int, signature: bytes, length: int) -> bytes:
        """`length` bytes that begin with a signature."""
        raw = self.read(address, length)
        if raw[:4] != signature:
            raise damaged(f'there is no {signature.decode()} at {address}')
        return raw


class Node:
    """A group or dataset."""

    def __init__(self, hdf5: Hdf5, address: int):
        self._hdf5 = hdf5
        self._messages = list(_messages(hdf5, address))
        self._links: dict[str, int | None] | None = None
        self._attributes: dict[str, bytes] | None = None

    # Groups.

    def members(self) -> dict[str, int | None]:
        """The members of a group by name: their addresses, None for links to another place or file."""
        if self._links is None:
            self._links = {}
            for kind, raw in self._messages:
                found: Iterator[tuple[str, int | None]] = iter(())
                if kind == _TABLE:
                    found = _listed(self._hdf5, _int(raw, 0, 8), _heap(self._hdf5, _int(raw, 8, 8)), _MOST_LEVELS)
                elif kind == _LINK:
                    found = iter([_link(raw)])
                elif kind == _LINK_INFO and _int(raw, 2 + 8 * (_int(raw, 1, 1) & 1), 8) != _NOWHERE:
                    raise UserError(f'a group of the file is {_NEWER}')
                for name, address in found:
                    if name in self._links:
                        raise damaged(f'{shown(name)} is there twice')
                    self._links[name] = address
        return self._links

    def at(self, path: str) -> 'Node':
        """What lies at a path. Raises UserError unless every step of it stays in this very file."""
        parts = [part for part in path.split('/') if part]
        if not 1 <= len(parts) <= _LONGEST_PATH:
            raise damaged(f'{shown(path)} is no place in the file')
        node = self
        for part in parts:
            if part not in node.members():
                raise UserError(f'{shown(path)} is missing from the HDF5 file')
            address = node.members()[part]
            if address is None:
                raise UserError(f'{shown(path)} is a link to another place or file, which is never followed')
            node = Node(self._hdf5, address)
        return node

    # Attributes.

    def attributes(self) -> dict[str, bytes]:
        """The attributes by name, as they lie in the file; see `texts`."""
        if self._attributes is None:
            self._attributes = {}
            for kind, raw in self._messages:
                if kind == _ATTRIBUTE:
                    self._attributes[_attribute_name(raw)] = raw
        return self._attributes

    def texts(self, name: str) -> list[str]:
        """The texts of an attribute; one or a list. Raises UserError when it holds anything else."""
        kind, shape, values = _attribute(self.attributes()[name])
        count = math.prod(shape)
        if count > _MOST_NAMES:
            raise damaged(f'the attribute {shown(name)} has too many texts')
        if not count:
            return []
        size = _int(kind, 4, 4)
        if not 1 <= size <= _LONGEST_NAME or len(values) < count * size:
            raise damaged(f'the attribute {shown(name)} is too short')
        pieces = [values[index * size : (index + 1) * size] for index in range(count)]
        if kind[0] & 15 == 3:
            return [piece.split(b'\0')[0].decode('utf-8', 'replace') for piece in pieces]
        if kind[0] & 15 == 9 and kind[1] & 15 == 1 and size == 16:
            return [_long_text(self._hdf5, piece) for piece in pieces]
        raise damaged(f'the attribute {shown(name)} is no text')

    # Datasets.

    def tensor(self, name: str) -> Tensor:
        """The dataset, unread. name: for messages. Raises UserError unless it is plain and of real numbers."""
        found: dict[int, bytes] = {}
        for kind, raw in self._messages:
            if kind in found and kind != _ATTRIBUTE:
                raise damaged(f'{shown(name)} is described twice')
            found[kind] = raw
        if _EXTERNAL in found:
            raise UserError(f'{shown(name)} takes its values from other files, which are never opened')
        if not {_TYPE, _SPACE, _LAYOUT} <= set(found):
            raise damaged(f'{shown(name)} is no dataset')
        dtype, shape = _real(found[_TYPE], name), _shape(found[_SPACE])
        place, length = _place(found[_LAYOUT], name)
        if _FILTERS in found:
            raise UserError(f'{shown(name)} is packed; {_PLAINLY}')
        if length != math.prod(shape) * dtype.itemsize:
            raise damaged(f'{shown(name)} has a shape of another size than its values')
        file, inside = self._hdf5.file, found[_LAYOUT]

        def values() -> np.ndarray:
            if place is None:
                return np.frombuffer(inside[_INSIDE : _INSIDE + length], dtype).reshape(shape)
            return file.array(place, dtype, math.prod(shape)).reshape(shape)

        return Tensor(name, shape, values)


def _messages(hdf5: Hdf5, address: int) -> Iterator[tuple[int, bytes]]:
    """Type and content of every message of the object header at an address."""
    head = hdf5.read(address, 16)
    if head[:4] == b'OHDR':
        raise UserError(f'an object of the file is {_NEWER}')
    if head[0] != 1:
        raise damaged(f'there is no object at {address}')
    blocks = [(address + 16, _int(head, 8, 4))]
    while blocks:
        at, length = blocks.pop(0)
        end = at + length
        while at + 8 <= end:
            raw = hdf5.read(at, 8)
            kind, size, flags = _int(raw, 0, 2), _int(raw, 2, 2), raw[4]
            if at + 8 + size > end:
                raise damaged('a message is longer than its block')
            content, at = hdf5.read(at + 8, size), at + 8 + size
            if kind == _MORE:
                blocks.append((_int(content, 0, 8), _int(content, 8, 8)))
            elif flags & _SHARED and kind in (_SPACE, _TYPE, _LAYOUT, _ATTRIBUTE, _FILTERS):
                raise UserError(f'an object of the file is {_NEWER}')
            else:
                yield kind, content


# The members of groups.


def _heap(hdf5: Hdf5, address: int) -> bytes:
    """The names of a group, one behind another."""
    raw = hdf5.signed(address, b'HEAP', 32)
    return hdf5.read(_int(raw, 24, 8), _int(raw, 8, 8))


def _listed(hdf5: Hdf5, address: int, heap: bytes, levels: int) -> Iterator[tuple[str, int | None]]:
    """Names and addresses in a group's tree of members."""
    raw = hdf5.signed(address, b'TREE', 24)
    level, used = raw[5], _int(raw, 6, 2)
    if raw[4] != 0 or level >= levels:
        raise damaged('the members of a group are in no sound order')
    children = hdf5.read(address + 24, 16 * used)
    for index in range(used):
        child = _int(children, 16 * index + 8, 8)
        yield from _listed(hdf5, child, heap, level) if level else _symbols(hdf5, child, heap)


def _symbols(hdf5: Hdf5, address: int, heap: bytes) -> Iterator[tuple[str, int | None]]:
    count = _int(hdf5.signed(address, b'SNOD', 8), 6, 2)
    raw = hdf5.read(address + 8, 40 * count)
    for at in range(0, 40 * count, 40):
        hdf5.step()
        name, cached = _int(raw, at, 8), _int(raw, at + 16, 4)
        end = heap.find(b'\0', name, name + _LONGEST_NAME)
        if end < 0:
            raise damaged('a member of a group has no name')
        yield heap[name:end].decode('utf-8', 'replace'), None if cached == 2 else _int(raw, at + 8, 8)


def _link(raw: bytes) -> tuple[str, int | None]:
    """Name and address of a member that is a message of its own."""
    flags, at = _int(raw, 1, 1), 2
    kind = _int(raw, at, 1) if flags & 8 else 0
    at += bool(flags & 8) + 8 * bool(flags & 4) + bool(flags & 16)
    width = 1 << (flags & 3)
    length = _int(raw, at, width)
    name = raw[at + width : at + width + length].decode('utf-8', 'replace')
    return name, _int(raw, at + width + length, 8) if kind == 0 else None


# Attributes.


def _attribute_parts(raw: bytes) -> tuple[int, list[int], bool]:
    """Where the name begins; the lengths of name, type and shape; and whether they are padded."""
    version = _int(raw, 0, 1)
    if version not in (1, 2, 3) or (version > 1 and _int(raw, 1, 1)):
        raise UserError(f'an attribute of the file is {_NEWER}')
    return (9 if version == 3 else 8), [_int(raw, at, 2) for at in (2, 4, 6)], version == 1


def _attribute_name(raw: bytes) -> str:
    begin, (length, _, _), _ = _attribute_parts(raw)
    return raw[begin : begin + length].split(b'\0')[0].decode('utf-8', 'replace')


def _attribute(raw: bytes) -> tuple[bytes, tuple[int, ...], bytes]:
    """Type, shape and values of an attribute."""
    at, lengths, pads = _attribute_parts(raw)
    pieces = []
    for length in lengths:
        pieces.append(raw[at : at + length])
        at += _padded(length) if pads else length
    if len(pieces[1]) < 8:
        raise damaged('an attribute without a type')
    return pieces[1], _shape(pieces[2]), raw[at:]


def _long_text(hdf5: Hdf5, reference: bytes) -> str:
    """A text in the file's heap, by its length, the heap's address and its number there."""
    length, address, number = _int(reference, 0, 4), _int(reference, 4, 8), _int(reference, 12, 4)
    if length > _LONGEST_NAME:
        raise damaged('a text is too long')
    at, end = address + 16, address + _int(hdf5.signed(address, b'GCOL', 16), 8, 8)
    while at + 16 <= end:
        raw = hdf5.read(at, 16)
        size = _int(raw, 8, 8)
        if _int(raw, 0, 2) == number:
            return hdf5.read(at + 16, min(length, size)).split(b'\0')[0].decode('utf-8', 'replace')
        if not _int(raw, 0, 2):
            break
        at += 16 + _padded(size)
    raise damaged('a text is not where the file says')


# Datasets.


def _shape(raw: bytes) -> tuple[int, ...]:
    version, rank = _int(raw, 0, 1), _int(raw, 1, 1)
    if version not in (1, 2) or rank > _MOST_AXES:
        raise damaged('a shape of unknown form')
    if version == 2 and _int(raw, 3, 1) == 2:  # of nothing at all
        return (0,)
    begin = 8 if version == 1 else 4
    return tuple(_int(raw, begin + 8 * axis, 8) for axis in range(rank))


def _real(raw: bytes, name: str) -> np.dtype:
    size = _int(raw, 4, 4)
    numbers = [_int(raw, at, count) for at, count in ((10, 2), (12, 1), (13, 1), (14, 1), (15, 1), (16, 4))] if (
        len(raw) >= 20
    ) else []  # fmt: skip
    known = _FLOATS.get((size, *numbers))
    if _int(raw, 0, 1) & 15 != 1 or known is None or _int(raw, 8, 2) or _int(raw, 1, 1) & 0x40:
        raise UserError(f'{shown(name)} does not hold real numbers of a usual form')
    return np.dtype(('>' if _int(raw, 1, 1) & 1 else '<') + known)


def _place(raw: bytes, name: str) -> tuple[int | None, int]:
    """Where the values of a dataset are, None for in the message itself, and how many bytes."""
    version, kind = _int(raw, 0, 1), _int(raw, 1, 1)
    if version == 4 and kind == 3:
        raise UserError(f'{shown(name)} takes its values from other files, which are never opened')
    if version not in (3, 4) or kind > 1:
        raise UserError(f'{shown(name)} is stored in chunks or in an old form; {_PLAINLY}')
    if kind == 0:
        length = _int(raw, 2, 2)
        if _INSIDE + length > len(raw):
            raise damaged(f'{shown(name)} ends early')
        return None, length
    if _int(raw, 2, 8) == _NOWHERE:
        raise damaged(f'{shown(name)} has no values')
    return _int(raw, 2, 8), _int(raw, 10, 8)
