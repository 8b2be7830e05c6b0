"""A trained net in one file: safetensors whose metadata hold class names, preprocessing, architecture and provenance.

Tensors bear their paths in the variable tree ('params/features/conv1/kernel', 'batch_stats/...'), float32. Metadata are
texts, JSON where they are more than a word:

    format, version     this form
    method, fold        which net of its run
    class_names         K names in the order of the outputs
    preprocessing       what is done to an image before the first layer, see `preprocessing`
    config              the settings that make up the net, and nothing of how it was trained; see `net_settings`
    provenance          how it was made: versions, fingerprint of the data, results, all settings but paths, licence
    tensors_sha256      of names, shapes and bits
    metadata_sha256     of all the other metadata

Nothing in a file is believed: settings are known ones within bounds, preprocessing must be what the settings make, and
names, shapes and checksums must agree before a value is used. The checksums find damage, not forgery.
"""

import functools
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from fn2en_jax import net_settings, parallel, trees, workdir
from fn2en_jax.data.alignment import EYES
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.methods.base import NetState
from fn2en_jax.models.expression_net import MEAN_GREY
from fn2en_jax.models.vgg_face import MEAN_RGB
from fn2en_jax.net_settings import SETTINGS, is_line, is_names
from fn2en_jax.stages import FACE_NET
from fn2en_jax.trained import Trained
from fn2en_jax.types import PyTree
from fn2en_jax.weights import tensors
from fn2en_jax.weights.binary import MAX_VALUES, Bytes, shown
from fn2en_jax.weights.canonical import LICENCE
from fn2en_jax.weights.own import TRAINED_NET

FORMAT, VERSION = TRAINED_NET, '1'
PACKAGES = ('jax', 'jaxlib', 'flax', 'numpy')
_TEXTS = ('method', 'fold', 'tensors_sha256', 'metadata_sha256')
_PARSED = ('class_names', 'preprocessing', 'config', 'provenance')
_BATCH = 64  # images at once, at least

# Settings that say where things lie on somebody's disk; they stay there.
_PATHS = (
    'compilation_cache',
    'data.data_dir',
    'data.expressions',
    'data.extra_manual_dir',
    'data.folds_file',
    'data.identities',
    'data.manual_dir',
    'face_net.weights',
)


def write(net: Trained, path: str | Path) -> None:
    """Writes the net as one file, in one step.

    Raises:
        UserError: when the net is not whole, or larger than any that this form takes.
        OSError: as the disk does.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in trees.paths(net.variables()).items()}
    metadata = {'format': FORMAT, 'version': VERSION, **texts(net), 'tensors_sha256': _tensors_sha256(arrays)}
    tensors.write(Path(path), arrays, {**metadata, 'metadata_sha256': _metadata_sha256(metadata)})


def card(net: Trained) -> dict[str, Any]:
    """What must be known to use a net, as JSON values: it travels in every exported file.

    Returns:
        method, fold, class_names, preprocessing, config, provenance: see above.

    Raises:
        UserError: when a file of the workdir is damaged, when the net is larger than any that can be exported, or has
            classes that cannot be printed.
    """
    check_names(net)
    return {
        'method': net.method,
        'fold': net.fold,
        'class_names': list(net.class_names),
        'preprocessing': preprocessing(net),
        'config': _settings(net.config),
        'provenance': provenance(net),
    }


def check_names(net: Trained) -> None:
    """Refuses names of classes that `read` would refuse.

    Raises:
        UserError: naming the first.
    """
    for name in net.class_names:
        if not is_line(name):
            raise UserError(
                f'{net.place} was trained with a class called "{shown(name)}", which holds a character that cannot be '
                'printed, or nothing at all; no file can hold such a net. Rename the class and train it again'
            )


def texts(net: Trained) -> dict[str, str]:
    """The card for a file whose metadata are texts: words as they are, the rest as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in card(net).items()}


