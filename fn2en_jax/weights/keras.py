"""Keras weight files (HDF5): layers named in attributes, one group each. No Keras needed; no model is built.

HDF5 can point outside the file and promise sizes that it does not hold. Only hard links to plain datasets of real
numbers are followed, and shapes are checked before anything is read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import pytorch
from fn2en_jax.weights.binary import damaged, shown
from fn2en_jax.weights.canonical import CONVOLUTIONS, DENSE, LAYERS, PARTS, Convention, Entry, Net, Tensor, Wish, build

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_MOST_NAMES = 10_000
_MOST_AXES = 8
_VERSION_1 = re.compile(r'rcmalli_vggface_(tf|th)_weights_(tf|th)_ordering')
_KERAS_1 = re.compile(r'_[Wb]$')
_DEPTH = 6  # groups between a layer and its dataset


def read(path: str, wish: Wish) -> Net:
    """Reads an HDF5 file of Keras 1, 2 or 3, or the flat one that caffemodel2pytorch writes.

    Raises:
        UserError: when the file is damaged, links elsewhere, holds flipped kernels that were not asked for, or is no
            VGG-16.
    """
    if _VERSION_1.search(Path(path).name):
        raise UserError(
            "this is version 1 of rcmalli's weights, which is known to be wrong; take rcmalli_vggface_tf_vgg16.h5"
        )
    # HDF5 meets bytes from anywhere and raises whatever comes to hand.
    try:
        with h5py.File(path, 'r') as file:
            return _read(file, wish)
    except UserError:
        raise
    except Exception as error:
        raise damaged(f'HDF5 cannot read it: {type(error).__name__}') from error


def _read(file: h5py.File, wish: Wish) -> Net:
    root: Any = file
    if 'layer_names' not in _attributes(file) and 'layer_names0' not in _attributes(file):
        if 'model_weights' in _members(file):
            root = _hard(file, 'model_weights')
        elif any(name.endswith('.weight') for name in _members(file)):
            tensors = {name: _dataset(file, name) for name in _members(file)}
            return pytorch.interpret(tensors, 'HDF5', wish, Convention('HDF5, converted from Caffe', True, 'bgr'))
    layers = [(name, tensors) for name, tensors in _layers(root) if tensors]
    if not layers:
        raise UserError('the HDF5 file holds no Keras weights (no layer_names with weights in it)')
    backend = _text(file, 'backend') or _text(root, 'backend')
    theano = backend == 'theano' or (not backend and all(_KERAS_1.search(t.name) for _, found in layers for t in found))
    if theano and not wish.theano_flipped:
        raise UserError(
            'the file comes from Keras with Theano, whose kernels are flipped against every other format; '
            'say --theano_flipped to have them turned'
        )
    return _net(layers, theano, wish)


def _layers(root: Any) -> Iterator[tuple[str, list[Tensor]]]:
    """Name and tensors of every layer, in the order of the net."""
    names = _names(root, 'layer_names')
    if len(set(names)) != len(names):
        raise UserError('two layers have the same name; this is not one VGG-16 net')
    for name in names:
        group = _hard(root, name)
        if not isinstance(group, h5py.Group):
            raise damaged(f'the layer {shown(name)} is no group')
        yield name, [_dataset(group, path) for path in _names(group, 'weight_names')]


def _net(layers: list[tuple[str, list[Tensor]]], theano: bool, wish: Wish) -> Net:
    kernels = [max(tensors, key=lambda tensor: len(tensor.shape)) for _, tensors in layers]
    named = {name for name, _ in layers} & set(LAYERS)
    fc = next((kernel for kernel in kernels if len(kernel.shape) == 2), None)
    channels_first = theano and len(kernels[0].shape) == 4 and kernels[0].shape[2:] == (3, 3)
    places = _places([name for name, _ in layers], bool(named))
    entries = []
    for (_, tensors), place in zip(layers, places, strict=True):
        for index, tensor in enumerate(tensors):
            part = PARTS[index] if place and index < len(PARTS) else ''
            entries.append(Entry(place if part else '', part, _transposed(tensor) if channels_first else tensor))
    if theano:
        why = 'Copies of the program that made such files disagree.'
        return build(entries, Convention('Keras 1 with Theano', channels_first, '', why, flipped=True), wish)
    if fc is not None or (named and len(layers) == len(CONVOLUTIONS)):
        return build(entries, Convention('Keras (rcmalli)', False, 'bgr'), wish)
    if len(layers) > len(CONVOLUTIONS):
        return build(entries, Convention('Keras (deepface)', False, 'rgb'), wish)
    why = 'RGB is what files made from MatConvNet want; BGR is what files made from Caffe want.'
    return build(entries, Convention('Keras, layers without names', False, '', why), wish)


def _places(names: list[str], named: bool) -> list[str]:
    """The layer of the net behind each layer of the file: by its name, or where they are automatic by its order."""
    if named:
        return [name if name in LAYERS else '' for name in names]
    order = CONVOLUTIONS + DENSE
    return [order[index] if index < len(order) else '' for index in range(len(names))]


def _transposed(tensor: Tensor) -> Tensor:
    """A matrix of a Theano file as [out,in], like its kernels."""
    if len(tensor.shape) != 2:
        return tensor
    return Tensor(tensor.name, tensor.shape[::-1], lambda: tensor.read().T)


# HDF5, with care.


def _members(group: h5py.Group) -> list[str]:
    if len(group) > _MOST_NAMES:
        raise UserError(f'a group of the HDF5 file has more than {_MOST_NAMES} members')
    return list(group.keys())


def _hard(group: h5py.Group, path: str) -> Any:
    """What lies at a path. Raises UserError unless every step of it stays in this very file."""
    parts = [part for part in path.split('/') if part]
    if not 1 <= len(parts) <= _DEPTH or '.' in parts:
        raise damaged(f'{shown(path)} is no place in the file')
    found: Any = group
    for part in parts:
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise UserError(f'{shown(path)} is missing from the HDF5 file')
        if not isinstance(link, h5py.HardLink):
            raise UserError(f'{shown(path)} is a link to another place or file, which is never followed')
        found = found[part]
    return found


def _dataset(group: h5py.Group, path: str) -> Tensor:
    found = _hard(group, path)
    if not isinstance(found, h5py.Dataset):
        raise damaged(f'{shown(path)} is no dataset')
    _check_dataset(found, path)
    shape = tuple(int(size) for size in found.shape)
    return Tensor(path, shape, lambda: _values(found))


def _check_dataset(dataset: h5py.Dataset, path: str) -> None:
    if dataset.is_virtual or dataset.external:
        raise UserError(f'{shown(path)} takes its values from other files, which are never opened')
    if dataset.dtype.kind != 'f' or dataset.dtype.itemsize > 8:
        raise UserError(f'{shown(path)} holds {dataset.dtype}, not real numbers')
    if dataset.shape is None or len(dataset.shape) > _MOST_AXES:
        raise damaged(f'{shown(path)} has no sound shape')
    settings = dataset.id.get_create_plist()
    if any(settings.get_filter(index)[0] not in _FILTERS for index in range(settings.get_nfilters())):
        raise UserError(f'{shown(path)} is packed by a filter that is not read')


def _values(dataset: h5py.Dataset) -> np.ndarray:
    return np.asarray(dataset[()], dataset.dtype.newbyteorder('='))


def _attributes(group: h5py.Group) -> list[str]:
    if len(group.attrs) > _MOST_NAMES:
        raise UserError(f'the HDF5 file has more than {_MOST_NAMES} attributes')
    return list(group.attrs.keys())


def _names(group: h5py.Group, title: str) -> list[str]:
    """The texts of an attribute; long lists are split into title0, title1, ..."""
    there = _attributes(group)
    if title in there:
        return _texts(group, title)
    found: list[str] = []
    for index in range(len(there)):
        if f'{title}{index}' not in there:
            break
        found += _texts(group, f'{title}{index}')
    return found


def _text(group: h5py.Group, title: str) -> str:
    return ''.join(_texts(group, title)[:1]) if title in _attributes(group) else ''


def _texts(group: h5py.Group, title: str) -> list[str]:
    attribute = group.attrs.get_id(title)
    count = int(np.prod(attribute.shape, dtype=object)) if attribute.shape else 1
    if count > _MOST_NAMES or attribute.dtype.itemsize > _MOST_NAMES or attribute.dtype.kind not in 'SOUf':
        raise damaged(f'the attribute {shown(title)} is no list of names')
    value = np.atleast_1d(np.asarray(group.attrs[title], object)).reshape(-1)
    texts = [item.decode('utf-8', 'replace') if isinstance(item, bytes) else item for item in value]
    if not all(isinstance(text, str) for text in texts) and len(texts):
        raise damaged(f'the attribute {shown(title)} is no list of names')
    return texts
