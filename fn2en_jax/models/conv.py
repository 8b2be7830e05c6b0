"""Convolution and max pooling as the face net and the expression net use them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fn2en_jax.types import Array

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(image: Array, kernel: Array) -> Array:
    """Cross-correlate `image` [B,H,W,C] with `kernel` [h,w,C,F]: stride 1, zero padding, same size [B,H,W,F]."""
    return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT)


def max_pool(image: Array) -> Array:
    """Maxima of the 2x2 squares of `image` [B,H,W,C] -> [B,H//2,W//2,C]; a last odd row or column is left out."""
    return nn.max_pool(image, (2, 2), strides=(2, 2), padding="VALID")


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
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, image.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        image, kernel, bias = (leaf.astype(self.dtype) for leaf in (image, kernel, bias))
        return convolve(image, kernel) + bias.reshape(1, 1, 1, -1)