def read(path: str | Path) -> Trained:
    """Opens a file of `write`. Values are read, and held against their checksum, when the net's `read` is called.

    Raises:
        UserError: when it cannot be read, is damaged, or is none of these files.
    """
    place = Path(path)
    shapes, metadata = _opened(place)
    try:
        return _net(place, shapes, metadata)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def preprocessing(net: Trained) -> dict[str, Any]:
    """What is done to an image before the first layer, as JSON values.

    Returns:
        faces: how the face is cut out of its image: 'align' by the eyes, 'box', 'none': the central square.
        eyes: where the left and the right eye then stand, (x, y) in shares of the side; None unless aligned.
        no_face: what training did with images without a face: 'keep' the central square, or 'drop' it.
        stored_size: side of the square that is cut out, pixels.
        crop_size: side of its central part, which the net sees.
        channels, colour_order: 1, 'grey', or 3, 'rgb'; uint8.
        mean: by channel, subtracted from values of 0..255. Three for one channel: grey is repeated first.
        input_scale: multiplies the difference.
        image_size: side to which the result is then enlarged bilinearly; 0: it is not.
        flip_average: whether logits are averaged with those of the mirror image.
    """
    config = net.config
    own = config.face_net if net.method in (FACE_NET, 'finetune') else config.expression_net
    is_face_net = own is config.face_net
    grey = config.data.channels == 1
    mean = _setting(config, 'face_net.mean_rgb') if is_face_net else (MEAN_GREY,) if grey else MEAN_RGB
    return {
        'faces': net.faces,
        'eyes': [list(eye) for eye in EYES] if net.faces == 'align' else None,
        'no_face': _setting(config, 'data.no_face'),
        'stored_size': config.data.stored_size,
        'crop_size': config.data.crop_size,
        'channels': config.data.channels,
        'colour_order': 'grey' if grey else 'rgb',
        'mean': list(mean),
        'input_scale': own.input_scale,
        'image_size': _setting(config, 'face_net.image_size') if is_face_net else 0,
        'flip_average': config.loss.flip_test and net.method != FACE_NET,
    }


def provenance(net: Trained) -> dict[str, Any]:
    """How the net was made, as JSON values: told by its file, or gathered from its workdir.

    Raises:
        UserError: when a file of the workdir is damaged.
    """
    if net.provenance:
        return dict(net.provenance)
    root = net.place.parent if net.method == FACE_NET else net.place.parents[1]
    told = root / 'results.json'
    results = workdir.read_json(told) if told.exists() else {}
    figures = results.get('methods', {}).get(net.method, {})
    settings = json.loads(net.config.to_json())
    return {
        'trained_with': results.get('versions', {}),
        'exported_with': {name: importlib.metadata.version(name) for name in PACKAGES},
        'seed': settings.get('seed'),
        'data_source': settings['data']['source'],
        'data_fingerprint': settings.pop('data_fingerprint', {}),
        'results_of_fold': _figures(figures.get('folds', {}).get(net.fold, {})),
        'results_of_all_folds': _figures(figures),
        'settings': {key: value for key, value in workdir.flatten(settings) if key not in _PATHS},
        'licence': _licence(settings),
    }


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    kept = ('accuracy', 'class_averaged_accuracy', 'macro_f1', 'num_examples', 'per_class_accuracy')
    return {name: found[name] for name in kept if name in found}


def _licence(settings: Mapping[str, Any]) -> str:
    if settings['face_net'].get('weights'):
        return f'The licences of the training images and of the weights it started from apply. {LICENCE}'
    if settings['data']['source'] == 'synthetic':
        return 'Trained on rendered faces alone, which show nobody.'
    return 'The licence of the training images applies to what is made of them; most sets of faces are for research.'


def _settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What makes up the net, by name. Raises UserError for a value that `read` would refuse."""
    settings = {key: _setting(config, key) for key in SETTINGS}
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    _check(settings)
    return settings


def _setting(config: ml_collections.ConfigDict, key: str) -> Any:
    value: Any = config
    for part in key.split('.'):
        if part not in value:
            return net_settings.BEFORE[key]
        value = value[part]
    return value


def _check(settings: Mapping[str, Any]) -> None:
    for key, is_sound in SETTINGS.items():
        if not is_sound(settings[key]):
            raise UserError(f'config.{key} is {shown(str(settings[key]))}, which no net of this form has')
    crop = settings['data.crop_size']
    if crop > settings['data.stored_size']:
        raise UserError('config.data.crop_size is larger than config.data.stored_size')
    if crop < 2 ** len(settings['expression_net.features']):
        raise UserError(f'config.expression_net.features has too many convolutions for images of {crop}x{crop}')


def _config(settings: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """A whole config around the settings of a net; what it says of training is of no consequence."""
    devices = parallel.num_devices()
    config = net_settings.training(batch_size=-(-_BATCH // devices) * devices)
    for key, value in settings.items():
        room, _, name = key.rpartition('.')
        (config[room] if room else config)[name] = tuple(value) if isinstance(value, list) else value
    return ml_collections.ConfigDict(config)


# Reading.


def _opened(place: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes of the tensors by name, and metadata whose checksum is right."""
    try:
        with Bytes(place) as file:
            if form := _other_form(place, file):
                raise UserError(f'{form}; this program opens .safetensors files of python -m fn2en_jax.export')
            found, metadata = tensors.read(file)
    except OSError as error:
        raise UserError(f'{place} cannot be read: {error.strerror}') from error
    except UserError as error:
        raise UserError(f'{place} is no readable net: {error}') from error
    if metadata.get('format') != FORMAT:
        raise UserError(f'{place} is no net written by python -m fn2en_jax.export (format {FORMAT!r})')
    if metadata.get('version') != VERSION:
        version = shown(metadata.get('version', ''))
        raise UserError(f'{place} is of version {version!r}, and this program reads {VERSION}; export it again')
    if metadata.get('metadata_sha256') != _metadata_sha256(metadata):
        raise UserError(f'{place} is damaged: its metadata do not match their checksum; copy or export it again')
    if sum(math.prod(tensor.shape) for tensor in found.values()) > MAX_VALUES:
        raise UserError(f'{place} holds more than {MAX_VALUES} values; no net of this form does')
    return {name: tensor.shape for name, tensor in found.items()}, metadata


