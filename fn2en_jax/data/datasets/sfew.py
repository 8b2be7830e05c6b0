"""SFEW 2.0: stills of films, as the distributor's aligned faces and as full frames."""

import collections
import csv
import dataclasses
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fn2en_jax.data.datasets.copies import notes
from fn2en_jax.data.datasets.counted import apart
from fn2en_jax.data.records import Dataset, Found, Record, Tree
from fn2en_jax.errors import UserError

CLASS_FOLDERS = {
    'Angry': 'anger',
    'Disgust': 'disgust',
    'Fear': 'fear',
    'Happy': 'happiness',
    'Neutral': 'neutral',
    'Sad': 'sadness',
    'Surprise': 'surprise',
}
SPLIT_FOLDERS = {'Train': 'train', 'Val': 'validation'}
_COUNTS = {'train': (178, 66, 98, 198, 150, 172, 96), 'validation': (77, 23, 47, 73, 86, 73, 57)}
PUBLISHED = {
    f'{split}/{label}': count
    for split, counts in _COUNTS.items()
    for label, count in zip(CLASS_FOLDERS.values(), counts, strict=True)
}  # full frames
FRAME_COUNTS = {split: sum(counts) for split, counts in _COUNTS.items()}
ALIGNED_COUNTS = {'train': 891, 'validation': 431}  # those of the frames that the distributor found a face in

_LABELS = {folder.lower(): label for folder, label in CLASS_FOLDERS.items()}
_CLASSES = '|'.join(CLASS_FOLDERS)
_FILE = r'([^/]+)\.(?:png|jpe?g)'
_ALIGNED = rf'(Train|Val)_Aligned_Faces(?:_new)?/({_CLASSES})/{_FILE}'
_FRAMES = rf'(Train|Val)/({_CLASSES})/{_FILE}'
_ALIGNED_TEST = rf'Test_Aligned_Faces(?:_new)?/{_FILE}'
_FRAMES_TEST = rf'Test/{_FILE}'
_STILL = re.compile(r'.+_\d+_\d+')  # <film>_<time>_<frame>; the film may hold underscores, or be a number
_OTHERS = {
    'SFEW 1': rf'Set[12]/(?:{_CLASSES})/(?:FaceFP_5\.txt|[^/]+\.jpg)',
    'AFEW': rf'(?:Train|Val)/(?:{_CLASSES})/[^/]+\.avi|'
    rf'(?:Train|Val)_Aligned_Faces(?:_\w+)?/(?:(?:{_CLASSES})/)?(?!(?:{_CLASSES})/)[^/]+/{_FILE}',
}

_LIST = 'sfew_2.0_labels.csv'
_LIST_COLUMNS = ('image_name', 'emotion', 'original_split')
_LARGEST_LIST = 1 << 22  # bytes; that of 1,694 images has about 100,000


@dataclasses.dataclass(frozen=True)
class FilmStills(Dataset):
    """One of the two editions.

    Attributes:
        aligned: the distributor's faces, 143x181 pixels; else the frames they were cut from.
    """

    aligned: bool

    def find(self, tree: Tree) -> Found:
        records, skipped = _from_folders(tree, _ALIGNED if self.aligned else _FRAMES)
        if not records and self.aligned:
            records, unlisted = _from_list(tree)
            skipped += unlisted
        if not records:
            raise self.foreign(tree, self._looked_for(tree, skipped))
        tests = sum(1 for _ in tree.match(_ALIGNED_TEST if self.aligned else _FRAMES_TEST))
        if tests:
            skipped.append(f'Test: {tests} images, whose labels were never published')
        return self._found(tuple(records), tuple(skipped))

    def _looked_for(self, tree: Tree, skipped: list[str]) -> str:
        looked_for = 'Train_Aligned_Faces/Angry ... ' if self.aligned else 'Train/Angry ... '
        looked_for += 'with <film>_<time>_<frame>.png'
        other_edition = tree.match(_FRAMES if self.aligned else _ALIGNED)
        if any(_STILL.fullmatch(match[3]) for match, _ in other_edition):
            return f'{looked_for} (the other edition is here: {"sfew_frames" if self.aligned else "sfew"})'
        for other, pattern in _OTHERS.items():
            if next(tree.match(pattern), None):
                return f'{looked_for} (this looks like {other}, another set)'
        return f'{looked_for} ({skipped[0]})' if skipped else looked_for

    def _found(self, records: tuple[Record, ...], skipped: tuple[str, ...]) -> Found:
        splits = collections.Counter(record.split for record in records)
        classes = collections.Counter(f'{record.split}/{record.label}' for record in records)
        kind = 'aligned faces' if self.aligned else 'full frames'
        edition = f'{kind}, {splits["train"]} train + {splits["validation"]} validation{self._hint(splits)}'
        missing = [f'{name}: no image' for name in PUBLISHED if not classes[name]]
        short, surplus = apart(splits, ALIGNED_COUNTS) if self.aligned else ([], [])
        expected = {} if self.aligned else PUBLISHED
        return Found(records, edition, expected, (*missing, *short), skipped, surplus=tuple(surplus))

    def _hint(self, splits: Mapping[str, int]) -> str:
        """What numbers of images say by themselves."""
        if splits == ALIGNED_COUNTS:
            known = ' (the known smaller edition of the 958 + 436 frames)'
            return known if self.aligned else ', as many as there are aligned faces: if they are cropped, use sfew'
        if self.aligned and splits == FRAME_COUNTS:
            return ', as many as there are full frames: if they are not cropped, use sfew_frames'
        return ''


