"""Keras weight files (HDF5): layers named in attributes, one group each. No Keras needed; no model is built."""

import re
from collections.abc import Iterator

from fn2en_jax.errors import UserError
from fn2en_jax.weights import pytorch
from fn2en_jax.weights.binary import Bytes
from fn2en_jax.weights.canonical import CONVOLUTIONS, DENSE, LAYERS, PARTS, Convention, Entry, Net, Tensor, Wish, build
from fn2en_jax.weights.hdf5 import Hdf5, Node

_VERSION_1 = re.compile(r'rcmalli_vggface_(tf|th)_weights_(tf|th)_ordering')
_KERAS_1 = re.compile(r'_[Wb]$')
_AUTOMATIC = re.compile(r'(convolution2d|conv2d|dense)(_\d+)?')  # how Keras names layers that have no name


def read(file: Bytes, name: str, wish: Wish) -> Net:
    """Reads an HDF5 file of Keras 1, 2 or 3, or the flat one that caffemodel2pytorch writes.

    Args:
        file: open.
        name: of the file; the one thing that tells version 1 of rcmalli's weights.
        wish: of the user.

    Raises:
        UserError: when the file is damaged, links elsewhere, holds flipped kernels that were not asked for, or is no
            VGG-16.
    """
    if _VERSION_1.search(name):
        raise UserError(
            "this is version 1 of rcmalli's weights, which is known to be wrong; take rcmalli_vggface_tf_vgg16.h5"
        )
    root = top = Hdf5(file).root
    if not {'layer_names', 'layer_names0'} & set(top.attributes()):
        if 'model_weights' in top.members():
            root = top.at('model_weights')
        elif any(member.endswith('.weight') for member in top.members()):
            tensors = {member: top.at(member).tensor(member) for member in top.members()}
            return pytorch.interpret(tensors, 'HDF5', wish, Convention('HDF5, converted from Caffe', True, 'bgr'))
    layers = [(name, tensors) for name, tensors in _layers(root) if tensors]
    if not layers:
        raise UserError('the HDF5 file holds no Keras weights (no layer_names with weights in it)')
    backend = _text(top, 'backend') or _text(root, 'backend')
    theano = backend == 'theano' or (not backend and all(_KERAS_1.search(t.name) for _, found in layers for t in found))
    if theano and not wish.theano_flipped:
        raise UserError(
            'the file comes from Keras with Theano, whose kernels are flipped against every other format; '
            'say --theano_flipped to have them turned'
        )
    return _net(layers, theano, wish)


def _layers(root: Node) -> Iterator[tuple[str, list[Tensor]]]:
    """Name and tensors of every layer, in the order of the net."""
    names = _names(root, 'layer_names')
    if len(set(names)) != len(names):
        raise UserError('two layers have the same name; this is not one VGG-16 net')
    for name in names:
        group = root.at(name)
        yield name, [group.at(path).tensor(path) for path in _names(group, 'weight_names')]


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
    if named and (fc is not None or len(layers) == len(CONVOLUTIONS)):
        return build(entries, Convention('Keras (rcmalli)', False, 'bgr'), wish)
    if fc is None and len(layers) > len(CONVOLUTIONS):
        return build(entries, Convention('Keras (deepface)', False, 'rgb'), wish)
    why = 'RGB is what files made from MatConvNet want; BGR is what files made from Caffe want.'
    return build(entries, Convention('Keras, layers without names', False, '', why), wish)


def _places(names: list[str], named: bool) -> list[str]:
    """The layer of the net behind each layer of the file: by its name, or if all are automatic by its order."""
    if named or not all(_AUTOMATIC.fullmatch(name) for name in names):
        return [name if name in LAYERS else '' for name in names]
    order = CONVOLUTIONS + DENSE
    return [order[index] if index < len(order) else '' for index in range(len(names))]


def _transposed(tensor: Tensor) -> Tensor:
    """A matrix of a Theano file as [out,in], like its kernels."""
    if len(tensor.shape) != 2:
        return tensor
    return Tensor(tensor.name, tensor.shape[::-1], lambda: tensor.read().T)


def _names(node: Node, title: str) -> list[str]:
    """The texts of an attribute; long lists are split into title0, title1, ..."""
    there = node.attributes()
    if title in there:
        return node.texts(title)
    found: list[str] = []
    for index in range(len(there)):
        if f'{title}{index}' not in there:
            break
        found += node.texts(f'{title}{index}')
    return found


def _text(node: Node, title: str) -> str:
    return ''.join(node.texts(title)[:1]) if title in node.attributes() else ''
