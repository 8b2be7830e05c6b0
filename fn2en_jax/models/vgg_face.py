"""The face net: VGG-16 of "Deep Face Recognition" (Parkhi et al. 2015), the teacher of the expression net."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fn2en_jax.models.conv import Conv, max_pool
from fn2en_jax.models.dropout import dropout
from fn2en_jax.types import Array

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
MAPS = tuple(name for n, (_, depth) in enumerate(BLOCKS, start=1) for name in (f'conv{n}_{depth}', f'pool{n}'))
LAYERS = ('pool1', 'pool2', 'pool3', 'pool4', 'pool5', 'fc6', 'fc7', 'fc8')  # what can supervise
MEAN_RGB = (129.1863, 104.7624, 93.5940)  # of the published net's training images
SMALLEST_SIDE = 2 ** len(BLOCKS)


def normalise(image: Array, scale: float = 1.0, mean_rgb: Sequence[float] = MEAN_RGB) -> Array:
    """(image - mean_rgb) * scale in float32.

    image: [B,H,W,3] RGB, or [B,H,W,1] grey, repeated to three equal channels; any real dtype, 0..255.
    Returns [B,H,W,3]. Raises ValueError for other shapes.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3):
        raise ValueError(f'the face net needs images [B,H,W,1] or [B,H,W,3], not {image.shape}')
    image = jnp.broadcast_to(image.astype(jnp.float32), (*image.shape[:3], 3))
    return (image - jnp.asarray(mean_rgb, jnp.float32).reshape(1, 1, 1, 3)) * scale


def moved(x: Array, name: str, offsets: Mapping[str, Array] | None) -> Array:
    """x plus the offset of its name, if there is one."""
    return x + offsets[name] if offsets and name in offsets else x


class VGGFace(nn.Module):
    """VGG-16 with the published layer names conv1_1 ... conv5_3, fc6, fc7, fc8 (each 'kernel' and 'bias').

    num_classes: outputs of fc8, K.
    width: multiplies every channel count and `fc_features`; 1.0 is the published net.
    batch_norm: normalisation between every conv, fc6, fc7 and its ReLU (names with '_bn'; statistics in
        'batch_stats', running variance with the biased estimate). The published net has none; a face net
        trained from scratch on a small set needs it.
    dtype: of the computation, float32 or bfloat16; parameters, statistics and fc8's output stay float32.
    axis_name: of the pmapped axis over which batch statistics are averaged; None on one device.
    input_scale: multiplies the mean-subtracted image. 1.0 for imported weights; small for nets from scratch.
    mean_rgb: what the image is reduced by; that of the published net, unless the weights come from another.
    image_size: the side S to which images are enlarged first, bilinearly, where they come smaller than a trained net
        wants them; 0 takes them as they are.

    Convs, fc6 and fc7 start He normal, fc8 Gaussian with sigma 0.01, biases at zero.
    """

    num_classes: int
    width: float = 1.0
    batch_norm: bool = False
    dropout_rate: float = 0.5
    fc_features: int = 4096
    dtype: Any = jnp.float32
    axis_name: str | None = None
    input_scale: float = 1.0
    mean_rgb: Sequence[float] = MEAN_RGB
    image_size: int = 0

    @nn.compact
    def __call__(
        self,
        image: Array,
        *,
        train: bool = False,
        dropout_keys: Array | None = None,
        offsets: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Every activation that can supervise, and the map that each pool reads, by name.

        image: [B,H,W,C], 0..255, C of 1 or 3, H and W at least 32; odd sizes are rounded down by the pools.
        train: use, and update, batch statistics. dropout_keys: uint32 [B,2], or None for no dropout.
        offsets: what is added to maps, by their names; the gradient by an offset of zero is that by the map.

        Returns conv1_2, conv2_2, conv3_3, conv4_3, conv5_3 [B,h,w,F] after ReLU; pool1 ... pool5 [B,h,w,F]; fc6, fc7
        [B,F] after ReLU and before dropout; fc8 [B,K] logits, float32.
        Raises ValueError for other image shapes.
        """
        x = normalise(image, self.input_scale, self.mean_rgb)
        if self.image_size:
            x = jax.image.resize(x, (x.shape[0], self.image_size, self.image_size, x.shape[3]), 'bilinear')
        _check_size(x)
        x = x.astype(self.dtype)
        activations = {}
        for block, (channels, depth) in enumerate(BLOCKS, start=1):
            for index in range(1, depth + 1):
                name = f'conv{block}_{index}'
                x = Conv(self._scaled(channels), dtype=self.dtype, name=name)(x)
                x = self._rectified(x, name, train)
            x = activations[name] = moved(x, name, offsets)
            x = activations[f'pool{block}'] = moved(max_pool(x), f'pool{block}', offsets)
        x = x.reshape(x.shape[0], -1)  # in the order H, W, C
        for layer, name in enumerate(('fc6', 'fc7')):
            x = nn.Dense(
                self._scaled(self.fc_features), dtype=self.dtype, name=name, kernel_init=nn.initializers.he_normal()
            )(x)
            x = activations[name] = self._rectified(x, name, train)
            x = dropout(x, dropout_keys, self.dropout_rate, layer=layer)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name='fc8', kernel_init=nn.initializers.normal(0.01))(x)
        return activations | {'fc8': logits.astype(jnp.float32)}

    def _rectified(self, x: Array, name: str, train: bool) -> Array:
        if self.batch_norm:
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f'{name}_bn',
            )(x)
        return jax.nn.relu(x)

    def _scaled(self, features: int) -> int:
        return max(1, round(features * self.width))


def _check_size(image: Array) -> None:
    if min(image.shape[1:3]) < SMALLEST_SIDE:
        raise ValueError(
            f'the face net needs images of at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels, '
            f'not {image.shape[1]}x{image.shape[2]}'
        )