_ACCESS = 'send the signed licence of https://users.cecs.anu.edu.au/~few_group/AFEW.html to its authors'
SFEW = FilmStills(
    name='sfew',
    title='SFEW 2.0 (aligned faces)',
    access=_ACCESS,
    layout='Train_Aligned_Faces.zip and Val_Aligned_Faces_new.zip, or the folders Train_Aligned_Faces/Angry ... '
    'Val_Aligned_Faces/Surprise',
    faces='none',
    aligned=True,
)
SFEW_FRAMES = FilmStills(
    name='sfew_frames',
    title='SFEW 2.0 (full frames)',
    access=_ACCESS,
    layout='the folders Train/Angry ... Val/Surprise',
    faces='align',
    aligned=False,
)


def _from_folders(tree: Tree, pattern: str) -> tuple[list[Record], list[str]]:
    """A base name may occur in two classes, so the class is part of the key."""
    records: dict[str, Record] = {}
    used: dict[str, str] = {}
    copies, skipped = [], []
    for match, path in tree.match(pattern):
        split, folder, stem = match[1].capitalize(), match[2].capitalize(), match[3]
        file = f'{split}/{folder}/{match.string.rpartition("/")[2]}'
        key = f'{split}/{folder}/{stem}'.lower()
        if not _STILL.fullmatch(stem):
            skipped.append(f'{file}: not named <film>_<time>_<frame>')
        elif key in records:
            copies.append((match.string, used[key]))
        else:
            used[key] = match.string
            records[key] = Record(path, file, CLASS_FOLDERS[folder], split=SPLIT_FOLDERS[split])
    return list(records.values()), skipped + notes(copies)


def _from_list(tree: Tree) -> tuple[list[Record], list[str]]:
    """The re-packaged copy: one folder of numbered aligned faces and a list of what they were."""
    path = next((path for _, path in tree.match(re.escape(_LIST))), None)
    if path is None:
        return [], []
    images = {match[1].lower(): image for match, image in tree.match(r'sfew2\.0_images/([^/]+)')}
    records: dict[str, Record] = {}
    skipped = []
    for name, emotion, original in _rows(path):
        split = original.split('_')[0].capitalize()
        if split in SPLIT_FOLDERS and emotion.lower() in _LABELS and name.lower() in images and name not in records:
            image = images[name.lower()]
            records[name] = Record(image, name, _LABELS[emotion.lower()], split=SPLIT_FOLDERS[split])
        else:
            skipped.append(f'{name[:80]}: {_fault(split, emotion, original, name in records)}')
    return list(records.values()), skipped


def _fault(split: str, emotion: str, original: str, twice: bool) -> str:
    if split not in SPLIT_FOLDERS:
        return f'original_split is {original[:40]!r}, neither Train nor Val'
    if emotion.lower() not in _LABELS:
        return f'emotion is {emotion[:40]!r}, none of {", ".join(CLASS_FOLDERS)}'
    return f'listed twice in {_LIST}' if twice else f'listed in {_LIST} and not in sfew2.0_images'


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise UserError(f'{path}: more than {_LARGEST_LIST >> 20} MB, no list of SFEW')
        text = path.read_bytes().decode('utf-8-sig', 'backslashreplace')
        rows = csv.DictReader(io.StringIO(text, newline=''), restval='', restkey='')
        names = [name.strip() for name in rows.fieldnames or ()]
        if not set(_LIST_COLUMNS) <= set(names):
            raise UserError(f'{path}: line 1: the columns {", ".join(_LIST_COLUMNS)} are expected, found {names}')
        rows.fieldnames = names
        for row in rows:
            name, emotion, split = (row[column].strip() for column in _LIST_COLUMNS)
            yield name, emotion, split
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    except csv.Error as error:
        raise UserError(f'{path}: is not CSV ({error})') from error
