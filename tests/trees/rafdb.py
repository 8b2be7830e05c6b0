"""The basic subset of RAF-DB: list, aligned and original pictures, attribute files, and the compound subset beside."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ('surprise', 'fear', 'disgust', 'happiness', 'sadness', 'anger', 'neutral')  # codes 1 to 7
EDITIONS = ('aligned', 'original')


def names(per_class: int) -> dict[str, int]:
    """Code by picture, in the order of the list: five digits in train, four in test."""
    numbers = range(1, 7 * per_class + 1)
    return {f'train_{n:05}.jpg': (n - 1) % 7 + 1 for n in numbers} | {f'test_{n:04}.jpg': n % 7 + 1 for n in numbers}


def points(name: str) -> np.ndarray:
    """Five points of an original picture: [5, 2]."""
    return np.random.RandomState(sum(name.encode())).randint(0, 60, (5, 2)) + 0.5


def write(
    root: Path, *, per_class: int = 2, editions: Collection[str] = EDITIONS, outer: str = 'basic', compound: bool = True
) -> dict[str, int]:
    """Writes the subset; returns its codes by picture."""
    content = names(per_class)
    write_list(root / outer, content)
    for name in content:
        if 'aligned' in editions:
            write_picture(root / outer / 'Image' / 'aligned' / f'{Path(name).stem}_aligned.jpg', 100)
        if 'original' in editions:
            write_picture(root / outer / 'Image' / 'original' / name, 60)
            write_attributes(root / outer, name)
    if compound:
        write_compound(root / 'compound')
    (root / outer / 'EmoLabel' / '.DS_Store').write_bytes(b'\0')
    return content


def write_list(folder: Path, content: dict[str, int]) -> Path:
    """One space between name and code, no header, no newline at the end."""
    path = folder / 'EmoLabel' / 'list_patition_label.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(f'{name} {code}' for name, code in content.items()))
    return path


def write_picture(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(size).randint(0, 256, (size, size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_attributes(folder: Path, name: str) -> None:
    """Five points, of which every second file separates x and y by a tab; then gender, race, age."""
    space = '\t' if int(Path(name).stem[-1]) % 2 else ' '
    lines = [f'{x}{space}{y}' for x, y in points(name)] + ['1', '0', '2']
    for kind, short in (('manual', 'manu'), ('auto', 'auto')):
        path = folder / 'Annotation' / kind / f'{Path(name).stem}_{short}_attri.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(lines if kind == 'manual' else ['0 0'] * 37))


def write_compound(folder: Path) -> None:
    """Eleven other classes under the same file names."""
    content = {f'train_{n:05}.jpg': n for n in range(1, 12)}
    write_list(folder, content)
    for name in content:
        write_picture(folder / 'Image' / 'aligned' / f'{Path(name).stem}_aligned.jpg', 90)
