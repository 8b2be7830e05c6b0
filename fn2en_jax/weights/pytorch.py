"""PyTorch state dicts: the zip and the older stream of `torch.save`, and the key names of VGG-16. No PyTorch needed."""

import dataclasses
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import pickles
from fn2en_jax.weights.binary import Bytes, damaged, shown
from fn2en_jax.weights.canonical import CONVOLUTIONS, CONVOLUTIONS_ONLY, DENSE, Convention, Entry, Net, Tensor, Wish
from fn2en_jax.weights.canonical import build as build_net
from fn2en_jax.weights.pickles import Global

MAGIC = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'  # the pickled number with which the older stream begins
_LONGEST_PICKLE = 16 << 20  # bytes
_LONGEST_DIRECTORY = 1 << 20  # bytes
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
    """A tensor: a strided view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_zip(file: Bytes, path: str, wish: Wish) -> Net:
    """Reads what `torch.save` writes since PyTorch 1.6.

    Raises:
        UserError: when the file is no such archive, is damaged, holds more than a state dict, or is no VGG-16.
    """
    _check_directory(file)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, OverflowError) as error:
        raise damaged(f'no readable zip archive: {type(error).__name__}') from error
    names = {member.filename: member for member in members}
    pickled = [name for name in names if name == 'data.pkl' or name.endswith('/data.pkl')]
    if len(pickled) != 1 or len(names) != len(members):
        raise UserError('the zip archive is not what torch.save writes (it needs one data.pkl); a TorchScript or a '
                        'Keras archive is not read: save the state_dict() with torch.save')  # fmt: skip
    folder = pickled[0].removesuffix('data.pkl')
    if f'{folder}constants.pkl' in names:
        raise UserError('the file is a TorchScript archive, which is code; save the state_dict() with torch.save')
    if f'{folder}byteorder' in names and _content(file, names[f'{folder}byteorder']) != b'little':
        raise UserError('the file was written on a big-endian machine, which is not supported')
    state = _unpickled(_content(file, names[pickled[0]]), 0)[0]

    def values(storage: _Storage) -> np.ndarray:
        member = names.get(f'{folder}data/{storage.key}')
        if member is None:
            raise damaged(f'the values {shown(storage.key)} are not in the archive')
        begin = _begin(file, member)
        raw = file.array(begin, np.uint8, member.file_size)
        if zlib.crc32(raw.data) != member.CRC:
            raise damaged(f'the checksum of {shown(storage.key)} is wrong')
        return _typed(raw, storage)

    return interpret(_tensors(state, values), 'PyTorch (zip)', wish)


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

    def values(storage: _Storage) -> np.ndarray:
        if storage.key not in places:
            raise damaged(f'the values {shown(storage.key)} are not in the file')
        begin, count = places[storage.key]
        return _typed(file.array(begin, np.uint8, count * _size(storage.dtype)), storage)

    return interpret(_tensors(state, values), 'PyTorch (stream)', wish)


def _check_directory(file: Bytes) -> None:
    """Refuses an archive whose list of members is long, before the library makes objects of them."""
    tail = file.read(max(0, file.size - (1 << 17)), min(file.size, 1 << 17))
    end, large = tail.rfind(b'PK\x05\x06'), tail.rfind(b'PK\x06\x06')
    if end < 0 or end + 16 > len(tail):
        raise damaged('the zip archive has no end')
    length = int.from_bytes(tail[end + 12 : end + 16], 'little')
    if large >= 0:
        length = max(length % 0xFFFFFFFF, int.from_bytes(tail[large + 40 : large + 48], 'little'))
    if length > _LONGEST_DIRECTORY:
        raise UserError('the zip archive has more members than any state dict of a VGG-16')


def _begin(file: Bytes, member: zipfile.ZipInfo) -> int:
    """Where the bytes of an archive's member begin."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise UserError('the archive is compressed or encrypted, which torch.save never does')
    head = file.read(member.header_offset, 30)
    if head[:4] != b'PK\x03\x04':
        raise damaged(f'{shown(member.filename)} is not where the archive says')
    return member.header_offset + 30 + int.from_bytes(head[26:28], 'little') + int.from_bytes(head[28:30], 'little')


