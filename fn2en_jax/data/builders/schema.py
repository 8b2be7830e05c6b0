"""The one TFDS feature schema of all builders, and how an example is written into it.

Every prepared data set has a single TFDS split, `SPLIT`; training and test parts are fields of the examples,
so that folds can be cut differently without preparing anything again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

SPLIT = 'examples'  # not 'all', which tfds reserves for reading
FILE_FORMAT = 'array_record'
NO_FOLD = -1
UNKNOWN = (-1.0, -1.0, -1.0, -1.0)


SPLITS = ('', 'train', 'validation', 'test')
TEXTS = ('label', 'subject', 'file', 'split', 'sequence', 'folds', 'face')
NUMBERS = ('fold', 'frame')
PLACES = ('box', 'eyes')  # four numbers each


def features() -> tfds.features.FeaturesDict:
    """What every example of every set has.

    image: encoded PNG or JPEG of any size; label: expression's or identity's name; subject: who is in the picture;
    file: the source's name, unique in the data set; fold: in which it is tested, or -1; split: one of SPLITS; sequence
    and frame: of a frame of a sequence, else '' and -1; folds: official folds, a letter each ('t'rain, 'v'alidation,
    t'e'st), or ''; face: how the face was cut out, one of `alignment`'s words, or ''; box: x, y, width, height of the
    face and eyes: x, y of the left and the right one, in pixels of the source, all -1 where they are not known.

    Read images with `tfds.decode.SkipDecoding()` and decode the bytes: left to itself, tfds fails on grey ones.
    """
    return tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=(None, None, None)),
            **{name: tfds.features.Text() for name in TEXTS},
            **{name: tfds.features.Scalar(dtype=np.int64) for name in NUMBERS},
            **{name: tfds.features.Tensor(shape=(4,), dtype=np.float32) for name in PLACES},
        }
    )


def example(
    encoded: bytes,
    *,
    label: str,
    file: str,
    subject: str = '',
    fold: int = NO_FOLD,
    split: str = '',
    sequence: str = '',
    frame: int = -1,
    folds: str = '',
    face: str = '',
    box: Sequence[float] = UNKNOWN,
    eyes: Sequence[float] = UNKNOWN,
) -> dict[str, Any]:
    """One example of `features()`. `encoded` are the bytes of a PNG or JPEG, stored as they are.

    Raises ValueError for a split that is not one of SPLITS or an empty label or file.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
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
        'sequence': sequence,
        'frame': frame,
        'folds': folds,
        'face': face,
        'box': np.asarray(box, np.float32),
        'eyes': np.asarray(eyes, np.float32),
    }


def serialised(example: dict[str, Any]) -> bytes:
    """What `example` returned as TFDS stores it: a tf.train.Example, the same bytes for the same example.

    TFDS's own serialiser takes three times as long, which is noticed beside the decoding of small images.
    """
    message = tf_example_pb2.Example()
    feature = message.features.feature
    feature['image'].bytes_list.value.append(example['image'].getvalue())
    for name in TEXTS:
        feature[name].bytes_list.value.append(example[name].encode())
    for name in NUMBERS:
        feature[name].int64_list.value.append(example[name])
    for name in PLACES:
        feature[name].float_list.value.extend(example[name].tolist())
    return message.SerializeToString(deterministic=True)
