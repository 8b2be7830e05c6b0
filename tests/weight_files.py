"""Writes a canonical VGG-16 face net in every published form, independently of the readers under test.

What is known of each form comes from its own program: SciPy writes MATLAB files, PyTorch writes its own, h5py the HDF5
ones; Caffe's protobuf and Torch7's stream are put together here byte by byte.
"""

import struct
import zipfile
from collections import OrderedDict

import h5py
import numpy as np
import scipy.io
import torch

BLOCKS = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
CONVOLUTIONS = [f'conv{block}_{index}' for block, depth in BLOCKS for index in range(1, depth + 1)]
DENSE = ['fc6', 'fc7', 'fc8']
LAYERS = CONVOLUTIONS + DENSE
CHANNELS = (4, 8, 16, 32, 32)  # width 1/16
FEATURES, CLASSES = 24, 5
MEAN = (129.1863, 104.7624, 93.5940)


def net(seed=0, side=(7, 7), features=FEATURES, classes=CLASSES, channels=CHANNELS):
    """A random canonical net: {layer: (kernel, bias)}, kernels [h,w,in,out], fc6 as such a kernel over its map."""
    draw = np.random.default_rng(seed)
    sizes = [(3, 3, channels[int(name[4]) - 1]) for name in CONVOLUTIONS]
    sizes += [(*side, features), (1, 1, features), (1, 1, classes)]
    made, into = {}, 3
    for name, (height, width, out) in zip(LAYERS, sizes, strict=True):
        scale = np.float32(np.sqrt(2 / (height * width * into)))
        kernel = draw.standard_normal((height, width, into, out), np.float32) * scale
        made[name] = (kernel, draw.standard_normal(out, np.float32) * np.float32(0.1))
        into = out
    return made


def canonical(made):
    """The variables that reading it must give."""
    return {
        name: {'kernel': kernel.reshape(-1, kernel.shape[3]) if name in DENSE else kernel, 'bias': bias}
        for name, (kernel, bias) in made.items()
    }


def for_bgr(made):
    """The same net for input whose colours are in the order B, G, R."""
    kernel, bias = made['conv1_1']
    return made | {'conv1_1': (kernel[:, :, ::-1], bias)}


def oihw(kernel):
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def matrix(kernel):
    """[out, in] with inputs in the order C, H, W."""
    return oihw(kernel).reshape(kernel.shape[3], -1)


# ------------------------------------------------------------------------------------------------------ MatConvNet


def cell(items):
    out = np.empty((1, len(items)), object)
    out[0, :] = items
    return out


def sequence(made):
    """The layers of the simplenn net in order: (name, type, weights or None)."""
    found = []
    for block, depth in BLOCKS:
        for index in range(1, depth + 1):
            found += [(f'conv{block}_{index}', 'conv'), (f'relu{block}_{index}', 'relu')]
        found.append((f'pool{block}', 'pool'))
    found += [('fc6', 'conv'), ('relu6', 'relu'), ('dropout6', 'dropout')]
    found += [('fc7', 'conv'), ('relu7', 'relu'), ('dropout7', 'dropout'), ('fc8', 'conv'), ('prob', 'softmax')]
    return [(name, kind, made.get(name)) for name, kind in found]


def description(names):
    out = np.empty((len(names), 1), object)
    out[:, 0] = names
    return {'name': out.copy(), 'description': out}


def normalization(made, image=None):
    mean = np.array(MEAN, np.float32).reshape(1, 1, 3) if image is None else image
    size = [32.0 * side for side in made['fc6'][0].shape[:2]]
    return {'imageSize': np.array([*size, 3.0]), 'averageImage': mean, 'keepAspect': np.uint8(1)}


