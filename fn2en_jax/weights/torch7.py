"""Torch7 models: the binary form of `torch.save`, and VGG-16 as an nn.Sequential. No function is ever loaded."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import geometry
from fn2en_jax.weights.binary import Bytes, damaged, shown
from fn2en_jax.weights.canonical import CONVOLUTIONS, DENSE, Convention, Entry, Net, Tensor, Wish, build

_NIL, _NUMBER, _STRING, _TABLE, _OBJECT, _BOOLEAN = range(6)  # type tags
_PLAIN_FUNCTION, _OLD_FUNCTION, _FUNCTION = 6, 7, 8
_DEEPEST = 40
_MOST_ITEMS = 30_000  # the published net has some 2,000
_MOST_TEXT = 1 << 24  # bytes, of all texts together
_MOST_AXES = 8
_MOST_MODULES = 1000
_DTYPES = {'Float': '<f4', 'Double': '<f8', 'Cuda': '<f4', 'Long': '<i8', 'Int': '<i4', 'Short': '<i2', 'Byte': 'u1'}
_DTYPES |= {'CudaDouble': '<f8', 'Char': 'i1'}
_TENSORS = {f'torch.{kind}Tensor': dtype for kind, dtype in _DTYPES.items()}
_STORAGES = {f'torch.{kind}Storage': dtype for kind, dtype in _DTYPES.items()}
_WITHOUT_WEIGHTS = {
    'ReLU', 'Threshold', 'SpatialMaxPooling', 'View', 'Reshape', 'Dropout', 'SpatialDropout', 'SoftMax', 'LogSoftMax',
    'SpatialSoftMax', 'Identity', 'Copy',
}  # fmt: skip
_POOLING, _PADDING = 'SpatialMaxPooling', 'SpatialZeroPadding'
_GEOMETRY = {
    geometry.KERNEL: ('kW', 'kH'),
    geometry.STRIDE: ('dW', 'dH'),
    geometry.PADDING: ('padW', 'padH', 'padding'),  # the last one in old files alone
}
_MARGINS = ('pad_l', 'pad_r', 'pad_t', 'pad_b')
_CONVOLVING = {'SpatialConvolution', 'SpatialConvolutionMM'}
_LINEAR = {'Linear'}


@dataclasses.dataclass
class _Values:
    """A storage: `count` values of `dtype` at `begin` in the file."""

    begin: int
    count: int
    dtype: str


@dataclasses.dataclass
class _View:
    """A tensor in the file; `values` None for an empty one. Its offset counts from 0."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    values: _Values | None
    dtype: str


@dataclasses.dataclass
class _Thing:
    """Any other object: the name of its class, and its table."""

    kind: str
    fields: Any = None

    @property
    def short(self) -> str:
        """The class without its package: nn.View and cudnn.View do the same."""
        return self.kind.rpartition('.')[2]

    @property
    def table(self) -> dict[Any, Any]:
        return self.fields if isinstance(self.fields, dict) else {}


class _Function:
    """Stands for a function, whose code was stepped over."""


def looks_like(head: bytes) -> bool:
    """Whether a file that begins so is Torch7's: an object or table, numbered 1."""
    is_object = head[:8] == b'\x04\0\0\0\x01\0\0\0' and head[8:15] == b'\x03\0\0\0V 1'
    return is_object or head[:8] == b'\x03\0\0\0\x01\0\0\0'


def read(file: Bytes, wish: Wish) -> Net:
    """Reads a `.t7` file of the binary form.

    Raises:
        UserError: when it is damaged, nested too deeply, or no VGG-16.
    """
    model = _Reader(file).value(0)
    return build(list(_entries(file, model)), Convention('Torch7', True, 'bgr'), wish)


