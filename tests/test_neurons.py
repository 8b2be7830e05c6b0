"""What excites a neuron: shares of variance, preferred classes, the strongest images."""

import numpy as np
import pytest

from fn2en_jax import neurons


def test_shares_of_variance_by_hand():
    # Groups (0, 2) and (4, 6): SST = 20, SSW = 4, MSW = 2, so epsilon squared is (16 - 1 * 2) / 20.
    found = neurons.explained(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1]))
    assert found == pytest.approx([0.7])


def test_a_group_that_says_nothing_explains_nothing_however_many_there_are():
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(400, 500))
    for groups in (np.arange(400) % 2, np.arange(400) % 100):
        assert abs(neurons.explained(noise, groups).mean()) < 0.005
    # The plain ratio would be 99 / 399 for the second: the adjustment is what this test is about.


def test_what_a_group_decides_is_explained_wholly_and_dead_neurons_are_not():
    groups = np.array([3, 3, 7, 7, 9, 9])
    found = neurons.explained(np.stack([groups, np.zeros(6)], axis=1).astype(np.float32), groups)
    assert found == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize('groups', [[0, 0, 0], [0, 1, 2]])
def test_groups_that_leave_nothing_to_compare_are_errors(groups):
    with pytest.raises(ValueError, match='no variance'):
        neurons.explained(np.ones((3, 2)), np.array(groups))


def test_the_most_selective_neuron_of_every_class():
    labels = np.array([0, 0, 1, 1, 2, 2])
    activations = np.array(
        [
            # clear 0, vague 0, clear 1, dead, late copy of clear 1
            [5, 5, 0, 0, 0],
            [5, 1, 0, 0, 0],
            [0, 2, 4, 0, 4],
            [0, 0, 4, 0, 4],
            [0, 1, 0, 0, 0],
            [0, 0, 0, 0, 0],
        ],
        np.float32,
    )
    found = neurons.most_selective('fc7', activations, labels, 3)
    assert found == [neurons.Chosen('fc7', 0, 0), neurons.Chosen('fc7', 2, 1)]  # nobody prefers class 2
    assert neurons.class_means(activations, labels, 4)[3].tolist() == [-np.inf] * 5


def test_the_most_exciting_images_come_strongest_first_and_of_equals_the_first():
    assert neurons.most_exciting(np.array([1.0, 3.0, 2.0, 3.0]), 3).tolist() == [1, 3, 2]
    assert neurons.most_exciting(np.array([1.0, 3.0]), 9).tolist() == [1, 0]
