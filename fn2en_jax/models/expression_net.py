"""The expression net of FaceNet2ExpNet (Ding, Zhou, Chellappa 2017): features, bridge, adapter, head."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fn2en_jax.models.conv import Conv, TransposedConv, max_pool
from fn2en_jax.models.dropout import dropout
from fn2en_jax.models.vgg_face import MEAN_RGB, moved
from fn2en_jax.types import Array, Key

FEATURES = (64, 128, 256, 512, 512)
MEAN_GREY = sum(MEAN_RGB) / 3.0


def normalise(image: Array, scale: float = 1.0) -> Array:
    """(image - mean) * scale in float32; grey [B,H,W,1] stays one channel.

    The mean is that of the face net's training images: MEAN_RGB by channel, and for grey its average.
    image: any real dtype, 0..255, [B,H,W,1] or [B,H,W,3] RGB. Raises ValueError for other shapes.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3):
        raise ValueError(f'the expression net needs images [B,H,W,1] or [B,H,W,3], not {image.shape}')
    mean = MEAN_RGB if image.shape[-1] == 3 else (MEAN_GREY,)
    return (image.astype(jnp.float32) - jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)) * scale


class ExpressionFeatures(nn.Module):
    """g(I), what stage 1 trains: 3x3 convolutions, each with ReLU and a 2x2 max pool; bridge; adapter.

    features: channels of the convolutions conv1, conv2, ...
    target_shape: (h,w,F) or (F,), the shape of the supervising activation of the face net, without B.
    The 'bridge' gives the last map F channels by a linear 1x1 convolution; for a vector target it is a linear
    fully-connected layer from the flattened map. There is no ReLU after it: where the paper is silent, the
    regression is not hindered by dead units. When the map's size differs from h x w, the 'adapter' follows
    it: a transposed convolution for a larger target, a strided one for a smaller, F to F channels.
    batch_norm, dtype, axis_name, input_scale: as in `VGGFace`; names conv1_bn ...; the bridge has none.

    All convolutions start He normal, the adapter as interpolation or averaging.
    """

    features: Sequence[int] = FEATURES
    target_shape: Sequence[int] = (7, 7, 512)
    batch_norm: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None
    input_scale: float = 1.0

    def __call__(self, image: Array, *, train: bool = False) -> Array:
        """image: [B,H,W,C], 0..255, C of 1 or 3, any size that survives the pools. Returns [B,*target_shape].

        Raises ValueError for an image too small for the pools, or a target of wrong rank.
        """
        return self.maps(image, train=train)['features']

    @nn.compact
    def maps(
        self, image: Array, *, train: bool = False, offsets: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """'features' [B,*target_shape] and what leads there: conv1 (after ReLU), pool1, conv2, ... [B,h,w,F].

        offsets: what is added to maps, by their names, as in `VGGFace`. Raises ValueError as a call does.
        """
        found: dict[str, Array] = {}
        x = normalise(image, self.input_scale).astype(self.dtype)
        _check_shapes(image, len(self.features), self.target_shape)
        for index, channels in enumerate(self.features, start=1):
            x = Conv(channels, dtype=self.dtype, name=f'conv{index}')(x)
            if self.batch_norm:
                x = _batch_norm(f'conv{index}_bn', train, self.dtype, self.axis_name)(x)
            x = found[f'conv{index}'] = moved(jax.nn.relu(x), f'conv{index}', offsets)
            x = found[f'pool{index}'] = moved(max_pool(x), f'pool{index}', offsets)
        return found | {'features': moved(self._bridged(x), 'features', offsets)}

    def _bridged(self, x: Array) -> Array:
        if len(self.target_shape) == 1:
            return nn.Dense(
                self.target_shape[0], dtype=self.dtype, name='bridge', kernel_init=nn.initializers.he_normal()
            )(x.reshape(x.shape[0], -1))
        height, width, channels = self.target_shape
        x = Conv(channels, kernel_size=(1, 1), dtype=self.dtype, name='bridge')(x)
        return self._adapted(x, (height, width))

    def _adapted(self, x: Array, size: tuple[int, int]) -> Array:
        source = x.shape[1:3]
        if source == size:
            return x
        if all(t >= s for t, s in zip(size, source, strict=True)):
            return _enlarged(x, size, self.dtype)
        if all(t <= s for t, s in zip(size, source, strict=True)):
            return _reduced(x, size, self.dtype)
        raise ValueError(f'cannot adapt a map of {source} to {size}: larger along one axis and smaller along the other')


class Head(nn.Module):
    """What stage 2 attaches: 'fc1' with ReLU and dropout, then the classifier 'fc2'."""

    num_classes: int
    hidden: int = 256
    dropout_rate: float = 0.5
    batch_norm: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None
    fc_stddev: float = 0.01

    @nn.compact
    def __call__(
        self, features: Array, *, train: bool = False, dropout_keys: Array | None = None
    ) -> tuple[Array, Array]:
        """features: [B,...]. Returns the hidden units [B,hidden] after ReLU, before dropout; logits [B,K]."""
        init = nn.initializers.normal(self.fc_stddev)
        x = features.reshape(features.shape[0], -1)
        x = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=init, name='fc1')(x)
        if self.batch_norm:
            x = _batch_norm('fc1_bn', train, self.dtype, self.axis_name)(x)
        hidden = jax.nn.relu(x)
        x = dropout(hidden, dropout_keys, self.dropout_rate)
        return hidden, nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=init, name='fc2')(x)


