"""The nets, losses and optimisers against plain PyTorch, from the same weights, to 1e-5 relative in float32.

"Relative" is the largest difference over the largest value of a tensor. The PyTorch nets are written from the
publications, in PyTorch's own layout; weights go over by transposition.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fn2en_jax import losses, optim, trees
from fn2en_jax.models.expression_net import ExpressionNet
from fn2en_jax.models.vgg_face import LAYERS, VGGFace

torch = pytest.importorskip('torch')
F = torch.nn.functional

TOLERANCE = 1e-5
MEAN = (129.1863, 104.7624, 93.5940)
SCALE = 1 / 64  # keeps random nets' logits small, so that the gradient of the cross-entropy is not zero
BLOCKS = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
WIDTHS = (6, 8, 8, 10, 10)  # of the expression net
CLASSES = 5
EXAMPLES_FOR_NORM = 8  # the variance of fewer amplifies rounding errors
COLOUR, GREY = ((75, 67), 3), ((67, 91), 1)  # size, channels


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_close(found, expected, name):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, name
    gap = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert gap < TOLERANCE, f'{name}: {gap:.2e}'


def assert_all_close(found, expected):
    assert set(found) == set(expected)
    for name in found:
        assert_close(found[name], expected[name], name)


# ------------------------------------------------------------------------------------ the same random net in both


def faces(size, channels, batch):
    """Noise, each image of its own contrast and tint: batch norm takes what images share away, so they must differ."""
    draw = np.random.default_rng(11)
    contrast, tint = draw.uniform(0.1, 1, (batch, 1, 1, 1)), draw.uniform(0, 1, (batch, 1, 1, channels))
    noise = draw.uniform(0, 1, (batch, *size, channels))
    return np.floor(256 * (contrast * noise + (1 - contrast) * tint)).astype(np.float32)


def drawn(net, image):
    """Random variables of a Flax net; biases and statistics too, so that a forgotten one shows."""
    draw = np.random.default_rng(3)

    def leaf(path, abstract):
        name, shape = path[-1].key, abstract.shape
        if name == 'kernel':
            fan_in = np.prod(shape[:-1]) if path[-2].key != 'adapter' else 4 * shape[2]
            return jnp.float32(draw.normal(size=shape) * np.sqrt(2 / fan_in))
        if name in ('scale', 'var'):
            return jnp.float32(draw.uniform(0.5, 1.5, shape))
        return jnp.float32(draw.normal(size=shape) * 0.1)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(net.init, jax.random.PRNGKey(0), image))


def to_torch(name, array, map_shape):
    """A Flax leaf in PyTorch's layout. map_shape: (h, w, C) of the map that a flattening layer reads, or None."""
    array = np.asarray(array)
    if array.ndim == 4 and 'adapter' in name and map_shape == 'transposed':
        return array[::-1, ::-1].transpose(2, 3, 0, 1)  # gradient-style convolution: flipped, (in, out, h, w)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2 and isinstance(map_shape, tuple):
        return array.reshape(*map_shape, -1).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
    return array.T if array.ndim == 2 else array


def from_torch(name, array, map_shape):
    """The inverse of `to_torch`."""
    array = np.asarray(array)
    if array.ndim == 4 and 'adapter' in name and map_shape == 'transposed':
        return array.transpose(2, 3, 0, 1)[::-1, ::-1]
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and isinstance(map_shape, tuple):
        height, width, channels = map_shape
        return array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, len(array))
    return array.T if array.ndim == 2 else array


def channels_last(tensor):
    array = tensor.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def weights(variables, map_shapes):
    """{'conv1_1/kernel': leaf tensor that requires a gradient, ...} for PyTorch, statistics included."""
    named = {}
    for kind, tree in variables.items():
        for name, leaf in trees.paths(tree).items():
            array = np.ascontiguousarray(to_torch(name, leaf, map_shapes.get(name)))
            named[name] = torch.tensor(array, requires_grad=kind == 'params')
    return named


def gradients(named, map_shapes):
    return {
        name: from_torch(name, tensor.grad, map_shapes.get(name))
        for name, tensor in named.items()
        if tensor.requires_grad
    }


# ---------------------------------------------------------------------------------------------- the PyTorch nets


