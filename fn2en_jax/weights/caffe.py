"""Caffe models, read from the protobuf wire format itself; no Caffe and no protobuf library needed.

A message is a sequence of fields: a number (field number * 8 + wire type), then the value. Of a NetParameter these are
followed: layers in their three historic forms, and in them name, blobs, and how they step and pad. Everything else is
stepped over.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import geometry
from fn2en_jax.weights.binary import Bytes, damaged, shown
from fn2en_jax.weights.canonical import LAYERS, PARTS, Convention, Entry, Net, Tensor, Wish, build

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MOST_FIELDS = 50_000  # of the published net there are some 1,000
_LONGEST_NAME = 1000
_MOST_AXES = 8
_WINDOW, _LARGEST_WINDOW = 64, 1 << 20  # values of an unpacked blob looked at in one go

# Field numbers of caffe.proto.
_V1_LAYER, _LAYER = 2, 100
_LAYER_NAME, _LAYER_BLOBS = 1, 7
_V1_NAME, _V1_BLOBS, _V1_INNER = 4, 6, 1
_V0_NAME, _V0_BLOBS = 1, 50
_BLOB_SIZES, _BLOB_DATA, _BLOB_SHAPE, _BLOB_DOUBLES = (1, 2, 3, 4), 5, 7, 8
_V1_CONVOLUTION, _V1_POOLING, _CONVOLUTION, _POOLING = 10, 19, 106, 121
# What the last two say, and in which fields: for both directions, or for each.
_OF_CONVOLUTION: dict[str, tuple[int, ...]] = {
    geometry.PADDING: (3, 9, 10),
    geometry.KERNEL: (4, 11, 12),
    geometry.STRIDE: (6, 13, 14),
    geometry.DILATION: (18,),
}
_OF_POOLING = {geometry.KERNEL: (2, 5, 6), geometry.STRIDE: (3, 7, 8), geometry.PADDING: (4, 9, 10)}
_UNSAID = {geometry.PADDING: [0], geometry.STRIDE: [1]}
_POOLING_METHOD, _MAXIMUM = 1, 0
# Fields of a NetParameter by the wire types they have; the first ones open nearly every file.
_NET = {1: (_BYTES,), 2: (_BYTES,), 3: (_BYTES,), 4: (_VARINT, _BYTES), 5: (_VARINT,), 6: (_BYTES,), 7: (_VARINT,)}
_NET |= {8: (_BYTES,), 100: (_BYTES,)}


@dataclasses.dataclass
class _Field:
    """A field of a message: its number and wire type; an integer, or where its bytes begin and end."""

    number: int
    wire: int
    value: int
    begin: int
    end: int


@dataclasses.dataclass
class _Run:
    """Equally spaced values in the file: `count` of `dtype` from `begin`, with `gap` bytes before each."""

    begin: int
    count: int
    dtype: str
    gap: int


class _Wire:
    """Walks over messages; the number of steps is bounded for the whole file."""

    def __init__(self, file: Bytes):
        self.file = file
        self._steps = 0

    def fields(self, begin: int, end: int) -> Iterator[_Field]:
        """The fields of the message between two positions. Raises UserError when they do not fill it exactly."""
        while begin < end:
            self._steps += 1
            if self._steps > _MOST_FIELDS:
                raise UserError(f'the file has more than {_MOST_FIELDS} fields; this is no Caffe model')
            key, begin = self.varint(begin, end)
            number, wire = key >> 3, key & 7
            value = length = 0
            if wire == _VARINT:
                value, begin = self.varint(begin, end)
            elif wire == _BYTES:
                length, begin = self.varint(begin, end)
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
            else:
                raise damaged(f'an unknown wire type at {begin}')
            if number == 0 or begin + length > end:
                raise damaged(f'a field at {begin} does not fit its message')
            field = _Field(number, wire, value, begin, begin + length)
            yield field
            begin = field.end  # further on when the reader of the field took more of its kind

    def varint(self, begin: int, end: int) -> tuple[int, int]:
        """An integer of up to 64 bits, and the position behind it."""
        value, length = _varint(self.file.read(begin, min(10, end - begin)))
        if not length:
            raise damaged(f'an integer at {begin} does not end')
        return value, begin + length

    def text(self, field: _Field) -> str:
        if field.wire != _BYTES or field.end - field.begin > _LONGEST_NAME:
            raise damaged('a name that is none')
        return self.file.read(field.begin, field.end - field.begin).decode('utf-8', 'replace')


def _varint(raw: bytes) -> tuple[int, int]:
    """The integer of up to 64 bits that `raw` begins with, and its length in bytes; 0 where it does not end."""
    value = 0
    for index, byte in enumerate(raw[:10]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value & (1 << 64) - 1, index + 1
    return 0, 0


def looks_like(head: bytes) -> bool:
    """Whether a file that begins so may be a Caffe model: with a name or a layer, or with fields of a net alone."""
    if head[:1] in (b'\x0a', b'\x12') or head[:2] == b'\xa2\x06':
        return True
    at = 0
    while at < len(head):
        key, length = _varint(head[at:])
        if key & 7 not in _NET.get(key >> 3, ()):
            return False
        value, more = _varint(head[at + length :])
        at += length + more + (value if key & 7 == _BYTES else 0)
        if not more or (at > len(head) and key >> 3 not in (_V1_LAYER, _LAYER)):
            return False
    return at > 0


def read(file: Bytes, wish: Wish) -> Net:
    """Reads a `.caffemodel`, of layers in any of their three forms.

    Raises:
        UserError: when the file is no such message, is damaged, or is no VGG-16.
    """
    wire = _Wire(file)
    entries, forms = [], set()
    for field in wire.fields(0, file.size):
        if field.number in (_V1_LAYER, _LAYER) and field.wire == _BYTES:
            form, name, blobs = _layer(wire, field)
            entries += _entries(name, blobs)
            forms |= {form} if blobs else set()
    if not entries:
        raise UserError('this is no weight file of a known format (as a Caffe model it has no layer with weights)')
    return build(entries, Convention(f'Caffe ({" and ".join(sorted(forms))} layers)', True, 'bgr'), wish)


def _layer(wire: _Wire, field: _Field) -> tuple[str, str, list[Tensor]]:
    """Form, name and blobs of a layer. Raises UserError when it says that it steps or pads as no VGG-16 does."""
    form = 'V1' if field.number == _V1_LAYER else 'new'
    named, held = (_V1_NAME, _V1_BLOBS) if form == 'V1' else (_LAYER_NAME, _LAYER_BLOBS)
    convolves, pools = (_V1_CONVOLUTION, _V1_POOLING) if form == 'V1' else (_CONVOLUTION, _POOLING)
    name, blobs, said = '', [], []
    for part in wire.fields(field.begin, field.end):
        if form == 'V1' and part.number == _V1_INNER and part.wire == _BYTES:
            form, named, held = 'V0', _V0_NAME, _V0_BLOBS
            for inner in wire.fields(part.begin, part.end):
                if inner.number == named:
                    name = wire.text(inner)
                elif inner.number == held and inner.wire == _BYTES:
                    blobs.append(_blob(wire, inner))
        elif part.number == named:
            name = wire.text(part)
        elif part.number == held and part.wire == _BYTES:
            blobs.append(_blob(wire, part))
        elif part.number in (convolves, pools) and part.wire == _BYTES:
            said.append(part)
    for part in said:
        _check_geometry(name, wire, part, part.number == pools)
    return form, name, blobs


def _check_geometry(name: str, wire: _Wire, message: _Field, pools: bool) -> None:
    """Of a layer's parameters; what they leave unsaid has the value that Caffe gives it."""
    found = _integers(wire, message)
    stated = {
        what: [value for number in numbers for value in found.get(number, [])] or _UNSAID.get(what, [])
        for what, numbers in (_OF_POOLING if pools else _OF_CONVOLUTION).items()
    }
    if not pools:
        geometry.check_layer(name, name, stated)
    elif set(found.get(_POOLING_METHOD, [])) - {_MAXIMUM}:
        raise UserError(f'{shown(name)} does not pool by the maximum, as VGG-16 does')
    else:
        geometry.check_pool(name, stated)


