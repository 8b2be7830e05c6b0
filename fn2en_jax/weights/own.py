"""Our own weight files: safetensors whose names are paths in the variable tree, with the net's convention as metadata.

'params/conv1_1/kernel' [h,w,in,out], 'params/fc6/kernel' [in,out], 'batch_stats/conv1_1_bn/mean', ...; a name without
a collection belongs to 'params'.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import pytorch, tensors
from fn2en_jax.weights.binary import MAX_VALUES, Bytes, damaged, shown
from fn2en_jax.weights.canonical import ALL, CONVOLUTIONS_ONLY, DENSE, LICENCE, Convention, Net, Tensor, Wish

COLLECTIONS = ('params', 'batch_stats')
FORMAT, VERSION = 'fn2en_jax face net', '1'
STATE_DICT = 'fn2en_jax state dict'
_LARGEST_NAME = 10  # parts of a path
_CONVERTED = 'converted from '


def read(file: Bytes, wish: Wish) -> Net:
    """Reads an open safetensors file: ours, with or without metadata, or a state dict of PyTorch.

    Raises:
        UserError: when the file is damaged, or no face net.
    """
    try:
        found, metadata = tensors.read(file)
    except UserError as error:
        raise UserError(f'it is not a readable safetensors file: {error}') from error
    if metadata.get('format') not in (FORMAT, STATE_DICT) and any(name.endswith('.weight') for name in found):
        return pytorch.interpret(found, 'safetensors', wish)
    told = _told(metadata)
    if metadata.get('format') == STATE_DICT:
        if metadata.get('net') != 'face net':
            raise UserError('this is the state dict of an expression net; a face net is needed')
        if abs(told.input_scale) < 1e-9:
            raise damaged('the metadata give no scale of the input')
        scale = (1 / told.input_scale,) * 3
        convention = Convention(STATE_DICT, True, 'rgb', mean_rgb=told.mean_rgb or (), std_rgb=scale,
                                image_size=told.image_size, class_names=told.class_names)  # fmt: skip
        return pytorch.interpret(found, STATE_DICT, wish, convention)
    return _net(found, told, wish)


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


def _net(found: Mapping[str, Tensor], told: Net, wish: Wish) -> Net:
    if wish.layers == CONVOLUTIONS_ONLY:
        found = {name: tensor for name, tensor in found.items() if _parts(name)[1].removesuffix('_bn') not in DENSE}
    if sum(int(np.prod(tensor.shape, dtype=object)) for tensor in found.values()) > MAX_VALUES:
        raise UserError(f'the net has more than {MAX_VALUES // 10**6} million values')
    if told.layers == CONVOLUTIONS_ONLY and wish.layers != CONVOLUTIONS_ONLY:
        raise UserError(
            'the file holds convolutions alone; take them with --layers=convolutions (config.face_net.layers)'
        )
    if wish.colour_order == 'bgr':
        raise UserError('the file is in our own form, which is RGB; leave the colour order out')
    variables: dict[str, Any] = {}
    for name, tensor in found.items():
        _insert(variables, _parts(name), tensor)
    return Net(
        variables,
        told.format,
        'rgb',
        wish.mean_rgb or told.mean_rgb,
        told.input_scale,
        wish.layers if wish.layers == CONVOLUTIONS_ONLY else told.layers,
        told.image_size,
        told.class_names,
    )


def _parts(name: str) -> list[str]:
    parts = name.split('/')
    return parts if parts[0] in COLLECTIONS and len(parts) > 1 else ['params', *parts]


def _insert(tree: dict[str, Any], parts: list[str], tensor: Tensor) -> None:
    if len(parts) > _LARGEST_NAME:
        raise UserError(f'{shown(tensor.name)} is nested too deeply; the file is no face net')
    for part in parts[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise UserError(f'{shown(tensor.name)} lies inside another tensor; the file is no face net')
    if parts[-1] in tree:
        raise UserError(f'{shown(tensor.name)} is there twice; the file is no face net')
    tree[parts[-1]] = tensor.read()


def _told(metadata: Mapping[str, str]) -> Net:
    """What the metadata say, as a net without variables; of a bare file, that nothing is known of its mean."""
    if metadata.get('format') not in (FORMAT, STATE_DICT):
        return Net({}, 'safetensors without metadata', mean_rgb=None)
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
    size = _numbers(metadata, 'image_size', 2)
    return Net(
        {},
        _CONVERTED + shown(metadata['source_format']) if 'source_format' in metadata else metadata['format'],
        'rgb',
        _numbers(metadata, 'mean_rgb', 3),
        (_numbers(metadata, 'input_scale', 1) or (1.0,))[0],
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