def _content(file: Bytes, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > _LONGEST_PICKLE:
        raise UserError(f'{shown(member.filename)} is too large for what a state dict needs')
    return file.read(_begin(file, member), member.file_size)


def _size(dtype: str) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _typed(raw: np.ndarray, storage: _Storage) -> np.ndarray:
    """The values of a storage, [count]."""
    size = _size(storage.dtype)
    if len(raw) % size or len(raw) // size < storage.first + storage.count:
        raise damaged(f'the values {shown(storage.key)} are fewer than needed')
    raw = raw[storage.first * size : (storage.first + storage.count) * size]
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
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if count else 0
    if count > storage.count or last >= max(1, storage.count):
        raise damaged(f'a tensor reaches beyond its values {shown(storage.key)}')
    return _View(storage, offset, tuple(shape), tuple(strides))


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


def _tensors(state: Any, values: Callable[[_Storage], np.ndarray]) -> dict[str, Tensor]:
    """The tensors of a state dict by key."""
    for _ in range(2):
        inner = [state[name] for name in _WRAPPERS if isinstance(state, dict) and isinstance(state.get(name), dict)]
        state = inner[0] if len(inner) == 1 else state
    if not isinstance(state, dict) or not state:
        raise UserError('the file holds no state dict; save it with torch.save(net.state_dict(), PATH)')
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, _View):
            raise UserError(f'{shown(str(name))} is no tensor; save the state_dict() of the net alone')

    def tensor(name: str, view: _View) -> Tensor:
        return Tensor(name, view.shape, lambda: _strided(values(view.storage), view))

    return {name: tensor(name, view) for name, view in state.items()}


def _strided(values: np.ndarray, view: _View) -> np.ndarray:
    # In bounds: `_rebuilt` has checked the view against the storage, `_typed` the storage against the file.
    bytes_per_step = tuple(stride * values.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(values[view.offset :], view.shape, bytes_per_step, writeable=False)


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
    return build_net(entries, told or _face_convention(entries, gaps, form), wish)


def _face_convention(entries: list[Entry], gaps: set[str], form: str) -> Convention:
    shapes = {(entry.layer, entry.part): entry.tensor.shape for entry in entries}
    fc6 = shapes.get(('fc6', 'kernel'), ())
    if gaps == {'_'}:
        return Convention(f'{form}, converted from Torch7', True, 'bgr')
    if fc6[:2] == (1, 1) or any(len(shape) == 4 for (_, part), shape in shapes.items() if part == 'bias'):
        return Convention(f'{form}, converted from Caffe', True, 'bgr')
    if len(fc6) == 4:
        return Convention(f'{form}, converted from MatConvNet', True, 'rgb')
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
    last = next((entry.tensor for entry in entries if (entry.layer, entry.part) == ('fc8', 'bias')), None)
    if last is None or len(last.shape) != 1 or last.shape[0] > 1 << 20:
        raise UserError(
            f'{form}: without the classifier it cannot be told how its input was scaled; use the whole file'
        )
    if not np.isnan(last.read()).all():
        return Convention(form, True, 'rgb', mean_rgb=_of_255(_IMAGENET_MEAN), std_rgb=_of_255(_IMAGENET_STD))
    if wish.layers != CONVOLUTIONS_ONLY:
        raise UserError(
            f'{form}: the classifier holds NaN, as in IMAGENET1K_FEATURES; take the convolutions alone with '
            '--layers=convolutions (config.face_net.layers)'
        )
    return Convention(f'{form}, features only', True, 'rgb', mean_rgb=_of_255(_CAFFE_STYLE_MEAN))


def _of_255(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value * 255, 6) for value in values)
