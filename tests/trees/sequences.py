"""What the writers of sequence sets share: pictures that are told apart by nothing but their place in the set."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Draw = Callable[[str, str, int], np.ndarray]  # subject, label, frame -> uint8 [h, w] or [h, w, 3]


def noise(subject: str, label: str, frame: int) -> np.ndarray:
    """Grey noise, uint8 [48, 64], as bright as the label's hash; the same for the same arguments."""
    draw = np.random.default_rng(zlib.crc32(f'{subject} {label} {frame}'.encode()))
    return (draw.integers(0, 56, (48, 64)) + zlib.crc32(label.encode()) % 200).astype(np.uint8)


def save(path: Path, image: np.ndarray | None) -> None:
    """Writes an image in the format of its suffix, or an empty file for None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is None:
        path.touch()
    else:
        Image.fromarray(image).save(path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_junk(folder: Path) -> None:
    """What the Finder leaves in a folder and its archives add beside it."""
    write_text(folder / '.DS_Store', 'Bud1')
    write_text(folder / '__MACOSX' / '._.DS_Store', 'Mac OS X')