def simple_layer(name, kind, weights, column, old, momentum=True):
    layer = {'name': name, 'type': kind}
    if weights:
        kernel, bias = weights
        bias = bias.reshape((-1, 1) if column else (1, -1))
        layer |= {'filters': kernel, 'biases': bias} if old else {'weights': cell([kernel, bias])}
        layer |= {'stride': np.array([1.0, 1]), 'pad': 0.0 if name in DENSE else 1.0}
        layer |= {'momentum': cell([np.zeros_like(kernel), np.zeros_like(bias)])} if momentum else {}
    if kind == 'pool':
        layer |= {'method': 'max', 'pool': np.array([2.0, 2]), 'stride': 2.0, 'pad': np.array([0.0, 1, 0, 1])}
    return layer


def matconvnet(path, made, form='oxford', names=(), compressed=True, image=None, momentum=True, edit=None):
    """form: 'oxford' (net), 'beta16' (top level), 'beta17' (layers, meta), 'old' (filters, biases), 'dag'."""
    info = {'normalization': normalization(made, image)} | ({'classes': description(names)} if names else {})
    if form == 'dag':
        content = dag(made) | {'meta': info}
    else:
        old, column = form == 'old', form != 'beta16'
        layers = [simple_layer(*layer, column, old, momentum) for layer in sequence(made)]
        content = {'layers': cell(edit(layers) if edit else layers)}
        content |= {'meta': info} if form == 'beta17' else info
        content = {'net': content} if form in ('oxford', 'old') else content
    scipy.io.savemat(path, content, do_compression=compressed)


def dag(made):
    """The params in another order than the layers: only the layers' own lists say what belongs where."""
    params, layers = [], []
    for name, kind, weights in sequence(made):
        mine = [f'{name}_filter', f'{name}_bias'] if weights else []
        params += [
            {'name': key, 'value': array, 'learningRate': 1.0} for key, array in zip(mine, weights or (), strict=True)
        ]
        block = {'size': [1.0, 2], 'stride': [1.0, 1], 'pad': 0.0 if name in DENSE else 1.0}
        if kind == 'pool':
            block = {'method': 'max', 'poolSize': [2.0, 2], 'stride': [2.0, 2], 'pad': 0.0}
        title = {'pool': 'Pooling', 'relu': 'ReLU', 'softmax': 'SoftMax'}.get(kind, 'Conv')
        layers.append({'name': name, 'type': f'dagnn.{title}', 'params': cell(mine), 'block': block})
    return {'layers': structs(layers), 'params': structs(params[::-1]), 'vars': structs([{'name': 'x0'}])}


def structs(dicts):
    out = np.empty((1, len(dicts)), [(key, object) for key in dicts[0]])
    for index, values in enumerate(dicts):
        out[0, index] = tuple(values.values())
    return out


# ------------------------------------------------------------------------------------------------------------ Caffe


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, content):
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def integer(number, value):
    return varint(number << 3) + varint(value)


def blob(array, packed, legacy, double):
    dtype, number = ('<f8', 8) if double else ('<f4', 5)
    values = array.astype(dtype).reshape(-1)
    if packed:
        data = field(number, values.tobytes())
    else:
        key = varint(number << 3 | (1 if double else 5))
        rows = np.concatenate(
            [np.full((values.size, 1), key[0], np.uint8), values.view(np.uint8).reshape(values.size, -1)], 1
        )
        data = rows.tobytes()
    if legacy:
        shape = (1,) * (4 - array.ndim) + array.shape
        return b''.join(integer(n, size) for n, size in enumerate(shape, 1)) + data
    return data + field(7, field(1, b''.join(map(varint, array.shape))))


def caffe_layer(form, name, kind, blobs, said=b''):
    """said: what the layer says of itself, a whole field."""
    if form == 'V1':
        return field(2, field(4, name) + integer(5, kind) + b''.join(field(6, b) for b in blobs) + said)
    if form == 'V0':
        return field(2, field(1, field(1, name) + field(2, b'conv') + b''.join(field(50, b) for b in blobs)))
    blobs = b''.join(field(7, b) for b in blobs)
    return field(100, field(1, name) + field(2, b'Convolution') + blobs + integer(10, 0) + said)


