"""Oulu-CASIA, visible light, strong illumination: 80 persons, six sequences each from a neutral face to a peak."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fn2en_jax.data.datasets.copies import first_of_each
from fn2en_jax.data.records import Dataset, Found, Record, Tree

_FOLDERS = {
    'Anger': 'anger',
    'Disgust': 'disgust',
    'Fear': 'fear',
    'Happiness': 'happiness',
    'Sadness': 'sadness',
    'Surprise': 'surprise',
}
_SUBJECTS = 80
_PEAKS = 3  # frames at the end of a sequence

# The names of the frames differ between editions (000.jpeg, FirstF_000.jpeg): only the number in them is relied on.
_SEQUENCE = rf'Strong/(?P<subject>P\d{{3}})/(?P<folder>{"|".join(_FOLDERS)})/(?P<stem>[^/]+)\.jpe?g'
_ORIGINAL = rf'VL/{_SEQUENCE}'
_CROPPED = rf'VL_Acropped/{_SEQUENCE}'

Key = tuple[str, str]  # subject and folder: 'P001', 'Anger'


class OuluCasia(Dataset):
    """Oulu-CASIA NIR&VIS: its part in visible light and strong illumination.

    Of every sequence: its first frame as 'neutral', and its last three with the label. The original images are
    preferred to the faces that the distributor cropped.
    """

    def find(self, tree: Tree) -> Found:
        skipped: list[str] = []
        sequences, images, faces = _sequences(tree, _ORIGINAL, skipped), 'original images', ''
        if not sequences:
            sequences, images, faces = _sequences(tree, _CROPPED, skipped), "distributor's crop", 'none'
        if not sequences:
            raise self.foreign(tree, 'VL/Strong/P001/Anger/000.jpeg')
        absent = [key for key in _all_sequences() if key not in sequences]
        edition = f'{images}, {len(sequences)} sequences'
        if len(absent) == 1:  # users report 479 sequences without saying which one they lack
            edition += f' (a known smaller edition, without {"/".join(absent[0])})'
        return Found(
            tuple(record for key in sorted(sequences) for record in _records(key, sequences[key])),
            edition,
            expected=_expected(absent if len(absent) == 1 else ()),
            missing=(*(() if len(absent) == 1 else ('/'.join(key) for key in absent)), *_short(sequences)),
            skipped=tuple(skipped),
            faces=faces,
        )


def _all_sequences() -> list[Key]:
    return [(f'P{number:03}', folder) for number in range(1, _SUBJECTS + 1) for folder in _FOLDERS]


def _expected(absent: Sequence[Key]) -> Mapping[str, int]:
    """Records per class of the set without some of its sequences."""
    counts = dict.fromkeys(_FOLDERS.values(), _PEAKS * _SUBJECTS)
    for _, folder in absent:
        counts[_FOLDERS[folder]] -= _PEAKS
    return counts | {'neutral': _SUBJECTS * len(_FOLDERS) - len(absent)}


def _short(sequences: Mapping[Key, Sequence[Any]]) -> list[str]:
    """Sequences that cannot give a neutral frame and three of the peak; the shortest published one has nine."""
    counts = {'/'.join(key): len(frames) for key, frames in sorted(sequences.items()) if len(frames) <= _PEAKS}
    return [f'{name}: {count} frame' + 's' * (count > 1) for name, count in counts.items()]


def _sequences(tree: Tree, pattern: str, skipped: list[str]) -> dict[Key, list[tuple[int, str, Path]]]:
    """Number, name and file of the frames of each sequence, in their order."""
    frames = first_of_each(tree.match(pattern), lambda found: (*_key(found), found['stem'].lower()), skipped)
    sequences: dict[Key, list[tuple[int, str, Path]]] = {}
    for found, path in frames.values():
        numbers = re.findall(r'\d+', found['stem'])
        if numbers:
            sequences.setdefault(_key(found), []).append((int(numbers[-1]), found['stem'], path))
        else:
            skipped.append(f'{found.string}: no number of a frame in its name')
    return {key: sorted(sequence) for key, sequence in sequences.items()}


def _key(found: re.Match[str]) -> Key:
    return found['subject'].upper(), found['folder'].capitalize()


def _records(key: Key, frames: Sequence[tuple[int, str, Path]]) -> list[Record]:
    label = _FOLDERS[key[1]]
    first = [('neutral', frames[0])] if len(frames) > _PEAKS else []
    return [
        Record(
            path,
            f'{"/".join(key)}/{stem}.jpeg',
            expression,
            subject=key[0],
            sequence='_'.join(key),
            frame=number,
        )
        for expression, (number, stem, path) in first + [(label, frame) for frame in frames[-_PEAKS:]]
    ]


OULU_CASIA = OuluCasia(
    name='oulu_casia',
    title='Oulu-CASIA (visible light, strong illumination)',
    access='apply to the Center for Machine Vision and Signal Analysis, University of Oulu',
    layout='OriginalImg/VL/Strong/P001..P080/Anger..Surprise/*.jpeg, or the same below VL_Acropped; or their archive',
    faces='align',
)
