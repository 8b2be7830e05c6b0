"""Turns a face net's weights, in any published form, into a file of ours; looks into them, compares and exports them.

    python -m fn2en_jax.convert vgg_face.mat face.safetensors
    python -m fn2en_jax.convert vgg_face_dag.pth face.safetensors --colour_order=rgb
    python -m fn2en_jax.convert vgg_face.mat --probe=photo.jpg
    python -m fn2en_jax.convert --check=vgg_face.mat,VGG_FACE.caffemodel
    python -m fn2en_jax.convert runs/faces net.safetensors --to=pytorch

Read are MatConvNet .mat, Caffe .caffemodel, Torch7 .t7, PyTorch .pth, Keras .h5 and safetensors, told by their content;
nothing in a file is executed. Without a second file, the first is only described.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from fn2en_jax import commands
from fn2en_jax.errors import UserError

COLOURS = flags.DEFINE_string(
    'colour_order', '', 'rgb or bgr, for a file that cannot tell; with --check, two of them: rgb,bgr.'
)
LAYERS = flags.DEFINE_string('layers', 'all', "all, or 'convolutions' to leave fc6, fc7 and fc8 behind.")
IMAGE_SIZE = flags.DEFINE_string(
    'image_size', '', 'HxW in pixels, for a net that was made for other than square images.'
)
MEAN = flags.DEFINE_string('mean', '', 'R,G,B to subtract instead of the mean of the format, of 0..255.')
THEANO = flags.DEFINE_bool('theano_flipped', False, 'Turns the flipped kernels of a Keras file from Theano.')
CHECK = flags.DEFINE_string('check', '', 'A,B: compares two files after import, layer by layer.')
PROBE = flags.DEFINE_string('probe', '', 'A photo: its five most likely identities, resized as a whole.')
NAMES = flags.DEFINE_string(
    'names', '', 'Names in the order of the classes, for --probe: a text file, one per line, or .npy.'
)
TO = flags.DEFINE_string('to', '', "'pytorch': writes a state dict of a face net's file, or of a net in a workdir.")
METHOD = flags.DEFINE_string('method', '', 'Which net of a workdir: fn2en, scratch, finetune or face_net.')
FOLD = flags.DEFINE_string('fold', '', "Which fold's net of a workdir, where there are several.")

_LIKELIEST = 5
_SAME = 1e-5  # relative to the largest value of a tensor: what rounding to float32 may leave


def main(paths: Sequence[str]) -> None:
    """Does what the flags ask for. paths: SRC, or SRC and DST; none for --check."""
    if PROBE.value and (CHECK.value or TO.value):
        raise UserError('--probe goes with neither --check nor --to; ask for one at a time')
    if CHECK.value:
        _none(paths)
        check(*_two(CHECK.value))
    elif len(paths) not in (1, 2):
        raise UserError('name a weight file, and a .safetensors file to write it to; see --help')
    elif TO.value:
        export(*paths) if len(paths) == 2 else _none(paths)
    else:
        convert(*paths)


def convert(source: str, destination: str = '') -> None:
    """Describes a weight file, writes it in our form if a destination is given, and answers --probe.

    Raises:
        UserError: when it cannot be read or written, or holds values that are not finite.
    """
    from fn2en_jax.weights import files, own

    place = _destination(destination, source) if destination else None
    net = files.read(source, _wish(COLOURS.value))
    sha256 = files.sha256(source)
    broken = not all(np.isfinite(array).all() for array in net.tensors().values())
    if place and not broken:
        try:
            own.write(place, net, sha256)
        except OSError as error:
            raise UserError(f'cannot write {place}: {error.strerror}') from error
    print(_description(net, sha256))
    for line in (*net.notes, *files.unsound(net)):
        print(f'warning: {line}', file=sys.stderr)
    if broken:
        raise UserError(f'{source} holds values that are not finite; it is damaged or not a trained net')
    if place:
        print(f'written to {place}')
    if PROBE.value:
        likeliest = probe(net, PROBE.value, _names(NAMES.value))
        print(f'\n{PROBE.value}, resized as a whole to {_size(net)}:')
        for name, probability in likeliest:
            print(f'{probability:8.5f}  {_visible(name)}')


def check(first: str, second: str) -> None:
    """Prints how far the layers of two files are apart after import.

    Raises:
        UserError: when one holds values that are not finite, or they are not the same net for the same input; an
            exchange of red and blue is named.
    """
    from fn2en_jax.weights import files

    colours = COLOURS.value.split(',') if ',' in COLOURS.value else [COLOURS.value] * 2
    if len(colours) != 2:
        raise UserError(f'--colour_order={COLOURS.value} names more than two; --check compares two files')
    one, other = (files.sound(path, _wish(colour)) for path, colour in zip((first, second), colours, strict=True))
    for path, net in ((first, one), (second, other)):
        for note in net.notes:
            print(f'warning: {path}: {note}', file=sys.stderr)
    ours, theirs = one.tensors(), other.tensors()
    if set(ours) != set(theirs):
        differing = ', '.join(sorted(set(ours) ^ set(theirs))[:_LIKELIEST])
        raise UserError(f'{first} and {second} do not have the same tensors: {differing}')
    print(f'{"tensor":28}{"largest value":>15}{"largest difference":>20}')
    different = [name for name in ours if not _compared(name, ours[name], theirs[name])]
    if not different:
        _check_same_input(f'{first} and {second} are the same net', one, other)
        print('the same net, up to rounding')
        return
    name = 'params/conv1_1/kernel'
    if different == [name] and _is_near(ours[name][:, :, ::-1], theirs[name]):
        raise UserError(
            f'{first} and {second} are the same net but for red and blue, which are exchanged in conv1_1; '
            'one of the two was imported with the wrong --colour_order'
        )
    raise UserError(
        f'{first} and {second} differ in {len(different)} of {len(ours)} tensors; the first is {different[0]}'
    )


def probe(net: Any, photo: str, names: Sequence[str] = ()) -> list[tuple[str, float]]:
    """The five most likely identities of a photo, with their probabilities, the likeliest first.

    Args:
        net: a `weights.canonical.Net` with its classifier.
        photo: an image file, resized to what the net was made for; as the programs that published the nets do, the
            whole of it, whatever its sides.
        names: K names, in the order of the classes; () takes those of the file, or else indices.

    Raises:
        UserError: when the photo cannot be read, the net has no classifier, or there are not K names.
    """
    import jax
    from PIL import Image

    from fn2en_jax.data import images

    if 'fc8' not in net.variables['params']:
        raise UserError('the net has no classifier (fc8), so it names nobody')
    names = names or net.class_names
    classes = net.variables['params']['fc8']['bias'].size
    if names and len(names) != classes:
        raise UserError(f'there are {len(names)} names, and the net tells {classes} identities apart')
    height, width = net.image_size
    try:
        picture = Image.fromarray(images.decode(Path(photo).read_bytes(), 3))
        image = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    except OSError as error:
        raise UserError(f'{photo} cannot be read: {error.strerror}') from error
    except UserError as error:
        raise UserError(f'{photo}: {error}') from error
    model, variables = _model(net, image)
    logits = np.asarray(jax.jit(model.apply)(variables, image[None])['fc8'][0], np.float64)
    odds = np.exp(logits - logits.max())
    order = np.argsort(-odds, kind='stable')[:_LIKELIEST]
    return [(names[index] if names else f'class {index}', float(odds[index] / odds.sum())) for index in order]


def export(source: str, destination: str) -> None:
    """Writes a state dict for PyTorch, with its preprocessing, from a weight file or a workdir.

    Raises:
        UserError: when there is no such net, or the file cannot be written.
    """
    from fn2en_jax.weights import state_dict

    if TO.value != 'pytorch':
        raise UserError(f'--to={TO.value} is unknown; use --to=pytorch')
    place = _destination(destination, source)
    kind, state, facts = _from_workdir(source) if Path(source).is_dir() else _from_file(source)
    try:
        state_dict.write(place, kind, state, **facts)
    except OSError as error:
        raise UserError(f'cannot write {place}: {error.strerror}') from error
    print(f'{kind}: {len(state)} tensors, {sum(array.size for array in state.values()):,} values, written to {place}')


def _from_file(source: str) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    from fn2en_jax.weights import files, state_dict
    from fn2en_jax.weights.canonical import ALL

    net = files.sound(source, _wish(COLOURS.value))
    if net.layers != ALL or net.image_size is None:
        raise UserError('a state dict is of the whole net; leave --layers=convolutions out')
    if net.mean_rgb is None:
        raise UserError(f'{source} does not state the mean that its input wants; say it with --mean=R,G,B')
    facts = {
        'mean': net.mean_rgb,
        'input_scale': net.input_scale,
        'image_size': net.image_size,
        'class_names': net.class_names,
    }
    return state_dict.FACE_NET, state_dict.face_net(net.variables, net.image_size), facts


def _from_workdir(source: str) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    from fn2en_jax import trained
    from fn2en_jax.models.expression_net import MEAN_GREY
    from fn2en_jax.models.vgg_face import MEAN_RGB
    from fn2en_jax.weights import state_dict

    net = trained.find(source, method=METHOD.value, fold=FOLD.value)
    config, size = net.config, (net.config.data.crop_size,) * 2
    facts = {'image_size': size, 'class_names': net.class_names}
    if net.method in ('finetune', 'face_net'):
        facts |= {'mean': tuple(config.face_net.get('mean_rgb', MEAN_RGB)), 'input_scale': config.face_net.input_scale}
        return state_dict.FACE_NET, state_dict.face_net(net.variables(), size), facts
    mean = MEAN_RGB if config.data.channels == 3 else (MEAN_GREY,)
    facts |= {'mean': mean, 'input_scale': config.expression_net.input_scale}
    return state_dict.EXPRESSION_NET, state_dict.expression_net(net.variables(), size), facts


# What the flags say.


def _wish(colours: str) -> Any:
    from fn2en_jax.weights.canonical import Wish, is_image_size

    size = _numbers('image_size', IMAGE_SIZE.value, 'x', 2)
    if size and not is_image_size(size):
        raise UserError(f'--image_size={IMAGE_SIZE.value} is not two whole numbers of pixels from 32 to 10000')
    mean = _numbers('mean', MEAN.value, ',', 3)
    return Wish(colours.lower(), LAYERS.value, (int(size[0]), int(size[1])) if size else None, mean, THEANO.value)


def _numbers(flag: str, text: str, between: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(part) for part in text.split(between)) if text else None
    except ValueError:
        values = ()
    if values is not None and (len(values) != count or not all(0 <= value < 1e5 for value in values)):
        raise UserError(f'--{flag}={text} is not {count} numbers with {between!r} between them')
    return values


def _two(text: str) -> tuple[str, str]:
    first, comma, second = text.partition(',')
    if not (first and comma and second) or ',' in second:
        raise UserError(f'{text!r} does not name two things with a comma between them')
    return first, second


def _none(paths: Sequence[str]) -> None:
    if CHECK.value and paths:
        raise UserError('--check=A,B names its two files itself; leave the others out')
    if not CHECK.value:
        raise UserError('--to needs a file or workdir to read, and a file to write')


def _destination(destination: str, source: str) -> Path:
    if '://' in destination:
        raise UserError(f'{destination}: only local files are written; write it here, and copy it there')
    place = Path(destination)
    if place.suffix != '.safetensors':
        raise UserError(f'{destination}: the file to write must end in .safetensors')
    if place.resolve() == Path(source).resolve():
        raise UserError(f'{destination} is the file to read; choose another')
    if not place.parent.is_dir():
        raise UserError(f'there is no folder {place.parent}')
    return place


def _names(path: str) -> list[str]:
    if not path:
        return []
    try:
        if Path(path).read_bytes()[:6] == b'\x93NUMPY':
            return _listed_names(path)
        return [line.strip() for line in Path(path).read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f'{path} cannot be read as a list of names: {error.strerror or error}') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path} cannot be read as a list of names: it is neither UTF-8 text nor .npy') from error


def _listed_names(path: str) -> list[str]:
    # Mapped, so that what the header promises is held against the file before it is allocated. NumPy's parser of
    # headers raises whatever comes to hand.
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except Exception as error:
        raise UserError(f'{path} is a NumPy file that holds no plain texts; save it with dtype=str') from error
    if array.dtype.kind not in 'US' or array.ndim != 1:
        raise UserError(f'{path} holds {array.dtype} {array.shape}, not a list of texts')
    return [(name.decode('utf-8', 'replace') if isinstance(name, bytes) else name).strip() for name in array.tolist()]


# What is printed.


def _description(net: Any, sha256: str) -> str:
    from fn2en_jax.weights.canonical import LICENCE

    arrays = net.tensors()
    turned = ', turned to RGB' if net.colour_order == 'bgr' else ''
    lines = [
        f'format      {net.format}',
        f'colours     {net.colour_order.upper()}{turned}',
        f'mean        {_mean(net)}',
        f'image size  {_size(net)}',
        f'layers      {len(net.variables["params"])} ({net.layers})',
        f'parameters  {sum(array.size for array in arrays.values()):,}',
        f'identities  {_identities(net)}',
        f'SHA-256     {sha256}',
        '',
        f'{"tensor":28}{"shape":20}{"least":>12}{"greatest":>12}',
    ]
    for name, array in arrays.items():
        least, greatest = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        lines.append(f'{name:28}{array.shape!s:20}{least:12.5g}{greatest:12.5g}')
    return '\n'.join([*lines, '', LICENCE])


def _size(net: Any) -> str:
    return f'{net.image_size[0]}x{net.image_size[1]}' if net.image_size else 'any'


def _visible(name: str) -> str:
    """A name out of a file in any script, but without what could move the cursor or add a line."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode('ascii') for c in name)