def caffe_geometry(form, name, pad=1, kernel=3, stride=1, pools=False):
    """convolution_param or pooling_param as a field of its layer; as Caffe does, the usual is left out."""
    if name in DENSE or form == 'V0':
        return b''
    numbers = (4, 2, 3) if pools else (3, 4, 6)
    usual = zip(numbers, (pad, kernel, stride), (0, None, 1), strict=True)
    said = b''.join(integer(number, value) for number, value, unsaid in usual if value != unsaid)
    if not pools:
        said = integer(1, 64) + said + field(7, field(1, b'gaussian'))
    return field({'V1': (10, 19), 'new': (106, 121)}[form][pools], said)


def caffe(path, made, form='V1', packed=True, legacy=True, double=False, edit=None, head=None, said=caffe_geometry):
    pieces = [field(1, b'VGG_FACE_16_layers'), field(3, b'data')] if head is None else [head]
    for name, (kernel, bias) in for_bgr(made).items():
        array = matrix(kernel) if name in DENSE else oihw(kernel)
        blobs = [blob(array, packed, legacy, double), blob(bias, packed, legacy, double)]
        pieces.append(caffe_layer(form, name.encode(), 14 if name in DENSE else 4, blobs, said(form, name)))
        pieces.append(caffe_layer(form, b'relu_' + name.encode(), 18, []))
        if (name[:5], int(name[-1])) in [(f'conv{block}', depth) for block, depth in BLOCKS]:
            pool = caffe_geometry(form, name, 0, 2, 2, pools=True)
            pieces.append(caffe_layer(form, b'pool' + name[4:5].encode(), 17, [], pool))
    out = b''.join(pieces)
    path.write_bytes(edit(out) if edit else out)


# ----------------------------------------------------------------------------------------------------------- Torch7


class T7:
    """Torch7's binary stream."""

    def __init__(self, double):
        self.out, self.objects, self.double = bytearray(), 0, double

    def int(self, *values):
        self.out += struct.pack(f'<{len(values)}i', *values)

    def text(self, value):
        self.int(len(value))
        self.out += value

    def value(self, value):
        if value is None:
            self.int(0)
        elif isinstance(value, bool):
            self.int(5, value)
        elif isinstance(value, (int, float)):
            self.int(1)
            self.out += struct.pack('<d', value)
        elif isinstance(value, bytes):
            self.int(2)
            self.text(value)
        elif isinstance(value, dict):
            self.objects += 1
            self.int(3, self.objects, len(value))
            for key, item in value.items():
                self.value(key)
                self.value(item)
        elif isinstance(value, np.ndarray):
            self.tensor(value)
        elif value == 'function':
            self.objects += 1
            self.int(8, self.objects)
            self.text(b'\x1bLuaR code')
            self.value({})
        else:
            kind, fields = value
            self.begin(kind)
            self.value(fields)

    def begin(self, kind):
        self.objects += 1
        self.int(4, self.objects)
        self.text(b'V 1')
        self.text(kind)

    def tensor(self, array):
        name = b'Double' if self.double else b'Float'
        self.begin(b'torch.' + name + b'Tensor')
        self.int(array.ndim)
        strides = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
        self.out += struct.pack(f'<{2 * array.ndim + 1}q', *array.shape, *strides, 3)  # the third value of its storage
        self.begin(b'torch.' + name + b'Storage')
        values = np.concatenate([[9, 9], array.reshape(-1)]).astype('<f8' if self.double else '<f4')
        self.out += struct.pack('<q', values.size) + values.tobytes()


