"""Pictures inside a page: faces, curves and pictures of other tools, without any file beside it."""

import base64
import io
import json
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIDE = 96  # of a face on the page, pixels
PICTURE_BYTES, ALL_PICTURES_BYTES = 400_000, 2_000_000  # of pictures of other tools, as they are embedded
FILE_BYTES, FILE_PIXELS, WIDTH = 32 << 20, 50_000_000, 1400  # larger files are not opened; wider pictures shrink
LISTED = 100  # pictures of another tool, at most
_SVG = '{http://www.w3.org/2000/svg}'
_HREF = '{http://www.w3.org/1999/xlink}href'


class Picture(NamedTuple):
    """A picture of another tool."""

    uri: str  # a data URI
    title: str
    caption: str
    alt: str


def face(image: np.ndarray) -> str:
    """A face as a data URI (JPEG, at most `SIDE` pixels wide); image: uint8 [S,S,C], C 1 or 3."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _uri(picture, 'JPEG', quality=88, subsampling=0)


def curve(svg: str, alt: str, colours: Mapping[str, str]) -> str:
    """An SVG document of matplotlib as an element of a page.

    Its colours become those of the page, so that it is readable in the dark, and everything is removed that would
    reach beyond it: style sheets, metadata, names that nothing refers to.

    Args:
        svg: the document.
        alt: the text that is read out instead of it.
        colours: what to write for a colour such as '#222222'.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f'{_SVG}metadata', f'{_SVG}style', f'{_SVG}title') or parent.tag.endswith('metadata'):
                parent.remove(child)
    _rename(root)
    for attribute in ('width', 'height', 'version'):
        root.attrib.pop(attribute, None)
    root.attrib.update({'role': 'img', 'aria-label': alt})
    text = ET.tostring(root, encoding='unicode')
    for colour, name in colours.items():
        text = text.replace(colour, name)
    return text


def _rename(root: ET.Element) -> None:
    """Names of elements and links as HTML knows them; identifiers that nothing refers to are dropped."""
    used = set(re.findall(r'#([\w-]+)', ' '.join(value for node in root.iter() for value in node.attrib.values())))
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        if _HREF in node.attrib:
            node.attrib['href'] = node.attrib.pop(_HREF)
        if node.attrib.get('id') not in used:
            node.attrib.pop('id', None)


def pictures(folder: Path, *, faces: bool) -> tuple[list[Picture], list[str]]:
    """The pictures that `index.json` of a folder lists: [{file, title, caption, alt, shows_data}].

    What is listed is not trusted: only PNG files of that folder are read, of a limited size, and they are written anew.

    Args:
        folder: where another tool keeps them; it need not exist.
        faces: False leaves out those that show images of the data set (`shows_data`, or nothing said about it).

    Returns:
        The pictures, and a line for each that was left out, saying why.
    """
    found: list[Picture] = []
    left_out: list[str] = []
    size = 0
    for entry in _listed(folder / 'index.json', left_out):
        name = str(entry.get('file', ''))
        if not faces and entry.get('shows_data') is not False:
            left_out.append(f'{name}: shows images of the data set')
            continue
        try:
            uri = _png(folder, name)
        except (OSError, ValueError) as error:
            left_out.append(f'{name}: {error}')
            continue
        size += len(uri)
        if size > ALL_PICTURES_BYTES:
            left_out.append(f'{name}: the pictures before it are large enough for one page')
            break
        title = str(entry.get('title') or name)
        found.append(Picture(uri, title, str(entry.get('caption') or ''), str(entry.get('alt') or title)))
    return found, left_out


def _listed(index: Path, left_out: list[str]) -> Iterator[Mapping[str, Any]]:
    if not index.exists():
        return
    try:
        entries = json.loads(index.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        left_out.append(f'{index.name}: {error}')
        return
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        left_out.append(f'{index.name}: is no list of pictures')
        return
    yield from entries[:LISTED]


def _png(folder: Path, name: str) -> str:
    """A PNG of the folder as a data URI; raises OSError or ValueError for anything else."""
    from PIL import Image

    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix.lower() != '.png':
        raise ValueError('is no PNG of that folder')
    if path.stat().st_size > FILE_BYTES:
        raise ValueError(f'has more than {FILE_BYTES >> 20} MiB')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # its own limit is lower, and below
        try:
            with Image.open(path, formats=['PNG']) as picture:
                if picture.width * picture.height > FILE_PIXELS:
                    raise ValueError(f'has more than {FILE_PIXELS} pixels')
                return _small(picture.convert('RGBA' if 'transparency' in picture.info else _mode(picture.mode)))
        except (Image.DecompressionBombError, SyntaxError) as error:  # what Pillow raises for broken chunks
            raise ValueError(str(error)) from error


def _mode(mode: str) -> str:
    return mode if mode in ('L', 'RGB', 'RGBA') else 'RGBA' if mode in ('LA', 'PA') else 'RGB'


def _small(picture: Any) -> str:
    """The picture as a data URI of at most `PICTURE_BYTES`, made smaller until it is."""
    width = min(WIDTH, picture.width)
    while True:
        shrunk = picture.copy()
        shrunk.thumbnail((width, 4 * width))
        uri = _uri(shrunk, 'PNG', optimize=True)
        if len(uri) <= PICTURE_BYTES or width < 64:
            return uri
        width = int(0.8 * width)


def _uri(picture: Any, form: str, **options: Any) -> str:
    data = io.BytesIO()
    picture.save(data, form, **options)
    return f'data:image/{form.lower()};base64,{base64.b64encode(data.getvalue()).decode()}'
