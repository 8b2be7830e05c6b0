"""PyTorch state dicts: the zip and the older stream of `torch.save`, and the key names of VGG-16. No PyTorch needed."""

import dataclasses
import functools
import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import pickles
from fn2en_jax.weights.binary import MAX_VALUES, Bytes, damaged, shown
from fn2en_jax.weights.canonical import CONVOLUTIONS, CONVOLUTIONS_ONLY, DENSE, Convention, Entry, Net, Tensor, Wish
from fn2en_jax.weights.canonical import build as build_net
from fn2en_jax.weights.pickles import Global

MAGIC = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'  # the pickled number with which the older stream begins
_LONGEST_PICKLE = 16 << 20  # bytes
_LONGEST_DIRECTORY = 1 << 20  # bytes
_LARGEST_TENSOR = 1 << 30  # bytes; fc6 of the published net, if it were of double precision, has 0.8 of that
_LARGEST_STORAGES = 8 * MAX_VALUES  # bytes, of those that the net uses together
_PIECE = 1 << 20  # bytes
# Of a zip archive, the end: mark, disks, members here and in all, length and begin of the directory, comment; and an
# entry of the directory: mark, versions, flags, method, time, CRC, sizes, lengths, disk, attributes, header.
_END, _ENTRY = struct.Struct('<4s4H2LH'), struct.Struct('<4s6H3L5H2L')
_PROTOCOL = 1001
_WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'net')
_PARTS = {'weight': 'kernel', 'bias': 'bias'}

_BFLOAT16 = 'bfloat16'
_STORAGES = {
    'FloatStorage': '<f4',
    'DoubleStorage': '<f8',
    'HalfStorage': '<f2',
    'BFloat16Storage': _BFLOAT16,
    'LongStorage': '<i8',
    'IntStorage': '<i4',
    'ShortStorage': '<i2',
    'CharStorage': 'i1',
    'ByteStorage': 'u1',
    'BoolStorage': '?',
}

# ImageNet means and deviations of torchvision, of RGB in 0..1.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_STYLE_MEAN = (0.48235, 0.45882, 0.40784)
_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # torchvision's numbers of the convolutions
_IMAGENET = {
    **{f'features.{number}': layer for number, layer in zip(_FEATURES, CONVOLUTIONS, strict=True)},
    **dict(zip(('classifier.0', 'classifier.3', 'classifier.6'), DENSE, strict=True)),
    **dict(zip(('pre_logits.fc1', 'pre_logits.fc2', 'head.fc'), DENSE, strict=True)),
}
_NAME = re.compile(r'(?:features\.|fc\.)?(?:conv(?P<gap>_?)(?P<at>[1-5]_[1-3])|(?P<fc>fc[678]))')
_TWINS = (
    'RGB is what vgg_face_dag.pth wants; BGR is what a file made from the Caffe model by caffemodel2pytorch wants; '
    'their names and shapes are the same.'
)
_FER = (
    'fc6 has four axes, as in files made from MatConvNet (vgg_vd_face_fer_dag.pth), so RGB is taken; for a fully '
    'convolutional net made from Caffe, say --colour_order=bgr (config.face_net.colour_order)',
)
_HEADLESS = (
    'without the classifier it cannot be told how the input was scaled: as for the standard weights of torchvision and '
    'timm is taken (RGB of 0..1, minus mean, divided by deviation); IMAGENET1K_FEATURES, which differs, is told by the '
    'NaN in its classifier: use the whole file',
)


