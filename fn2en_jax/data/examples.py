"""A set of labelled images in memory, or one that hands out its images on request."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Images(Protocol):
    """N square images that are decoded when asked for, behind the same few questions an array answers."""

    def __len__(self) -> int:
        """N."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, S, S, C), as an array of all images would have."""

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """The images at positions `ids` [n], as uint8 [n, S, S, C]; raises UserError for a damaged image."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """Part of an `Images`: position i here is position `ids[i]` there. Nothing is decoded by selecting."""

    images: Images
    ids: np.ndarray  # int64 [n]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.ids), *self.images.shape[1:])

    def gather(self, ids: np.ndarray) -> np.ndarray:
        return self.images.gather(self.ids[np.asarray(ids, np.int64)])


@dataclasses.dataclass(frozen=True)
class Joined:
    """Several `Images` of one size behind one another. Nothing is decoded by joining."""

    parts: tuple[Images, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    def gather(self, ids: np.ndarray) -> np.ndarray:
        ids, start = np.asarray(ids, np.int64), 0
        out = np.empty((len(ids), *self.shape[1:]), np.uint8)
        for part in self.parts:
            here = (start <= ids) & (ids < start + len(part))
            out[here] = part.gather(ids[here] - start)
            start += len(part)
        return out


@dataclasses.dataclass(frozen=True)
class InMemory:
    """An array uint8 [N, S, S, C] as `Images`."""

    array: np.ndarray

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def gather(self, ids: np.ndarray) -> np.ndarray:
        return self.array[np.asarray(ids, np.int64)]


@dataclasses.dataclass(frozen=True)
class Examples:
    """N labelled images and what is known about each of them.

    Attributes:
      images: uint8 [N, S, S, C] with values 0..255, or an `Images` of that shape.
      labels: int32 [N], indices into `class_names`.
      class_names: K names; their order is the meaning of a label.
      subjects: who is shown, N names, '' where that is unknown; None where nobody said of any image.
      files: N source names, unique; what reports and fold files call an image.
      folds: int32 [N], the fold in which an example is tested; -1 where none is given. None without folds.
      splits: N of 'train', 'validation', 'test' or ''; None without a split.
      sequences: of which sequence each image is a frame, N names, '' for a still; None where all are stills.
      frames: int32 [N], numbers in the sequence, -1 for a still; None where all are stills.
      official_folds: N words with a letter per official fold, 't'rain, 'v'alidation, t'e'st; None without any.
    """

    images: np.ndarray | Images
    labels: np.ndarray
    class_names: tuple[str, ...]
    subjects: tuple[str, ...] | None
    files: tuple[str, ...]
    folds: np.ndarray | None = None
    splits: tuple[str, ...] | None = None
    sequences: tuple[str, ...] | None = None
    frames: np.ndarray | None = None
    official_folds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        columns = {
            'labels': self.labels,
            'subjects': self.subjects,
            'files': self.files,
            'folds': self.folds,
            'splits': self.splits,
            'sequences': self.sequences,
            'frames': self.frames,
            'official_folds': self.official_folds,
        }
        for name, column in columns.items():
            if column is not None and len(column) != len(self.images):
                raise ValueError(f'{len(self.images)} images, but {len(column)} {name}')
        if isinstance(self.images, np.ndarray) and self.images.dtype != np.uint8:
            raise ValueError(f'images are {self.images.dtype}, not uint8')
        if len(self.images.shape) != 4:
            raise ValueError(f'images have shape {self.images.shape}, not [N, S, S, C]')
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f'labels outside 0..{len(self.class_names) - 1}')

    def __len__(self) -> int:
        return len(self.images)

    @property
    def in_memory(self) -> bool:
        """Whether all pixels are held in one array."""
        return isinstance(self.images, np.ndarray)

    @property
    def known_subjects(self) -> np.ndarray:
        """Of which images it is known who is shown, bool [N]."""
        return np.array([bool(name) for name in self.subjects or ('',) * len(self)], bool)

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """The images at positions `ids` [n], as uint8 [n, S, S, C], wherever they are kept."""
        ids = np.asarray(ids, np.int64)
        return self.images[ids] if isinstance(self.images, np.ndarray) else self.images.gather(ids)

    def take(self, ids: np.ndarray | Sequence[int]) -> 'Examples':
        """The examples at positions `ids` [n], in that order; images out of memory stay there."""
        ids = np.asarray(ids, np.int64)
        images = self.images[ids] if isinstance(self.images, np.ndarray) else Selection(self.images, ids)
        return dataclasses.replace(
            self,
            images=images,
            labels=self.labels[ids],
            subjects=_pick(self.subjects, ids),
            files=tuple(self.files[i] for i in ids),
            folds=None if self.folds is None else self.folds[ids],
            splits=_pick(self.splits, ids),
            sequences=_pick(self.sequences, ids),
            frames=None if self.frames is None else self.frames[ids],
            official_folds=_pick(self.official_folds, ids),
        )

    def class_counts(self, ids: np.ndarray | None = None) -> dict[str, int]:
        """Examples per class name, of all examples or of those at positions `ids` [n]; zeros included."""
        labels = self.labels if ids is None else self.labels[ids]
        counts = np.bincount(labels, minlength=len(self.class_names))
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=True)}


def unlabelled(sets: Sequence[Examples]) -> Examples:
    """Several sets as one set of pictures of a single class, for training that reads no label.

    In memory if all of them are.

    Raises:
      ValueError: the sets hold images of different shapes.
    """
    images = together([part.images for part in sets])
    files = tuple(file for part in sets for file in part.files)
    return Examples(images, np.zeros(len(files), np.int32), ('unlabelled',), None, files)


def together(sets: Sequence[np.ndarray | Images]) -> np.ndarray | Images:
    """The images of several sets behind one another; in memory if all of them are.

    Raises:
      ValueError: images of different shapes.
    """
    if len({images.shape[1:] for images in sets}) != 1:
        raise ValueError(f'images of different shapes: {[images.shape[1:] for images in sets]}')
    arrays = [images for images in sets if isinstance(images, np.ndarray)]
    if len(arrays) == len(sets):
        return np.concatenate(arrays)
    return Joined(tuple(InMemory(images) if isinstance(images, np.ndarray) else images for images in sets))


def _pick(names: tuple[str, ...] | None, ids: np.ndarray) -> tuple[str, ...] | None:
    return None if names is None else tuple(names[i] for i in ids)
