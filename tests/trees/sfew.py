"""SFEW 2.0 as its licensees have it: aligned faces, full frames, and a re-packaged copy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('Angry', 'Disgust', 'Fear', 'Happy', 'Neutral', 'Sad', 'Surprise')
FILMS = ('Airheads', 'HarryPotter_Deathly_Hallows_1', '21', 'v')
ALIGNED, FRAME = (143, 181), (720, 576)  # width, height in pixels

Counts = Mapping[str, Mapping[str, int]]  # images by split ('Train', 'Val') and class


def write(
    root: Path,
    *,
    aligned: bool = True,
    counts: Counts | None = None,
    per_class: int = 2,
    tests: int = 3,
    size: tuple[int, int] = (29, 37),
) -> None:
    """Writes an edition, with pictures of `size` (ALIGNED and FRAME are the real ones).

    The first name of Val/Happy is also that of an image of Val/Sad.
    """
    counts = counts or {split: dict.fromkeys(CLASSES, per_class) for split in ('Train', 'Val')}
    for split, numbers in counts.items():
        for label, number in numbers.items():
            folder = root / split / (f'{split}_Aligned_Faces' if aligned else '') / label
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(number):
                seed = 1000 * CLASSES.index('Happy' if (split, label, index) == ('Val', 'Sad', 0) else label) + index
                _picture(folder / f'{name(seed)}.{"jpg" if index % 7 == 6 else "png"}', size, seed)
    flat = root / 'Test' / ('Test_Aligned_Faces' if aligned else '')
    flat.mkdir(parents=True, exist_ok=True)
    for index in range(tests):
        _picture(flat / f'{name(9000 + index)}.png', size, index)
    write_strays(root)


def name(seed: int) -> str:
    return f'{FILMS[seed % len(FILMS)]}_{seed:07d}00_{seed % 97:08d}'


def write_list(root: Path, *, per_class: int = 1) -> None:
    """The copy with numbered faces and a list; the labels of its `label` column are positions in CLASSES."""
    folder = root / 'sfew2.0_images'
    folder.mkdir(parents=True, exist_ok=True)
    lines = ['image_name,label,emotion,original_split']
    for split in ('Train', 'Val'):
        for index in range(per_class * len(CLASSES)):
            file, code = f'image_{len(lines) - 1:06d}.png', index % len(CLASSES)
            _picture(folder / file, (29, 37), len(lines))
            lines.append(f'{file},{code},{CLASSES[code]},{split}_Aligned_Faces')
    (root / 'sfew_2.0_labels.csv').write_text('\n'.join([*lines, '']))
    write_strays(root)


def write_strays(root: Path) -> None:
    for folder in (root, root / 'Train', root / 'Val'):
        if folder.is_dir():
            (folder / '.DS_Store').write_bytes(b'\0')
    junk = root / '__MACOSX' / 'Train' / 'Angry'
    junk.mkdir(parents=True, exist_ok=True)
    (junk / f'{name(1)}.png').write_bytes(b'\0')


def _picture(path: Path, size: tuple[int, int], seed: int) -> None:
    """Coarse noise, so that a large one is quickly written."""
    noise = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(noise).resize(size).save(path)
