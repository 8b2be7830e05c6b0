"""Examples: one interface over arrays and over images decoded on demand."""

import dataclasses

import numpy as np
import pytest

from fn2en_jax.data.examples import Examples, Images, InMemory, unlabelled


class Countdown:
    """Three images, image i full of the value 10 * i, that note which of them were asked for."""

    shape = (3, 2, 2, 1)

    def __init__(self):
        self.asked: list[int] = []

    def __len__(self):
        return 3

    def gather(self, ids):
        self.asked += list(ids)
        return np.broadcast_to(10 * np.asarray(ids, np.uint8)[:, None, None, None], (len(ids), 2, 2, 1))


def make(images) -> Examples:
    return Examples(
        images=images,
        labels=np.array([1, 0, 1], np.int32),
        class_names=('anger', 'joy', 'surprise'),
        subjects=('ann', 'bob', 'cem'),
        files=('a.png', 'b.png', 'c.png'),
        folds=np.array([0, 1, -1], np.int32),
        splits=('train', 'test', ''),
    )


@pytest.fixture
def array() -> np.ndarray:
    return np.repeat(np.arange(0, 30, 10, dtype=np.uint8), 4).reshape(3, 2, 2, 1)


def test_take_keeps_every_column_aligned(array):
    part = make(array).take([2, 0])
    assert part.images[:, 0, 0, 0].tolist() == [20, 0]
    assert part.labels.tolist() == [1, 1]
    assert part.subjects == ('cem', 'ann')
    assert part.files == ('c.png', 'a.png')
    assert part.folds.tolist() == [-1, 0]
    assert part.splits == ('', 'train')
    assert part.class_names == ('anger', 'joy', 'surprise')


def test_take_leaves_unknown_columns_unknown(array):
    examples = dataclasses.replace(make(array), subjects=None, folds=None, splits=None)
    part = examples.take([1])
    assert (part.subjects, part.folds, part.splits) == (None, None, None)


def test_take_of_images_on_demand_decodes_nothing_until_gathered(array):
    images = Countdown()
    assert isinstance(images, Images)
    part = make(images).take([2, 1]).take([1, 0])
    assert images.asked == []
    assert not part.in_memory
    assert part.images.shape == (2, 2, 2, 1)
    assert part.gather([0, 0, 1])[:, 0, 0, 0].tolist() == [10, 10, 20]
    assert images.asked == [1, 1, 2]


def test_array_and_images_on_demand_gather_alike(array):
    ids = np.array([2, 0, 2])
    np.testing.assert_array_equal(make(array).gather(ids), make(Countdown()).gather(ids))


def test_class_counts_include_classes_without_examples(array):
    assert make(array).class_counts() == {'anger': 1, 'joy': 2, 'surprise': 0}
    assert make(array).class_counts(np.array([1])) == {'anger': 1, 'joy': 0, 'surprise': 0}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'files': ('a.png', 'b.png')}, '2 files'),
        ({'subjects': ('ann',)}, '1 subjects'),
        ({'labels': np.array([0, 1, 3], np.int32)}, r'labels outside 0\.\.2'),
        ({'labels': np.array([0, 1, -1], np.int32)}, r'labels outside 0\.\.2'),
        ({'images': np.zeros((3, 2, 2, 1), np.float32)}, 'float32, not uint8'),
        ({'images': np.zeros((3, 2, 2), np.uint8)}, r'\(3, 2, 2\)'),
    ],
)
def test_columns_that_do_not_fit_are_refused(array, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make(array), **change)


def test_unlabelled_joins_pictures_and_forgets_labels():
    shape = (slice(None), None, None, None)
    first, second = (np.full((n, 4, 4, 1), n, np.uint8) + np.arange(n, dtype=np.uint8)[shape] for n in (2, 3))

    def make(images, name):
        labels = np.ones(len(images), np.int32)
        return Examples(images, labels, ('a', 'b'), None, tuple(f'{name}{i}' for i in range(len(images))))

    for lazy in (first, InMemory(first)):
        joined = unlabelled([make(lazy, 'x'), make(second, 'y')])
        np.testing.assert_array_equal(joined.gather(np.array([4, 0, 2]))[:, 0, 0, 0], [5, 2, 3])
        assert joined.in_memory == isinstance(lazy, np.ndarray)
        assert joined.files == ('x0', 'x1', 'y0', 'y1', 'y2')
        assert not joined.labels.any()
    with pytest.raises(ValueError, match='different shapes'):
        unlabelled([make(first, 'x'), make(np.zeros((1, 5, 5, 1), np.uint8), 'y')])
