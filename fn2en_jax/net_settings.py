"""Which keys of a config make up a net, and what may stand there; which others building one asks for.

Files of nets are held against this, and so are workdirs, before anything is built from them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fn2en_jax import workdir
from fn2en_jax.data.images import MIN_SIDE
from fn2en_jax.models.vgg_face import LAYERS, MEAN_RGB, SMALLEST_SIDE

_LARGEST_SIDE = 2048  # pixels


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _one_of(*known: Any) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(item) and value == item for item in known)


def _several(each: Callable[[Any], bool], fewest: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and fewest <= len(value) <= most and all(map(each, value))


# What makes up a net, and what may stand there: sizes are bounded by the largest that anybody would train.
SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    'dtype': _one_of('float32', 'bfloat16'),
    'data.stored_size': _whole(MIN_SIDE, _LARGEST_SIDE),
    'data.crop_size': _whole(SMALLEST_SIDE, _LARGEST_SIDE),
    'data.channels': _one_of(1, 3),
    'data.no_face': _one_of('keep', 'drop'),
    'loss.flip_test': _one_of(False, True),
    'face_net.width': _number(1e-4, 4),
    'face_net.fc_features': _whole(1, 1 << 16),
    'face_net.batch_norm': _one_of(False, True),
    'face_net.input_scale': _number(1e-30, 1e30),
    'face_net.mean_rgb': _several(_number(0, 255), 3, 3),
    'face_net.image_size': lambda value: _one_of(0)(value) or _whole(SMALLEST_SIDE, _LARGEST_SIDE)(value),
    'expression_net.features': _several(_whole(1, 1 << 13), 1, 11),
    'expression_net.hidden': _whole(1, 1 << 16),
    'expression_net.batch_norm': _one_of(False, True),
    'expression_net.input_scale': _number(1e-30, 1e30),
    'stage1.layer': _one_of(*LAYERS),
}
# Of workdirs older than a key.
BEFORE: Mapping[str, Any] = {'data.no_face': 'keep', 'face_net.mean_rgb': MEAN_RGB, 'face_net.image_size': 0}


def is_names(names: Any) -> bool:
    """Whether these can be the names of classes: a list of different lines."""
    several = isinstance(names, (list, tuple)) and len(names) > 0
    return several and all(map(is_line, names)) and len(set(names)) == len(names)


def is_line(text: Any) -> bool:
    """Whether it may be printed as it is: nothing that moves the cursor."""
    return isinstance(text, str) and text != '' and text.isprintable()


def training(batch_size: int) -> dict[str, Any]:
    """A config without SETTINGS: whatever else it takes to build a net, of no consequence for a trained one."""
    stage = {
        'epochs': 1.0,
        'batch_size': batch_size,
        'optimiser': 'sgd',
        'learning_rate': 1e-4,
        'schedule': 'constant',
        'drop_epochs': (),
        'drop_factor': 1.0,
        'warmup_epochs': 0.0,
        'momentum': 0.9,
        'weight_decay': 0.0,
        'decay_mask': 'all',
        'clip_norm': 0.0,
        'new_layers_multiplier': 1.0,
    }
    return {
        'data': {'data_dir': '', 'in_memory_bytes': 4 << 30, 'synthetic': {}},
        'loss': {'class_weights': 'none', 'label_smoothing': 0.0},
        'face_net': {'train': stage, 'dropout_rate': 0.0, 'label_smoothing': 0.0, 'weights': ''},
        'expression_net': {'dropout_rate': 0.0},
        'stage1': {},
        'finetune': {**stage, 'dropout_rate': 0.0},
        **dict.fromkeys(('stage2', 'scratch'), stage),
    }


def odd(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """The keys of a stored config with a value of another kind than the default's, or that no net has; sorted."""
    stored = dict(workdir.flatten(config))
    wrong = {key for key, value in workdir.flatten(defaults) if key in stored and _kind(stored[key]) != _kind(value)}
    return sorted(wrong | {key for key, is_sound in SETTINGS.items() if key in stored and not is_sound(stored[key])})


def _kind(value: Any) -> type:
    """Its type, as far as JSON tells types apart."""
    return {int: float, tuple: list}.get(type(value), type(value))


def lacking(config: Mapping[str, Any]) -> list[str]:
    """The keys without which no net can be built from a config as `config.json` holds it; sorted."""
    present = dict(workdir.flatten(config))
    wanted = {*SETTINGS, *dict(workdir.flatten(training(1)))} - set(BEFORE)
    return sorted(wanted - set(present))
