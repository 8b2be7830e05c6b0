"""Decoding: what an image means, and what is refused as none."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fn2en_jax.data import images
from fn2en_jax.errors import UserError


def encode(array, fmt='PNG', mode=None, **options) -> bytes:
    image = Image.fromarray(np.asarray(array)) if not isinstance(array, Image.Image) else array
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, format=fmt, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims these dimensions and has no pixels at all."""
    chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    start = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
    idat = b'IDAT' + zlib.compress(b'')
    return start + struct.pack('>I', len(idat) - 4) + idat + struct.pack('>I', zlib.crc32(idat))


@pytest.fixture
def colour() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (10, 12, 3)).astype(np.uint8)


def test_colour_png_survives_exactly(colour):
    np.testing.assert_array_equal(images.decode(encode(colour), 3), colour)


@pytest.mark.parametrize('fmt', ['PNG', 'BMP', 'TIFF', 'WEBP'])
def test_lossless_formats_agree(colour, fmt):
    options = {'lossless': True} if fmt == 'WEBP' else {}
    np.testing.assert_array_equal(images.decode(encode(colour, fmt, **options), 3), colour)


def test_colour_becomes_grey_by_luma():
    red = np.full((8, 8, 3), (200, 0, 0), np.uint8)
    grey = images.decode(encode(red), 1)
    assert grey.shape == (8, 8, 1)
    assert set(grey.ravel()) == {60}  # 0.299 * 200 = 59.8


def test_grey_becomes_three_equal_channels(colour):
    rgb = images.decode(encode(colour[..., 0]), 3)
    np.testing.assert_array_equal(rgb, np.repeat(colour[..., :1], 3, -1))


def test_sixteen_bits_keep_their_upper_half():
    deep = np.full((8, 8), 0x12F0, np.uint16)
    deep[0, 0] = 0xFFFF
    grey = images.decode(encode(deep), 1)[..., 0]
    assert (grey[0, 0], grey[1, 1]) == (0xFF, 0x12)


def test_transparent_pixels_show_white():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgb = images.decode(encode(rgba), 3)
    assert rgb[0, 0].tolist() == [10, 20, 30]
    assert rgb[1, 1].tolist() == [255, 255, 255]  # black, but not to be seen


def test_palette_is_resolved_with_its_transparency():
    palette = Image.new('P', (8, 8), 1)
    palette.putpalette([0, 0, 0, 50, 60, 70])
    assert images.decode(encode(palette), 3)[0, 0].tolist() == [50, 60, 70]
    assert images.decode(encode(palette, transparency=1), 3)[0, 0].tolist() == [255, 255, 255]


def test_one_bit_is_black_and_white():
    bits = np.zeros((8, 8), bool)
    bits[0, 0] = True
    assert images.decode(encode(bits), 1)[:2, 0, 0].tolist() == [255, 0]


def test_cmyk_becomes_rgb():
    red = np.full((16, 16, 3), (200, 30, 30), np.uint8)
    rgb = images.decode(encode(red, 'JPEG', 'CMYK', quality=95), 3)
    assert np.abs(rgb.astype(int) - red).max() < 12


