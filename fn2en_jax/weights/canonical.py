"""The one form that every weight file of a VGG-16 face net is brought into, and how.

Convolutions are [h,w,in,out], fc6 ... fc8 [in,out] with fc6's inputs in the order H, W, C; the net reads RGB of 0..255
minus a mean. A reader hands over what a file holds, tensor by tensor and unread, with the convention of its format;
`build` checks all shapes before any value is read, and converts.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights.binary import MAX_VALUES, shown

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions
CONVOLUTIONS = tuple(
    f'conv{block}_{index}' for block, (_, depth) in enumerate(BLOCKS, 1) for index in range(1, depth + 1)
)
DENSE = ('fc6', 'fc7', 'fc8')
LAYERS = CONVOLUTIONS + DENSE
PARTS = ('kernel', 'bias')
NORMS = tuple(f'{layer}_bn' for layer in LAYERS[:-1])  # batch norm, in nets of our own alone
NORM_PARTS = {'scale': 'params', 'bias': 'params', 'mean': 'batch_stats', 'var': 'batch_stats'}  # and where they lie
MEAN_RGB = (129.1863, 104.7624, 93.5940)  # of the published net's training images
MEAN_TOLERANCE = 1e-3  # grey levels; files carry the mean as float32 or rounded to four digits
COLOUR_ORDERS = ('rgb', 'bgr')
ALL, CONVOLUTIONS_ONLY = 'all', 'convolutions'
LICENCE = 'The weights published by Oxford are for non-commercial research only (CC BY-NC 4.0), converted ones too.'

_IMAGENET_CLASSES = 1000
_LISTED = 12
_POOLED = 32  # pixels of the image per position of the last map
_LARGEST_SIDE = 10_000  # pixels


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor still in its file.

    Attributes:
        name: in the file.
        shape: in the file.
        read: returns it, with this shape.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor and its place in the net: layer 'conv1_1', part 'kernel', or 'conv1_1_bn' and one of NORM_PARTS; both ''
    where it has none."""

    layer: str
    part: str
    tensor: Tensor