class _Reader:
    """Reads objects one after the other; repeated ones are read once."""

    def __init__(self, file: Bytes):
        self._file, self._position, self._items, self._letters = file, 0, 0, 0
        self._seen: dict[int, Any] = {}

    def value(self, depth: int) -> Any:
        self._items += 1
        if depth > _DEEPEST or self._items > _MOST_ITEMS:
            raise UserError(f'the file nests deeper than {_DEEPEST} or holds more than {_MOST_ITEMS} values')
        kind = self._int()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            return float(self._array('<f8', 1)[0])
        if kind == _STRING:
            return self._text()
        if kind == _BOOLEAN:
            return self._int() != 0
        if kind == _PLAIN_FUNCTION:
            return self._function(depth)
        if kind in (_TABLE, _OBJECT, _OLD_FUNCTION, _FUNCTION):
            return self._numbered(kind, depth)
        raise damaged(f'an unknown type of value before byte {self._position}')

    def _numbered(self, kind: int, depth: int) -> Any:
        number = self._int()
        if number in self._seen:
            return self._seen[number]
        if kind == _TABLE:
            return self._table(number, depth)
        if kind == _OBJECT:
            return self._object(number, depth)
        self._seen[number] = _Function()
        return self._function(depth)

    def _table(self, number: int, depth: int) -> dict[Any, Any]:
        found = self._seen[number] = {}
        count = self._int()
        if count < 0:
            raise damaged('a table of negative size')
        for _ in range(count):
            key, value = self.value(depth + 1), self.value(depth + 1)
            if isinstance(key, (str, float)):
                found[key] = value
        return found

    def _object(self, number: int, depth: int) -> Any:
        name = self._text()
        if name.startswith('V '):
            name = self._text()
        if name in _STORAGES:
            self._seen[number] = self._storage(_STORAGES[name])
        elif name in _TENSORS:
            self._seen[number] = self._tensor(_TENSORS[name], depth)
        else:
            thing = self._seen[number] = _Thing(name)  # known before it is read: its fields may refer to it
            thing.fields = self.value(depth + 1)
        return self._seen[number]

    def _storage(self, dtype: str) -> _Values:
        count = self._long()
        length = count * np.dtype(dtype).itemsize
        if count < 0 or self._position + length > self._file.size:
            raise damaged(f'{count} values do not fit into the file')
        found = _Values(self._position, count, dtype)
        self._position += length
        return found

    def _tensor(self, dtype: str, depth: int) -> _View:
        axes = self._int()
        if not 0 <= axes <= _MOST_AXES:
            raise damaged(f'a tensor of {axes} axes')
        shape, strides = (tuple(map(int, self._array('<i8', axes))) for _ in range(2))
        offset, values = self._long() - 1, self.value(depth + 1)
        if values is not None and not (isinstance(values, _Values) and values.dtype == dtype):
            raise damaged('a tensor without values')
        if min(shape, default=0) < 0 or max(shape, default=0) > self._file.size:
            raise damaged('a tensor of impossible size')
        return _View(shape, strides, offset, values, dtype)

    def _function(self, depth: int) -> _Function:
        self._skip(self._int())
        self.value(depth + 1)  # what the function refers to
        return _Function()

    def _text(self) -> str:
        length = self._int()
        self._letters += length
        if length < 0 or self._letters > _MOST_TEXT:
            raise damaged(f'a text of {length} bytes')
        self._position += length
        return self._file.read(self._position - length, length).decode('latin-1')

    def _skip(self, length: int) -> None:
        if length < 0 or self._position + length > self._file.size:
            raise damaged(f'{length} bytes do not fit into the file')
        self._position += length

    def _int(self) -> int:
        return int(self._array('<i4', 1)[0])

    def _long(self) -> int:
        return int(self._array('<i8', 1)[0])

    def _array(self, dtype: str, count: int) -> np.ndarray:
        size = np.dtype(dtype).itemsize * count
        self._position += size
        return np.frombuffer(self._file.read(self._position - size, size), dtype)


# The net.