# Where the pixel at the upper left of the stored file belongs in the upright picture, by EXIF orientation.
@pytest.mark.parametrize(
    ('orientation', 'corner'),
    [(1, 'top left'), (2, 'top right'), (3, 'bottom right'), (4, 'bottom left'),
     (5, 'top left'), (6, 'top right'), (7, 'bottom right'), (8, 'bottom left'), (9, 'top left')],
)  # fmt: skip
def test_exif_orientation_is_applied(orientation, corner):
    stored = np.zeros((8, 12), np.uint8)
    stored[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = images.decode(encode(stored, exif=exif), 1)[..., 0]
    assert upright.shape == ((12, 8) if orientation in (5, 6, 7, 8) else (8, 12))
    row, column = corner.split()
    assert upright[0 if row == 'top' else -1, 0 if column == 'left' else -1] == 255


def test_first_frame_of_an_animation(colour):
    frames = [Image.fromarray(colour), Image.fromarray(255 - colour)]
    data = encode(frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.decode(data, 3), colour)


def test_zero_bytes():
    with pytest.raises(UserError, match='empty'):
        images.decode(b'', 1)


def test_text_is_no_image():
    with pytest.raises(UserError, match=r'no readable image \(accepted: PNG, JPEG'):
        images.decode(b'just some words', 1)


def test_a_format_outside_the_list_is_refused(colour):
    data = encode(colour, 'GIF')
    assert Image.open(io.BytesIO(data)).format == 'GIF'  # Pillow would read it
    with pytest.raises(UserError, match='no readable image'):
        images.decode(data, 1)


@pytest.mark.parametrize('fmt', ['PNG', 'JPEG', 'WEBP', 'TIFF', 'BMP'])
def test_truncated(colour, fmt):
    data = encode(np.kron(colour, np.ones((8, 8, 1), np.uint8)), fmt)
    assert images.decode(data, 1).shape == (80, 96, 1)
    with pytest.raises(UserError, match=r'truncated or damaged|no readable image'):
        images.decode(data[: len(data) * 2 // 3], 1)


def test_damaged_exif_is_an_error_not_a_crash(colour):
    data = encode(colour, 'WEBP', exif=b'Exif\0\0MM\0\xa4\0\0\0\x08')
    with pytest.raises(UserError, match='damaged'):
        images.decode(data, 1)


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')  # as the module asks outside pytest
@pytest.mark.parametrize(
    ('width', 'height', 'message'),
    [
        (8000, 7000, '8000 x 7000 pixels, more than 50 million'),
        (14000, 12000, '14000 x 12000 pixels, more than 50 million'),  # Pillow would only warn
        (60000, 60000, 'more than 50 million'),
        (20001, 8, '20001 x 8 pixels; a side may have at most 20000'),
        (7, 100, '7 x 100 pixels; a side needs at least 8'),
    ],
)
def test_absurd_dimensions_are_refused_before_decoding(width, height, message):
    with pytest.raises(UserError, match=message):
        images.decode(png_header(width, height), 1)


@pytest.mark.parametrize('shape', [(8, 300), (20000, 8)])
def test_extreme_dimensions_just_allowed(shape):
    assert images.decode(encode(np.zeros(shape, np.uint8)), 1).shape == (*shape, 1)


def test_thirty_two_bits_are_refused():
    with pytest.raises(UserError, match='32 bits'):
        images.decode(encode(np.zeros((8, 8), np.float32), 'TIFF'), 1)


def test_impossible_channels(colour):
    with pytest.raises(ValueError, match='channels'):
        images.decode(encode(colour), 4)


@pytest.mark.parametrize('shape', [(8, 14, 1), (14, 8, 3), (9, 8, 1)])
def test_fit_cuts_the_central_square(shape):
    image = np.zeros(shape, np.uint8)
    top, left = (shape[0] - 8) // 2, (shape[1] - 8) // 2
    image[top : top + 8, left : left + 8] = np.arange(64).reshape(8, 8, 1)
    square = images.fit(image, 8)
    np.testing.assert_array_equal(square[..., 0], np.arange(64).reshape(8, 8))
    assert square.shape == (8, 8, shape[2])


def test_fit_does_not_alias():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255  # finer than 16 pixels can show; picking every fourth would give all white
    assert np.abs(images.fit(stripes, 16)[:, 2:-2].astype(int) - 127).max() <= 3


def test_fit_enlarges():
    assert images.fit(np.full((8, 8, 3), 77, np.uint8), 20).tolist() == np.full((20, 20, 3), 77).tolist()


@pytest.mark.parametrize('channels', [1, 3])
def test_encode_png_is_lossless(colour, channels):
    np.testing.assert_array_equal(
        images.decode(images.encode_png(colour[..., :channels]), channels), colour[..., :channels]
    )


@pytest.mark.parametrize('fmt', ['PNG', 'JPEG'])
def test_storable_keeps_plain_files_byte_by_byte(colour, fmt):
    data = encode(colour, fmt)
    assert images.storable(data) is data


@pytest.mark.parametrize(
    ('fmt', 'mode', 'orientation'),
    [
        ('BMP', None, 1),
        ('TIFF', 'L', 1),
        ('WEBP', None, 1),
        ('JPEG', 'CMYK', 1),
        ('JPEG', None, 6),
        ('PNG', 'L', 3),
    ],
)
def test_storable_re_encodes_the_rest_with_the_same_look(colour, fmt, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(colour, fmt, mode, **({} if fmt == 'BMP' else {'exif': exif}))
    stored = images.storable(data)
    assert Image.open(io.BytesIO(stored)).format == 'PNG'
    assert Image.open(io.BytesIO(stored)).mode == ('L' if mode == 'L' else 'RGB')
    np.testing.assert_array_equal(images.decode(stored, 3), images.decode(data, 3))
    assert images.storable(stored) is stored


def test_storable_refuses_damaged_files(colour):
    with pytest.raises(UserError, match='truncated'):
        images.storable(encode(colour)[:-40])
