import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import rng, trees
from fn2en_jax.models import vgg_face
from fn2en_jax.models.vgg_face import VGGFace
from tests.nets import compiled, filled

KEY = rng.stream(0, 'init')
PUBLISHED = {  # kernels; convolutions are [h,w,in,out]
    'conv1_1': (3, 3, 3, 64),
    'conv1_2': (3, 3, 64, 64),
    'conv2_1': (3, 3, 64, 128),
    'conv2_2': (3, 3, 128, 128),
    'conv3_1': (3, 3, 128, 256),
    'conv3_2': (3, 3, 256, 256),
    'conv3_3': (3, 3, 256, 256),
    'conv4_1': (3, 3, 256, 512),
    'conv4_2': (3, 3, 512, 512),
    'conv4_3': (3, 3, 512, 512),
    'conv5_1': (3, 3, 512, 512),
    'conv5_2': (3, 3, 512, 512),
    'conv5_3': (3, 3, 512, 512),
    'fc6': (7 * 7 * 512, 4096),
    'fc7': (4096, 4096),
    'fc8': (4096, 2622),
}


def faces(shape=(4, 32, 32, 3), seed=1):
    return jnp.float32(np.random.default_rng(seed).integers(0, 256, shape))


def small(**arguments):
    return VGGFace(**{'num_classes': 5, 'width': 1 / 32, 'fc_features': 256} | arguments)


@functools.cache
def variables(batch_norm=False):
    return filled(small(batch_norm=batch_norm), faces())


def test_it_is_the_published_net():
    params = jax.eval_shape(VGGFace(2622).init, KEY, jnp.zeros((1, 224, 224, 3)))['params']
    assert {name: layer['kernel'].shape for name, layer in params.items()} == PUBLISHED
    assert all(set(layer) == {'kernel', 'bias'} for layer in params.values())
    assert all(layer['bias'].shape == layer['kernel'].shape[-1:] for layer in params.values())
    assert trees.num_params(params) == 145_002_878


@pytest.mark.parametrize(
    ('size', 'sides'),
    [
        ((224, 224), [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]),
        ((75, 61), [(37, 30), (18, 15), (9, 7), (4, 3), (2, 1)]),
        ((32, 33), [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]),
    ],
)
def test_every_activation_has_its_shape(size, sides):
    net, image = VGGFace(7, width=0.5), jnp.zeros((2, *size, 3))
    found = jax.eval_shape(lambda: net.init_with_output(KEY, image)[0])
    expected = {
        f'pool{n}': (2, *side, channels)
        for n, (side, channels) in enumerate(zip(sides, (32, 64, 128, 256, 256), strict=True), start=1)
    }
    maps = {name: leaf.shape for name, leaf in found.items() if name.startswith('conv')}
    assert {name: leaf.shape for name, leaf in found.items() if name not in maps} == expected | {
        'fc6': (2, 2048),
        'fc7': (2, 2048),
        'fc8': (2, 7),
    }
    assert set(found) == set(vgg_face.LAYERS) | set(maps)
    assert set(vgg_face.MAPS) == set(maps) | set(expected)
    assert maps['conv1_2'] == (2, *size, 32)
    assert maps['conv5_3'] == (2, *sides[3], 256)


def test_width_never_leaves_a_layer_empty():
    params = jax.eval_shape(VGGFace(2, width=1e-6).init, KEY, jnp.zeros((1, 32, 32, 3)))['params']
    assert {layer['kernel'].shape[-1] for name, layer in params.items() if name != 'fc8'} == {1}


def test_normalise_by_hand():
    colour = vgg_face.normalise(jnp.array([[[[130.0, 100.0, 0.0]]]]), 0.5)
    np.testing.assert_allclose(colour, [[[[0.40685, -2.3812, -46.797]]]], rtol=1e-5)
    grey = vgg_face.normalise(jnp.array([[[[100]]]], jnp.uint8))
    np.testing.assert_allclose(grey, [[[[-29.1863, -4.7624, 6.406]]]], rtol=1e-5)
    assert grey.dtype == jnp.float32


def test_grey_is_three_equal_channels():
    grey = faces((2, 32, 32, 1))
    chex.assert_trees_all_equal(
        compiled(small())(variables(), grey), compiled(small())(variables(), jnp.repeat(grey, 3, axis=3))
    )


