"""Keras weight files (HDF5): layers named in attributes, or Keras 3's groups of variables; no model is built."""

import dataclasses
import re
from collections.abc import Iterator

from fn2en_jax.errors import UserError
from fn2en_jax.weights import pytorch
from fn2en_jax.weights.binary import Bytes
from fn2en_jax.weights.canonical import CONVOLUTIONS, DENSE, LAYERS, PARTS, Convention, Entry, Net, Tensor, Wish, build
from fn2en_jax.weights.hdf5 import Hdf5, Node

_VERSION_1 = re.compile(r'rcmalli_vggface_(tf|th)_weights_(tf|th)_ordering')
_KERAS_1 = re.compile(r'_[Wb]$')
_AUTOMATIC = re.compile(r'(convolution2d|conv2d|dense)(?:_(\d+))?')  # how Keras names layers that have no name
_ASSUMED = (
    'convolutions alone do not tell where they come from; they are taken for those of rcmalli, which read BGR '
    '(if they come from MatConvNet or deepface, say --colour_order=rgb; for a run: config.face_net.colour_order)'
)

# Keras 3's own form: groups that hold no weights of layers, how deep models may nest, and the archive around it.
_NO_LAYERS = {'optimizer', 'seed_generator'}
_DEEPEST = 8
_INSIDE_ARCHIVE = b'model.weights.h5'
_FIRST_IN_ARCHIVE = (b'metadata.json', b'config.json', _INSIDE_ARCHIVE)
_MOST_MEMBERS = 16
_LOCAL_HEADER = 30  # bytes
_PROMISED = 8  # flag of a zip member whose length comes after it


