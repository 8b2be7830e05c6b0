"""The CPU's own gradients equal plain XLA's and float64's; other platforms never see them."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax.models import conv, conv_cpu
from fn2en_jax.models.conv import Conv, convolve, convolve_transposed, max_pool

# image [B,H,W,C], kernel [h,w,C,F]: even and odd, one pixel, grey and colour, 1x1, odd batches, several groups
SHAPES = [
    ((2, 8, 8, 16), (3, 3, 16, 8)),
    ((3, 7, 9, 8), (3, 3, 8, 5)),
    ((3, 1, 1, 16), (3, 3, 16, 4)),
    ((2, 9, 6, 1), (3, 3, 1, 4)),
    ((2, 5, 5, 3), (3, 3, 3, 4)),
    ((4, 6, 6, 16), (1, 1, 16, 4)),
    ((2, 6, 5, 8), (5, 3, 8, 4)),
    ((6, 32, 32, 8), (3, 3, 8, 8)),
]


def _random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _reference(image, kernel, gradient):
    """Output and both gradients of the convolution, in float64 NumPy, from its definition."""
    image, kernel, gradient = (np.asarray(leaf, np.float64) for leaf in (image, kernel, gradient))
    _, height, width, _ = image.shape
    rows, columns = kernel.shape[:2]
    reach = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    padded = np.pad(image, reach)
    output, to_padded, to_kernel = np.zeros(gradient.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i in range(rows):
        for j in range(columns):
            window = np.s_[:, i : i + height, j : j + width]
            output += padded[window] @ kernel[i, j]
            to_kernel[i, j] = np.einsum('bhwc,bhwf->cf', padded[window], gradient)
            to_padded[window] += gradient @ kernel[i, j].T
    inner = np.s_[:, rows // 2 : rows // 2 + height, columns // 2 : columns // 2 + width]
    return output, to_padded[inner], to_kernel


def _assert_close(actual, expected, tolerance):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(('image_shape', 'kernel_shape'), SHAPES)
def test_convolution_and_its_gradients_match_the_definition_in_float64(image_shape, kernel_shape):
    image, kernel = _random(image_shape), _random(kernel_shape, 1)
    gradient = _random((*image_shape[:3], kernel_shape[-1]), 2)
    output, pullback = jax.vjp(jax.jit(convolve), image, kernel)
    actual = (output, *pullback(gradient))
    for ours, expected in zip(actual, _reference(image, kernel, gradient), strict=True):
        _assert_close(ours, expected, 1e-5)


@pytest.mark.parametrize(('image_shape', 'kernel_shape'), SHAPES)
def test_bfloat16_gradients_are_as_near_to_float64_as_bfloat16_allows(image_shape, kernel_shape):
    image, kernel, gradient = (
        jnp.asarray(_random(shape, seed), jnp.bfloat16)
        for seed, shape in enumerate((image_shape, kernel_shape, (*image_shape[:3], kernel_shape[-1])))
    )
    output, pullback = jax.vjp(convolve, image, kernel)
    actual = (output, *pullback(gradient))
    for ours, expected in zip(actual, _reference(image, kernel, gradient), strict=True):
        assert ours.dtype == jnp.bfloat16
        _assert_close(ours, expected, 1e-2)


def test_even_kernels_take_the_plain_way():
    image, kernel = _random((2, 5, 6, 8)), _random((2, 2, 8, 4), 1)
    gradient = _random((2, 5, 6, 4), 2)
    ours = jax.vjp(convolve, image, kernel)[1](gradient)
    plain = jax.vjp(conv._convolve, image, kernel)[1](gradient)
    chex.assert_trees_all_close(ours, plain, rtol=1e-5)


@pytest.mark.parametrize(
    ('image_shape', 'kernel_shape', 'strides'),
    [
        ((2, 5, 5, 8), (5, 5, 8, 8), (2, 2)),  # of 48x48 images: 5x5 to 7x7
        ((3, 4, 2, 3), (4, 7, 3, 5), (2, 4)),
        ((2, 3, 1, 6), (3, 1, 6, 2), (3, 1)),
        ((1, 2, 3, 1), (2, 3, 1, 4), (3, 5)),  # gaps between the pieces
    ],
)
def test_transposed_convolution_and_its_gradients_match_the_definition_in_float64(image_shape, kernel_shape, strides):
    image, kernel = _random(image_shape), _random(kernel_shape, 1)
    output, pullback = jax.vjp(jax.jit(lambda *both: convolve_transposed(*both, strides)), image, kernel)
    gradient = _random(output.shape, 2)
    expected, to_image, to_kernel = np.zeros(output.shape), np.zeros(image_shape), np.zeros(kernel_shape)
    (rows, columns), (m, n) = kernel_shape[:2], strides
    assert output.shape[1:3] == ((image_shape[1] - 1) * m + rows, (image_shape[2] - 1) * n + columns)
    for y in range(image_shape[1]):
        for x in range(image_shape[2]):
            pixel, place = image[:, y, x].astype(np.float64), np.s_[:, y * m : y * m + rows, x * n : x * n + columns]
            turned, there = kernel[::-1, ::-1].astype(np.float64), gradient[place].astype(np.float64)
            expected[place] += np.einsum('bc,pqcf->bpqf', pixel, turned)
            to_image[:, y, x] = np.einsum('bpqf,pqcf->bc', there, turned)
            to_kernel += np.einsum('bc,bpqf->pqcf', pixel, there)[::-1, ::-1]
    for ours, true in zip((output, *pullback(gradient)), (expected, to_image, to_kernel), strict=True):
        _assert_close(ours, true, 1e-6)


@pytest.mark.parametrize(('size', 'strides'), [(4, (2, 2)), (5, (2, 3)), (3, (1, 1))])
def test_transposed_convolution_equals_that_of_lax_without_its_zeros(size, strides):
    image, kernel = _random((2, 5, 3, 4)), _random((size, size, 4, 6), 1)
    plain = jax.lax.conv_transpose(image, kernel, strides, 'VALID')
    _assert_close(convolve_transposed(image, kernel, strides), plain, 1e-6)
    text = str(jax.make_jaxpr(jax.grad(lambda *both: convolve_transposed(*both, strides).sum(), (0, 1)))(image, kernel))
    assert 'conv_general_dilated' not in text


def test_bfloat16_transposed_convolution_adds_up_in_float32():
    image, kernel = _random((2, 4, 4, 64)), _random((4, 4, 64, 8), 1)
    half = [jnp.asarray(leaf, jnp.bfloat16) for leaf in (image, kernel)]
    found = convolve_transposed(*half, (2, 2))
    assert found.dtype == jnp.bfloat16
    exact = convolve_transposed(*(leaf.astype(jnp.float32) for leaf in half), (2, 2))
    chex.assert_trees_all_equal(found, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize('numbers', [1, 1000, 2**20])
def test_images_of_a_batch_are_grouped_without_changing_the_gradient(numbers, monkeypatch):
    monkeypatch.setattr(conv_cpu, '_NUMBERS', numbers)
    image, gradient = _random((12, 4, 4, 8)), _random((12, 4, 4, 5), 1)
    assert conv_cpu._together(image, gradient) == {1: 1, 1000: 4, 2**20: 12}[numbers]  # of 208 numbers each
    _, _, expected = _reference(image, _random((3, 3, 8, 5)), gradient)
    _assert_close(conv_cpu.kernel_gradient(image, gradient, (3, 3)), expected, 1e-5)


POOLED = [(2, 8, 8, 4), (3, 7, 9, 2), (1, 2, 3, 1), (2, 5, 4, 3), (1, 1, 1, 4)]


@pytest.mark.parametrize('shape', POOLED)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_pool_gradient_equals_plain_xla_where_relu_made_many_ties(shape, dtype):
    image = jnp.asarray(np.maximum(np.round(_random(shape) * 2), 0), dtype)
    maxima, pullback = jax.vjp(jax.jit(max_pool), image)
    expected, plain = jax.vjp(conv._max_pool, image)
    gradient = jnp.asarray(_random(maxima.shape, 1), dtype)
    chex.assert_trees_all_equal(maxima, expected)
    chex.assert_trees_all_equal(pullback(gradient), plain(gradient))


def test_pool_gives_the_gradient_to_the_first_of_equal_maxima():
    squares = np.asarray([[[0, 0, 1, 3], [0, 0, 3, 3]], [[2, 1, 5, 5], [2, 2, 0, 5]]], np.float32)
    gradient = jax.grad(lambda x: max_pool(x).sum())(squares[..., None])[..., 0]
    expected = [[[1, 0, 0, 1], [0, 0, 0, 0]], [[1, 0, 1, 0], [0, 0, 0, 0]]]
    np.testing.assert_array_equal(gradient, expected)


def test_module_starts_and_computes_as_nn_conv_does():
    image = _random((2, 7, 5, 3))
    ours = Conv(6)
    variables = ours.init(jax.random.PRNGKey(0), image)
    chex.assert_shape(variables['params']['kernel'], (3, 3, 3, 6))
    chex.assert_shape(variables['params']['bias'], (6,))
    variables['params']['bias'] = jnp.arange(6.0)
    chex.assert_trees_all_close(ours.apply(variables, image), nn.Conv(6, (3, 3)).apply(variables, image), rtol=1e-5)
    half = Conv(6, dtype=jnp.bfloat16)
    assert half.apply(variables, image).dtype == jnp.bfloat16
    assert half.init(jax.random.PRNGKey(0), image)['params']['kernel'].dtype == jnp.float32


def _loss(image, kernel):
    return jnp.sum(jnp.sin(max_pool(convolve(image, kernel))))


def _several(image, kernel, count):
    """Steps of gradient descent inside a loop of unknown length, as the engine runs them."""
    return jax.lax.fori_loop(0, count, lambda _, k: k - 0.01 * jax.grad(_loss, 1)(image, k), kernel)


def test_the_same_in_a_loop_under_vmap_pmap_and_eval_shape():
    image, kernel = _random((4, 6, 7, 8)), _random((3, 3, 8, 8), 1) / 10
    slope = jax.jit(jax.grad(_loss, 1))
    expected = kernel
    for _ in range(3):
        expected = expected - 0.01 * slope(image, expected)
    assert np.abs(expected - kernel).max() > 1e-3
    chex.assert_trees_all_close(jax.jit(_several)(image, kernel, 3), expected, rtol=1e-4, atol=1e-6)
    devices = jax.local_device_count()
    mapped = jax.pmap(_several, in_axes=(0, None, None))(np.stack([image] * devices), kernel, 3)
    chex.assert_trees_all_close(mapped[-1], expected, rtol=1e-4, atol=1e-6)
    each = jax.jit(jax.vmap(jax.grad(_loss, 1), in_axes=(0, None)))(image[:, None], kernel)
    alone = jnp.stack([slope(one[None], kernel) for one in image])
    chex.assert_trees_all_close(each, alone, rtol=1e-4, atol=1e-5)
    shape = jax.eval_shape(jax.grad(_loss, 1), image, kernel)
    chex.assert_trees_all_equal_shapes_and_dtypes(shape, kernel)


def _lowered(function, platform):
    arguments = _random((2, 32, 32, 8)), _random((3, 3, 8, 8), 1)
    return jax.jit(jax.grad(function, (0, 1))).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
def test_other_platforms_get_plain_xla_and_no_trace_of_the_cpu_form(platform):
    text = _lowered(_loss, platform)
    for trace in ('while', 'dot_general', 'optimization_barrier'):
        assert f'stablehlo.{trace}' not in text
    assert text.count('stablehlo.convolution') == 3
    assert 'select_and_scatter' in text


def test_the_cpu_gets_its_own_form():
    text = _lowered(_loss, 'cpu')
    assert 'stablehlo.dot_general' in text
    assert 'select_and_scatter' not in text


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='looks into the CPU compiler')
@pytest.mark.parametrize('channels', [3, 8])
def test_inside_a_loop_every_convolution_is_in_the_form_xla_computes_fast(channels):
    text = _compiled_loop(convolve, channels)
    convolutions = [line for line in text.splitlines() if ' convolution(' in line]
    assert len(convolutions) >= 3  # two forward, one input gradient
    assert all('dim_labels=b01f_01io->b01f' in line and 'rhs_reversal' not in line for line in convolutions)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='looks into the CPU compiler')
def test_convolutions_do_not_go_to_ynnpack():
    """Whereas XLA's own choice is: where it no longer is, the extra column has no use."""
    assert '__ynn_fusion' in _compiled_loop(conv._convolve, 64)
    assert '__ynn_fusion' not in _compiled_loop(convolve, 64)


def _compiled_loop(convolve, channels: int) -> str:
    """What XLA makes of training steps in a loop."""
    image, kernel = _random((4, 32, 32, channels)), _random((3, 3, channels, 64), 1)
    second = _random((3, 3, 64, 64), 2)

    def step(_, kernels):
        loss = lambda kernels: jnp.sum(jnp.sin(convolve(convolve(image, kernels[0]), kernels[1])))  # noqa: E731
        return jax.tree.map(lambda k, g: k - 0.01 * g, kernels, jax.grad(loss)(kernels))

    run = jax.jit(lambda count, kernels: jax.lax.fori_loop(0, count, step, kernels))
    return run.lower(2, (kernel, second)).compile().as_text()
