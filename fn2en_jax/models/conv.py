"""Convolution and max pooling as the face net and the expression net use them.

Everywhere the values are those of plain `jax.lax`. On the CPU alone, `convolve` and `max_pool` take another way to the
same values (`conv_cpu`); the choice is made when a program is lowered for its platform, so programs for GPU and TPU
hold no trace of it. The price is that forward-mode differentiation does not go through them.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fn2en_jax.models import conv_cpu
from fn2en_jax.types import Array

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def _convolve(image: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), 'SAME', dimension_numbers=_LAYOUT)


@jax.custom_vjp
def convolve(image: Array, kernel: Array) -> Array:
    """Cross-correlates `image` [B,H,W,C] with `kernel` [h,w,C,F]: stride 1, zero padding, same size [B,H,W,F]."""
    if any(side % 2 == 0 for side in kernel.shape[:2]):
        return _convolve(image, kernel)
    return jax.lax.platform_dependent(image, kernel, cpu=conv_cpu.convolve, default=_convolve)


def _convolve_forward(image: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve(image, kernel), (image, kernel)


def _convolve_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    def plain(image: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return jax.vjp(_convolve, image, kernel)[1](gradient)

    def on_cpu(image: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        by_kernel = conv_cpu.kernel_gradient(image, gradient, kernel.shape[:2])
        return conv_cpu.image_gradient(gradient, kernel), by_kernel

    if any(side % 2 == 0 for side in kept[1].shape[:2]):
        return plain(*kept, gradient)
    return jax.lax.platform_dependent(*kept, gradient, cpu=on_cpu, default=plain)


convolve.defvjp(_convolve_forward, _convolve_backward)


def convolve_transposed(image: Array, kernel: Array, strides: tuple[int, int]) -> Array:
    """Transposed convolution without padding: [B,h,w,C], [p,q,C,F] -> [B,(h-1)m+p,(w-1)n+q,F] for strides (m,n).

    Every pixel of the image lays the kernel, turned by 180 degrees and weighted by its channels, onto the result,
    `strides` from that of the next pixel: for kernels at least as long as the strides the values of
    `jax.lax.conv_transpose`, whose convolution of an image with zeros between its pixels takes XLA on a CPU ninety
    times as long as this matrix product. Sums are in float32 whatever the dtype, and so are the products backward.
    """
    turned = kernel[::-1, ::-1]
    laid = jnp.einsum('bhwc,pqcf->bhpwqf', image, turned, preferred_element_type=jnp.float32)
    rows = _added_up(laid, strides[0])  # [B,H,w,q,F]
    both = _added_up(rows.reshape(-1, *rows.shape[2:]), strides[1])  # [B*H,W,F]
    return both.reshape(*rows.shape[:2], *both.shape[1:]).astype(image.dtype)


def _added_up(laid: Array, stride: int) -> Array:
    """Sums s pieces of length k, each `stride` after the one before: [B,s,k,...] -> [B,(s-1)stride+k,...]."""
    count, length = laid.shape[1:3]
    parts = -(-length // stride)  # of a piece, each as long as the stride
    rest = [(0, 0)] * (laid.ndim - 3)
    whole = jnp.pad(laid, [(0, 0), (0, 0), (0, parts * stride - length), *rest])
    split = whole.reshape(-1, count, parts, stride, *laid.shape[3:])
    moved = (jnp.pad(split[:, :, i], [(0, 0), (i, parts - 1 - i), (0, 0), *rest]) for i in range(parts))
    total = functools.reduce(jnp.add, moved)
    return total.reshape(total.shape[0], -1, *laid.shape[3:])[:, : (count - 1) * stride + length]


def _max_pool(image: Array) -> Array:
    return nn.max_pool(image, (2, 2), strides=(2, 2), padding='VALID')


@jax.custom_vjp
def max_pool(image: Array) -> Array:
    """Maxima of the 2x2 squares of `image` [B,H,W,C] -> [B,H//2,W//2,C]; a last odd row or column is left out.

    Of equal maxima the first, row by row, receives the gradient (as in PyTorch).
    """
    return _max_pool(image)


def _max_pool_forward(image: Array) -> tuple[Array, tuple[Array, Array]]:
    maxima = _max_pool(image)
    return maxima, (image, maxima)


def _max_pool_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    def plain(image: Array, maxima: Array, gradient: Array) -> Array:
        del maxima
        return jax.vjp(_max_pool, image)[1](gradient)[0]

    return (jax.lax.platform_dependent(*kept, gradient, cpu=conv_cpu.pool_gradient, default=plain),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


class Conv(nn.Module):
    """Convolution with stride 1, zero padding to the same size, and a bias.

    Parameters (float32): 'kernel' [h,w,C,F] and 'bias' [F]. Input [B,H,W,C], output [B,H,W,F] in `dtype`.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, image: Array) -> Array:
        kernel = self.param('kernel', self.kernel_init, (*self.kernel_size, image.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        image, kernel, bias = (leaf.astype(self.dtype) for leaf in (image, kernel, bias))
        return convolve(image, kernel) + bias.reshape(1, 1, 1, -1)


class TransposedConv(nn.Module):
    """Transposed convolution without padding, and a bias; see `convolve_transposed`.

    Parameters (float32): 'kernel' [p,q,C,F] and 'bias' [F]. Input [B,h,w,C], output [B,H,W,F] in `dtype`.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, image: Array) -> Array:
        kernel = self.param('kernel', self.kernel_init, (*self.kernel_size, image.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
        image, kernel, bias = (leaf.astype(self.dtype) for leaf in (image, kernel, bias))
        return convolve_transposed(image, kernel, self.strides) + bias.reshape(1, 1, 1, -1)
