"""FER2013 as people have it: the competition's table, its other table, or folders of images."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CODES = {'anger': 0, 'disgust': 1, 'fear': 2, 'happiness': 3, 'sadness': 4, 'surprise': 5, 'neutral': 6}
FOLDERS = dict(zip(CODES, ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral'), strict=True))
USAGES = ('Training', 'PublicTest', 'PrivateTest')

Row = tuple[str, str, np.ndarray]  # label, usage, uint8 [48,48]


def rows(per_class: int = 2) -> Iterator[Row]:
    """`per_class` images of every class in each of the three parts, in the order of the published table."""
    random = np.random.RandomState(0)
    for usage in USAGES:
        for _ in range(per_class):
            for label in CODES:
                yield label, usage, random.randint(0, 256, (48, 48)).astype(np.uint8)


def write(root: Path, edition: str = 'fer2013.csv', *, per_class: int = 2, outer: str = 'fer2013') -> list[Row]:
    """Writes an edition: 'fer2013.csv', 'icml_face_data.csv' or 'folders'; returns what it holds."""
    content = list(rows(per_class))
    if edition == 'folders':
        write_folders(root / outer, content)
    else:
        write_table(root / outer / edition, content)
    write_strays(root)
    return content


def write_table(path: Path, content: Iterable[Row], *, more: str = '') -> None:
    """more: lines written behind the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    icml = path.name == 'icml_face_data.csv'
    with path.open('w', encoding='ascii', newline='') as file:
        file.write('emotion, Usage, pixels\n' if icml else 'emotion,pixels,Usage\n')
        for label, usage, image in content:
            pixels = ' '.join(map(str, image.ravel()))
            file.write(f'{CODES[label]},{usage},{pixels}\n' if icml else f'{CODES[label]},{pixels},{usage}\n')
        file.write(more)


def write_quoted(path: Path, content: Iterable[Row]) -> None:
    """As R and pandas write it: quotation marks, a byte order mark, CR LF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', encoding='utf-8-sig', newline='') as file:
        table = csv.writer(file, quoting=csv.QUOTE_ALL)
        table.writerow(['emotion', 'pixels', 'Usage'])
        for label, usage, image in content:
            table.writerow([CODES[label], ' '.join(map(str, image.ravel())), usage])


def write_folders(root: Path, content: Iterable[Row], *, told_apart: bool = True) -> None:
    """told_apart: whether file names say which test set an image is of."""
    for number, (label, usage, image) in enumerate(content):
        folder = root / ('train' if usage == 'Training' else 'test') / FOLDERS[label]
        folder.mkdir(parents=True, exist_ok=True)
        name = f'{usage}_{number}' if told_apart else f'im{number}'
        Image.fromarray(image).save(folder / f'{name}.{"JPG" if number % 5 == 0 else "jpg"}')


def write_strays(root: Path) -> None:
    """What is beside the table in the competition's bundle, and what file browsers leave."""
    root.mkdir(parents=True, exist_ok=True)
    (root / '.DS_Store').write_bytes(b'\0')
    (root / 'README').write_text('FER2013')
    (root / '__MACOSX').mkdir(exist_ok=True)
    (root / '__MACOSX' / '._fer2013.csv').write_bytes(b'\0')
    (root / '__MACOSX' / 'fer2013.csv').write_bytes(b'\0')
    (root / 'test.csv').write_text('pixels\n0 0\n')
    (root / 'train.csv').write_text('emotion,pixels\n0,0 0\n')