def torch7_modules(made, flat=True, gradients=True):
    bgr = for_bgr(made)

    def weighted(kind, name):
        kernel, bias = bgr[name]
        weight = oihw(kernel) if kind == b'nn.SpatialConvolution' and not flat else matrix(kernel)
        fields = {b'train': False, b'weight': weight, b'bias': bias, b'output': None}
        if name in CONVOLUTIONS:
            fields |= {b'kW': 3, b'kH': 3, b'dW': 1, b'dH': 1, b'padW': 1, b'padH': 1}
        return kind, fields | ({b'gradWeight': np.zeros_like(weight)} if gradients else {})

    found = []
    convolution = b'nn.SpatialConvolutionMM' if flat else b'nn.SpatialConvolution'
    for block, depth in BLOCKS:
        for index in range(1, depth + 1):
            found += [weighted(convolution, f'conv{block}_{index}'), (b'nn.ReLU', {b'inplace': True})]
        found.append((b'nn.SpatialMaxPooling', {b'kW': 2, b'kH': 2, b'dW': 2, b'dH': 2, b'hook': 'function'}))
    found.append((b'nn.View', {b'numElements': 25088}))
    for name in ('fc6', 'fc7'):
        found += [weighted(b'nn.Linear', name), (b'nn.ReLU', {}), (b'nn.Dropout', {b'p': 0.5})]
    return [*found, weighted(b'nn.Linear', 'fc8'), (b'nn.SoftMax', {})]


def padded(modules):
    """As old programs wrote it: a module that pads before each convolution, which does not."""
    found = []
    for kind, fields in modules:
        if b'padW' in fields:
            found.append((b'nn.SpatialZeroPadding', {b'pad_l': 1, b'pad_r': 1, b'pad_t': 1, b'pad_b': 1}))
            fields = {key: value for key, value in fields.items() if key not in (b'padW', b'padH')} | {b'padding': 0}
        found.append((kind, fields))
    return found


def sequential(modules):
    return b'nn.Sequential', {b'modules': dict(enumerate(modules, 1)), b'train': False}


def torch7(path, made, double=False, flat=True, nested=False, gradients=True, edit=None):
    modules = torch7_modules(made, flat, gradients)
    if nested:
        modules = [sequential(modules[:31]), sequential(modules[31:])]
    writer = T7(double)
    writer.value(sequential(edit(modules) if edit else modules))
    path.write_bytes(writer.out)


# ---------------------------------------------------------------------------------------------------------- PyTorch

