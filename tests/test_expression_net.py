import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import rng, trees
from fn2en_jax.models import expression_net
from fn2en_jax.models.expression_net import ExpressionFeatures, ExpressionNet
from fn2en_jax.models.vgg_face import LAYERS, VGGFace
from tests.nets import compiled, filled

KEY = rng.stream(0, 'init')
NARROW = (4, 4, 6, 6, 8)


def faces(shape=(4, 32, 32, 3), seed=1):
    return jnp.float32(np.random.default_rng(seed).integers(0, 256, shape))


def small(**arguments):
    defaults = {'num_classes': 5, 'features': NARROW, 'target_shape': (1, 1, 7), 'hidden': 16}
    return ExpressionNet(**defaults | arguments)


@functools.cache
def variables(batch_norm=False):
    return filled(small(batch_norm=batch_norm), faces())


def shapes(tree):
    return {name: leaf.shape for name, leaf in trees.paths(tree).items()}


def test_it_is_the_papers_net():
    params = jax.eval_shape(ExpressionNet(7).init, KEY, jnp.zeros((1, 224, 224, 3)))['params']
    kernels = {name: shape for name, shape in shapes(params).items() if name.endswith('kernel')}
    assert kernels == {
        'features/conv1/kernel': (3, 3, 3, 64),
        'features/conv2/kernel': (3, 3, 64, 128),
        'features/conv3/kernel': (3, 3, 128, 256),
        'features/conv4/kernel': (3, 3, 256, 512),
        'features/conv5/kernel': (3, 3, 512, 512),
        'features/bridge/kernel': (1, 1, 512, 512),
        'head/fc1/kernel': (7 * 7 * 512, 256),
        'head/fc2/kernel': (256, 7),
    }
    assert len(shapes(params)) == 2 * len(kernels)  # and a bias each


def test_stage_one_parameters_are_the_entry_features():
    net = small(batch_norm=True)
    features = ExpressionFeatures(NARROW, (1, 1, 7), batch_norm=True)
    alone = filled(features, faces())
    whole = {kind: tree | {'features': alone[kind]} for kind, tree in variables(True).items()}
    chex.assert_trees_all_equal_shapes_and_dtypes(whole, variables(True))
    chex.assert_trees_all_close(compiled(net)(whole, faces())['features'], compiled(features)(alone, faces()))


