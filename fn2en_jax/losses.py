"""The probabilistic core: per-example losses and the density behind the first of them.

Every function returns one float32 value per example, [B], whatever the dtype of its input; the mean over the
batch, with its mask, is the caller's. Equal shapes are asserted, because (8,16) minus (8,1,1,16) would
broadcast without a word.
"""

import math

import chex
import jax
import jax.numpy as jnp

from fn2en_jax.types import Array


def feature_regression(pred: Array, target: Array, *, p: float = 2.0, reduction: str = 'sum') -> Array:
    """||pred - target||_p^p for every example: the loss L1 = ||g(I) - G(I)||_p^p of FaceNet2ExpNet's stage 1.

    pred, target: [B,...] of the same shape, D numbers an example; any float dtype.
    p: any real number >= 1; static.
    reduction: 'sum' over the D numbers, as in the paper, or their 'mean'.

    'mean' divides loss and gradient by D. For the same SGD step, multiply the learning rate by D (for pool5
    at 224x224, D = 7*7*512 = 25088: 1e-7 becomes 2.5e-3), and divide the weight decay by D, since the decay
    is added to the gradient and multiplied by the same rate; divide a clipping norm by D as well.
    Caffe's EuclideanLoss is half of this sum at p=2: a rate r there is r/2 here, with twice the weight decay.

    The gradient is zero where pred equals target, also for p = 1 and where |x|**(p-1) has no derivative.
    Not-a-number in the input stays not-a-number in the loss.

    Returns float32 [B]. Raises ValueError for p < 1 or an unknown reduction, AssertionError if
    the shapes differ.
    """
    _check_p(p)
    chex.assert_equal_shape((pred, target))
    powers = _power(pred.astype(jnp.float32) - target.astype(jnp.float32), p).reshape(pred.shape[0], -1)
    if reduction == 'sum':
        return jnp.sum(powers, axis=1)
    if reduction == 'mean':
        return jnp.mean(powers, axis=1)
    raise ValueError(f"reduction is {reduction!r}; it must be 'sum' or 'mean'")


def log_normaliser(p: float, dim: int) -> float:
    """log C_p of the density f(X) = C_p exp(-||X - mu||_p^p) over `dim` independent numbers.

    C_p = (p / (2 Gamma(1/p)))^dim, since exp(-|x|^p) integrates to 2 Gamma(1/p) / p over the real line.
    Raises ValueError for p < 1.
    """
    _check_p(p)
    return dim * (math.log(p) - math.log(2.0) - math.lgamma(1.0 / p))


def log_density(x: Array, mean: Array, *, p: float = 2.0) -> Array:
    """log f(x) of the exponential-power density around `mean`: both [B,...] of one shape -> float32 [B].

    Its maximum over x is at x = mean, and its negative is stage 1's loss up to the constant log C_p.
    Raises as `feature_regression` does.
    """
    return log_normaliser(p, math.prod(x.shape[1:])) - feature_regression(x, mean, p=p)


def cross_entropy(
    logits: Array, labels: Array, *, class_weights: Array | None = None, label_smoothing: float = 0.0
) -> Array:
    """-sum_k q_k log softmax(logits)_k with q = (1 - label_smoothing) * one_hot(label) + label_smoothing / K.

    logits: [B,K]. labels: integers [B] in 0..K-1; another label gives not-a-number, never a silent zero.
    class_weights: [K] or None; the whole loss of an example is multiplied by the weight of its label.
        (Nothing is divided by the sum of weights; PyTorch's 'mean' does that. Weights of mean 1 keep the
        learning rate's scale.)
    label_smoothing: in [0, 1); static.

    Returns float32 [B]. Raises ValueError for label_smoothing outside [0, 1), AssertionError if
    the shapes do not fit.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f'label_smoothing is {label_smoothing}; it must be at least 0 and below 1')
    chex.assert_shape(labels, (logits.shape[0],))
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    known = (labels >= 0) & (labels < logits.shape[1])
    index = jnp.where(known, labels, 0)
    chosen = jnp.take_along_axis(log_probabilities, index[:, None], axis=1)[:, 0]
    loss = -(1.0 - label_smoothing) * chosen
    if label_smoothing:
        loss = loss - label_smoothing * jnp.mean(log_probabilities, axis=1)
    if class_weights is not None:
        chex.assert_shape(class_weights, (logits.shape[1],))
        loss = loss * jnp.asarray(class_weights, jnp.float32)[index]
    return jnp.where(known, loss, jnp.nan)


def _power(difference: Array, p: float) -> Array:
    """|difference|**p with a zero gradient at zero."""
    if p == 2.0:
        return jnp.square(difference)
    # Neither the power nor the absolute value sees a zero: their derivatives there are not finite for p < 2, and
    # 1 in JAX. Testing for "== 0" lets not-a-number through.
    zero = difference == 0.0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, jnp.abs(difference)) ** p)


def _check_p(p: float) -> None:
    if not (p >= 1.0 and math.isfinite(p)):
        raise ValueError(f'p is {p}; the p-norm loss needs a finite real number p >= 1')