def _identities(net: Any) -> str:
    if 'fc8' not in net.variables['params']:
        return 'no classifier'
    count = net.variables['params']['fc8']['bias'].size
    return f'{count}, named in the file' if net.class_names else f'{count}, without names'


def _mean(net: Any) -> str:
    if net.mean_rgb is None:
        return 'not stated'
    return 'R {:.4f}, G {:.4f}, B {:.4f}'.format(*net.mean_rgb)


def _check_same_input(what: str, one: Any, other: Any) -> None:
    if one.mean_rgb and other.mean_rgb and not np.allclose(one.mean_rgb, other.mean_rgb, rtol=0, atol=1e-3):
        raise UserError(f'{what} for different means: {_mean(one)}, and {_mean(other)}')
    if one.input_scale != other.input_scale:
        raise UserError(f'{what} for different scales of the input: {one.input_scale:g}, and {other.input_scale:g}')


def _compared(name: str, one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        print(f'{name:28}{one.shape!s:>15}{other.shape!s:>20}')
        return False
    difference = float(np.abs(one - other).max())
    print(f'{name:28}{float(np.abs(one).max()):15.6g}{difference:20.6g}')
    return _is_near(one, other)


def _is_near(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= _SAME * np.abs(one).max())


def _model(net: Any, image: np.ndarray) -> tuple[Any, Any]:
    """The Flax net of these variables, and the variables as it takes them."""
    import jax

    from fn2en_jax import trees
    from fn2en_jax.models.vgg_face import MEAN_RGB, VGGFace

    params = net.variables['params']
    width = params['conv1_1']['bias'].size / 64
    model = VGGFace(
        params['fc8']['bias'].size,
        width=width,
        fc_features=round(params['fc6']['bias'].size / width),
        batch_norm='batch_stats' in net.variables,
        input_scale=net.input_scale,
        mean_rgb=tuple(net.mean_rgb or MEAN_RGB),
    )
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), image[None])
    return model, trees.strict_merge(shapes, net.variables)


if __name__ == '__main__':
    named, rest = commands.divide(sys.argv)
    sys.exit(commands.run(lambda: main(named), rest, __doc__ or ''))