@pytest.mark.parametrize('size', [(75, 66), (64, 64), (67, 91)])
@pytest.mark.parametrize('layer', LAYERS)
@pytest.mark.parametrize('features', [NARROW, (4, 6, 8), (4, 4, 4, 4, 4, 4)])
def test_it_takes_the_shape_of_any_supervising_layer(size, layer, features):
    image = jnp.zeros((2, *size, 3))
    target = jax.eval_shape(lambda: VGGFace(5, width=1 / 16).init_with_output(KEY, image)[0])[layer].shape
    net = small(features=features, target_shape=target[1:])
    found, params = jax.eval_shape(lambda: net.init_with_output(KEY, image))
    assert found['features'].shape == target
    side = tuple(s // 2 ** len(features) for s in size)
    assert ('adapter' in params['params']['features']) == (len(target) == 4 and target[1:3] != side)


@pytest.mark.parametrize(('layer', 'kernel'), [('pool1', (38, 60)), ('pool3', (10, 13)), ('pool4', (4, 5))])
def test_a_larger_target_gets_a_transposed_convolution(layer, kernel):
    """75x61: the net's last map is 2x1; strides 19x30, 5x7 and 2x3 for 37x30, 9x7 and 4x3.

    Kernels of 37 and 9 rows would leave 19 and 5 rows to crop, which two ends cannot share.
    """
    target = {'pool1': (37, 30, 2), 'pool3': (9, 7, 2), 'pool4': (4, 3, 2)}[layer]
    net = ExpressionFeatures(NARROW, target)
    params = jax.eval_shape(net.init, KEY, jnp.zeros((1, 75, 61, 3)))['params']
    assert params['adapter']['kernel'].shape == (*kernel, 2, 2)


def test_a_smaller_target_gets_a_strided_convolution():
    params = jax.eval_shape(ExpressionFeatures((4, 4), (4, 3, 2)).init, KEY, jnp.zeros((1, 75, 61, 3)))['params']
    assert params['adapter']['kernel'].shape == (18 - 3 * 4, 15 - 2 * 5, 2, 2)


def adapted(net, bridged):
    """What the adapter of `net`, as initialised, makes of the bridge's output [1,h,w,F]."""
    image = jnp.zeros((1, 2 * bridged.shape[1], 2 * bridged.shape[2], 3))

    def interrupted(next_call, args, kwargs, context):
        return bridged if context.module.name == 'bridge' else next_call(*args, **kwargs)

    with nn.intercept_methods(interrupted):
        return jax.jit(lambda: net.init_with_output(KEY, image)[0])()


@pytest.mark.parametrize('side', [2, 3, 5])
@pytest.mark.parametrize('size', [(6, 9), (7, 11), (5, 8), (7, 7)])
def test_the_enlarging_adapter_starts_as_interpolation_about_the_centre(side, size):
    ramp = jnp.arange(float(side)).reshape(1, side, 1, 1) + jnp.array([[[[0.0, 10.0]]]])
    found = adapted(ExpressionFeatures((4,), (*size, 2)), jnp.broadcast_to(ramp, (1, side, side, 2)))
    stride = -(-size[0] // side)
    where = (side - 1) / 2 + (np.arange(size[0]) - (size[0] - 1) / 2) / stride  # the position on the ramp
    inside = (where >= 0) & (where <= side - 1)
    assert inside.sum() >= 2
    middle = found[0, :, size[1] // 2]
    np.testing.assert_allclose(middle[inside, 0], where[inside], atol=1e-5)
    np.testing.assert_allclose(middle[inside, 1], where[inside] + 10, rtol=1e-5)


def test_the_reducing_adapter_starts_as_the_average():
    found = adapted(ExpressionFeatures((4,), (2, 1, 2)), jnp.arange(24.0).reshape(1, 4, 3, 2))
    np.testing.assert_allclose(found[0, :, 0], [[5.0, 6.0], [17.0, 18.0]], rtol=1e-6)


def test_a_target_larger_and_smaller_is_an_error():
    with pytest.raises(ValueError, match='larger along one axis'):
        jax.eval_shape(ExpressionFeatures(NARROW, (1, 3, 4)).init, KEY, jnp.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize(
    ('shape', 'target', 'message'),
    [
        ((1, 31, 64, 3), (1, 1, 4), '31x64 pixels is too small for 5 pools; it needs at least 32x32'),
        ((1, 64, 64, 2), (1, 1, 4), 'images'),
        ((64, 64, 3), (1, 1, 4), 'images'),
        ((1, 64, 64, 3), (2, 4), 'target shape'),
    ],
)
def test_wrong_shapes_are_errors(shape, target, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(ExpressionFeatures(NARROW, target).init, KEY, jnp.zeros(shape))


def test_a_48_pixel_image_survives_five_pools():
    net, image = ExpressionFeatures(NARROW, (1, 1, 4)), jnp.zeros((2, 48, 48, 1))
    assert jax.eval_shape(lambda: net.init_with_output(KEY, image)[0]).shape == (2, 1, 1, 4)


def test_normalise_by_hand():
    colour = expression_net.normalise(jnp.array([[[[130.0, 100.0, 0.0]]]]), 0.5)
    np.testing.assert_allclose(colour, [[[[0.40685, -2.3812, -46.797]]]], rtol=1e-5)
    grey = expression_net.normalise(jnp.array([[[[100]]]], jnp.uint8), 2.0)
    np.testing.assert_allclose(grey, [[[[2 * (100 - 327.5427 / 3)]]]], rtol=1e-5)
    assert grey.dtype == jnp.float32


def test_grey_and_colour_have_their_own_first_layer():
    for channels in (1, 3):
        params = jax.eval_shape(small().init, KEY, jnp.zeros((1, 32, 32, channels)))['params']
        assert params['features']['conv1']['kernel'].shape == (3, 3, channels, 4)


def test_input_scale_multiplies_the_normalised_image():
    mean = jnp.asarray(expression_net.MEAN_RGB).reshape(1, 1, 1, 3)
    scaled = compiled(small(input_scale=0.25))(variables(), faces())
    chex.assert_trees_all_close(
        scaled, compiled(small())(variables(), (faces() - mean) * 0.25 + mean), rtol=1e-3, atol=1e-4
    )


def test_convolutions_start_he_normal_and_the_head_small():
    net = ExpressionNet(200, features=(64, 128), target_shape=(8, 8, 96), fc_stddev=0.02)
    params = jax.jit(net.init)(KEY, jnp.zeros((1, 32, 32, 3)))['params']
    for name, fan_in in (('conv1', 27), ('conv2', 9 * 64), ('bridge', 128)):
        assert np.std(params['features'][name]['kernel']) == pytest.approx(np.sqrt(2 / fan_in), rel=0.05)
    for name in ('fc1', 'fc2'):
        assert np.std(params['head'][name]['kernel']) == pytest.approx(0.02, rel=0.05)
    assert all((leaf == 0).all() for name, leaf in trees.paths(params).items() if name.endswith('bias'))


def test_the_bridge_is_linear_and_the_hidden_layer_rectified():
    found = compiled(small())(variables(), faces())
    assert (found['features'] < 0).any()
    assert (found['hidden'] >= 0).all()
    assert (found['hidden'] > 0).any()
    head = variables()['params']['head']
    logits = np.asarray(found['hidden'] @ head['fc2']['kernel']) + np.asarray(head['fc2']['bias'])
    np.testing.assert_allclose(found['logits'], logits, rtol=1e-4, atol=1e-4)


def test_batch_norm_follows_every_convolution_and_fc1():
    names = {f'features/conv{n}_bn' for n in range(1, 6)} | {'head/fc1_bn'}
    assert {name.rsplit('/', 1)[0] for name in trees.paths(variables(True)['batch_stats'])} == names
    assert set(variables()) == {'params'}


def test_batch_statistics_move_in_training_only():
    found, updated = compiled(small(batch_norm=True), train=True, mutable='batch_stats')(variables(True), faces())
    for name, before in trees.paths(variables(True)['batch_stats']).items():
        assert (trees.paths(updated['batch_stats'])[name] != before).any(), name
    evaluated = compiled(small(batch_norm=True))(variables(True), faces())
    assert not np.allclose(evaluated['logits'], found['logits'], rtol=1e-2)


def test_batch_statistics_are_those_of_the_whole_batch_on_several_devices():
    net = small(batch_norm=True, features=(4,), target_shape=(4, 4, 4))
    image = faces((4, 8, 8, 3))
    start = filled(net, image)
    expected, stats = jax.jit(functools.partial(net.apply, train=True, mutable='batch_stats'))(start, image)
    spread = functools.partial(net.clone(axis_name='d').apply, train=True, mutable='batch_stats')
    found, found_stats = jax.pmap(spread, axis_name='d', in_axes=(None, 0))(start, image.reshape(4, 1, 8, 8, 3))
    chex.assert_trees_all_close(found['logits'].reshape(4, 5), expected['logits'], rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[3], found_stats), stats, rtol=1e-4, atol=1e-5)


def test_bfloat16_computes_close_to_float32_and_keeps_float32_parameters():
    net = small(dtype=jnp.bfloat16, target_shape=(2, 2, 7))  # with an adapter
    start = filled(net, faces())
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(net.init, KEY, faces()))} == {jnp.dtype('float32')}
    low, high = compiled(net)(start, faces()), compiled(net.clone(dtype=jnp.float32))(start, faces())
    assert set(low) > {'features', 'hidden', 'logits', 'conv1', 'pool1'}
    assert all(leaf.dtype == (jnp.float32 if name == 'logits' else jnp.bfloat16) for name, leaf in low.items())
    for name in low:
        gap = jnp.max(jnp.abs(low[name].astype(jnp.float32) - high[name])) / jnp.max(jnp.abs(high[name]))
        assert 0 < gap < 0.1, name


def test_dropout_acts_on_the_classifier_and_by_example():
    keys = rng.per_example(KEY, jnp.arange(4))
    still = compiled(small())(variables(), faces())
    dropped = compiled(small())(variables(), faces(), dropout_keys=keys)
    chex.assert_trees_all_equal(dropped['hidden'], still['hidden'])
    assert (dropped['logits'] != still['logits']).any()
    turned = compiled(small())(variables(), faces()[::-1], dropout_keys=keys[::-1])
    chex.assert_trees_all_close(turned['logits'][::-1], dropped['logits'], rtol=1e-4, atol=1e-5)