TORCHVISION = [f'features.{n}' for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
NAMES = {
    'dag': LAYERS,
    'fer': LAYERS,
    'caffe': LAYERS,
    'prlz77': [name.replace('conv', 'conv_') for name in LAYERS],
    'pyvggface': [f'features.{name.replace("conv", "conv_")}' for name in CONVOLUTIONS] + [f'fc.{n}' for n in DENSE],
    'parallel': [f'module.{name.replace("conv", "conv_")}' for name in LAYERS],
    'torchvision': [*TORCHVISION, 'classifier.0', 'classifier.3', 'classifier.6'],
    'timm': [*TORCHVISION, 'pre_logits.fc1', 'pre_logits.fc2', 'head.fc'],
}
IMAGENET_STD = np.array([0.229, 0.224, 0.225]) * 255


def state(made, naming='dag', bgr=None):
    """Key -> array. bgr: the colours that the dict is for; None for those of its naming."""
    bgr = naming in ('caffe', 'prlz77', 'pyvggface', 'parallel') if bgr is None else bgr
    found = OrderedDict()
    for name, key in zip(LAYERS, NAMES[naming], strict=True):
        kernel, bias = (for_bgr(made) if bgr else made)[name]
        as_convolution = name in CONVOLUTIONS or (naming == 'fer' and name == 'fc6') or (
            naming == 'timm' and name in ('fc6', 'fc7')
        )  # fmt: skip
        weight = oihw(kernel) if as_convolution else matrix(kernel)
        if naming == 'caffe':
            weight = weight.reshape((1,) * (4 - weight.ndim) + weight.shape)
            bias = bias.reshape(1, 1, 1, -1)
        found |= {f'{key}.weight': weight, f'{key}.bias': bias}
    return found


def pytorch(path, arrays, zipped=True, wrap=None):
    tensors = OrderedDict((name, torch.from_numpy(array.copy())) for name, array in arrays.items())
    tensors._metadata = OrderedDict(version=1)
    torch.save({wrap: tensors, 'epoch': 3} if wrap else tensors, path, _use_new_zipfile_serialization=zipped)


# ------------------------------------------------------------------------------------------------------------ Keras


def keras_arrays(made, kind):
    """The layers as (name, [kernel, bias]) in the file's convention."""
    source = for_bgr(made) if kind in ('rcmalli', 'notop') else made
    found = []
    for name in CONVOLUTIONS if kind == 'notop' else LAYERS:
        kernel, bias = source[name]
        if kind == 'rcmalli' and name in DENSE:
            kernel = kernel.reshape(-1, kernel.shape[3])
        if kind == 'theano':
            kernel = oihw(kernel[::-1, ::-1])
        if kind == 'theano-fc':
            kernel = matrix(kernel).T if name in DENSE else oihw(kernel[::-1, ::-1])
        found.append((name, [kernel, bias]))
    return found


def keras(path, made, kind='rcmalli', version=2, automatic=False, full=False, backend='tensorflow', edit=None):
    """kind: 'rcmalli', 'notop', 'deepface', 'theano', 'theano-fc'. automatic: layers named conv2d_7 and the like."""
    layers = keras_arrays(made, kind)
    if automatic:
        layers = [(f'conv2d_{index}', arrays) for index, (_, arrays) in enumerate(layers, 1)]
    layers = edit(layers) if edit else layers
    with h5py.File(path, 'w') as file:
        root = file.create_group('model_weights') if full else file
        names = [name for name, _ in layers]
        passive = ['input_1', 'pool1', 'flatten', *(['fc6/relu'] if kind == 'rcmalli' else [])]
        root.attrs['layer_names'] = np.array([*passive[:1], *names, *passive[1:]], 'S')
        if version > 1:
            root.attrs['keras_version'], root.attrs['backend'] = b'2.0.4', backend.encode()
        for name, arrays in sorted(layers, key=lambda layer: layer[0][::-1]):
            group = root.require_group(name)
            paths = keras_paths(name, version, kind)
            group.attrs['weight_names'] = np.array(paths, 'S')
            for inside, array in zip(paths, arrays, strict=True):
                group.create_dataset(inside, data=np.ascontiguousarray(array))
        for name in passive:
            root.require_group(name).attrs['weight_names'] = np.array([], 'S')


def keras_paths(name, version, kind):
    if version == 1:
        end = '' if kind.startswith('theano') else ':0'
        return [f'{name}_W{end}', f'{name}_b{end}']
    if version == 3:
        return [f'sequential/{name}/kernel', f'sequential/{name}/bias']
    return [f'{name}/kernel:0', f'{name}/bias:0']


def keras_3(path, made, kind='rcmalli', named=True, nested=False, edit=None):
    """What Keras 3 writes as .weights.h5: groups by class, counted in each model; the newer ones add names.

    named: the layers have names of their own; None for a version that writes no names. nested: the convolutions are a
    model inside the model.
    """
    counts = {}

    def group(file, model, title, name):
        count = counts[model, title] = counts.get((model, title), -1) + 1
        held = file.create_group(f'{model}layers/{title}_{count}/vars' if count else f'{model}layers/{title}/vars')
        if named is not None:
            held.attrs['name'] = name if named else f'{title}_{count + 40}'
        return held

    with h5py.File(path, 'w') as file:
        file.create_group('vars').attrs['name'] = 'sequential'
        file['optimizer/vars/0'] = np.int32(7)
        for name, arrays in (edit or list)(keras_arrays(made, kind)):
            model = 'layers/functional/' if nested and name in CONVOLUTIONS else ''
            held = group(file, model, 'dense' if arrays[0].ndim == 2 else 'conv2d', name)
            for index, array in enumerate(arrays):
                held[str(index)] = np.ascontiguousarray(array)
            if name in ('fc6', 'fc7'):
                group(file, '', 'dropout', f'drop{name[2]}').parent['seed_generator/vars/0'] = np.arange(2)


def keras_archive(path, made, **options):
    """The same in the archive that Keras 3 writes as .keras."""
    inside = path.with_name('model.weights.h5')
    keras_3(inside, made, **options)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('metadata.json', '{"keras_version": "3.15.1"}')
        archive.writestr('config.json', '{"module": "os", "class_name": "system"}')
        archive.write(inside, inside.name)
    inside.unlink()
