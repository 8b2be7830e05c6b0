"""Contact sheets: many pictures with captions on one PNG, to look at a data set."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

CAPTION = 14  # height of a caption, pixels
GAP = 2  # pixels between pictures


def compose(images: np.ndarray, captions: Sequence[str] = (), *, columns: int = 0) -> Image.Image:
    """One picture of uint8 images [N, H, W, C] (C 1 or 3) in rows, each with its caption under it.

    `columns` 0 chooses a nearly square sheet. Raises ValueError when N is 0, C is neither 1 nor 3, or the
    captions (none is fine) are not N.
    """
    images = np.asarray(images)
    if images.ndim != 4 or not len(images) or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise ValueError(f'images must be uint8 [N, H, W, 1 or 3] with N > 0, got {images.dtype} {images.shape}')
    if captions and len(captions) != len(images):
        raise ValueError(f'{len(captions)} captions for {len(images)} images')
    count, height, width, _ = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    step_y, step_x = height + GAP + (CAPTION if captions else 0), width + GAP
    sheet = Image.new('RGB', (columns * step_x + GAP, rows * step_y + GAP), 'white')
    pen = ImageDraw.Draw(sheet)
    for number, picture in enumerate(images):
        left, top = GAP + (number % columns) * step_x, GAP + (number // columns) * step_y
        sheet.paste(Image.fromarray(np.repeat(picture, 3 // picture.shape[2], axis=2)), (left, top))
        if captions:
            pen.text((left + 1, top + height), _fit(pen, captions[number], width), fill='black')
    return sheet


def _fit(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """As much of the text as `width` pixels hold."""
    while text and pen.textlength(text) > width:
        text = text[:-1]
    return text


def save(path: str | pathlib.Path, images: np.ndarray, captions: Sequence[str] = (), *, columns: int = 0) -> None:
    """Write `compose(images, captions)` as a PNG."""
    compose(images, captions, columns=columns).save(path, format='PNG')
