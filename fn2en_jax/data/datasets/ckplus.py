"""CK+: sequences from a neutral face to the peak of an expression, a label for each of 327 peaks."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fn2en_jax.data import landmarks, side_files
from fn2en_jax.data.datasets import ckplus_persons
from fn2en_jax.data.datasets.copies import first_of_each
from fn2en_jax.data.records import Dataset, Found, Record, Tree
from fn2en_jax.errors import UserError

_CODES = {1: 'anger', 2: 'contempt', 3: 'disgust', 4: 'fear', 5: 'happiness', 6: 'sadness', 7: 'surprise'}

# Below whatever outer folder: the label root alone is called Emotion, Emotion_labels or emotion.
_FRAME = r'(?P<subject>S\d{3})/(?P<number>\d{3})/(?P=subject)_(?P=number)_(?P<frame>\d{8})'
_IMAGE = rf'{_FRAME}\.png'
_ORIGINAL = rf'(?:extended-)?cohn-kanade-images/{_IMAGE}'
_EMOTION = rf'{_FRAME}_emotion\.txt'
_LANDMARKS = rf'{_FRAME}_landmarks\.txt'
_CK48 = r'(?:anger|contempt|disgust|fear|happy|sadness|surprise)/S\d{3}_\d{3}_\d{8}\.png'

_NEUTRAL = 1  # number of the first frame
_PEAKS = 3  # frames at the end of a sequence

_SEQUENCES = {label: len(persons) for label, persons in ckplus_persons.LABELLED.items()}
_EXPECTED = {label: _PEAKS * count for label, count in _SEQUENCES.items()} | {'neutral': sum(_SEQUENCES.values())}

Sequence = tuple[str, str]  # subject and number: 'S005', '001'


class CKPlus(Dataset):
    """The Extended Cohn-Kanade database.

    Of every sequence with a label: its first frame as 'neutral', and its last three with the label.
    """

    def find(self, tree: Tree) -> Found:
        skipped: list[str] = []
        frames = _frames(tree, skipped)
        if not frames:
            self._refuse_ck48(tree)
            raise self.foreign(tree, 'cohn-kanade-images/S005/001/S005_001_00000001.png')
        labels = _labels(tree, skipped)
        if not labels:
            because = f' that can be read ({skipped[0]})' if skipped else ''
            raise self.foreign(tree, f'Emotion/S005/001/S005_001_00000011_emotion.txt{because}')
        marks = first_of_each(tree.match(_LANDMARKS), _key, skipped)
        records: list[Record] = []
        missing = ckplus_persons.absent((subject, label) for (subject, _), (_, label) in labels.items())
        for sequence, (peak, label) in sorted(labels.items()):
            images = frames.get(sequence, {})
            if not images:
                missing.append(f'{"/".join(sequence)}: its label is there, its images are not')
                continue
            wanted = _wanted(max(peak, *images))
            missing += [_file(sequence, number) for number in wanted if number not in images]
            for number in wanted:
                if number in images:
                    points = _points(marks.get((*sequence, number)), skipped)
                    records.append(_record(sequence, number, label, images[number], points))
        persons = len({subject for subject, _ in labels})
        edition = f'{len(labels)} labelled sequences of {persons} persons'
        return Found(tuple(records), edition, _EXPECTED, tuple(missing), tuple(skipped))

    def _refuse_ck48(self, tree: Tree) -> None:
        if count := sum(1 for _ in tree.match(_CK48)):
            raise UserError(
                f'{tree.root}: CK+48 ({count} images in a folder per class), not {self.title} itself but a crop of it '
                'by third parties, whose usual folds are not person-independent and which has no neutral faces; '
                f'expected there: {self.layout}. To get it: {self.access}'
            )


def _key(found: re.Match[str]) -> tuple[str, str, int]:
    return found['subject'].upper(), found['number'], int(found['frame'])


def _file(sequence: Sequence, frame: int) -> str:
    return f'{"/".join(sequence)}/{"_".join(sequence)}_{frame:08}.png'


def _wanted(last: int) -> list[int]:
    return [_NEUTRAL, *range(max(_NEUTRAL + 1, last - _PEAKS + 1), last + 1)]


def _frames(tree: Tree, skipped: list[str]) -> dict[Sequence, dict[int, Path]]:
    """The images of each sequence by number: those of the original folder if it is there, else any of that name."""
    for pattern in (_ORIGINAL, _IMAGE):
        found: dict[Sequence, dict[int, Path]] = {}
        for (subject, number, frame), (_, path) in first_of_each(tree.match(pattern), _key, skipped).items():
            found.setdefault((subject, number), {})[frame] = path
        if found:
            break
    return found


def _labels(tree: Tree, skipped: list[str]) -> Mapping[Sequence, tuple[int, str]]:
    """The number of the peak frame and the expression of each sequence that has a label."""
    labels = {}
    files = first_of_each(tree.match(_EMOTION), lambda found: _key(found)[:2], skipped)
    for sequence, (found, path) in files.items():
        try:
            labels[sequence] = _key(found)[2], _label(path)
        except UserError as error:
            skipped.append(f'{found.string}: {error}')
    return labels


def _label(path: Path) -> str:
    """Reads a label, a number in scientific notation: '   3.0000000e+00'."""
    values = side_files.numbers(path)
    if len(values) != 1:
        raise UserError(f'holds {len(values)} numbers instead of one')
    if values[0] not in _CODES:
        raise UserError(f'{values[0]:g} is no code of an expression ({min(_CODES)} to {max(_CODES)})')
    return _CODES[int(values[0])]


def _points(mark: tuple[re.Match[str], Path] | None, skipped: list[str]) -> landmarks.FivePoints | None:
    if mark is None:
        return None
    try:
        values = side_files.numbers(mark[1])
        if len(values) != 2 * 68:
            raise UserError(f'holds {len(values)} numbers instead of {2 * 68}')
    except UserError as error:
        skipped.append(f'{mark[0].string}: {error}')
        return None
    return landmarks.five_of_68(np.reshape(values, (68, 2)))


def _record(sequence: Sequence, frame: int, label: str, path: Path, points: landmarks.FivePoints | None) -> Record:
    return Record(
        path,
        _file(sequence, frame),
        'neutral' if frame == _NEUTRAL else label,
        subject=sequence[0],
        sequence='_'.join(sequence),
        frame=frame,
        points=points,
    )


CKPLUS = CKPlus(
    name='ckplus',
    title='CK+',
    access='apply to the Affect Analysis Group, University of Pittsburgh (http://www.pitt.edu/~emotion/ck-spread.htm)',
    layout='extended-cohn-kanade-images.zip, Emotion_labels.zip and, if you have it, Landmarks.zip; or their folders',
    faces='align',
)
