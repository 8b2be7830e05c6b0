"""Photographs with what a net saw in them: box, eyes, expression and its probability."""

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fn2en_jax import workdir
from fn2en_jax.data import pictures
from fn2en_jax.errors import UserError
from fn2en_jax.predictions import Prediction

LONGEST = 1600  # pixels; larger photographs are shrunk
_LINE, _TEXT, _PAPER = (255, 214, 0), (0, 0, 0), (255, 214, 0)
_FONT = 1 / 40  # height of the text over the longer side of the picture, and its least height in pixels
_LEAST = 12
_THINNEST, _SMALLEST = 2, 3  # pixels: the width of a line, the radius of the ring around an eye
_QUALITY = 90
_LONGEST_NAME = 200  # bytes of one part of a path; file systems take 255


def draw(image: np.ndarray, rows: Sequence[Prediction], scale: float = 1.0) -> Image.Image:
    """The picture with its rows drawn into it.

    Args:
        image: uint8 [h, w, 1 or 3].
        rows: of this picture; where there is no face, the problem is written into a corner.
        scale: pixels of `image` per pixel in which the rows count.

    Returns:
        RGB, of the same size.
    """
    picture = Image.fromarray(np.repeat(image, 3 // image.shape[2], axis=2))
    pen = ImageDraw.Draw(picture)
    size = max(_LEAST, round(max(picture.size) * _FONT))
    for row in rows:
        left, top = _outline(pen, row, scale, max(_THINNEST, size // 8))
        said = row.problem or f'{row.expression} {row.probabilities[row.expression]:.2f}'
        _write(pen, said, left, top, picture.size, size)
    return picture


class Album:
    """A folder of annotated pictures, named as their files are: 'photos/a.png' becomes 'photos/a.png.jpg' in it.

    Where '../photos/a.png' would have the same name, that becomes 'photos/a.png.2.jpg'.

    Args:
        folder: created where needed, and marked so that its pictures are never taken for photographs.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._taken: dict[str, str] = {}  # whose each name is
        check_place(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / pictures.MARK).touch()
        except OSError as error:
            raise UserError(f'{folder}: cannot write annotated pictures here ({error.strerror})') from error

    def add(self, image: np.ndarray, rows: Sequence[Prediction], scale: float) -> Path:
        """Draws the rows of one picture (see `draw`) and returns the file that shows it."""
        path = self._folder / self._place(rows[0].file, rows[0].frame)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with workdir.replacing(path) as temporary:
                draw(image, rows, scale).save(temporary, format='JPEG', quality=_QUALITY)
        except OSError as error:
            raise UserError(f'{path}: cannot be written ({error.strerror})') from error
        return path

    def _place(self, file: str, frame: int | None) -> Path:
        """Where the picture of this name goes, relative to the folder and never out of it."""
        parts = [_short(part) for part in file.split('/') if part not in ('', '.', '..')]
        first = '/'.join(parts) or 'picture'
        names = itertools.chain([first], (f'{first}.{number}' for number in itertools.count(2)))
        name = next(name for name in names if self._taken.setdefault(name, file) == file)
        return Path(f'{name}.jpg' if frame is None else f'{name}/{frame:06d}.jpg')


def check_place(folder: Path) -> None:
    """Refuses (UserError) what is no folder that can be written, and cannot become one."""
    nearest = folder.absolute()
    try:
        while not _is_there(nearest):
            nearest = nearest.parent
    except OSError as error:
        raise UserError(f'{folder}: cannot write annotated pictures here ({error.strerror})') from error
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f'{folder}: cannot write annotated pictures here ({nearest} is no folder that can be written)')


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _short(part: str) -> str:
    data = os.fsencode(part)
    if len(data) <= _LONGEST_NAME:
        return part
    return data[: _LONGEST_NAME - 20].decode(errors='ignore') + hashlib.sha256(data).hexdigest()[:16]


def _outline(pen: ImageDraw.ImageDraw, row: Prediction, scale: float, width: int) -> tuple[float, float]:
    """Draws box and eyes; returns the corner where the text belongs."""
    for x, y in row.eyes or ():
        radius = max(_SMALLEST, 1.5 * width)
        box = [scale * x - radius, scale * y - radius, scale * x + radius, scale * y + radius]
        pen.ellipse(box, outline=_LINE, width=width)
    if row.box is None:
        return 0.0, 0.0
    x, y, across, down = (scale * number for number in row.box)
    pen.rectangle([x, y, x + across, y + down], outline=_LINE, width=width)
    return x, y


def _write(pen: ImageDraw.ImageDraw, text: str, left: float, top: float, limits: tuple[int, int], size: int) -> None:
    """Text on a plain ground above a point, or below it where there is no room, inside the picture."""
    font = ImageFont.load_default(size)
    first_x, first_y, last_x, last_y = pen.textbbox((0, 0), text, font=font)
    width, height = last_x - first_x, last_y - first_y
    x = max(0.0, min(left, limits[0] - width - 4))
    y = top - height - 6 if top >= height + 6 else max(0.0, min(top, limits[1] - height - 6))
    pen.rectangle([x, y, x + width + 4, y + height + 6], fill=_PAPER)
    pen.text((x + 2 - first_x, y + 3 - first_y), text, fill=_TEXT, font=font)