class Peer:
    """Functional layers over named weights that note what every layer gives."""

    def __init__(self, named, train=False):
        self.named, self.train, self.outputs = named, train, {}

    def note(self, name, x):
        self.outputs[name] = x
        return x

    def conv(self, name, x, padding):
        return self.note(name, F.conv2d(x, self.named[f'{name}/kernel'], self.named[f'{name}/bias'], padding=padding))

    def linear(self, name, x):
        return self.note(name, F.linear(x, self.named[f'{name}/kernel'], self.named[f'{name}/bias']))

    def norm(self, name, x):
        if f'{name}_bn/scale' not in self.named:
            return x
        part = {key: self.named[f'{name}_bn/{key}'] for key in ('mean', 'var', 'scale', 'bias')}
        count, before = x.numel() / x.shape[1], part['var']
        mean, var = part['mean'].clone(), part['var'].clone()
        x = F.batch_norm(x, mean, var, part['scale'], part['bias'], self.train, 0.1, 1e-5)
        if self.train:  # PyTorch's running variance takes the unbiased estimate, Flax's the biased one
            var = 0.9 * before + (var - 0.9 * before) * (count - 1) / count
        self.named |= {f'{name}_bn/mean': mean, f'{name}_bn/var': var}
        return self.note(f'{name}_bn', x)


def normalised(image, repeat):
    x = torch.tensor(image.transpose(0, 3, 1, 2).copy())
    if x.shape[1] == 1 and repeat:
        x = x.repeat(1, 3, 1, 1)
    mean = torch.tensor(MEAN if x.shape[1] == 3 else (sum(MEAN) / 3,)).reshape(1, -1, 1, 1)
    return (x - mean) * SCALE


def face_net(peer, image):
    x = normalised(image, repeat=True)
    found = {}
    for block, depth in BLOCKS:
        for index in range(1, depth + 1):
            name = f'conv{block}_{index}'
            x = F.relu(peer.norm(name, peer.conv(name, x, padding=1)))
        found[name] = x
        x = found[f'pool{block}'] = F.max_pool2d(x, 2, 2)
    x = torch.flatten(x, 1)
    for name in ('fc6', 'fc7'):
        x = found[name] = F.relu(peer.norm(name, peer.linear(name, x)))
    return found | {'fc8': peer.linear('fc8', x)}


def expression_features(peer, image, target_shape):
    x = normalised(image, repeat=False)
    found = {}
    for index in range(1, len(WIDTHS) + 1):
        name = f'features/conv{index}'
        x = found[f'conv{index}'] = F.relu(peer.norm(name, peer.conv(name, x, padding=1)))
        x = found[f'pool{index}'] = F.max_pool2d(x, 2, 2)
    return found | {'features': bridged(peer, x, target_shape)}


