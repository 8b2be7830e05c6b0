"""Trained nets as state dicts for PyTorch: kernels [out,in,h,w], matrices [out,in], flattened maps as C, H, W.

A module with equally named layers (`conv1_1`, `fc6`, `features.conv1`, `head.fc1`, ...; batch norm `..._bn`) loads them
with `load_state_dict`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import own, tensors
from fn2en_jax.weights.canonical import LICENCE

FACE_NET, EXPRESSION_NET = 'face net', 'expression net'
_PARTS = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


def face_net(variables: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The tensors of a `VGGFace` by key.

    variables: 'params' and perhaps 'batch_stats'. image_size: [H,W] in pixels, which tells the map that fc6 reads.
    Raises UserError when fc6 is not for such images.
    """
    channels = variables['params']['conv5_3']['bias'].size
    map_shape = (*(side // 32 for side in image_size), channels)
    _check_map(variables['params'], 'fc6', map_shape)
    return _state(variables, {'fc6': map_shape}, '')


def expression_net(variables: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The tensors of an `ExpressionNet` by key.

    variables, image_size: as above; the image is square. An adapter that enlarges is for
    `torch.nn.functional.conv_transpose2d`; its full result is cropped to the central values.
    Raises UserError when the layers do not fit such images.
    """
    features = variables['params']['features']
    depth = sum(name.startswith('conv') and not name.endswith('_bn') for name in features)
    last = tuple(side // 2**depth for side in image_size)
    bridge, into = features['bridge']['kernel'], variables['params']['head']['fc1']['kernel'].shape[0]
    maps, enlarging = {}, ''
    if bridge.ndim == 2:
        maps['features/bridge'] = (*last, features[f'conv{depth}']['bias'].size)
        _check_map(features, 'bridge', maps['features/bridge'])
    else:
        side = math.isqrt(into // bridge.shape[3])
        target = (side, side) if 'adapter' in features else last
        maps['head/fc1'] = (*target, bridge.shape[3])
        _check_map(variables['params']['head'], 'fc1', maps['head/fc1'])
        enlarging = 'features/adapter' if target > last else ''
    return _state(variables, maps, enlarging)


def write(
    path: Path,
    kind: str,
    state: Mapping[str, np.ndarray],
    *,
    mean: Sequence[float],
    input_scale: float,
    image_size: tuple[int, int],
    class_names: Sequence[str],
) -> None:
    """Writes a state dict as safetensors with its preprocessing as metadata.

    Args:
        path: of the file.
        kind: FACE_NET or EXPRESSION_NET.
        state: tensors by key.
        mean: of R, G, B, or of grey alone; subtracted from images of 0..255.
        input_scale: multiplies the difference.
        image_size: [H,W] in pixels.
        class_names: K names, or ().

    Raises:
        OSError: as the disk does.
    """
    colours = 'rgb' if len(mean) == 3 else 'grey'
    metadata = {
        'format': own.STATE_DICT,
        'version': own.VERSION,
        'net': kind,
        'layout': 'OIHW',
        'flatten': 'CHW',
        'colour_order': colours,
        'channels': str(len(mean)),
        'input': f'({colours} of 0..255 - mean_{colours}) * input_scale',
        f'mean_{colours}': json.dumps(list(mean)),
        'input_scale': json.dumps(input_scale),
        'image_size': json.dumps(list(image_size)),
        'batch_norm_eps': '1e-05',
        'class_names': json.dumps(list(class_names)),
        'licence': LICENCE,
    }
    tensors.write(path, state, metadata)


def _check_map(params: Mapping[str, Any], layer: str, map_shape: tuple[int, ...]) -> None:
    into = params[layer]['kernel'].shape[0]
    if into != math.prod(map_shape):
        raise UserError(f'{layer} reads {into} values, and the map before it has {map_shape}; is the image size right?')


def _state(variables: Mapping[str, Any], maps: Mapping[str, tuple], enlarging: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for collection in own.COLLECTIONS:
        for path, leaf in _leaves(variables.get(collection, {}), ''):
            layer, _, part = path.rpartition('/')
            array = _turned(np.asarray(leaf, np.float32), maps.get(layer), layer == enlarging)
            key = layer.replace('/', '.')
            found[f'{key}.{_PARTS[part]}'] = array
            if part == 'var':
                found[f'{key}.num_batches_tracked'] = np.zeros((), np.int64)
    return found


def _leaves(tree: Mapping[str, Any], prefix: str):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f'{prefix}{name}/')
        else:
            yield prefix + name, value


def _turned(array: np.ndarray, map_shape: tuple | None, enlarges: bool) -> np.ndarray:
    if array.ndim == 4 and enlarges:  # PyTorch's is the gradient of a convolution: flipped, [in,out,h,w]
        array = array[::-1, ::-1].transpose(2, 3, 0, 1)
    elif array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2 and map_shape:
        array = array.reshape(*map_shape, -1).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array)
