"""Our own weight files: safetensors whose names are paths in the variable tree, with the net's convention as metadata.

'params/conv1_1/kernel' [h,w,in,out], 'params/fc6/kernel' [in,out], 'batch_stats/conv1_1_bn/mean', ...; a name without
a collection belongs to 'params'.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fn2en_jax.errors import UserError
from fn2en_jax.weights import pytorch, tensors
from fn2en_jax.weights.binary import Bytes, shown
from fn2en_jax.weights.canonical import (
    ALL,
    CONVOLUTIONS_ONLY,
    LAYERS,
    LICENCE,
    NORM_PARTS,
    NORMS,
    PARTS,
    Convention,
    Entry,
    Net,
    Tensor,
    Wish,
    build,
    is_image_size,
)

COLLECTIONS = ('params', 'batch_stats')
FORMAT, VERSION = 'fn2en_jax face net', '1'
STATE_DICT = 'fn2en_jax state dict'
TRAINED_NET = 'fn2en_jax trained net'  # of `portable`
_CONVERTED = 'converted from '
_BARE = 'safetensors without metadata'
_KEYS = {'weight': 'kernel', 'bias': 'bias'}  # of our state dicts
_NORM_KEYS = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}
_COUNTER = '_bn.num_batches_tracked'  # PyTorch's own; nothing that the net computes depends on it


def read(file: Bytes, wish: Wish) -> Net:
    """Reads an open safetensors file: ours, with or without metadata, or a state dict of PyTorch.

    Raises:
        UserError: when the file is damaged, or no face net.
    """
    try:
        found, metadata = tensors.read(file)
    except UserError as error:
        raise UserError(f'it is not a readable safetensors file: {error}') from error
    form = metadata.get('format')
    if form == TRAINED_NET:
        raise UserError(
            'this is a whole trained net; take the weights of a face net out of its run with '
            'python -m fn2en_jax.convert WORKDIR FILE --to=pytorch --method=face_net'
        )
    if form not in (FORMAT, STATE_DICT) and any(name.endswith('.weight') for name in found):
        return pytorch.interpret(found, 'safetensors', wish)
    told = _told(metadata)
    if form != STATE_DICT:
        return _net([_entry(name, tensor) for name, tensor in found.items()], told, wish)
    if metadata.get('net') != 'face net':
        raise UserError('this is the state dict of an expression net; a face net is needed')
    if told.mean_rgb is None:
        raise UserError('the metadata give no mean_rgb; export the net again')
    entries = [_keyed(name, tensor) for name, tensor in found.items() if not name.endswith(_COUNTER)]
    return _net(entries, told, wish, channels_first=True)


def metadata(net: Net, source_sha256: str) -> dict[str, str]:
    """What a converted file says of itself."""
    return {
        'format': FORMAT,
        'version': VERSION,
        'layout': 'HWIO',
        'flatten': 'HWC',
        'colour_order': 'rgb',
        'input': '(RGB of 0..255 - mean_rgb) * input_scale',
        'mean_rgb': json.dumps(net.mean_rgb),
        'input_scale': json.dumps(net.input_scale),
        'image_size': json.dumps(net.image_size),
        'layers': net.layers,
        'class_names': json.dumps(net.class_names),
        'source_format': net.format.removeprefix(_CONVERTED),
        'source_colour_order': net.colour_order,
        'source_sha256': source_sha256,
        'licence': LICENCE,
    }


def write(path: Path, net: Net, source_sha256: str) -> None:
    """Writes the net in one step. Raises OSError as the disk does."""
    tensors.write(path, net.tensors(), metadata(net, source_sha256))


def _net(entries: list[Entry], told: Net, wish: Wish, channels_first: bool = False) -> Net:
    bare = told.format == _BARE
    if told.layers == CONVOLUTIONS_ONLY and wish.layers != CONVOLUTIONS_ONLY:
        raise UserError(
            'the file holds convolutions alone; take them with --layers=convolutions (config.face_net.layers)'
        )
    if wish.colour_order == 'bgr' and not bare:
        raise UserError('the file is in our own form, which is RGB; leave the colour order out')
    mean = wish.mean_rgb or told.mean_rgb
    assumed = 'without metadata, its kernels are taken as h,w,in,out for RGB of 0..255, its fc6 as in the order H, W, C'
    unknown = 'the mean that its input wants is not stated; where you know it, convert with --mean=R,G,B'
    convention = Convention(
        told.format,
        channels_first,
        'rgb',
        mean_rgb=None,
        image_size=told.image_size,
        class_names=told.class_names,
        batch_norm=any(entry.layer in NORMS for entry in entries),
        notes=(*((assumed,) if bare else ()), *(() if mean else (unknown,))),
    )
    return dataclasses.replace(build(entries, convention, wish), mean_rgb=mean, input_scale=told.input_scale)


def _entry(name: str, tensor: Tensor) -> Entry:
    """A tensor of our form by its path; a path without a collection is one of 'params'."""
    path = name.split('/')
    collection, layer, part = path if len(path) == 3 else ('params', *path) if len(path) == 2 else ('', '', '')
    return _placed(layer, part, tensor, collection)


def _keyed(name: str, tensor: Tensor) -> Entry:
    """A tensor of a state dict by its key."""
    layer, _, part = name.rpartition('.')
    part = (_NORM_KEYS if layer in NORMS else _KEYS).get(part, '')
    return _placed(layer, part, tensor, NORM_PARTS.get(part, 'params') if layer in NORMS else 'params')


def _placed(layer: str, part: str, tensor: Tensor, collection: str) -> Entry:
    parts = NORM_PARTS if layer in NORMS else dict.fromkeys(PARTS, 'params') if layer in LAYERS else {}
    known = part in parts and collection == parts[part]
    return Entry(layer if known else '', part if known else '', tensor)


def _told(metadata: Mapping[str, str]) -> Net:
    """What the metadata say, as a net without variables; of a bare file, that nothing is known of its mean."""
    if metadata.get('format') not in (FORMAT, STATE_DICT):
        return Net({}, _BARE, mean_rgb=None)
    expected = {'version': VERSION, 'colour_order': 'rgb'}
    if metadata['format'] == FORMAT:
        expected |= {'layout': 'HWIO', 'flatten': 'HWC'}
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise UserError(
                f'the metadata give {key} as {shown(metadata.get(key, ""))!r}, not {value!r}; convert it again'
            )
    layers = metadata.get('layers', ALL)
    if layers not in (ALL, CONVOLUTIONS_ONLY):
        raise UserError(f'the metadata give layers as {shown(layers)!r}; convert it again')
    size, scale = _numbers(metadata, 'image_size', 2), _numbers(metadata, 'input_scale', 1) or (1.0,)
    if size and not is_image_size(size):
        raise UserError('the metadata give no sound image_size; convert the file again')
    if scale[0] <= 0:
        raise UserError('the metadata give no sound input_scale; convert the file again')
    return Net(
        {},
        _CONVERTED + shown(metadata['source_format']) if 'source_format' in metadata else metadata['format'],
        'rgb',
        _numbers(metadata, 'mean_rgb', 3),
        scale[0],
        layers,
        (int(size[0]), int(size[1])) if size else None,
        _names(metadata),
    )


def _json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata.get(key, 'null'))
    except (ValueError, RecursionError) as error:
        raise UserError(f'the metadata give {key} in no readable form; convert the file again') from error


def _numbers(metadata: Mapping[str, str], key: str, count: int) -> tuple[float, ...] | None:
    value = _json(metadata, key)
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if len(values) != count or not all(type(item) in (int, float) and abs(item) < 1e6 for item in values):
        raise UserError(f'the metadata give no sound {key}; convert the file again')
    return tuple(values)


def _names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    names = _json(metadata, 'class_names')
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError('the metadata give no sound class_names; convert the file again')
    return tuple(names or ())
