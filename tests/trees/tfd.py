"""TFD's MATLAB files, small."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io

CODES = {'anger': 1, 'disgust': 2, 'fear': 3, 'happiness': 4, 'sadness': 5, 'surprise': 6, 'neutral': 7}


def content(*, subjects: int = 10, unlabelled: int = 9, side: int = 48) -> dict[str, Any]:
    """The variables: every person shows the seven expressions once; faces of nobody known lie in between.

    Person k (`labs_id` 100 + k, and -1 for the last) is tested in fold k % 5 and validates the next.
    """
    random = np.random.RandomState(0)
    labelled = 7 * subjects
    rows = np.sort(random.permutation(labelled + unlabelled)[:labelled])
    person, expression = np.divmod(np.arange(labelled), 7)
    fold = np.arange(5)
    parts = np.where(person[:, None] % 5 == fold, 3, np.where((person[:, None] + 1) % 5 == fold, 2, 1))
    variables = {
        'images': random.randint(0, 256, (labelled + unlabelled, side, side)).astype(np.uint8),
        'labs_ex': np.full((labelled + unlabelled, 1), -1, np.int16),
        'labs_id': np.full((labelled + unlabelled, 1), -1, np.int16),
        'folds': np.zeros((labelled + unlabelled, 5), np.uint8),
    }
    variables['labs_ex'][rows, 0] = expression + 1
    variables['labs_id'][rows, 0] = np.where(person == subjects - 1, -1, 100 + person)
    variables['folds'][rows] = parts
    return variables


def write(root: Path, name: str = 'TFD_48x48.mat', **knobs: int) -> dict[str, Any]:
    """Writes one file (the images are as large as its name says) and returns its variables; knobs as `content`."""
    variables = content(side=96 if '96x96' in name else 48, **knobs)
    write_file(root / 'TFD' / name, variables)
    (root / 'TFD' / '.DS_Store').write_bytes(b'\0')
    return variables


def write_file(path: Path, variables: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, variables, do_compression=True)


def write_names(path: Path, names: Sequence[str]) -> None:
    """TFD_info.mat: a struct whose cells are the original file names of all images."""
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    write_file(path, {'tfd_info': {'version': 2.0, 'imfiles': cells}})
