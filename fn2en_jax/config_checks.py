"""What the values of a config may be: refused before anything is opened, not hours later."""

import math
from typing import Any

import ml_collections

from fn2en_jax import parallel, workdir
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.weights.canonical import ALL, COLOUR_ORDERS, CONVOLUTIONS_ONLY


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses values that could only fail later.

    Raises:
        UserError: naming the key.
    """
    unknown = [name for name in config.methods if name not in METHODS]
    if unknown or not config.methods:
        raise UserError(f'unknown method {", ".join(unknown) or "(none)"}; choose from {", ".join(METHODS)} or all')
    if config.dtype not in ('float32', 'bfloat16'):
        raise UserError(f'config.dtype is {config.dtype!r}; use float32 or bfloat16')
    if config.data.faces not in ('', 'align', 'box', 'none'):
        raise UserError(f'config.data.faces is {config.data.faces!r}; use align, box, none or nothing')
    if config.data.no_face not in ('keep', 'drop'):
        raise UserError(f'config.data.no_face is {config.data.no_face!r}; use keep or drop')
    if config.loss.class_weights not in ('none', 'balanced'):
        raise UserError(f'config.loss.class_weights is {config.loss.class_weights!r}; use none or balanced')
    if not 32 <= config.data.crop_size <= config.data.stored_size:
        raise UserError(
            f'config.data.crop_size is {config.data.crop_size}; it must be at least 32 and at most '
            f'config.data.stored_size, which is {config.data.stored_size}'
        )
    features, side = tuple(config.expression_net.features), config.data.crop_size
    if not features or min(features) < 1 or 2 ** len(features) > side:
        raise UserError(
            f'config.expression_net.features is {features}; it must be 1 to {int(math.log2(side))} positive numbers, '
            f'since a pool behind each halves the {side} pixels of config.data.crop_size'
        )
    if config.face_net.image_size and config.face_net.image_size < 32:
        raise UserError(f'config.face_net.image_size is {config.face_net.image_size}; it must be 0 or at least 32')
    if config.data.channels not in (1, 3):
        raise UserError(f'config.data.channels is {config.data.channels}; use 1 (grey) or 3 (RGB)')
    if config.face_net.colour_order not in ('', *COLOUR_ORDERS):
        raise UserError(f'config.face_net.colour_order is {config.face_net.colour_order!r}; use rgb, bgr or nothing')
    if config.face_net.layers not in (ALL, CONVOLUTIONS_ONLY):
        raise UserError(f'config.face_net.layers is {config.face_net.layers!r}; use {ALL} or {CONVOLUTIONS_ONLY}')
    if len(config.face_net.mean_rgb) != 3 or not all(0 <= value <= 255 for value in config.face_net.mean_rgb):
        raise UserError(f'config.face_net.mean_rgb is {config.face_net.mean_rgb}; it needs three numbers of 0..255')
    if config.stage1.reduction not in ('sum', 'mean'):
        raise UserError(f'config.stage1.reduction is {config.stage1.reduction!r}; use sum or mean')
    check_numbers(config)
    for key, value in workdir.flatten(plain(config)):
        if key.endswith('.batch_size'):
            parallel.per_device(value)


# What the last part of a key demands of its number: least value, greatest value (both allowed).
RANGES = {
    **dict.fromkeys(('epochs', 'learning_rate', 'width', 'input_scale'), (1e-30, math.inf)),
    **dict.fromkeys(('batch_size', 'steps_per_dispatch', 'fc_features', 'hidden', 'keep'), (1, math.inf)),
    **dict.fromkeys(('rows_per_stage', 'identity_images', 'train_images', 'test_images'), (1, math.inf)),
    **dict.fromkeys(('identity_persons', 'train_persons', 'test_persons'), (1, 100_000)),
    **dict.fromkeys(('dropout_rate', 'label_smoothing', 'momentum', 'zoom', 'contrast'), (0, 0.999)),
    **dict.fromkeys(('brightness', 'erase'), (0, 1)),
    **dict.fromkeys(('weight_decay', 'clip_norm', 'warmup_epochs', 'evals_per_stage'), (0, math.inf)),
    **dict.fromkeys(('every_seconds', 'in_memory_bytes', 'new_layers_multiplier', 'drop_factor'), (0, math.inf)),
    **dict.fromkeys(('top_images', 'mean_images', 'cam_images', 'map_images', 'map_channels'), (1, 1000)),
    **dict.fromkeys(('cam_side', 'steps', 'copies', 'repeats', 'grid', 'components'), (1, 100_000)),
    **dict.fromkeys(('jitter', 'blur', 'last_blur', 'decay'), (0, 0.5)),
    **dict.fromkeys(('step_size', 'last_step_size', 'noise'), (0, 255)),
    'chroma': (0, 1),
    'p': (1, math.inf),
    'num_folds': (2, 1000),
    'rotate': (0, 180),
    'seed': (0, 2**31 - 1),
}


def check_numbers(config: ml_collections.ConfigDict) -> None:
    """Refuses numbers outside of their `RANGES`.

    Raises:
        UserError: naming the key.
    """
    for key, value in workdir.flatten(plain(config)):
        _check_number(key, value)


def _check_number(key: str, value: Any) -> None:
    low, high = RANGES.get(key.split('.')[-1], (-math.inf, math.inf))
    if isinstance(value, (int, float)) and not (math.isfinite(value) and low <= value <= high):
        bounds = f'at least {low:g}' + (f' and at most {high:g}' if math.isfinite(high) else '')
        wanted = 'greater than 0' if low == 1e-30 else bounds
        raise UserError(f'config.{key} is {value}; it must be {wanted if math.isfinite(low) else "finite"}')


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as nested JSON values."""
    return {
        key: plain(value)
        if isinstance(value, ml_collections.ConfigDict)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in config.items()
    }
