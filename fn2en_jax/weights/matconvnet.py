"""MatConvNet models: simplenn in its releases, with `net` or at top level, and DAG."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import geometry, matlab
from fn2en_jax.weights.binary import Bytes, shown
from fn2en_jax.weights.canonical import LAYERS, MEAN_RGB, PARTS, Convention, Entry, Net, Tensor, Wish, build

_VARIABLES = {'net', 'layers', 'params', 'meta', 'normalization', 'classes'}
_FIELDS = _VARIABLES | {
    'name', 'type', 'weights', 'filters', 'biases', 'value', 'averageImage', 'imageSize', 'description',
    'block', 'pad', 'stride', 'dilate', 'pool', 'poolSize', 'method',
}  # fmt: skip
_POOLS = {'pool', 'dagnn.Pooling'}  # types of layers
_SIMPLE, _DAG = 'MatConvNet (simplenn)', 'MatConvNet (DAG)'


def read(file: Bytes, wish: Wish) -> Net:
    """Reads a `.mat` file.

    Raises:
        UserError: when it is damaged, holds no net, or is no VGG-16.
    """
    variables = matlab.read(file, _VARIABLES, _FIELDS)
    net = _only(variables.get('net')) or variables
    layers = net.get('layers')
    if isinstance(layers, list):
        form, entries = _SIMPLE, [entry for layer in layers for entry in _simple(_only(layer))]
    elif isinstance(layers, matlab.Struct) and isinstance(net.get('params'), matlab.Struct):
        form, entries = _DAG, list(_dag(layers, net['params']))
    else:
        raise UserError('the MATLAB file holds no MatConvNet net (no layers); face_model.mat, for one, is a detector')
    return build(entries, _convention(form, net), wish)


def _convention(form: str, net: dict[str, Any]) -> Convention:
    meta = _only(net.get('meta'))
    normalization = _only(meta.get('normalization')) or _only(net.get('normalization'))
    classes = _only(meta.get('classes')) or _only(net.get('classes'))
    names = classes.get('description')
    names = tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
    return Convention(
        form,
        False,
        'rgb',
        mean_rgb=_mean(normalization.get('averageImage')),
        image_size=_size(normalization.get('imageSize')),
        class_names=names,
    )


def _only(value: Any) -> dict[str, Any]:
    """The fields of a struct of one element; {} for anything else."""
    return value.elements[0] if isinstance(value, matlab.Struct) and len(value.elements) == 1 else {}


def _mean(image: Any) -> tuple[float, ...]:
    """The mean of R, G, B; of an average image, the mean over its pixels."""
    if not isinstance(image, np.ndarray) or not image.size:
        return MEAN_RGB
    if image.size == 3:
        mean = image.reshape(3)
    elif image.ndim == 3 and image.shape[2] == 3:
        mean = image.mean((0, 1), dtype=np.float64)
    else:
        raise UserError(f'the average image has the shape {image.shape}; three channels are needed')
    if not (np.isfinite(mean).all() and (mean >= 0).all() and (mean <= 255).all()):
        raise UserError('the average image is not of colours between 0 and 255')
    return tuple(float(value) for value in mean)


def _size(size: Any) -> tuple[int, int] | None:
    if not isinstance(size, np.ndarray) or size.size < 2:
        return None
    height, width = size.reshape(-1)[:2]
    return (int(height), int(width)) if 1 <= height <= 10_000 and 1 <= width <= 10_000 else None


def _simple(layer: dict[str, Any]) -> Iterator[Entry]:
    name = layer.get('name')
    _check_geometry(name, layer.get('type'), layer)
    yield from _named(name, _weights(layer))


def _weights(layer: dict[str, Any]) -> list[Any]:
    weights = layer.get('weights')
    if isinstance(weights, np.ndarray) and weights.size:  # one matrix where a cell of two belongs
        return [weights]
    if isinstance(weights, list) and weights:
        return weights
    return [layer[key] for key in ('filters', 'biases') if key in layer]  # before release beta11


def _dag(layers: matlab.Struct, params: matlab.Struct) -> Iterator[Entry]:
    values = {param.get('name'): param.get('value') for param in params.elements if isinstance(param.get('name'), str)}
    if len(values) != len(params.elements):
        raise UserError('two params of the net have the same name, or one has none')
    for layer in layers.elements:
        names = layer.get('params')
        _check_geometry(layer.get('name'), layer.get('type'), _only(layer.get('block')))
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            yield from _named(layer.get('name'), [values.get(name) for name in names])


def _check_geometry(name: Any, kind: Any, stated: dict[str, Any]) -> None:
    """Raises UserError when the file says that the layer steps, pads or pools as no VGG-16 does."""
    title = name if isinstance(name, str) else 'a layer without a name'
    stride, pad = _flat(stated.get('stride')), _flat(stated.get('pad'))
    if not (isinstance(kind, str) and kind in _POOLS):
        dilation = _flat(stated.get('dilate'))
        said = {geometry.STRIDE: stride, geometry.PADDING: pad, geometry.DILATION: dilation}
        return geometry.check_layer(title, title, said)
    if stated.get('method', 'max') != 'max':
        raise UserError(f'{shown(title)} does not pool by the maximum, as VGG-16 does')
    if len(pad) == 4 and set(pad) <= {0.0, 1.0}:
        pad = pad[::2]  # one row below, one column to the right: how Caffe's rounding up is imitated, without effect
    kernel = _flat(stated.get('pool')) + _flat(stated.get('poolSize'))
    geometry.check_pool(title, {geometry.KERNEL: kernel, geometry.STRIDE: stride, geometry.PADDING: pad})


def _flat(value: Any) -> list[float]:
    return [float(number) for number in value.reshape(-1)[:4]] if isinstance(value, np.ndarray) else []


def _named(name: Any, weights: list[Any]) -> Iterator[Entry]:
    arrays = [value for value in weights if isinstance(value, np.ndarray) and value.size]
    layer = name if isinstance(name, str) and name in LAYERS and len(weights) == len(arrays) == len(PARTS) else ''
    for index, array in enumerate(arrays):
        title = f'{name if isinstance(name, str) else "a layer without a name"} weights {index + 1}'
        yield Entry(layer, PARTS[index] if layer else '', _tensor(title, array))


def _tensor(name: str, array: np.ndarray) -> Tensor:
    return Tensor(name, array.shape, lambda: array)