def _entries(name: str, blobs: list[Tensor]) -> list[Entry]:
    found = []
    for index, blob in enumerate(blobs):
        known = name in LAYERS and index < len(PARTS)
        tensor = dataclasses.replace(blob, name=f'{name} blob {index}')
        found.append(Entry(name if known else '', PARTS[index] if known else '', tensor))
    return found


def _blob(wire: _Wire, message: _Field) -> Tensor:
    sizes: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    runs: list[_Run] = []
    for field in wire.fields(message.begin, message.end):
        if field.number in _BLOB_SIZES and field.wire == _VARINT:
            sizes[field.number] = field.value
        elif field.number == _BLOB_SHAPE and field.wire == _BYTES:
            shape = _shape(wire, field)
        elif field.number in (_BLOB_DATA, _BLOB_DOUBLES):
            runs.append(_run(wire, field, message.end))
    if sizes:  # Caffe itself trusts the four old numbers where there are any
        shape = tuple(sizes.get(number, 0) for number in _BLOB_SIZES)
    if math.prod(shape) != sum(run.count for run in runs) or len({run.dtype for run in runs}) > 1:
        raise damaged('a blob has a shape of another size than its values')
    return Tensor('', shape, lambda: _values(wire.file, runs).reshape(shape))


def _shape(wire: _Wire, message: _Field) -> tuple[int, ...]:
    sizes = _integers(wire, message).get(1, [])
    if len(sizes) > _MOST_AXES:
        raise damaged(f'a blob of more than {_MOST_AXES} axes')
    return tuple(sizes)


