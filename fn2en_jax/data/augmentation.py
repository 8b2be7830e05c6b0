"""Random crops, flips and mild photometric changes, computed on the device inside the training step."""

import dataclasses

import jax
import jax.numpy as jnp

from fn2en_jax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What `augment` may do to a training image; the defaults are the paper's (random crop and mirror).

    Attributes:
        crop: side of the square crop, pixels.
        flip: mirror left-right with probability 1/2.
        rotate: largest rotation about the centre, degrees.
        zoom: largest relative change of scale (0.1: between 0.9 and 1.1).
        brightness: largest shift of all grey values, as a fraction of 255.
        contrast: largest relative change of contrast about the image's mean.
        erase: largest side of one rectangle painted grey, as a fraction of the crop (0: never).
    """

    crop: int
    flip: bool = True
    rotate: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0


def centre_crop(images: Array, crop: int) -> Array:
    """Cuts the middle out of uint8 images [B,S,S,C] -> float32 [B,crop,crop,C] in 0..255."""
    start = (images.shape[1] - crop) // 2
    return images[:, start : start + crop, start : start + crop].astype(jnp.float32)


def augment(images: Array, keys: Array, spec: Augmentation) -> Array:
    """Augments uint8 images [B,S,S,C] with one key per image [B,2] -> float32 [B,crop,crop,C] in 0..255.

    Every image depends on its own key only, so a batch is the same on one device and on many.
    """
    return jax.vmap(lambda image, key: _augment_one(image, key, spec))(images, keys)


def _augment_one(image: Array, key: Key, spec: Augmentation) -> Array:
    geometry, light, hole = jax.random.split(key, 3)
    warped = _warp(image, geometry, spec) if spec.rotate or spec.zoom else _crop(image, geometry, spec)
    if spec.brightness or spec.contrast:
        warped = _relight(warped, light, spec)
    return _erase(warped, hole, spec.erase) if spec.erase else warped


def _crop(image: Array, key: Key, spec: Augmentation) -> Array:
    """Random crop, then a mirror for every second image on average."""
    where, mirror = jax.random.split(key)
    top, left = jax.random.randint(where, (2,), 0, image.shape[0] - spec.crop + 1)
    size = (spec.crop, spec.crop, image.shape[2])
    cut = jax.lax.dynamic_slice(image, (top, left, 0), size).astype(jnp.float32)
    return jnp.where(_coin(mirror, spec.flip), cut[:, ::-1], cut)


def _warp(image: Array, key: Key, spec: Augmentation) -> Array:
    """Crop, mirror, rotation and zoom as one bilinear resampling; outside the image the edge is repeated."""
    where, mirror, angle_key, zoom_key = jax.random.split(key, 4)
    margin = (image.shape[0] - spec.crop) / 2
    shift = jax.random.uniform(where, (2, 1, 1), minval=-margin, maxval=margin)
    angle = jnp.deg2rad(jax.random.uniform(angle_key, minval=-spec.rotate, maxval=spec.rotate))
    scale = 1 / jax.random.uniform(zoom_key, minval=1 - spec.zoom, maxval=1 + spec.zoom)
    offsets = jnp.arange(spec.crop, dtype=jnp.float32) - (spec.crop - 1) / 2
    rows, columns = jnp.meshgrid(offsets, offsets, indexing='ij')
    columns = jnp.where(_coin(mirror, spec.flip), -columns, columns)
    cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
    centre = (image.shape[0] - 1) / 2
    points = jnp.stack([cos * rows - sin * columns, sin * rows + cos * columns]) + shift + centre
    return _bilinear(image.astype(jnp.float32), points)


def _bilinear(image: Array, points: Array) -> Array:
    """Samples image [S,S,C] at points [2,h,w] (row, column) -> [h,w,C]."""
    side = image.shape[0]
    points = jnp.clip(points, 0.0, side - 1.0)
    low = jnp.clip(jnp.floor(points), 0, side - 2).astype(jnp.int32)
    (dy, dx) = (points - low)[..., None]
    flat = image.reshape(side * side, -1)
    corner = low[0] * side + low[1]
    # One gather of flattened pixels per corner is far faster on a CPU than indexing rows and columns.
    top = flat[corner] * (1 - dx) + flat[corner + 1] * dx
    bottom = flat[corner + side] * (1 - dx) + flat[corner + side + 1] * dx
    return top * (1 - dy) + bottom * dy


def _relight(image: Array, key: Key, spec: Augmentation) -> Array:
    shift_key, gain_key = jax.random.split(key)
    shift = 255 * jax.random.uniform(shift_key, minval=-spec.brightness, maxval=spec.brightness)
    gain = jax.random.uniform(gain_key, minval=1 - spec.contrast, maxval=1 + spec.contrast)
    mean = image.mean()
    return jnp.clip((image - mean) * gain + mean + shift, 0.0, 255.0)


def _erase(image: Array, key: Key, largest: float) -> Array:
    """Paints one rectangle of random place and size with the image's mean."""
    side = image.shape[0]
    centre_key, size_key = jax.random.split(key)
    centre = jax.random.uniform(centre_key, (2,), minval=0, maxval=side)
    half = jax.random.uniform(size_key, (2,), minval=0, maxval=largest * side / 2)
    inside = jnp.abs(jnp.arange(side)[None, :] - centre[:, None]) < half[:, None]
    return jnp.where((inside[0][:, None] & inside[1][None, :])[..., None], image.mean(), image)


def _coin(key: Key, enabled: bool) -> Array:
    return jax.random.bernoulli(key) if enabled else jnp.asarray(False)