def read(file: Bytes, name: str, wish: Wish) -> Net:
    """Reads an HDF5 file of Keras 1, 2 or 3, or the flat one that caffemodel2pytorch writes.

    Args:
        file: open.
        name: of the file; the one thing that tells version 1 of rcmalli's weights.
        wish: of the user.

    Raises:
        UserError: when the file is damaged, links elsewhere, holds flipped kernels that were not asked for, does not
            tell its layers or colours, or is no VGG-16.
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
            return pytorch.interpret({member: top.at(member).tensor(member) for member in top.members()}, 'HDF5', wish)
        else:
            return _net(_layers_of_keras_3(top), False, wish)
    layers = [(name, tensors) for name, tensors in _layers(root) if tensors]
    if not layers:
        raise UserError('the HDF5 file holds no Keras weights (no layer_names with weights in it)')
    backend = _text(top, 'backend') or _text(root, 'backend')
    theano = backend == 'theano' or (not backend and all(_KERAS_1.search(t.name) for _, found in layers for t in found))
    if theano and not wish.theano_flipped:
        raise UserError(
            'the file comes from Keras with Theano, whose kernels are flipped against every other format; '
            'convert it first with python -m fn2en_jax.convert SRC DST.safetensors --theano_flipped'
        )
    return _net(layers, theano, wish)


def is_archive(head: bytes) -> bool:
    """Whether a zip archive that begins so is a model of Keras 3 (`.keras`)."""
    named = int.from_bytes(head[26:28], 'little')
    return head[_LOCAL_HEADER : _LOCAL_HEADER + named] in _FIRST_IN_ARCHIVE


def read_archive(file: Bytes, wish: Wish) -> Net:
    """Reads the weights of a model of Keras 3 (`.keras`); its architecture, which may name code, is left alone.

    Raises:
        UserError: as `read`, or when the archive is not as Keras writes it.
    """
    at = 0
    for _ in range(_MOST_MEMBERS):
        head = file.read(at, _LOCAL_HEADER) if at + _LOCAL_HEADER <= file.size else b''
        flags, packed = int.from_bytes(head[6:8], 'little'), int.from_bytes(head[8:10], 'little')
        length, named = int.from_bytes(head[18:22], 'little'), int.from_bytes(head[26:28], 'little')
        if head[:4] != b'PK\x03\x04' or flags & _PROMISED:
            break
        begin = at + _LOCAL_HEADER + named + int.from_bytes(head[28:30], 'little')
        if file.read(at + _LOCAL_HEADER, named) == _INSIDE_ARCHIVE and not packed:
            return read(file.part(begin, length), '', wish)
        at = begin + length
    raise UserError(
        'the Keras archive (.keras) holds no model.weights.h5 that can be read here; '
        "save the weights alone with model.save_weights('x.weights.h5')"
    )


def _layers(root: Node) -> Iterator[tuple[str, list[Tensor]]]:
    """Name and tensors of every layer, in the order of the net."""
    names = _names(root, 'layer_names')
    if len(set(names)) != len(names):
        raise UserError('two layers have the same name; this is not one VGG-16 net')
    for name in names:
        group = root.at(name)
        paths = _names(group, 'weight_names')
        inner = {path: path.split('/')[-2] for path in paths if '/' in path} if len(paths) > len(PARTS) else {}
        tensors: dict[str, list[Tensor]] = {}  # by layer: a model inside the model holds several
        for path in paths:
            tensors.setdefault(inner.get(path, name), []).append(group.at(path).tensor(path))
        yield from tensors.items()


# Keras 3's own form: LAYERS/vars/0, LAYERS/vars/1, in groups named after the classes of the layers.


@dataclasses.dataclass(frozen=True)
class _Layer:
    """path: of its group. name: that the user gave it, where the file tells, or of its group."""

    path: tuple[str, ...]
    name: str
    tensors: list[Tensor]

    @property
    def order(self) -> tuple[bool, int]:
        """Within its model: matrices come behind convolutions, and both are counted."""
        match = _AUTOMATIC.fullmatch(self.path[-1])
        return (match[1] == 'dense', int(match[2] or 0)) if match else (True, 0)


def _layers_of_keras_3(root: Node) -> list[tuple[str, list[Tensor]]]:
    """Name and tensors of every layer; in the order of the net where the names do not tell it."""
    found = list(_variables(root, ()))
    if not found:
        raise UserError('the HDF5 file holds no Keras weights (neither layer_names nor vars with weights in them)')
    if not {layer.name for layer in found} & set(LAYERS):
        models = {(layer.path[:-1], layer.order[0]) for layer in found}
        if len(models) > len({dense for _, dense in models}):
            raise UserError(
                'the layers have no names and lie in models inside each other, so their order cannot be told; '
                "name them conv1_1 ... fc8, or save with model.save('x.h5')"
            )
        found.sort(key=lambda layer: layer.order)
    return [(layer.name, layer.tensors) for layer in found]


def _variables(group: Node, path: tuple[str, ...]) -> Iterator[_Layer]:
    """The layers with weights in a group and the groups in it."""
    if len(path) > _DEEPEST:
        raise UserError(f'the file nests deeper than {_DEEPEST} groups; this is no VGG-16 net')
    for member in group.members():
        if member == 'vars' and path:
            held = group.at(member)
            numbers = sorted((number for number in held.members() if number.isdecimal()), key=int)
            tensors = [held.at(number).tensor('/'.join((*path, member, number))) for number in numbers]
            if tensors:
                yield _Layer(path, _name(_text(held, 'name'), path[-1]), tensors)
        elif member not in _NO_LAYERS:
            yield from _variables(group.at(member), (*path, member))


def _name(given: str, group: str) -> str:
    """A layer's name; one that Keras made up counts what the program made before, so its group tells more."""
    return group if not given or _AUTOMATIC.fullmatch(given) else given


# The net.


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
        net = build(entries, Convention('Keras (rcmalli)', False, 'bgr'), wish)
        assumed = (_ASSUMED,) if fc is None and not wish.colour_order else ()
        return dataclasses.replace(net, notes=(*net.notes, *assumed))
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