def _integers(wire: _Wire, message: _Field) -> dict[int, list[int]]:
    """The integers of a message by field, each in a field of its own or packed; a few of each."""
    found: dict[int, list[int]] = {}
    for field in wire.fields(message.begin, message.end):
        values = found.setdefault(field.number, [])
        if field.wire == _VARINT:
            values.append(field.value)
        elif field.wire == _BYTES and field.number == 1:  # a shape; else a message, not integers
            position = field.begin
            while position < field.end and len(values) <= _MOST_AXES:
                size, position = wire.varint(position, field.end)
                values.append(size)
    return found


def _run(wire: _Wire, field: _Field, end: int) -> _Run:
    """Values of a blob: packed into one field, or a field each; then all that follow are taken at once."""
    dtype = '<f4' if field.number == _BLOB_DATA else '<f8'
    size = np.dtype(dtype).itemsize
    if field.wire == _BYTES:
        if (field.end - field.begin) % size:
            raise damaged('values cut in the middle')
        return _Run(field.begin, (field.end - field.begin) // size, dtype, 0)
    if field.wire != (_FIXED32 if size == 4 else _FIXED64):
        raise damaged('values of a wrong type')
    begin, count, step = field.begin, 1, size + 1
    key = field.number << 3 | field.wire
    window = _WINDOW  # small at first: where other fields lie between the values, each begins a run of its own
    while rows := min((end - begin + 1) // step - count, window):
        raw = wire.file.read(begin + count * step - 1, rows * step)
        other = np.flatnonzero(np.frombuffer(raw, np.uint8)[::step] != key)
        count += int(other[0]) if len(other) else rows
        if len(other):
            break
        window = min(2 * window, _LARGEST_WINDOW)
    field.end = begin + count * step - 1
    return _Run(begin, count, dtype, 1)


def _values(file: Bytes, runs: list[_Run]) -> np.ndarray:
    if len(runs) == 1 and not runs[0].gap:
        return file.array(runs[0].begin, runs[0].dtype, runs[0].count)
    out = np.empty(sum(run.count for run in runs), runs[0].dtype if runs else '<f4')
    filled = 0
    for run in runs:
        step = out.itemsize + run.gap
        for first in range(0, run.count, 1 << 20):
            count = min(1 << 20, run.count - first)
            rows = file.array(run.begin - run.gap + first * step, np.uint8, count * step).reshape(count, step)
            out[filled : filled + count] = np.ascontiguousarray(rows[:, run.gap :]).view(out.dtype)[:, 0]
            filled += count
    return out
