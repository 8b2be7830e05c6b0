"""From the bytes of an image file to a square uint8 array, and a clear refusal of what is no sane image."""

import io
import warnings

import numpy as np
from PIL import Image

from fn2en_jax.errors import UserError

FORMATS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP')  # everything else Pillow might open is refused
SUFFIXES = ('.png', '.jpg', '.jpeg', '.jpe', '.bmp', '.tif', '.tiff', '.webp')
MAX_PIXELS = 50_000_000
MAX_SIDE = 20_000  # pixels
MIN_SIDE = 8  # pixels

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {  # what makes a picture upright, by the value of that tag; any other value means upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACKGROUND = 255  # what shows through transparent pixels: white, as on a page

# Our own limit is far below Pillow's, and is an error where Pillow's is a warning. What else it warns of (odd EXIF or
# TIFF tags) either does no harm to the pixels or ends in an error.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.')


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes an image file.

    EXIF orientation is applied; palettes are resolved; CMYK becomes RGB; transparent pixels show white; of
    16-bit grey the upper 8 bits are kept; colour becomes grey as 0.299 R + 0.587 G + 0.114 B; grey becomes
    colour by repetition. Of an animation or a multi-page file the first picture is taken.

    Args:
      data: the whole file; one of FORMATS, told by content and not by name.
      channels: 1 for grey, 3 for RGB.

    Returns:
      uint8 [h, w, channels], values 0..255.

    Raises:
      UserError: the file is empty, of no known format, truncated or damaged, or its dimensions are absurd
        (checked before any pixel is decoded). The message names no file, which is not known here: put the
        name before it.
    """
    return with_channels(decode_as_it_is(data), channels)


def decode_as_it_is(data: bytes) -> np.ndarray:
    """As `decode`, with one channel for grey files and three for all others."""
    return _plain(_load(data))


def from_pillow(image: Image.Image) -> np.ndarray:
    """As `decode_as_it_is`, for a picture that was opened or made with Pillow.

    Raises:
      UserError: as `decode`.
    """
    return _plain(_sound(image))


def from_array(array: np.ndarray) -> np.ndarray:
    """As `decode_as_it_is`, for pixels: grey [h, w] or [h, w, 1], RGB [h, w, 3], or RGB and opacity [h, w, 4].

    Args:
      array: uint8, or uint16 of which the upper 8 bits are kept.

    Returns:
      uint8 [h, w, 1 or 3].

    Raises:
      ValueError: another type or shape.
      UserError: absurd dimensions.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f'an array of {array.dtype}; pixels must be uint8, 0 to 255')
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ValueError(f'an array of shape {array.shape}; one image is [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]')
    check_dimensions(pixels.shape[1], pixels.shape[0])
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return _plain(Image.fromarray(np.ascontiguousarray(pixels))) if pixels.shape[2] == 4 else pixels


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [h, w, 1 or 3] with 1 or 3 channels; colour becomes grey as 0.299 R + 0.587 G + 0.114 B."""
    if channels not in (1, 3):
        raise ValueError(f'channels must be 1 or 3, not {channels}')
    if image.shape[2] == channels:
        return image
    return _to_array(_to_pillow(image).convert('L' if channels == 1 else 'RGB'))


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Cuts out the central square and resizes it.

    The filter is Lanczos with three lobes (Pillow's), whose support grows with the reduction, so that
    shrinking does not alias. An image that already has the size is returned as it is.

    Args:
      image: uint8 [h, w, C], C 1 or 3.
      size: side S of the result in pixels.

    Returns:
      uint8 [S, S, C].
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = _to_pillow(image[top : top + side, left : left + side])
    return _to_array(square.resize((size, size), Image.Resampling.LANCZOS))


def encode_png(image: np.ndarray) -> bytes:
    """The image, uint8 [h, w, C] with C 1 or 3, as the bytes of a PNG file (lossless)."""
    buffer = io.BytesIO()
    _to_pillow(image).save(buffer, format='PNG')
    return buffer.getvalue()


def storable(data: bytes) -> bytes:
    """The same picture as a plain upright PNG or JPEG file that any reader shows alike.

    Returns `data` itself for most files; those of another format, in CMYK, or turned by EXIF are re-encoded
    as PNG. The whole image is decoded in any case, so what comes back is known to be sound.

    Raises:
      UserError: as `decode`.
    """
    image = _load(data)
    # MPO is what cameras call a JPEG with a second picture behind the first.
    if image.format in ('PNG', 'JPEG', 'MPO') and image.mode != 'CMYK' and _turn(image) is None:
        return data
    return encode_png(_plain(image))


def _load(data: bytes) -> Image.Image:
    """Opens, checks the dimensions, and only then decodes."""
    if not data:
        raise UserError('the file is empty (zero bytes)')
    # Pillow's decoders meet bytes from anywhere and raise whatever comes to hand: OSError, SyntaxError,
    # ValueError, struct.error, zlib.error ... To the user it is all the same: the file is damaged.
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f'the image has more than {MAX_PIXELS // 10**6} million pixels') from None
    except Exception as error:
        raise UserError(f'the file is no readable image (accepted: {", ".join(FORMATS)})') from error
    return _sound(image)


def _sound(image: Image.Image) -> Image.Image:
    """The picture with its pixels decoded, which happens once its dimensions are known to be sane."""
    check_dimensions(*image.size)
    if image.mode in ('I', 'F'):
        raise UserError('the image has 32 bits per channel, whose range is unknown; save it with 8 or 16 bits')
    try:
        image.load()
        _turn(image)  # EXIF data are parsed when asked for
    except Exception as error:
        raise UserError(f'the image is truncated or damaged ({type(error).__name__}: {error})') from error
    return image


def _plain(image: Image.Image) -> np.ndarray:
    """The upright picture without transparency, uint8 [h, w, 1 or 3]."""
    try:
        opaque = _opaque(_upright(image))
        return _to_array(opaque.convert('L' if opaque.mode in ('1', 'L') else 'RGB'))
    except ValueError as error:  # Pillow knows no way to RGB
        raise UserError(f'the image has the colour space {image.mode}; save it as RGB or grey') from error


def check_dimensions(width: int, height: int) -> None:
    """Refuses pictures of absurd sizes (pixels) with a UserError."""
    if width * height > MAX_PIXELS:
        raise UserError(f'the image has {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million')
    if max(width, height) > MAX_SIDE:
        raise UserError(f'the image has {width} x {height} pixels; a side may have at most {MAX_SIDE}')
    if min(width, height) < MIN_SIDE:
        raise UserError(f'the image has {width} x {height} pixels; a side needs at least {MIN_SIDE}')


def _turn(image: Image.Image) -> Image.Transpose | None:
    value = image.getexif().get(_ORIENTATION)
    return _TURNS.get(value) if isinstance(value, int) else None


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """Resolves 16 bits, palette and transparency: the result has mode 1, L, RGB or another colour space."""
    if image.mode.startswith('I;16'):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert('RGB') if image.mode == 'P' else image
    image = image.convert('RGBA')
    background = Image.new('RGBA', image.size, (_BACKGROUND,) * 4)
    return Image.alpha_composite(background, image).convert('RGB')


def _to_array(image: Image.Image) -> np.ndarray:
    array = np.array(image)
    return array[..., None] if array.ndim == 2 else array


def _to_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