class ExpressionNet(nn.Module):
    """The whole expression net: parameters {'features': as in ExpressionFeatures, 'head': {'fc1', 'fc2'}}.

    What stage 1 has trained becomes the entry 'features' as it is. The head reads the linear output of the
    bridge (and adapter). fc_stddev: sigma of the Gaussian from which the head starts; the rest as above.
    """

    num_classes: int
    features: Sequence[int] = FEATURES
    target_shape: Sequence[int] = (7, 7, 512)
    hidden: int = 256
    dropout_rate: float = 0.5
    batch_norm: bool = False
    dtype: Any = jnp.float32
    axis_name: str | None = None
    input_scale: float = 1.0
    fc_stddev: float = 0.01

    @nn.compact
    def __call__(
        self,
        image: Array,
        *,
        train: bool = False,
        dropout_keys: Array | None = None,
        offsets: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """image: [B,H,W,C], 0..255. train: use, and update, batch statistics. dropout_keys: [B,2] or None.

        Returns 'features' [B,*target_shape] and the maps before it (see `ExpressionFeatures.maps`, also for `offsets`),
        'hidden' [B,hidden] after ReLU, 'logits' [B,K] in float32.
        """
        common = {'batch_norm': self.batch_norm, 'dtype': self.dtype, 'axis_name': self.axis_name}
        maps = ExpressionFeatures(
            self.features, self.target_shape, input_scale=self.input_scale, name='features', **common
        ).maps(image, train=train, offsets=offsets)
        hidden, logits = Head(
            self.num_classes, self.hidden, self.dropout_rate, fc_stddev=self.fc_stddev, name='head', **common
        )(maps['features'], train=train, dropout_keys=dropout_keys)
        return {**maps, 'hidden': hidden, 'logits': logits.astype(jnp.float32)}


def _batch_norm(name: str, train: bool, dtype: Any, axis_name: str | None) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, axis_name=axis_name, name=name
    )


def _enlarged(x: Array, size: tuple[int, int], dtype: Any) -> Array:
    """Fractionally-strided (transposed) convolution 'adapter' of [B,h,w,F] to exactly [B,*size,F].

    Along an axis of length s and target length t >= s the stride is n = ceil(t/s) and the kernel 2n - n mod 2
    long, as for bilinear interpolation, which is how it starts; one longer where the full result could not be
    cropped to its central t values otherwise.
    """
    (h, w), (height, width) = x.shape[1:3], size
    strides = math.ceil(height / h), math.ceil(width / w)
    kernel_size = _interpolating(strides[0], h, height), _interpolating(strides[1], w, width)
    start = functools.partial(_interpolation, strides=strides)
    x = TransposedConv(x.shape[-1], kernel_size, strides, dtype, start, name='adapter')(x)
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width, :]


def _interpolating(stride: int, source: int, target: int) -> int:
    """The length of a kernel that interpolates between pixels `stride` apart, and is cropped alike at both ends."""
    length = 2 * stride - stride % 2
    return length + (length + stride * (source - 1) - target) % 2


def _reduced(x: Array, size: tuple[int, int], dtype: Any) -> Array:
    """Strided convolution 'adapter' of [B,h,w,F] to exactly [B,*size,F].

    Along an axis of length s and target length t <= s the stride is n = floor(s/t) and the kernel s - (t-1) n
    long, so that it covers the axis without padding. It starts as the average over its window.
    """
    strides = [s // t for t, s in zip(size, x.shape[1:3], strict=True)]
    window = [s - (t - 1) * n for t, s, n in zip(size, x.shape[1:3], strides, strict=True)]
    return nn.Conv(x.shape[-1], window, strides, padding='VALID', kernel_init=_average, dtype=dtype, name='adapter')(x)


def _check_shapes(image: Array, pools: int, target_shape: Sequence[int]) -> None:
    side = 2**pools
    if len(target_shape) not in (1, 3):
        raise ValueError(f'the target shape is {tuple(target_shape)}; it must be (h, w, F) or (F,)')
    if min(image.shape[1:3]) < side:
        raise ValueError(
            f'an image of {image.shape[1]}x{image.shape[2]} pixels is too small for {pools} '
            f'pools; it needs at least {side}x{side}, or fewer convolutions in `features`'
        )


def _interpolation(_: Key, shape: Sequence[int], dtype: Any = jnp.float32, *, strides: tuple[int, int]) -> Array:
    """Bilinear interpolation of each channel by itself, between pixels `strides` apart: [h,w,F,F]."""
    rows, columns = map(_triangle, shape[:2], strides)
    return (jnp.outer(rows, columns)[:, :, None, None] * jnp.eye(shape[2])[None, None]).astype(dtype)


def _triangle(length: int, stride: int) -> Array:
    centre = (length - 1) / 2
    return 1.0 - jnp.abs(jnp.arange(length) - centre) / stride


def _average(_: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """The mean over the window, of each channel by itself: [h,w,F,F]."""
    mean = jnp.full(tuple(shape[:2]), 1.0 / (shape[0] * shape[1]))
    return (mean[:, :, None, None] * jnp.eye(shape[2])[None, None]).astype(dtype)