def test_input_scale_multiplies_the_normalised_image():
    mean = jnp.asarray(vgg_face.MEAN_RGB).reshape(1, 1, 1, 3)
    image = faces()
    scaled = compiled(small(input_scale=0.25))(variables(), image)
    chex.assert_trees_all_close(
        scaled, compiled(small())(variables(), (image - mean) * 0.25 + mean), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize('shape', [(2, 31, 40, 3), (2, 40, 31, 3), (2, 40, 40, 4), (40, 40, 3)])
def test_wrong_images_are_errors(shape):
    with pytest.raises(ValueError, match='the face net needs images'):
        jax.eval_shape(small().init, KEY, jnp.zeros(shape))


def test_rectified_layers_are_never_negative_and_logits_are():
    found = compiled(small())(variables(), faces())
    assert all((leaf >= 0).all() for name, leaf in found.items() if name != 'fc8')
    assert (found['fc8'] < 0).any()


def test_convolutions_start_he_normal_and_the_classifier_small():
    net = VGGFace(500, width=0.25, fc_features=1024)
    deviations = {
        'conv3_1': np.sqrt(2 / (9 * 32)),
        'conv5_3': np.sqrt(2 / (9 * 128)),
        'fc7': np.sqrt(2 / 256),
        'fc8': 0.01,
    }

    @jax.jit
    def kernels():  # only these are drawn, the compiler leaves out the others
        params = net.init(KEY, jnp.zeros((1, 32, 32, 3)))['params']
        return {name: params[name]['kernel'] for name in deviations}, params['conv1_1']['bias']

    found, bias = kernels()
    assert {name: float(np.std(leaf)) for name, leaf in found.items()} == pytest.approx(deviations, rel=0.05)
    np.testing.assert_array_equal(bias, 0.0)


def test_bfloat16_computes_close_to_float32_and_keeps_float32_parameters():
    net = small(dtype=jnp.bfloat16)
    drawn = jax.eval_shape(net.clone(batch_norm=True).init, KEY, faces())
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype('float32')}
    low, high = compiled(net)(variables(), faces()), compiled(small())(variables(), faces())
    assert all(leaf.dtype == (jnp.float32 if name == 'fc8' else jnp.bfloat16) for name, leaf in low.items())
    for name in low:
        gap = jnp.max(jnp.abs(low[name].astype(jnp.float32) - high[name])) / jnp.max(jnp.abs(high[name]))
        assert 0 < gap < 0.1, name


def test_batch_norm_follows_every_layer_but_the_classifier():
    names = [name for name in PUBLISHED if name != 'fc8']
    assert set(variables(True)['batch_stats']) == {f'{name}_bn' for name in names}
    assert set(variables(True)['params']) == set(PUBLISHED) | {f'{name}_bn' for name in names}
    assert set(variables()) == {'params'}


def test_batch_statistics_move_in_training_only():
    net = small(batch_norm=True)
    found, updated = compiled(net, train=True, mutable='batch_stats')(variables(True), faces())
    before, after = variables(True)['batch_stats'], updated['batch_stats']
    image = vgg_face.normalise(faces())
    conv = jax.lax.conv_general_dilated(
        image,
        variables(True)['params']['conv1_1']['kernel'],
        (1, 1),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    conv = conv + variables(True)['params']['conv1_1']['bias'].reshape(1, 1, 1, -1)
    for name, moment in (('mean', conv.mean((0, 1, 2))), ('var', conv.var((0, 1, 2)))):
        expected = 0.9 * before['conv1_1_bn'][name] + 0.1 * moment
        np.testing.assert_allclose(after['conv1_1_bn'][name], expected, rtol=1e-3, atol=1e-3)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    evaluated = compiled(net)(variables(True), faces())
    assert not np.allclose(evaluated['pool1'], found['pool1'], rtol=1e-2)


def test_batch_statistics_are_those_of_the_whole_batch_on_several_devices():
    net, image = small(batch_norm=True), faces()
    train = functools.partial(net.apply, train=True, mutable='batch_stats')
    expected, stats = jax.jit(train)(variables(True), image)
    spread = functools.partial(net.clone(axis_name='d').apply, train=True, mutable='batch_stats')
    parts = image.reshape(4, 1, 32, 32, 3)
    found, found_stats = jax.pmap(spread, axis_name='d', in_axes=(None, 0))(variables(True), parts)
    chex.assert_trees_all_close(found['pool1'][:, 0], expected['pool1'], rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[3], found_stats['batch_stats']['conv1_2_bn']),
        stats['batch_stats']['conv1_2_bn'],
        rtol=1e-4,
        atol=1e-5,
    )


def test_dropout_needs_keys_and_leaves_earlier_layers_alone():
    keys = rng.per_example(KEY, jnp.arange(4))
    still = compiled(small())(variables(), faces())
    dropped = compiled(small())(variables(), faces(), dropout_keys=keys)
    chex.assert_trees_all_equal(dropped['fc6'], still['fc6'])  # the activation before dropout
    assert (dropped['fc7'] != still['fc7']).any()
    assert (dropped['fc8'] != still['fc8']).any()


def test_dropout_of_an_example_does_not_depend_on_its_place():
    keys = rng.per_example(KEY, jnp.arange(4))
    straight = compiled(small())(variables(), faces(), dropout_keys=keys)
    turned = compiled(small())(variables(), faces()[::-1], dropout_keys=keys[::-1])
    chex.assert_trees_all_close(turned['fc8'][::-1], straight['fc8'], rtol=1e-4, atol=1e-4)


def test_small_images_are_enlarged_as_by_interpolation():
    """Doubling by hand: half-pixel centres, so that the new values lie a quarter and three quarters between the old."""
    model = VGGFace(num_classes=2, width=1 / 32, fc_features=32, dropout_rate=0.0)
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32)[None, None, :, None] * 4, (1, 32, 32, 1))
    places = np.clip((np.arange(64) + 0.5) / 2 - 0.5, 0, 31)
    doubled = np.broadcast_to((places * 4).astype(np.float32)[None, None, :, None], (1, 64, 64, 1))
    variables = filled(model, jnp.zeros((1, 64, 64, 3)))
    by_net = model.clone(image_size=64).apply(variables, ramp)
    by_hand = model.apply(variables, doubled)
    chex.assert_trees_all_close(by_net, by_hand, rtol=1e-4, atol=1e-4)
    assert by_net['pool5'].shape[1:3] == (2, 2)
