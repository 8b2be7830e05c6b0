"""The one TFDS feature schema of all builders, and how an example is written into it.

Every prepared data set has a single TFDS split, `SPLIT`; training and test parts are fields of the examples,
so that folds can be cut differently without preparing anything again.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SPLIT = 'examples'  # not 'all', which tfds reserves for reading
FILE_FORMAT = 'array_record'
NO_FOLD = -1


def features() -> tfds.features.FeaturesDict:
    """image: encoded PNG or JPEG of any size; label: expression's or identity's name; subject: who is in the
    picture; file: the source's name, unique in the data set; fold: number of the fold or -1; split: 'train',
    'test' or ''.

    Read images with `tfds.decode.SkipDecoding()` and decode the bytes: left to itself, tfds fails on grey
    ones.
    """
    return tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=(None, None, None)),
            'label': tfds.features.Text(),
            'subject': tfds.features.Text(),
            'file': tfds.features.Text(),
            'fold': tfds.features.Scalar(dtype=np.int64),
            'split': tfds.features.Text(),
        }
    )


def example(
    encoded: bytes, *, label: str, file: str, subject: str = '', fold: int = NO_FOLD, split: str = ''
) -> dict[str, Any]:
    """One example of `features()`. `encoded` are the bytes of a PNG or JPEG, stored as they are.

    Raises ValueError for a split other than 'train', 'test' and '' or an empty label or file.
    """
    if split not in ('', 'train', 'test'):
        raise ValueError(f"split must be 'train', 'test' or '', got {split!r}")
    if not label or not file:
        raise ValueError(f'label and file must not be empty, got {label!r} and {file!r}')
    # A file object is what tfds stores without decoding; an array would make it import TensorFlow.
    return {
        'image': io.BytesIO(encoded),
        'label': label,
        'subject': subject,
        'file': file,
        'fold': fold,
        'split': split,
    }
