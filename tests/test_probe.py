"""Linear probes on features of which it is known what can be read."""

import numpy as np
import pytest

from fn2en_jax import probe

PERSONS, IMAGES, CLASSES = 12, 8, 4
LABELS = np.tile(np.arange(IMAGES) % CLASSES, PERSONS)
SUBJECTS = [f'p{person}' for person in range(PERSONS) for _ in range(IMAGES)]
PEOPLE = np.repeat(np.arange(PERSONS), IMAGES)
NAMES = ('anger', 'fear', 'joy', 'sadness')
DRAW = np.random.default_rng(0)
NOISE = DRAW.normal(size=(len(LABELS), 20))


def expression(sequences=None, subjects=SUBJECTS):
    return probe.expression_task(LABELS, NAMES, subjects, sequences)


def identity(sequences=None):
    return probe.identity_task(SUBJECTS, sequences, len(LABELS))


def score(features, task, **options):
    return probe.accuracy(features, task, **{'repeats': 2, 'components': 16, 'seed': 0, **options})


def test_what_is_there_is_read():
    by_expression = np.eye(CLASSES)[LABELS] @ DRAW.normal(size=(CLASSES, 20)) + 0.01 * NOISE
    by_person = np.eye(PERSONS)[PEOPLE] @ DRAW.normal(size=(PERSONS, 20)) + 0.01 * NOISE
    assert score(by_expression, expression()).tolist() == [1.0, 1.0]
    assert score(by_person, identity()).tolist() == [1.0, 1.0]
    # Features of persons say nothing of the expressions of other persons, and the other way round.
    assert score(by_person, expression()).mean() < 0.4
    assert score(by_expression, identity()).mean() < 0.2


def test_noise_is_read_at_the_level_of_chance():
    for task in (expression(), identity()):
        scores = score(NOISE, task, repeats=8)
        assert abs(scores.mean() - task.chance) < 0.08


def test_an_expression_that_every_person_shows_in_their_own_way_is_not_read_across_persons():
    """The features name the image exactly: a probe that met the person could read them, one that did not cannot."""
    private = np.eye(PERSONS * CLASSES)[PEOPLE * CLASSES + LABELS]
    assert score(private, expression(), components=64).mean() < 0.4
    met = probe.Task(np.arange(len(LABELS)), LABELS, NAMES, np.arange(len(LABELS)), across_persons=True)
    # Half of the pairs of like images are divided between the halves, and those are read.
    assert score(private, met, components=64).mean() > 0.55


def test_halves_keep_persons_whole_and_show_every_class():
    for seed in range(5):
        side = probe.halves(expression(), seed)
        assert not set(PEOPLE[side]) & set(PEOPLE[~side])
        assert set(LABELS[side]) == set(LABELS[~side]) == set(range(CLASSES))
    again = probe.halves(expression(), 4)
    np.testing.assert_array_equal(side, again)


def test_halves_of_every_person_keep_sequences_whole():
    sequences = [
        f'{name}/{i // 3}' if i < 6 else '' for name, i in zip(SUBJECTS, list(range(IMAGES)) * PERSONS, strict=True)
    ]
    task = identity(sequences)
    for seed in range(5):
        side = probe.halves(task, seed)
        for person in range(PERSONS):
            here = np.flatnonzero(person == PEOPLE)
            assert len(set(side[here[:3]])) == len(set(side[here[3:6]])) == 1
            assert len(np.unique(task.units[here][side[here]])) == 2  # of four units: two sequences, two stills
    assert len({tuple(probe.halves(task, seed)) for seed in range(5)}) == 5


def test_persons_with_a_single_image_or_sequence_are_left_out():
    task = probe.identity_task(['a', 'b', 'a', 'c', 'c', 'd'], ['', '', '', 's', 's', ''], 6)
    assert task is None  # only 'a' has two units
    task = probe.identity_task(['a', 'b', 'a', 'c', 'c', 'd'], None, 6)
    assert (task.names, task.images.tolist(), task.labels.tolist()) == (('a', 'c'), [0, 2, 3, 4], [0, 0, 1, 1])
    assert task.chance == 0.5
    assert probe.identity_task(None, None, 6) is None


def test_classes_of_a_single_person_are_left_out():
    labels, subjects = np.array([0, 0, 1, 1, 2, 2]), ['a', 'b', 'a', 'a', 'b', 'c']
    task = probe.expression_task(labels, ('x', 'y', 'z'), subjects, None)
    assert (task.names, task.images.tolist(), task.labels.tolist()) == (('x', 'z'), [0, 1, 4, 5], [0, 0, 1, 1])
    assert probe.expression_task(labels[:4], ('x', 'y', 'z'), subjects[:4], None) is None


def test_class_averaged_accuracy_by_hand():
    assert probe.class_averaged(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])) == 0.75
    assert probe.class_averaged(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == 0.5


@pytest.mark.parametrize('count', [2, 3])
def test_very_few_images_are_enough(count):
    labels = np.tile([0, 1], count)
    task = probe.expression_task(labels, ('x', 'y'), [f'p{i // 2}' for i in range(2 * count)], None)
    found = score(np.stack([labels, -labels], axis=1).astype(np.float32), task)
    assert found.tolist() == [1.0, 1.0]


def test_the_same_seed_gives_the_same_figures():
    np.testing.assert_array_equal(score(NOISE, identity()), score(NOISE, identity()))
    assert (score(NOISE, identity()) != score(NOISE, identity(), seed=5)).any()


def test_unknown_persons_are_not_one_person():
    labels, subjects = np.array([0, 0, 0, 1, 1, 1, 1]), ['a', 'b', '', 'a', '', 'b', '']
    task = probe.expression_task(labels, ('x', 'y'), subjects, None)
    assert (task.images.tolist(), task.labels.tolist()) == ([0, 1, 3, 5], [0, 0, 1, 1])
    assert probe.expression_task(labels, ('x', 'y'), ['a', '', '', 'a', '', 'b', ''], None) is None
    assert probe.identity_task(subjects, None, 7).images.tolist() == [0, 1, 3, 5]
    assert probe.identity_task(['a', 'a', '', '', ''], None, 5) is None
