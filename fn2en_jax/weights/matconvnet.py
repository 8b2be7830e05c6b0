"""MatConvNet models: simplenn in its releases, with `net` or at top level, and DAG."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import matlab
from fn2en_jax.weights.binary import Bytes
from fn2en_jax.weights.canonical import LAYERS, MEAN_RGB, PARTS, Convention, Entry, Net, Tensor, Wish, build

_VARIABLES = {'net', 'layers', 'params', 'meta', 'normalization', 'classes'}
_FIELDS = _VARIABLES | {
    'name', 'type', 'weights', 'filters', 'biases', 'value', 'averageImage', 'imageSize', 'description',
}  # fmt: skip
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
    name, weights = layer.get('name'), layer.get('weights')
    if not weights:  # before release beta11
        weights = [layer[key] for key in ('filters', 'biases') if key in layer]
    if isinstance(weights, list):
        yield from _named(name, weights)


def _dag(layers: matlab.Struct, params: matlab.Struct) -> Iterator[Entry]:
    values = {param.get('name'): param.get('value') for param in params.elements if isinstance(param.get('name'), str)}
    if len(values) != len(params.elements):
        raise UserError('two params of the net have the same name, or one has none')
    for layer in layers.elements:
        names = layer.get('params')
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            yield from _named(layer.get('name'), [values.get(name) for name in names])


def _named(name: Any, weights: list[Any]) -> Iterator[Entry]:
    arrays = [value for value in weights if isinstance(value, np.ndarray) and value.size]
    known = name in LAYERS and len(weights) == len(arrays) == len(PARTS)
    for index, array in enumerate(arrays):
        title = f'{name if isinstance(name, str) else "a layer without a name"} weights {index + 1}'
        yield Entry(name if known else '', PARTS[index] if known else '', _tensor(title, array))


def _tensor(name: str, array: np.ndarray) -> Tensor:
    return Tensor(name, array.shape, lambda: array)
