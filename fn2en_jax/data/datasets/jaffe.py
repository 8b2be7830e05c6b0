"""JAFFE: 213 grey stills of ten women, told apart by their file names alone."""

import collections
import re

from fn2en_jax.data.datasets.copies import first_of_each
from fn2en_jax.data.records import Dataset, Found, Record, Tree

_CODES = {
    'AN': 'anger',
    'DI': 'disgust',
    'FE': 'fear',
    'HA': 'happiness',
    'NE': 'neutral',
    'SA': 'sadness',
    'SU': 'surprise',
}
# Person, expression with the number of the take, and a number over the whole set; takes and numbers have gaps.
_IMAGE = rf'(?P<subject>[A-Z]{{2}})\.(?P<code>{"|".join(_CODES)})(?P<take>\d)\.(?P<number>\d{{1,3}})\.tiff?'
_ANY_TIFF = r'[^/]+\.tiff?'

_PER_CLASS = {'anger': 30, 'disgust': 29, 'fear': 32, 'happiness': 31, 'neutral': 30, 'sadness': 31, 'surprise': 30}
_PER_SUBJECT = {
    'KA': 23,
    'KL': 22,
    'KM': 22,
    'KR': 20,
    'MK': 21,
    'NA': 21,
    'NM': 20,
    'TM': 21,
    'UY': 21,
    'YM': 22,
}


class Jaffe(Dataset):
    """The Japanese Female Facial Expression database."""

    def find(self, tree: Tree) -> Found:
        skipped: list[str] = []
        images = first_of_each(tree.match(_IMAGE), _file, skipped)
        if not images:
            raise self.foreign(tree, 'KA.AN1.39.tiff')
        named = {found.string for found, _ in tree.match(_IMAGE)}
        strays = (found.string for found, _ in tree.match(_ANY_TIFF) if found.string not in named)
        skipped += [f'{name}: its name is not like KA.AN1.39.tiff' for name in strays]
        records = tuple(
            Record(path, file, _CODES[found['code'].upper()], subject=found['subject'].upper())
            for file, (found, path) in sorted(images.items())
        )
        counts = collections.Counter(record.subject for record in records)
        return Found(
            records,
            edition=f'{len(records)} images of {len(counts)} persons',
            expected=_PER_CLASS,
            missing=tuple(
                f'{subject}: {whole - counts[subject]} of {whole} images'
                for subject, whole in _PER_SUBJECT.items()
                if counts[subject] < whole
            ),
            skipped=tuple(skipped),
        )


def _file(found: re.Match[str]) -> str:
    return f'{found["subject"]}.{found["code"]}{found["take"]}.{found["number"]}'.upper() + '.tiff'


JAFFE = Jaffe(
    name='jaffe',
    title='JAFFE',
    access='ask for jaffedbase.zip at https://zenodo.org/record/3451524',
    layout='jaffedbase.zip, or the images themselves (KA.AN1.39.tiff) in any folder',
    faces='align',
)