@dataclasses.dataclass(frozen=True)
class Convention:
    """What is true of all nets of a format.

    Attributes:
        format: for the user, such as 'Caffe (V1 layers)'.
        channels_first: kernels are [out,in,h,w], matrices [out,in], fc6's inputs in the order C, H, W; otherwise
            [h,w,in,out], [in,out] and H, W, C.
        colour_order: of the net's input, 'rgb' or 'bgr'; '' where the file cannot tell.
        ambiguity: for '', what it might be; ends up in the error.
        mean_rgb: what the net's input was reduced by, of 0..255; None where nobody knows.
        std_rgb: what it was divided by afterwards.
        flipped: kernels belong to true convolution, not to correlation.
        image_size: [H,W] in pixels, where the file says it.
        class_names: K names, where the file carries them.
        batch_norm: there is one after every layer but fc8.
        notes: what was assumed, for the user.
    """

    format: str
    channels_first: bool
    colour_order: str
    ambiguity: str = ''
    mean_rgb: tuple[float, ...] | None = MEAN_RGB
    std_rgb: tuple[float, ...] = (1.0, 1.0, 1.0)
    flipped: bool = False
    image_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    batch_norm: bool = False
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the user says about a file.

    Attributes:
        colour_order: 'rgb', 'bgr', or '' to go by the format.
        layers: 'all', or 'convolutions' to leave fc6 ... fc8 behind.
        image_size: [H,W] in pixels that the net was made for; None for a square, or what the file says.
        mean_rgb: replaces the format's mean.
        theano_flipped: the user knows that a Theano-era file holds flipped kernels, and wants them turned.

    Raises:
        UserError: when there are no such colour order or layers.
    """

    colour_order: str = ''
    layers: str = ALL
    image_size: tuple[int, int] | None = None
    mean_rgb: tuple[float, ...] | None = None
    theano_flipped: bool = False

    def __post_init__(self) -> None:
        if self.colour_order not in ('', *COLOUR_ORDERS):
            raise UserError(f'the colour order {self.colour_order!r} is unknown; use rgb or bgr')
        if self.layers not in (ALL, CONVOLUTIONS_ONLY):
            raise UserError(f'the layers {self.layers!r} are unknown; use {ALL} or {CONVOLUTIONS_ONLY}')


@dataclasses.dataclass(frozen=True)
class Net:
    """A face net in canonical form.

    Attributes:
        variables: {'params': {'conv1_1': {'kernel': ..., 'bias': ...}, ...}}, with 'batch_stats' for nets of our own
            that have them; float32.
        format: of the file it came from.
        colour_order: of the file; the variables are for RGB.
        mean_rgb: to be subtracted from RGB of 0..255; None where the file does not say (a bare safetensors file).
        input_scale: multiplies the mean-subtracted image.
        layers: 'all' or 'convolutions'.
        image_size: [H,W] in pixels, or None where nothing depends on it.
        class_names: K names, or ().
        notes: what the user should be warned of.
    """

    variables: dict[str, dict]
    format: str
    colour_order: str = 'rgb'
    mean_rgb: tuple[float, ...] | None = MEAN_RGB
    input_scale: float = 1.0
    layers: str = ALL
    image_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def tensors(self) -> dict[str, np.ndarray]:
        """All tensors by path: {'params/conv1_1/kernel': ..., ...}, in the order of the net."""
        return dict(_leaves(self.variables, ''))


def _leaves(tree: Mapping, prefix: str):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f'{prefix}{name}/')
        else:
            yield prefix + name, value


def is_image_size(size: Sequence[float]) -> bool:
    """Whether these are [H,W] in whole pixels that a VGG-16 can have been made for."""
    return len(size) == 2 and all(_POOLED <= side <= _LARGEST_SIDE and side == int(side) for side in size)


def build(entries: Sequence[Entry], convention: Convention, wish: Wish) -> Net:
    """Reads the tensors and brings them into canonical form.

    Args:
        entries: everything the file holds, each tensor once.
        convention: of the file.
        wish: of the user.

    Raises:
        UserError: listing duplicate, missing, surplus and mis-shaped names (nothing was read then); when the colour
            order cannot be told, or the size of the image cannot be.
    """
    _check_classes(entries, convention, wish)
    size = wish.image_size or convention.image_size
    if size and not is_image_size(size):
        raise UserError(
            f'{convention.format}: {_sides(size)} pixels are no size of a VGG-16; give it as --image_size=HxW'
        )
    if wish.layers == CONVOLUTIONS_ONLY:
        entries = [entry for entry in entries if entry.layer.removesuffix('_bn') not in DENSE]
    wanted = CONVOLUTIONS if wish.layers == CONVOLUTIONS_ONLY else LAYERS
    norms = [norm for norm in NORMS if norm.removesuffix('_bn') in wanted] if convention.batch_norm else []
    table = _table(entries)
    shapes = _checked_shapes(table, entries, convention, (*wanted, *norms), size)
    order = colour_order(convention, wish)
    params: dict[str, dict] = {}
    with np.errstate(over='ignore', invalid='ignore'):  # what does not fit float32 is found by who looks for it
        for layer in wanted:
            kernel = _kernel(layer, table[layer, 'kernel'], shapes[layer], convention, order)
            params[layer] = {'kernel': kernel, 'bias': _vector(table[layer, 'bias'])}
        variables = _with_norms({'params': params}, table, norms)
    return Net(
        variables,
        convention.format,
        order,
        wish.mean_rgb or convention.mean_rgb,
        layers=wish.layers,
        image_size=_image_size(shapes, size),
        class_names=convention.class_names if _fits(convention.class_names, params) else (),
        notes=_notes(convention, wish, order),
    )


def _check_classes(entries: Sequence[Entry], convention: Convention, wish: Wish) -> None:
    """Refuses an ImageNet net in a form that does not tell its mean: it has the layers of the face net."""
    classes = [math.prod(entry.tensor.shape) for entry in entries if (entry.layer, entry.part) == ('fc8', 'bias')]
    if classes == [_IMAGENET_CLASSES] and convention.mean_rgb == MEAN_RGB and wish.mean_rgb is None:
        raise UserError(
            f'{convention.format}: the net tells {_IMAGENET_CLASSES} classes apart, as ImageNet nets do and VGG-Face '
            'does not, so its mean is unknown; convert it with --mean=R,G,B (of Oxford: 123.68,116.779,103.939)'
        )


def colour_order(convention: Convention, wish: Wish) -> str:
    """'rgb' or 'bgr'. Raises UserError when neither the file nor the user tells."""
    if not (wish.colour_order or convention.colour_order):
        raise UserError(
            f'{convention.format}: the file cannot tell the colour order of its net. {convention.ambiguity} '
            'Say which with --colour_order=rgb or --colour_order=bgr (for a run: config.face_net.colour_order)'
        )
    return wish.colour_order or convention.colour_order


def _notes(convention: Convention, wish: Wish, order: str) -> tuple[str, ...]:
    notes = list(convention.notes)
    if convention.colour_order not in ('', order):
        usual = convention.colour_order.upper()
        notes.append(f'nets in this format read {usual}, and you say {order.upper()}: yours is taken')
    if wish.theano_flipped and not convention.flipped:
        notes.append('the kernels of this format are not flipped: --theano_flipped turns nothing')
    return tuple(notes)


def _fits(names: Sequence[str], params: Mapping) -> bool:
    return 'fc8' in params and len(names) == params['fc8']['bias'].size


def _table(entries: Sequence[Entry]) -> dict[tuple[str, str], Tensor]:
    table: dict[tuple[str, str], Tensor] = {}
    for entry in entries:
        key = (entry.layer, entry.part)
        if entry.layer and key in table:
            both = f'{shown(table[key].name)} and {shown(entry.tensor.name)}'
            raise UserError(f'the {entry.part} of {entry.layer} is there twice ({both}); this is not one VGG-16 net')
        table[key] = entry.tensor
    return table


# Shapes, before anything is read.

Shape = tuple[int, int, int, int]  # of a kernel: h, w, in, out


def _checked_shapes(
    table: Mapping[tuple[str, str], Tensor],
    entries: Sequence[Entry],
    convention: Convention,
    wanted: Sequence[str],
    size: tuple[int, int] | None,
) -> dict[str, Shape]:
    missing = [f'{layer}/{part}' for layer in wanted for part in _parts(layer) if (layer, part) not in table]
    surplus = [shown(entry.tensor.name) for entry in entries if entry.layer not in wanted]
    shapes, misshaped = _shapes(table, convention, wanted, size)
    problems = [
        f'{title}: {_listed(names)}'
        for title, names in (('missing', missing), ('surplus', surplus), ('of another shape', misshaped))
        if names
    ]
    if problems:
        hint = ''
        if {name.split('/')[0] for name in missing} == set(DENSE) and not surplus + misshaped:
            hint = '; to take the convolutions alone, use --layers=convolutions (config.face_net.layers)'
        raise UserError(f'{convention.format}: this is not a VGG-16 face net; {"; ".join(problems)}{hint}')
    if sum(math.prod(shape) for shape in shapes.values()) > MAX_VALUES:
        raise UserError(f'{convention.format}: the net has more than {MAX_VALUES // 10**6} million values')
    return shapes


def _shapes(
    table: Mapping[tuple[str, str], Tensor],
    convention: Convention,
    wanted: Sequence[str],
    size: tuple[int, int] | None,
) -> tuple[dict[str, Shape], list[str]]:
    found = {
        layer: _shape(layer, table[layer, 'kernel'].shape, convention.channels_first)
        for layer in wanted
        if (layer, 'kernel') in table
    }
    if 'conv1_1' not in found:  # the measure of all others
        return {}, []
    expected = _expected({layer: shape for layer, shape in found.items() if shape}, size)
    misshaped = []
    for layer, shape in found.items():
        needed = expected.get(layer)
        if not (shape and needed and _agrees(shape, needed)):
            tensor = table[layer, 'kernel']
            also = f' where h, w, in, out = {needed} is needed' if needed else ''
            misshaped.append(f'{shown(tensor.name)} {_short(tensor.shape)}{also}')
    for (name, part), vector in table.items():
        needed = expected.get(name.removesuffix('_bn'))
        if part != 'kernel' and needed and not _is_vector(vector.shape, needed[3]):
            misshaped.append(f'{shown(vector.name)} {_short(vector.shape)} where {needed[3]} values are needed')
    return expected, misshaped


def _parts(layer: str) -> Sequence[str]:
    return tuple(NORM_PARTS) if layer in NORMS else PARTS


def _shape(layer: str, shape: tuple[int, ...], channels_first: bool) -> Shape | None:
    """h, w, in, out of a stored kernel; h = w = 0 for a matrix whose inputs are positions times channels."""
    if channels_first and len(shape) == 4 and shape[:2] == (1, 1) and layer in DENSE:
        shape = shape[2:]  # a matrix in a Caffe blob of the old kind
    if len(shape) == 4:
        out, into, height, width = shape if channels_first else (shape[3], shape[2], shape[0], shape[1])
        return height, width, into, out
    if len(shape) != 2:
        return None
    out, into = shape if channels_first else shape[::-1]
    if layer in CONVOLUTIONS:
        return (3, 3, into // 9, out) if channels_first and into % 9 == 0 else None
    return (0, 0, into, out) if layer == 'fc6' else (1, 1, into, out)


def _expected(found: dict[str, Shape], size: tuple[int, int] | None) -> dict[str, Shape]:
    """The shapes a VGG-16 of this width must have; of fc6's map as far as `found` or `size` tell it."""
    if 'conv1_1' not in found:
        return {}
    width, into, expected = found['conv1_1'][3] / BLOCKS[0][0], 3, {}
    for layer in CONVOLUTIONS:
        block = layer[:5]
        out = _channels(width, int(block[4]), [shape[3] for other, shape in found.items() if other.startswith(block)])
        expected[layer], into = (3, 3, into, out), out
    if 'fc6' in found:
        features = found['fc6'][3]
        expected['fc6'] = (*_map(found['fc6'], into, size), into, features)
        expected['fc7'] = (1, 1, features, features)
        if 'fc8' in found:
            expected['fc8'] = (1, 1, features, found['fc8'][3])
    return expected


