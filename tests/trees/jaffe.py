"""Writes folders laid out like JAFFE."""

from collections.abc import Mapping
from pathlib import Path

from tests.trees.sequences import Draw, noise, save, write_text

CODES = {
    'anger': 'AN',
    'disgust': 'DI',
    'fear': 'FE',
    'happiness': 'HA',
    'neutral': 'NE',
    'sadness': 'SA',
    'surprise': 'SU',
}
SUBJECTS = ('KA', 'KL', 'KM', 'KR', 'MK', 'NA', 'NM', 'TM', 'UY', 'YM')
_FEWER_AND_MORE = {  # takes other than three, so that the published sums per person and per class come out
    ('KA', 'FE'): 4,
    ('KA', 'SA'): 4,
    ('KL', 'HA'): 4,
    ('KM', 'SA'): 4,
    ('KR', 'SA'): 2,
    ('NM', 'DI'): 2,
    ('YM', 'FE'): 4,
}


def write(
    root: Path,
    *,
    subjects: int = 10,
    takes: Mapping[tuple[str, str], int] = _FEWER_AND_MORE,
    folder: str = 'jaffedbase/jaffe',
    draw: Draw | None = noise,
) -> None:
    """Writes the stills of some persons, three takes of each expression unless `takes` says otherwise.

    The second take is missing in the numbering where there are only two, as it is in the set. `draw=None` leaves
    images empty.
    """
    number = 0
    for subject in SUBJECTS[:subjects]:
        for label, code in CODES.items():
            count = takes.get((subject, code), 3)
            for take in (1, 3) if count == 2 else range(1, count + 1):
                number += 2 if number % 50 == 49 else 1  # the numbers have gaps
                path = root / folder / f'{subject}.{code}{take}.{number}.tiff'
                save(path, draw(subject, label, take) if draw else None)
    for name in ('.DS_Store', 'README', 'README_FIRST.txt', 'rename.py'):
        write_text(root / folder / name, 'no image')