def bridged(peer, x, target_shape):
    if len(target_shape) == 1:
        return peer.linear('features/bridge', torch.flatten(x, 1))
    x = peer.conv('features/bridge', x, padding=0)
    source, size = tuple(x.shape[2:]), target_shape[:2]
    if source == size:
        return x
    kernel, bias = peer.named['features/adapter/kernel'], peer.named['features/adapter/bias']
    sides = list(zip(source, size, strict=True))
    if size < source:
        return peer.note('features/adapter', F.conv2d(x, kernel, bias, [s // t for s, t in sides]))
    x = peer.note('features/adapter', F.conv_transpose2d(x, kernel, bias, [-(-t // s) for s, t in sides]))
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
    return x[:, :, top : top + size[0], left : left + size[1]]


def expression_net(peer, image, target_shape):
    maps = expression_features(peer, image, target_shape)
    x = peer.linear('head/fc1', torch.flatten(maps['features'], 1))
    hidden = F.relu(peer.norm('head/fc1', x))
    return {**maps, 'hidden': hidden, 'logits': peer.linear('head/fc2', hidden)}


# --------------------------------------------------------------------------------------------------- the set-up


@functools.cache
def teacher(size, channels, batch_norm=False):
    image = faces(size, channels, batch=EXAMPLES_FOR_NORM if batch_norm else 3)
    net = VGGFace(CLASSES, width=1 / 16, fc_features=256, batch_norm=batch_norm, input_scale=SCALE)
    variables = drawn(net, image)
    last = (size[0] // 32, size[1] // 32, variables['params']['conv5_3']['bias'].size)
    return net, variables, image, {'fc6/kernel': last}


def student(size, channels, target_shape, batch_norm=False):
    image = faces(size, channels, batch=EXAMPLES_FOR_NORM if batch_norm else 3)
    net = ExpressionNet(CLASSES, WIDTHS, target_shape, hidden=12, batch_norm=batch_norm, input_scale=SCALE)
    last = (size[0] // 32, size[1] // 32)
    if len(target_shape) == 1:
        shapes = {'features/bridge/kernel': (*last, WIDTHS[-1])}
    else:
        shapes = {'head/fc1/kernel': target_shape}
        if target_shape[:2] > last:
            shapes['features/adapter/kernel'] = 'transposed'
    return net, drawn(net, image), image, shapes


@functools.cache
def taught(size, channels):
    """Every activation of the face net, ours and PyTorch's."""
    net, variables, image, shapes = teacher(size, channels)
    with torch.no_grad():
        return jax.jit(net.apply)(variables, image), face_net(Peer(weights(variables, shapes)), image)


def target_shape(layer, size, channels):
    return taught(size, channels)[0][layer].shape[1:]


def captured(net, variables, image, train=False):
    """Outputs, every named layer's output, and the variables after the call."""
    mutable = ['intermediates', 'batch_stats'] if train else ['intermediates']
    apply = jax.jit(functools.partial(net.apply, train=train, capture_intermediates=True, mutable=mutable))
    outputs, after = apply(variables, image)
    layers = {name.removesuffix('/__call__/0'): leaf for name, leaf in trees.paths(after['intermediates']).items()}
    return outputs, layers, trees.paths(after.get('batch_stats', {}))


def assert_same_forward(net, variables, image, map_shapes, run, train=False):
    outputs, layers, stats = captured(net, variables, image, train)
    named = weights(variables, map_shapes)
    if train:
        # Batch norm divides by the deviation of a few examples, which magnifies rounding from layer to layer. Ours
        # stays within the tolerance of the exact values; PyTorch's float32 does not always, so it computes in float64.
        named, image = {name: tensor.double() for name, tensor in named.items()}, image.astype(np.float64)
    peer = Peer(named, train)
    with torch.no_grad():
        expected = run(peer, image)
    assert_all_close(outputs, {name: channels_last(tensor) for name, tensor in expected.items()})
    named_layers = {name: leaf for name, leaf in layers.items() if name in peer.outputs}
    assert set(peer.outputs) == {name.rsplit('/', 1)[0] for name in trees.paths(variables['params'])}
    assert_all_close(named_layers, {name: channels_last(tensor) for name, tensor in peer.outputs.items()})
    assert_all_close(stats, {name: peer.named[name] for name in stats})
    assert bool(stats) == train


# --------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize(('size', 'channels'), [((32, 32), 3), ((75, 61), 3), GREY])
def test_teacher_forward(size, channels):
    assert_same_forward(*teacher(size, channels), face_net)


@pytest.mark.parametrize('train', [False, True])
def test_teacher_forward_with_batch_norm(train):
    assert_same_forward(*teacher((75, 67), 3, batch_norm=True), face_net, train)


@pytest.mark.parametrize(
    ('layer', 'size', 'channels'),
    [
        *((layer, *COLOUR) for layer in LAYERS),
        *((layer, *GREY) for layer in ('pool4', 'pool5', 'fc6')),
    ],
)
def test_student_forward_for_every_supervising_layer(layer, size, channels):
    shape = target_shape(layer, size, channels)
    assert_same_forward(*student(size, channels, shape), functools.partial(expression_net, target_shape=shape))


def test_student_forward_with_a_reducing_adapter():
    shape = (2, 1, 7)  # the last map of 101x75 is 3x2
    assert_same_forward(*student((101, 75), 3, shape), functools.partial(expression_net, target_shape=shape))


@pytest.mark.parametrize('train', [False, True])
def test_student_forward_with_batch_norm(train):
    run = functools.partial(expression_net, target_shape=(2, 2, 7))
    assert_same_forward(*student((75, 67), 3, (2, 2, 7), batch_norm=True), run, train)


@pytest.mark.parametrize(
    ('layer', 'p', 'size', 'channels'),
    [
        ('pool3', 2.0, *COLOUR),
        ('pool4', 1.5, *GREY),
        ('pool5', 1.5, *COLOUR),
        ('pool5', 2.0, *GREY),
        ('fc6', 2.0, *COLOUR),
        ('fc7', 1.5, *GREY),
    ],
)
def test_gradients_of_stage_one(layer, p, size, channels):
    """L1 = ||g(I) - G(I)||_p^p, summed over features, mean over the batch; each framework with its own teacher."""
    shape = target_shape(layer, size, channels)
    net, variables, image, shapes = student(size, channels, shape)
    target, peer_target = (activations[layer] for activations in taught(size, channels))
    head = {name for name in trees.paths(variables['params']) if name.startswith('head/')}

    def loss(params):
        pred = net.apply({'params': params}, image)['features']
        return jnp.mean(losses.feature_regression(pred, target, p=p))

    value, found = jax.jit(jax.value_and_grad(loss))(variables['params'])
    named = {name: leaf for name, leaf in weights(variables, shapes).items() if name not in head}
    difference = expression_features(Peer(named), image, shape)['features'] - peer_target
    expected = difference.abs().pow(p).flatten(1).sum(1).mean()
    expected.backward()
    assert_close(value, expected.detach(), 'loss')
    found = trees.paths(found)
    assert all((np.asarray(found.pop(name)) == 0).all() for name in head)  # stage 1 does not touch the head
    assert_all_close(found, gradients(named, shapes))


def cross_entropy_gradients(net, variables, image, shapes, run, logits, train):
    """The gradients with respect to all parameters, ours and PyTorch's."""
    labels = np.arange(len(image)) % CLASSES
    rest = {kind: tree for kind, tree in variables.items() if kind != 'params'}

    def loss(params):
        outputs, _ = net.apply({'params': params} | rest, image, train=train, mutable='batch_stats')
        return jnp.mean(losses.cross_entropy(outputs[logits], jnp.array(labels)))

    value, found = jax.jit(jax.value_and_grad(loss))(variables['params'])
    named = weights(variables, shapes)
    expected = F.cross_entropy(run(Peer(named, train), image)[logits], torch.tensor(labels))
    expected.backward()
    assert_close(value, expected.detach(), 'loss')
    return trees.paths(found), gradients(named, shapes)


@pytest.mark.parametrize(('size', 'channels'), [COLOUR, GREY])
def test_gradients_of_fine_tuning(size, channels):
    found, expected = cross_entropy_gradients(*teacher(size, channels), face_net, 'fc8', train=False)
    assert_all_close(found, expected)


@pytest.mark.parametrize(
    ('layer', 'size', 'channels'), [('pool4', *COLOUR), ('pool5', *COLOUR), ('pool5', *GREY), ('fc7', *GREY)]
)
def test_gradients_of_stage_two(layer, size, channels):
    shape = target_shape(layer, size, channels)
    run = functools.partial(expression_net, target_shape=shape)
    assert_all_close(*cross_entropy_gradients(*student(size, channels, shape), run, 'logits', train=False))


def test_gradients_of_the_scratch_net_with_batch_norm():
    run = functools.partial(expression_net, target_shape=(2, 2, 7))
    parts = student((75, 67), 3, (2, 2, 7), batch_norm=True)
    found, expected = cross_entropy_gradients(*parts, run, 'logits', train=True)
    before_norm = [name for name in found if name.endswith('bias') and f'{name[:-5]}_bn/bias' in found]
    before_norm.append('features/bridge/bias')  # linear up to fc1_bn
    for name in before_norm:  # exactly zero in theory: the mean takes the bias out again
        kernel = np.abs(expected[f'{name[:-4]}kernel']).max()
        assert np.abs(found.pop(name)).max() < TOLERANCE * kernel
        assert np.abs(expected.pop(name)).max() < TOLERANCE * kernel
    assert len(before_norm) == len(WIDTHS) + 2
    assert_all_close(found, expected)


@pytest.mark.parametrize('arguments', [{}, {'label_smoothing': 0.1}, {'class_weights': (0.5, 2.0, 1.0, 0.0, 3.0)}])
def test_cross_entropy(arguments):
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(20, CLASSES)).astype(np.float32) * 4, draw.integers(0, CLASSES, 20)
    found = losses.cross_entropy(
        jnp.array(logits),
        jnp.array(labels),
        **{key: jnp.array(value) if isinstance(value, tuple) else value for key, value in arguments.items()},
    )
    expected = F.cross_entropy(
        torch.tensor(logits),
        torch.tensor(labels),
        reduction='none',
        weight=torch.tensor(arguments['class_weights']) if 'class_weights' in arguments else None,
        label_smoothing=arguments.get('label_smoothing', 0.0),
    )
    assert_close(found, expected, 'loss')


@pytest.mark.parametrize('kind', ['sgd', 'adamw'])
@pytest.mark.parametrize('clip_norm', [0.0, 2.0])
def test_optimisers_at_a_constant_rate(kind, clip_norm):
    draw = np.random.default_rng(0)
    start = {'kernel': draw.normal(size=(4, 3)).astype(np.float32), 'bias': draw.normal(size=3).astype(np.float32)}
    steps = [{name: draw.normal(size=leaf.shape).astype(np.float32) for name, leaf in start.items()} for _ in range(20)]
    rate = optim.schedule('constant', base=0.05, total_steps=20, steps_per_epoch=1)
    ours = optim.optimiser(kind, learning_rate=rate, weight_decay=0.1, decay_mask='all', clip_norm=clip_norm)
    params = {name: jnp.array(leaf) for name, leaf in start.items()}
    state = ours.init(params)

    named = {name: torch.tensor(leaf, requires_grad=True) for name, leaf in start.items()}
    theirs = (
        torch.optim.SGD(named.values(), lr=0.05, momentum=0.9, weight_decay=0.1)
        if kind == 'sgd'
        else torch.optim.AdamW(named.values(), lr=0.05, weight_decay=0.1)
    )
    for step in steps:
        updates, state = ours.update(jax.tree.map(jnp.array, step), state, params)
        params = optax.apply_updates(params, updates)
        for name, tensor in named.items():
            tensor.grad = torch.tensor(step[name])
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(named.values(), clip_norm)
        theirs.step()
    assert_all_close(params, {name: tensor.detach() for name, tensor in named.items()})