def _channels(width: float, block: int, found: Sequence[int]) -> int:
    """Of the layers of a block. `width`, the share of the published channels, was rounded in conv1_1, so that a net of
    ours may have some more or fewer than follow from it: then all its layers have."""
    published = BLOCKS[block - 1][0]
    follow = max(1, round(published * width))
    near = published / (2 * BLOCKS[0][0]) + 0.5
    return found[0] if found and follow not in found and abs(found[0] - published * width) <= near else follow


def _map(fc6: Shape, channels: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """h, w of the map that fc6 reads."""
    if size:
        return size[0] // _POOLED, size[1] // _POOLED
    if fc6[0]:
        return fc6[0], fc6[1]
    side = max(1, math.isqrt(fc6[2] // channels))
    return side, side


def _agrees(shape: Shape, needed: Shape) -> bool:
    height, width, into, out = needed
    return shape == needed or shape == (0, 0, height * width * into, out)


def _image_size(shapes: Mapping[str, Shape], size: tuple[int, int] | None) -> tuple[int, int] | None:
    return size or ((shapes['fc6'][0] * _POOLED, shapes['fc6'][1] * _POOLED) if 'fc6' in shapes else None)


def _is_vector(shape: tuple[int, ...], length: int) -> bool:
    return math.prod(shape) == length == max(shape, default=1)


def _sides(size: Sequence[float]) -> str:
    return 'x'.join(f'{side:g}' for side in size)


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= 8 else f'({len(shape)} axes)'


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names[:_LISTED]) + (f' and {len(names) - _LISTED} more' if len(names) > _LISTED else '')


# Values.


def _read(tensor: Tensor) -> np.ndarray:
    array = tensor.read()
    if array.shape != tensor.shape or array.dtype.kind != 'f':
        raise UserError(
            f'{shown(tensor.name)} holds {array.dtype} {_short(array.shape)}, not real numbers of its shape'
        )
    return array


def _vector(tensor: Tensor) -> np.ndarray:
    return np.array(_read(tensor).reshape(-1), np.float32)  # a copy: a view would keep the values around it in memory


def _with_norms(variables: dict[str, dict], table: Mapping[tuple[str, str], Tensor], norms: Sequence[str]) -> dict:
    for norm in norms:
        for part, collection in NORM_PARTS.items():
            variables.setdefault(collection, {}).setdefault(norm, {})[part] = _vector(table[norm, part])
    return variables


def _kernel(layer: str, tensor: Tensor, shape: Shape, convention: Convention, order: str) -> np.ndarray:
    height, width, into, out = shape
    kernel = _read(tensor)
    if convention.channels_first:
        kernel = kernel.reshape(out, into, height, width).transpose(2, 3, 1, 0)
    else:
        kernel = kernel.reshape(height, width, into, out)
    if convention.flipped and len(tensor.shape) == 4:  # a matrix is not convolved with anything
        kernel = kernel[::-1, ::-1]
    if layer == 'conv1_1':
        kernel = _for_plain_rgb(kernel, convention, order)
    kernel = np.ascontiguousarray(kernel, np.float32)
    return kernel.reshape(-1, out) if layer in DENSE else kernel


def _for_plain_rgb(kernel: np.ndarray, convention: Convention, order: str) -> np.ndarray:
    """conv1_1 [h,w,in,out] for RGB of 0..255 minus the mean; dividing the input goes into the kernel exactly."""
    if order == 'bgr':
        kernel = kernel[:, :, ::-1]
    if set(convention.std_rgb) == {1.0}:
        return kernel
    return kernel / np.asarray(convention.std_rgb, np.float64)[:, None]
