import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from fn2en_jax import losses

POWERS = (1.0, 1.5, 2.0, 3.0)


def maps(seed, shape=(3, 2, 4, 5)):
    draw = np.random.default_rng(seed)
    return draw.normal(size=shape), draw.normal(size=shape)


@pytest.mark.parametrize('p', POWERS)
@pytest.mark.parametrize('reduction', ['sum', 'mean'])
def test_feature_regression_equals_float64(p, reduction):
    pred, target = maps(0)
    powers = (np.abs(pred - target) ** p).reshape(3, -1)
    expected = powers.sum(1) if reduction == 'sum' else powers.mean(1)
    value = losses.feature_regression(jnp.float32(pred), jnp.float32(target), p=p, reduction=reduction)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.parametrize('p', POWERS)
def test_its_gradient_equals_float64(p):
    pred, target = maps(1)
    expected = p * np.abs(pred - target) ** (p - 1) * np.sign(pred - target)
    gradient = jax.grad(lambda x: losses.feature_regression(x, jnp.float32(target), p=p).sum())(jnp.float32(pred))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('p', POWERS)
def test_its_gradient_is_zero_where_the_difference_is(p):
    pred = jnp.array([[1.0, 2.0, -0.0, 1e-30]])
    target = jnp.array([[1.0, 0.5, 0.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: losses.feature_regression(x, target, p=p)[0])(pred)
    np.testing.assert_allclose(value, 1.5**p + 1e-30**p, rtol=1e-6)
    np.testing.assert_array_equal(gradient[0, [0, 2]], 0.0)
    np.testing.assert_allclose(gradient[0, 1], p * 1.5 ** (p - 1), rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize('p', POWERS)
def test_not_a_number_is_not_hidden(p):
    assert np.isnan(losses.feature_regression(jnp.array([[1.0, jnp.nan]]), jnp.ones((1, 2)), p=p)).all()


def test_low_precision_input_is_compared_in_float32():
    pred, target = jnp.full((1, 4096), 1.0, jnp.bfloat16), jnp.full((1, 4096), 1.0078125, jnp.bfloat16)
    value = losses.feature_regression(pred, target)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, [4096 * 0.0078125**2], rtol=1e-6)
    assert losses.cross_entropy(jnp.zeros((2, 4), jnp.bfloat16), jnp.array([0, 1])).dtype == jnp.float32


@pytest.mark.parametrize('p', [0.99, 0.0, -1.0, math.nan, math.inf])
def test_p_below_one_is_an_error(p):
    with pytest.raises(ValueError, match='p is'):
        losses.feature_regression(jnp.ones((2, 3)), jnp.zeros((2, 3)), p=p)
    with pytest.raises(ValueError, match='p is'):
        losses.log_normaliser(p, 3)


def test_an_unknown_reduction_is_an_error():
    with pytest.raises(ValueError, match="'batch'"):
        losses.feature_regression(jnp.ones((2, 3)), jnp.zeros((2, 3)), reduction='batch')


@pytest.mark.parametrize('shape', [(4, 1, 1, 6), (4, 1), (1, 6), (6,)])
def test_other_shapes_raise_under_jit(shape):
    with pytest.raises(AssertionError, match='shape'):
        jax.jit(losses.feature_regression)(jnp.ones((4, 6)), jnp.ones(shape))


def test_the_mean_needs_the_documented_rates():
    """One SGD step on ||w||^2 with decay: (rate r, decay d) on the sum is (r*D, d/D) on the mean."""
    w, target = jnp.array([[1.0, -2.0, 3.0, 5.0]]), jnp.array([[0.0, 1.0, 1.0, 1.0]])

    def step(rate, decay, reduction):
        gradient = jax.grad(lambda x: losses.feature_regression(x, target, reduction=reduction).sum())(w)
        return w - rate * (gradient + decay * w)

    np.testing.assert_allclose(step(0.1 * 4, 0.02 / 4, 'mean'), step(0.1, 0.02, 'sum'), rtol=1e-6)
    caffe = w - 0.1 * ((w - target) + 0.02 * w)  # the gradient of half the sum
    np.testing.assert_allclose(step(0.1 / 2, 0.02 * 2, 'sum'), caffe, rtol=1e-6)


@pytest.mark.parametrize('p', POWERS)
def test_the_density_integrates_to_one(p):
    line, _ = integrate.quad(
        lambda x: math.exp(losses.log_normaliser(p, 1) - abs(x - 0.3) ** p), -60, 60, points=[0.3], limit=200
    )
    assert line == pytest.approx(1.0, rel=1e-8)
    plane, _ = integrate.dblquad(
        lambda y, x: math.exp(losses.log_normaliser(p, 2) - x**p - y**p), 0, 30, 0, 30, epsabs=1e-7
    )
    assert 4 * plane == pytest.approx(1.0, rel=1e-4)
    assert losses.log_normaliser(p, 5) == pytest.approx(5 * losses.log_normaliser(p, 1))


def test_the_density_is_laplace_and_gauss_in_the_known_cases():
    x, mean = (jnp.float32(part) for part in maps(2, (3, 4)))
    laplace = -np.abs(x - mean).sum(1) - 4 * math.log(2)
    gauss = -np.square(x - mean).sum(1) - 2 * math.log(math.pi)  # variance 1/2
    np.testing.assert_allclose(losses.log_density(x, mean, p=1.0), laplace, rtol=1e-5)
    np.testing.assert_allclose(losses.log_density(x, mean, p=2.0), gauss, rtol=1e-5)
    with pytest.raises(AssertionError):
        losses.log_density(x, mean[:, None, :])


def test_the_quadratic_is_minimised_at_the_mean_in_one_newton_step():
    start, mean = (jnp.float32(part) for part in maps(3, (2, 6)))
    gradient = jax.grad(lambda x: -losses.log_density(x, mean, p=2.0).sum())(start)
    np.testing.assert_allclose(start - gradient / 2.0, mean, atol=1e-6)  # the Hessian is 2


@pytest.mark.parametrize('p', POWERS)
def test_descent_and_closed_form_find_the_mean(p):
    start, mean = (jnp.float32(part) for part in maps(4, (2, 6)))
    loss = jax.jit(lambda x: losses.feature_regression(x, mean, p=p).sum())

    def step(x, rate):
        return x - rate * jnp.sign(jax.grad(loss)(x)), None

    found, _ = jax.lax.scan(step, start, 0.5 * 0.98 ** jnp.arange(600))
    np.testing.assert_allclose(found, mean, atol=1e-4)
    at_mean = losses.log_density(mean, mean, p=p)
    np.testing.assert_allclose(at_mean, losses.log_normaliser(p, 6), rtol=1e-6)
    assert (losses.log_density(start, mean, p=p) < at_mean).all()
    np.testing.assert_array_equal(jax.grad(loss)(mean), 0.0)


def test_cross_entropy_equals_float64():
    logits, labels = np.random.default_rng(5).normal(size=(6, 4)) * 5, np.array([0, 1, 2, 3, 1, 0])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -log_p[np.arange(6), labels]
    np.testing.assert_allclose(losses.cross_entropy(jnp.float32(logits), jnp.array(labels)), expected, rtol=1e-5)
    weights = np.array([1.0, 0.5, 2.0, 0.0])
    smooth = 0.9 * expected - 0.1 * log_p.mean(1)
    value = losses.cross_entropy(
        jnp.float32(logits), jnp.array(labels), class_weights=jnp.float32(weights), label_smoothing=0.1
    )
    np.testing.assert_allclose(value, weights[labels] * smooth, rtol=1e-5)


def test_cross_entropy_by_hand():
    logits = jnp.array([[0.0, math.log(3.0)], [1000.0, 0.0]])
    np.testing.assert_allclose(losses.cross_entropy(logits, jnp.array([0, 1])), [math.log(4.0), 1000.0], rtol=1e-6)
    gradient = jax.grad(lambda x: losses.cross_entropy(x, jnp.array([0, 0])).sum())(logits)
    np.testing.assert_allclose(gradient, [[-0.75, 0.75], [0.0, 0.0]], atol=1e-6)


def test_smoothed_loss_is_smallest_at_the_smoothed_distribution():
    target = jnp.log(jnp.array([[0.1 / 4, 0.1 / 4, 0.9 + 0.1 / 4, 0.1 / 4]]))
    gradient = jax.grad(lambda x: losses.cross_entropy(x, jnp.array([2]), label_smoothing=0.1)[0])(target)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_a_label_out_of_range_is_not_a_number_without_spoiling_the_others():
    logits, labels = jnp.ones((4, 3)), jnp.array([-1, 3, 0, 2])
    values = losses.cross_entropy(logits, labels, class_weights=jnp.ones(3))
    np.testing.assert_array_equal(np.isnan(values), [True, True, False, False])
    masked = jax.grad(lambda x: jnp.where(labels == 0, losses.cross_entropy(x, labels), 0.0).sum())(logits)
    np.testing.assert_allclose(masked[2], [-2 / 3, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(masked[jnp.array([0, 1, 3])], 0.0)


@pytest.mark.parametrize('arguments', [{'label_smoothing': 1.0}, {'label_smoothing': -0.1}])
def test_a_wrong_smoothing_is_an_error(arguments):
    with pytest.raises(ValueError, match='label_smoothing'):
        losses.cross_entropy(jnp.ones((2, 3)), jnp.array([0, 1]), **arguments)


def test_cross_entropy_refuses_wrong_shapes():
    with pytest.raises(AssertionError):
        jax.jit(losses.cross_entropy)(jnp.ones((2, 3)), jnp.array([[0], [1]]))
    with pytest.raises(AssertionError):
        losses.cross_entropy(jnp.ones((2, 3)), jnp.array([0, 1]), class_weights=jnp.ones(2))
    chex.assert_shape(losses.cross_entropy(jnp.ones((2, 3)), jnp.array([0, 1])), (2,))
