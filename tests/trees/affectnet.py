"""AffectNet as unpacked from its first edition: two lists, and numbered folders of pictures of all formats."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = 'subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal'
HEADERS = {'hash': f'#{COLUMNS}\n', 'plain': f'{COLUMNS}\n', 'absent': ''}
LABELS = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger', 'contempt')  # by code
SUFFIXES = ('.jpg', '.JPG', '.jpeg', '.png', '.tif', '.TIF', '.bmp', '.JPEG', '.Jpeg', '.PNG', '.BMP')
SIZE = 40  # pixels


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a list."""

    file: str
    code: int
    box: Sequence[float] = (5, 6, 30, 29)
    landmarks: str | None = None

    @property
    def text(self) -> str:
        marks = landmarks(self.file) if self.landmarks is None else self.landmarks
        feelings = '-2,-2' if self.code > 8 else '0.25,-0.5'
        return f'{self.file},{",".join(map(str, self.box))},{marks},{self.code},{feelings}\n'


def points(file: str) -> np.ndarray:
    """68 landmarks inside the picture, others for each file: [68, 2]."""
    random = np.random.RandomState(int(hashlib.sha256(file.encode()).hexdigest()[:8], 16))
    return random.randint(4, SIZE - 4, (68, 2)) + 0.25


def landmarks(file: str) -> str:
    return ';'.join(f'{number:.2f}' for number in points(file).ravel())


def rows(split: str, per_class: int = 2, codes: Sequence[int] = range(11)) -> list[Row]:
    """`per_class` rows of every code; the folders' numbers have gaps and the formats change."""
    made = []
    for number in range(per_class * len(codes)):
        name = hashlib.sha224(f'{split}{number}'.encode()).hexdigest()
        folder = (number * 7) % 11 + (1 if split == 'training' else 1300)
        made.append(
            Row(f'{folder}/{name}{SUFFIXES[(number + number // 11 * 5) % len(SUFFIXES)]}', codes[number % len(codes)])
        )
    return made


def write(
    root: Path,
    *,
    per_class: int = 2,
    codes: Sequence[int] = range(11),
    header: str = 'plain',
    validation_header: str = 'absent',
    outer: str = '',
) -> dict[str, list[Row]]:
    """Writes lists and pictures; returns the rows of each list.

    header, validation_header: of HEADERS. outer: a folder around that of the pictures.
    """
    lists = {split: rows(split, per_class, codes) for split in ('training', 'validation')}
    for (split, content), kind in zip(lists.items(), (header, validation_header), strict=True):
        write_list(root, split, content, kind)
        write_pictures(root / outer / 'Manually_Annotated_Images', content)
    write_strays(root)
    return lists


def write_list(root: Path, split: str, content: Sequence[Row], header: str = 'plain') -> Path:
    path = root / 'Manually_Annotated_file_lists' / f'{split}.csv'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADERS[header] + ''.join(row.text for row in content), encoding='ascii')
    return path


def write_pictures(folder: Path, content: Sequence[Row]) -> None:
    random = np.random.RandomState(0)
    for row in content:
        path = folder / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.randint(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)).save(path)


def write_strays(root: Path) -> None:
    """The automatic part with its list, and what file browsers leave."""
    automatic = root / 'Automatically_Annotated_file_list'
    automatic.mkdir(parents=True, exist_ok=True)
    (automatic / 'automatically_annotated.csv').write_text(HEADERS['plain'] + Row('1/x.jpg', 3).text)
    pictures = root / 'Automatically_Annotated_Images' / '1'
    pictures.mkdir(parents=True, exist_ok=True)
    (pictures / 'x.jpg').write_bytes(b'')
    (root / 'Manually_Annotated_file_lists' / '.DS_Store').write_bytes(b'\0')
    (root / '__MACOSX').mkdir(exist_ok=True)
    (root / '__MACOSX' / 'training.csv').write_bytes(b'\0')
