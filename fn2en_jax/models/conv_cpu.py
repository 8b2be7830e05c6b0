"""Convolutions and gradients that XLA's CPU backend computes slowly, in a form that it computes fast.

No other backend sees them. XLA has two fast convolutions, YNNPACK's and Eigen's. The first, its choice, shares the work
out between threads along the width and the features only, so that 64 features at 64x64 pixels keep one thread busy, and
pads in memory that it takes anew every time. Eigen's does neither, and was the faster at every layer that was measured.

Both take NHWC images and HWIO kernels only. A pass (`conv_canonicalization`) brings others into that
form, in the entry computation and nowhere else: inside a loop, where training steps run, the gradients of a
convolution stay so and miss it: one fine-tuning step (64x64, quarter width, batch 16) took 488 ms of CPU time in
a loop and 84 outside. So the transposes are written out here, behind barriers that keep XLA from folding them back.

The weight gradient is slow in that form too (its window is the whole image). Here it is a matrix product for a few
images at a time. The nine taps of a 3x3 kernel are split between the operands, three shifts along the width in one and
three along the height in the other, so that 6 copies do what 9 do in the usual im2col, and the product is less skewed.

The backward pass of max pooling is elementwise work instead of `select_and_scatter`.
"""

import math

import jax
import jax.numpy as jnp

from fn2en_jax.types import Array

# Numbers in the image and its gradient that go into one matrix product, roughly.
_NUMBERS = 2**20
# With three input channels the products were the slower way; where exactly they begin to win is not measured.
_FEWEST_CHANNELS = 8
_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def convolve(image: Array, kernel: Array) -> Array:
    """Same-size, stride-1 convolution of image [B,H,W,C] with kernel [h,w,C,F], both sides odd: [B,H,W,F].

    In float32 one column too many is computed and cut off: where the output is larger than the image, XLA takes Eigen's
    convolution. The barrier keeps it from noticing.
    """
    rows, columns = (side // 2 for side in kernel.shape[:2])
    extra = int(image.dtype == jnp.float32)
    padding = ((rows, rows), (columns, columns + extra))
    output = jax.lax.conv_general_dilated(image, kernel, (1, 1), padding, dimension_numbers=_LAYOUT)
    return jax.lax.optimization_barrier(output)[:, :, : image.shape[2]]


def image_gradient(gradient: Array, kernel: Array) -> Array:
    """Gradient [B,H,W,C] of a same-size, stride-1 convolution by its image.

    gradient: [B,H,W,F] of the loss by the output; kernel: [h,w,C,F], both sides odd.
    """
    turned = jax.lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    return convolve(gradient, turned)


def kernel_gradient(image: Array, gradient: Array, kernel_size: tuple[int, ...]) -> Array:
    """Gradient [h,w,C,F] of a same-size, stride-1 convolution by its kernel.

    image: [B,H,W,C], what the convolution read; gradient: [B,H,W,F] of the loss by its output;
    kernel_size: (h, w), both odd.
    """
    by = _by_convolution if image.shape[-1] < _FEWEST_CHANNELS else _by_products
    return by(image, gradient, kernel_size)


def _by_convolution(image: Array, gradient: Array, kernel_size: tuple[int, ...]) -> Array:
    """As XLA does it: channels become the batch, the batch becomes the channels, the gradient is the kernel."""
    moved, window = jax.lax.optimization_barrier((image.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)))
    padding = [(side // 2, side // 2) for side in kernel_size]
    taps = jax.lax.conv_general_dilated(moved, window, (1, 1), padding, dimension_numbers=_LAYOUT)  # [C,h,w,F]
    return jax.lax.optimization_barrier(taps).transpose(1, 2, 0, 3)


def _by_products(image: Array, gradient: Array, kernel_size: tuple[int, ...]) -> Array:
    """Sums in float32 whatever the dtype."""
    channels, features = image.shape[-1], gradient.shape[-1]
    height, width = kernel_size
    together = _together(image, gradient)

    def product(index: Array, total: Array) -> Array:
        # Tap (i, j) pairs the image moved j - w//2 to the left with the gradient moved i - h//2 down.
        part, slope = (jax.lax.dynamic_slice_in_dim(x, index * together, together) for x in (image, gradient))
        columns = _shifted(part, axis=2, count=width).reshape(-1, width * channels)
        rows = _shifted(slope, axis=1, count=height, backwards=True).reshape(-1, height * features)
        contract = (((0,), (0,)), ((), ()))
        return total + jax.lax.dot_general(columns, rows, contract, preferred_element_type=jnp.float32)

    start = jnp.zeros((width * channels, height * features), jnp.float32)
    total = jax.lax.fori_loop(0, len(image) // together, product, start)
    return total.reshape(width, channels, height, features).transpose(2, 0, 1, 3).astype(image.dtype)


def pool_gradient(image: Array, maxima: Array, gradient: Array) -> Array:
    """Gradient [B,H,W,C] of 2x2, stride-2 max pooling: all of it goes to the first maximum of a square, row by row.

    image: [B,H,W,C]; maxima, gradient: [B,H//2,W//2,C].
    """
    batch, height, width, channels = maxima.shape
    squares = image[:, : 2 * height, : 2 * width].reshape(batch, height, 2, width, 2, channels)
    free = jnp.ones(maxima.shape, bool)
    routed = []
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        here = free & (squares[:, :, row, :, column] == maxima)
        free = free & ~here
        routed.append(jnp.where(here, gradient, 0))
    top, bottom = (jnp.stack(pair, axis=3) for pair in (routed[:2], routed[2:]))
    full = jnp.stack((top, bottom), axis=2).reshape(batch, 2 * height, 2 * width, channels)
    left_out = ((0, 0), (0, image.shape[1] % 2), (0, image.shape[2] % 2), (0, 0))
    return jnp.pad(full, left_out)


def _shifted(x: Array, *, axis: int, count: int, backwards: bool = False) -> Array:
    """`count` copies of x [B,H,W,C], shifted along `axis` around zero shift, side by side: [B,H,W,count*C]."""
    reach, length = count // 2, x.shape[axis]
    padded = jnp.pad(x, [(reach, reach) if index == axis else (0, 0) for index in range(x.ndim)])
    starts = reversed(range(count)) if backwards else range(count)
    return jnp.concatenate([jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in starts], axis=-1)


def _together(image: Array, gradient: Array) -> int:
    """How many images of a batch go into one matrix product: a divisor of B."""
    each = math.prod(image.shape[1:]) + math.prod(gradient.shape[1:])
    most = max(1, round(_NUMBERS / each))
    return max(count for count in range(1, len(image) + 1) if len(image) % count == 0 and count <= most)