# ------------------------------------------------------------------------------------------------------- containers


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A run of values in the file: `key` says where; values `first` ... `first + count` of it."""

    key: str
    dtype: str
    count: int
    first: int = 0


@dataclasses.dataclass(frozen=True)
class _View:
    """A tensor: a strided view of `span` values of a storage from `offset` on."""

    storage: _Storage
    offset: int
    span: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Member:
    """A file in a zip archive: `size` bytes somewhere behind `header`."""

    name: str
    header: int
    size: int
    crc: int


_Values = Callable[[_Storage, int, int], np.ndarray]  # storage, first, count -> values [count]


def read_zip(file: Bytes, wish: Wish) -> Net:
    """Reads what `torch.save` writes since PyTorch 1.6.

    Raises:
        UserError: when the file is no such archive, is damaged, holds more than a state dict, or is no VGG-16.
    """
    members = _members(file)
    pickled = [name for name in members if name == 'data.pkl' or name.endswith('/data.pkl')]
    if len(pickled) != 1:
        raise UserError('the zip archive is not what torch.save writes (it needs one data.pkl) or Keras 3; of '
                        'TorchScript, save the state_dict() with torch.save')  # fmt: skip
    folder = pickled[0].removesuffix('data.pkl')
    if f'{folder}constants.pkl' in members:
        raise UserError('the file is a TorchScript archive, which is code; save the state_dict() with torch.save')
    if f'{folder}byteorder' in members and _content(file, members[f'{folder}byteorder']) != b'little':
        raise UserError('the file was written on a big-endian machine, which is not supported')
    state = _unpickled(_content(file, members[pickled[0]]), 0)[0]
    return interpret(_tensors(state, _from_members(file, members, f'{folder}data/')), 'PyTorch (zip)', wish)


def read_stream(file: Bytes, wish: Wish) -> Net:
    """Reads what `torch.save` wrote before PyTorch 1.6: pickles, then the values one storage after the other.

    Raises:
        UserError: as `read_zip`.
    """
    data = file.read(0, min(file.size, _LONGEST_PICKLE))
    protocol, position = pickles.load(data, len(MAGIC), {})
    if protocol != _PROTOCOL:
        raise UserError('the file has an unknown protocol of torch.save')
    _, position = pickles.load(data, position, {})  # sizes of C types on the machine it was written on
    seen: dict[str, str] = {}
    state, position = _unpickled(data, position, seen)
    keys, position = pickles.load(data, position, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in seen for key in keys):
        raise damaged('the list of values does not fit the tensors')
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        count = int.from_bytes(file.read(position, 8), 'little', signed=True)
        places[key] = (position + 8, count)
        position += 8 + count * _size(seen[key])
        if count < 0 or position > file.size:
            raise damaged(f'the values {shown(key)} do not fit into the file')

    def values(storage: _Storage, first: int, count: int) -> np.ndarray:
        begin, there = places.get(storage.key, (0, 0))
        if first + count > there:
            raise damaged(f'the values {shown(storage.key)} are fewer than needed')
        size = _size(storage.dtype)
        return _typed(file.array(begin + first * size, np.uint8, count * size), storage)

    return interpret(_tensors(state, values), 'PyTorch (stream)', wish)


def _members(file: Bytes) -> dict[str, _Member]:
    """The files in a zip archive by name.

    Read here rather than by `zipfile`, which makes objects of directories of any length, and may look for the
    directory where a check before it did not.
    """
    end = file.read(max(0, file.size - _END.size), min(file.size, _END.size))
    if len(end) < _END.size or end[:4] != b'PK\x05\x06':
        raise damaged('the zip archive has no end')
    _, _, _, _, count, length, begin, _ = _END.unpack(end)
    if 0xFFFFFFFF in (length, begin) or length > _LONGEST_DIRECTORY:
        raise UserError('the zip archive is larger, or has more members, than any state dict of a VGG-16')
    directory, position, found = file.read(begin, length), 0, {}
    while position < length:
        member, position = _member(directory, position)
        if member.name in found:
            raise damaged(f'{shown(member.name)} is there twice')
        found[member.name] = member
    if len(found) != count:
        raise damaged('the zip archive has another number of members than it says')
    return found


def _member(directory: bytes, position: int) -> tuple[_Member, int]:
    """One entry of the directory, and the position behind it."""
    text = position + _ENTRY.size
    if text > len(directory):
        raise damaged('the directory of the zip archive ends early')
    mark, _, _, flags, method, _, _, crc, packed, size, *lengths, _, _, _, header = _ENTRY.unpack(
        directory[position:text]
    )
    end = text + sum(lengths)
    if mark != b'PK\x01\x02' or end > len(directory):
        raise damaged('the directory of the zip archive is not sound')
    name = directory[text : text + lengths[0]].decode('utf-8', 'replace')
    if method or flags & 1 or packed != size:
        raise UserError('the archive is compressed or encrypted, which torch.save never does')
    return _Member(name, header, size, crc), end


def _begin(file: Bytes, member: _Member) -> int:
    """Where the bytes of an archive's member begin."""
    head = file.read(member.header, 30)
    if head[:4] != b'PK\x03\x04':
        raise damaged(f'{shown(member.name)} is not where the archive says')
    return member.header + 30 + int.from_bytes(head[26:28], 'little') + int.from_bytes(head[28:30], 'little')


def _content(file: Bytes, member: _Member) -> bytes:
    if member.size > _LONGEST_PICKLE:
        raise UserError(f'{shown(member.name)} is too large for what a state dict needs')
    return file.read(_begin(file, member), member.size)