def _entries(file: Bytes, model: Any) -> Iterator[Entry]:
    convolutions, matrices = iter(CONVOLUTIONS), iter(DENSE)
    modules = _modules(model)
    _check_geometry(modules)
    for place, module in enumerate(modules, start=1):
        kind = module.short
        if kind in _WITHOUT_WEIGHTS | {_POOLING, _PADDING}:
            continue
        fields = module.table
        layer = next(convolutions, '') if kind in _CONVOLVING else next(matrices, '') if kind in _LINEAR else ''
        for key, part in (('weight', 'kernel'), ('bias', 'bias')):
            name = f'module {place} ({module.kind}) {key}'
            if isinstance(fields.get(key), _View):
                yield Entry(layer, part if layer else '', _tensor(file, name, fields[key]))
            elif not layer:  # of unknown kind: whatever it does, VGG-16 does not
                yield Entry('', '', Tensor(name, (), lambda: np.zeros(())))


def _check_geometry(modules: list[_Thing]) -> None:
    """Raises UserError when the modules say that they step or pad as no VGG-16 does."""
    margins: list[float] = []  # of an nn.SpatialZeroPadding just before
    for place, (module, following) in enumerate(itertools.pairwise([*modules, _Thing('')]), start=1):
        title = f'module {place} ({module.kind})'
        stated = {what: _numbers(module, keys) for what, keys in _GEOMETRY.items()}
        if margins:
            own = stated[geometry.PADDING] or [0.0]
            stated[geometry.PADDING] = [one + more for one in own for more in margins]
        if module.short in _CONVOLVING:
            geometry.check_layer(CONVOLUTIONS[0], title, stated)  # all thirteen do the same
        elif module.short == _POOLING:
            geometry.check_pool(title, stated)
        margins = _numbers(module, _MARGINS) if module.short == _PADDING else []
        if module.short == _PADDING and not (following.short in _CONVOLVING and len(margins) == len(_MARGINS)):
            raise UserError(f'{shown(title)} pads what is not convolved next, as no VGG-16 does')


def _numbers(module: _Thing, keys: tuple[str, ...]) -> list[float]:
    """Those of the fields that the module has; NaN for one that is no number."""
    there = [module.table[key] for key in keys if key in module.table]
    return [value if isinstance(value, float) else math.nan for value in there]


def _modules(model: Any) -> list[_Thing]:
    """The modules of an nn.Sequential in order, those of nested ones in their place."""
    found: list[_Thing] = []
    waiting = [model]
    for _ in range(_MOST_MODULES):
        if not waiting:
            return found
        module = waiting.pop()
        if not isinstance(module, _Thing):
            raise UserError('the file holds no Torch7 net (an nn.Sequential is expected)')
        if not module.kind.endswith('Sequential'):
            found.append(module)
            continue
        inner = module.fields.get('modules') if isinstance(module.fields, dict) else None
        if not isinstance(inner, dict) or len(inner) > _MOST_MODULES:
            raise damaged('an nn.Sequential without modules')
        waiting += [inner.get(float(place)) for place in range(len(inner), 0, -1)]
    raise UserError(f'the net has more than {_MOST_MODULES} modules; this is no VGG-16 net')


def _tensor(file: Bytes, name: str, view: _View) -> Tensor:
    count = math.prod(view.shape) if view.shape else 0
    steps = [math.prod(view.shape[axis + 1 :]) for axis in range(len(view.shape))]
    if any(size > 1 and stride != step for size, stride, step in zip(view.shape, view.strides, steps, strict=True)):
        raise UserError(f'{shown(name)} is not stored in one piece; save the net again after :contiguous()')
    if not 0 <= view.offset <= (view.values.count if view.values else 0) - count:
        raise damaged(f'{shown(name)} reaches beyond its values')

    def values() -> np.ndarray:
        assert view.values is not None  # its count was just compared
        begin = view.values.begin + view.offset * np.dtype(view.dtype).itemsize
        return file.array(begin, view.dtype, count).reshape(view.shape)

    return Tensor(name, view.shape, values)