def _other_form(place: Path, file: Bytes) -> str:
    """What a file is that holds a net for other programs; '' where it may be ours."""
    if file.size >= 4 and bytes(file.read(0, 4)) == b'PK\x03\x04':
        return 'it is a zip, as .stablehlo programs are'
    return 'by its name it is an ONNX model' if place.suffix.lower() == '.onnx' else ''


def _net(place: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> Trained:
    missing = [key for key in (*_TEXTS, *_PARSED) if key not in metadata]
    if missing:
        raise UserError(f'the metadata lack {", ".join(missing)}')
    told = {key: _parsed(key, metadata[key]) for key in _PARSED}
    method, names, faces = metadata['method'], told['class_names'], told['preprocessing'].get('faces')
    if method not in (*METHODS, FACE_NET):
        raise UserError(f'the metadata name the method {shown(method)!r}')
    if not is_names(names):
        raise UserError('the metadata hold no sound class_names')
    if not (metadata['fold'].isprintable() and is_line(told['provenance'].get('licence'))):
        raise UserError('the metadata hold no sound fold or licence')
    if faces not in ('align', 'box', 'none'):
        raise UserError(f'the metadata say that faces are cut out by {shown(faces)!r}')
    if set(told['config']) != set(SETTINGS):
        odd = sorted(set(told['config']) ^ set(SETTINGS))
        raise UserError(f'the metadata do not have the settings of a net: {", ".join(map(shown, odd[:5]))}')
    _check(told['config'])
    _check_outputs(method, shapes, names)
    read = functools.partial(_read, place, metadata['tensors_sha256'])
    net = Trained(
        method, metadata['fold'], tuple(names), _config(told['config']), place, read, faces, told['provenance']
    )
    if preprocessing(net) != told['preprocessing']:
        raise UserError('its preprocessing is not what this program does; use the version that wrote it')
    return net


def _parsed(key: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'its {key} is not JSON') from error
    kind = list if key == 'class_names' else dict
    if not isinstance(value, kind):
        raise UserError(f'its {key} is no JSON {"list" if kind is list else "object"}')
    return value


def _check_outputs(method: str, shapes: Mapping[str, tuple[int, ...]], names: list[str]) -> None:
    last = 'params/fc8/bias' if method in (FACE_NET, 'finetune') else 'params/head/fc2/bias'
    if shapes.get(last) != (len(names),):
        outputs = shapes.get(last, 'none')
        raise UserError(f'there are {len(names)} class names, and the classifier {last} has the outputs {outputs}')


def _read(place: Path, sha256: str, template: NetState) -> NetState:
    """The state, host arrays. Raises UserError when the file does not fit the template, or has changed."""
    try:
        with Bytes(place) as file:
            arrays = {name: tensor.read() for name, tensor in tensors.read(file)[0].items()}
    except OSError as error:
        raise UserError(f'{place} cannot be read: {error.strerror}') from error
    if _tensors_sha256(arrays) != sha256:
        raise UserError(f'{place} is damaged: its tensors do not match their checksum; copy or export it again')
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f'{place} holds values that are not finite float32')
    wanted: PyTree = {'params': template.params, 'batch_stats': template.stats}
    try:
        state = jax.device_get(trees.strict_merge(wanted, arrays))
    except UserError as error:
        raise UserError(f'{place}: {error}') from error
    return NetState(state['params'], (), state['batch_stats'])


def _tensors_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f'{name} {array.dtype.str} {array.shape}\n'.encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _metadata_sha256(metadata: Mapping[str, str]) -> str:
    others = sorted((key, text) for key, text in metadata.items() if key != 'metadata_sha256')
    return hashlib.sha256(json.dumps(others).encode()).hexdigest()