def _from_members(file: Bytes, members: Mapping[str, _Member], folder: str) -> _Values:
    """Reads values out of an archive; of each member it checks all bytes, once."""
    checked: dict[str, int] = {}

    def values(storage: _Storage, first: int, count: int) -> np.ndarray:
        member, size = members.get(folder + storage.key), _size(storage.dtype)
        if member is None:
            raise damaged(f'the values {shown(storage.key)} are not in the archive')
        if (first + count) * size > member.size:
            raise damaged(f'the values {shown(storage.key)} are fewer than needed')
        begin = _begin(file, member)
        raw = file.array(begin + first * size, np.uint8, count * size)
        if storage.key not in checked:
            checked[storage.key] = member.size
            if sum(checked.values()) > _LARGEST_STORAGES:
                raise UserError(f'the tensors lie in more than {_LARGEST_STORAGES // 10**6} MB; save the net alone')
            crc = _checksum(file, begin, begin + first * size, 0)
            crc = _checksum(file, begin + (first + count) * size, begin + member.size, zlib.crc32(raw.data, crc))
            if crc != member.crc:
                raise damaged(f'the checksum of {shown(storage.key)} is wrong')
        return _typed(raw, storage)

    return values


def _checksum(file: Bytes, begin: int, end: int, crc: int) -> int:
    """The checksum of what had the checksum `crc` and goes on with these bytes of the file."""
    for at in range(begin, end, _PIECE):
        crc = zlib.crc32(file.read(at, min(_PIECE, end - at)), crc)
    return crc


def _size(dtype: str) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _typed(raw: np.ndarray, storage: _Storage) -> np.ndarray:
    """Bytes as the values that they are."""
    if storage.dtype == _BFLOAT16:
        return (raw.view('<u2').astype(np.uint32) << 16).view(np.float32)
    return raw.view(storage.dtype)


# ----------------------------------------------------------------------------------------------- pickled state dicts


def _unpickled(data: bytes, start: int, seen: dict[str, str] | None = None) -> tuple[Any, int]:
    """The object of `torch.save`, with `_View`s for tensors. seen: receives the dtype of every storage by key."""

    def persistent(identity: Any) -> _Storage:
        storage = _storage(identity)
        if seen is not None and seen.setdefault(storage.key, storage.dtype) != storage.dtype:
            raise damaged(f'the values {shown(storage.key)} have two types')
        return storage

    return pickles.load(data, start, _NAMES, persistent)


def _storage(identity: Any) -> _Storage:
    # ('storage', class, key, device, count[, None or (key, first, count) of a part])
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != 'storage':
        raise damaged('a reference to values is malformed')
    kind, key, _, count = identity[1:5]
    if not isinstance(kind, Global) or kind.name not in _STORAGES or not isinstance(key, str) or not _is_size(count):
        raise damaged('a reference to values is malformed')
    part = identity[5] if len(identity) == 6 else None
    if part is None:
        return _Storage(key, _STORAGES[kind.name], count)
    if not isinstance(part, tuple) or len(part) != 3 or not _is_size(part[1]) or not _is_size(part[2]):
        raise damaged('a reference to values is malformed')
    return _Storage(key, _STORAGES[kind.name], part[2], part[1])


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _is_sizes(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) <= 8 and all(map(_is_size, value))


def _rebuilt(arguments: tuple) -> _View:
    if len(arguments) < 4 or not isinstance(arguments[0], _Storage):
        raise damaged('a tensor without values')
    storage, offset, shape, strides = arguments[:4]
    if not _is_size(offset) or not _is_sizes(shape) or not _is_sizes(strides) or len(shape) != len(strides):
        raise damaged('a tensor without a sound shape')
    count = math.prod(shape)
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if count else 0
    if count > storage.count or offset + span > storage.count:
        raise damaged(f'a tensor reaches beyond its values {shown(storage.key)}')
    return _View(storage, offset, span, tuple(shape), tuple(strides))


def _parameter(arguments: tuple) -> _View:
    if not arguments or not isinstance(arguments[0], _View):
        raise damaged('a parameter without a tensor')
    return arguments[0]


def _ordered(arguments: tuple) -> dict:
    pairs = arguments[0] if arguments else []
    if len(arguments) > 1 or not isinstance(pairs, (list, tuple)):
        raise damaged('a dict that is none')
    found: dict[str, Any] = {}
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str) or pair[0] in found:
            raise damaged('a dict that is none')
        found[pair[0]] = pair[1]
    return found


_NAMES: dict[Global, Callable[[tuple], Any] | None] = {
    Global('collections', 'OrderedDict'): _ordered,
    Global('torch._utils', '_rebuild_tensor'): _rebuilt,
    Global('torch._utils', '_rebuild_tensor_v2'): _rebuilt,
    Global('torch._utils', '_rebuild_parameter'): _parameter,
    **{Global(room, name): None for room in ('torch', 'torch.cuda') for name in _STORAGES},
}


def _tensors(state: Any, values: _Values) -> dict[str, Tensor]:
    """The tensors of a state dict by key."""
    for _ in range(2):
        inner = [state[name] for name in _WRAPPERS if isinstance(state, dict) and isinstance(state.get(name), dict)]
        state = inner[0] if len(inner) == 1 else state
    if not isinstance(state, dict) or not state:
        raise UserError('the file holds no state dict; save it with torch.save(net.state_dict(), PATH)')
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _View):
            raise UserError(f'{shown(str(name))} is no tensor; save the state_dict() of the net alone')

    return {name: Tensor(name, view.shape, functools.partial(_read, view, values)) for name, view in state.items()}


