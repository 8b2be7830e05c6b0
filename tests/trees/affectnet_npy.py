"""AffectNet as given out since 2021: numbered crops and four .npy files for each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt')  # by code
SIZE = 224  # pixels


def points(number: int) -> np.ndarray:
    """68 landmarks inside the crop, others for each picture: [68, 2]."""
    return np.random.RandomState(number).randint(20, 200, (68, 2)) + 0.5


def write(
    root: Path, *, per_class: int = 2, codes: Sequence[int] = range(8), validation: str = 'val_set', size: int = SIZE
) -> dict[str, dict[int, int]]:
    """Writes both folders; returns the code of each number. Labels are stored as strings, as in the original.

    validation: what the second folder is called, 'val_set' or 'valid_set'.
    """
    made = {}
    for name, step in (('train_set', 3), (validation, 7)):
        made[name] = {2 + step * i: codes[i % len(codes)] for i in range(per_class * len(codes))}  # numbers have gaps
        for number, code in made[name].items():
            write_one(root / name, number, np.array(str(code)), size=size)
    (root / 'train_set' / '.DS_Store').write_bytes(b'\0')
    (root / 'train_set' / 'annotations' / '._2_exp.npy').write_bytes(b'\0')
    return made


def write_one(folder: Path, number: int, label: np.ndarray, *, size: int = SIZE) -> None:
    """A picture with its annotations."""
    for name in ('images', 'annotations'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(number).randint(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / 'images' / f'{number}.jpg')
    annotations = {'exp': label, 'val': np.array('-0.5'), 'aro': np.array('0.25'), 'lnd': points(number).ravel()}
    for what, array in annotations.items():
        np.save(folder / 'annotations' / f'{number}_{what}.npy', array)