def _read(view: _View, values: _Values) -> np.ndarray:
    if view.span > 2 * math.prod(view.shape):
        raise UserError('a tensor is few values scattered over many; save each after .contiguous()')
    if view.span * _size(view.storage.dtype) > _LARGEST_TENSOR:
        raise UserError(f'a tensor takes more than {_LARGEST_TENSOR >> 20} MB, which none of a VGG-16 does')
    array = values(view.storage, view.storage.first + view.offset, view.span)
    # In bounds: the span was computed from these very strides.
    bytes_per_step = tuple(stride * array.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(array, view.shape, bytes_per_step, writeable=False)


# ------------------------------------------------------------------------------------------------------------- names


def interpret(tensors: Mapping[str, Tensor], form: str, wish: Wish, told: Convention | None = None) -> Net:
    """The net in a state dict, by its key names.

    Args:
        tensors: by key.
        form: the container, for the user.
        wish: of the user.
        told: the convention, where the file states it.

    Raises:
        UserError: as `canonical.build`, or when the way the net was trained cannot be told.
    """
    names = {name: name.removeprefix('module.') for name in tensors}
    if any(name.startswith(('features.0.', 'pre_logits.', 'classifier.')) for name in names.values()):
        return _imagenet(tensors, names, form, wish)
    entries, gaps = [], set()
    for name, short in names.items():
        stem, _, part = short.rpartition('.')
        match = _NAME.fullmatch(stem)
        if match is None or part not in _PARTS:
            entries.append(Entry('', '', tensors[name]))
            continue
        gaps |= {match['gap']} if match['at'] else set()
        entries.append(Entry(match['fc'] or f'conv{match["at"]}', _PARTS[part], tensors[name]))
    return build_net(entries, told or _face_convention(entries, gaps, form, wish), wish)


def _face_convention(entries: list[Entry], gaps: set[str], form: str, wish: Wish) -> Convention:
    shapes = {(entry.layer, entry.part): entry.tensor.shape for entry in entries}
    fc6 = shapes.get(('fc6', 'kernel'), ())
    if gaps == {'_'}:
        return Convention(f'{form}, converted from Torch7', True, 'bgr')
    if fc6[:2] == (1, 1) or any(len(shape) == 4 for (_, part), shape in shapes.items() if part == 'bias'):
        return Convention(f'{form}, converted from Caffe', True, 'bgr')
    if len(fc6) == 4:
        return Convention(f'{form}, converted from MatConvNet', True, 'rgb', notes=() if wish.colour_order else _FER)
    return Convention(f'{form}, names conv1_1 ... fc8', True, '', _TWINS)


def _imagenet(tensors: Mapping[str, Tensor], names: Mapping[str, str], form: str, wish: Wish) -> Net:
    entries = []
    for name, short in names.items():
        stem, _, part = short.rpartition('.')
        layer = _IMAGENET.get(stem, '') if part in _PARTS else ''
        entries.append(Entry(layer, _PARTS[part] if layer else '', tensors[name]))
    return build_net(entries, _imagenet_convention(entries, form, wish), wish)


def _imagenet_convention(entries: list[Entry], form: str, wish: Wish) -> Convention:
    """torchvision has two VGG-16s with the same names; the one whose input was scaled otherwise has no classifier, and
    NaN in its place."""
    form = f'{form}, VGG-16 of torchvision or timm (ImageNet)'
    standard = Convention(form, True, 'rgb', mean_rgb=_of_255(_IMAGENET_MEAN), std_rgb=_of_255(_IMAGENET_STD))
    last = next((entry.tensor for entry in entries if (entry.layer, entry.part) == ('fc8', 'bias')), None)
    if last is None or len(last.shape) != 1 or last.shape[0] > 1 << 20:
        if wish.layers == CONVOLUTIONS_ONLY:
            return dataclasses.replace(standard, notes=_HEADLESS)
        raise UserError(
            f'{form}: it has no classifier; take the convolutions alone with --layers=convolutions '
            '(config.face_net.layers)'
        )
    if not np.isnan(last.read()).all():
        return standard
    if wish.layers != CONVOLUTIONS_ONLY:
        raise UserError(
            f'{form}: the classifier holds NaN, as in IMAGENET1K_FEATURES; take the convolutions alone with '
            '--layers=convolutions (config.face_net.layers)'
        )
    return Convention(f'{form}, features only', True, 'rgb', mean_rgb=_of_255(_CAFFE_STYLE_MEAN))


def _of_255(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value * 255, 6) for value in values)
