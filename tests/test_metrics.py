import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import metrics

NAMES = ('angry', 'happy', 'sad')


def test_mean_by_hand():
    mean = metrics.Mean.of(jnp.array([1.0, 2.0, 9.0, jnp.nan]), jnp.array([True, True, False, False]))
    assert (float(mean.total), int(mean.count), float(mean.compute())) == (3.0, 2, 1.5)


def test_mean_of_parts_is_the_mean_of_all_and_not_of_means():
    values = jnp.array([1.0, 1.0, 1.0, 5.0])
    whole = metrics.Mean.of(values, jnp.ones(4, bool))
    parts = metrics.Mean.of(values[:3], jnp.ones(3, bool)).merge(metrics.Mean.of(values[3:], jnp.ones(1, bool)))
    assert float(parts.compute()) == float(whole.compute()) == 2.0


def test_mean_sums_over_devices():
    values, mask = jnp.array([[1.0, 3.0], [5.0, 7.0]]), jnp.array([[True, True], [True, False]])
    summed = jax.pmap(lambda v, m: jax.lax.psum(metrics.Mean.of(v, m), 'd'), axis_name='d')(values, mask)
    np.testing.assert_array_equal(summed.compute(), [3.0, 3.0])


def test_mean_of_nothing_is_not_a_number():
    assert np.isnan(metrics.Mean.of(jnp.ones(2), jnp.zeros(2, bool)).compute())


def test_mean_refuses_other_shapes():
    with pytest.raises(AssertionError):
        metrics.Mean.of(jnp.ones((2, 1)), jnp.ones(2, bool))


def test_mean_gradient_skips_masked_values():
    gradient = jax.grad(lambda v: metrics.Mean.of(v, jnp.array([True, False])).compute())(jnp.array([2.0, jnp.nan]))
    np.testing.assert_array_equal(gradient, [1.0, 0.0])


def test_summary_by_hand():
    found = metrics.summarise(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]]), NAMES)
    assert found == {
        'accuracy': pytest.approx(2 / 3),
        'class_averaged_accuracy': pytest.approx((1 + 0.5) / 2),
        'macro_f1': pytest.approx(2 / 3),  # 2/(1+2) for either class; the third does not occur
        'confusion_matrix': [[1, 0, 0], [1, 1, 0], [0, 0, 0]],
        'num_examples': 3,
        'per_class_accuracy': {'angry': 1.0, 'happy': 0.5, 'sad': None},
    }
    assert json.loads(json.dumps(found)) == found


def test_a_class_only_predicted_counts_in_f1_and_not_in_the_averaged_accuracy():
    found = metrics.summarise(np.array([[2, 2], [0, 0]]))
    assert found['class_averaged_accuracy'] == 0.5
    assert found['macro_f1'] == pytest.approx((2 * 2 / (4 + 2) + 0.0) / 2)
    assert found['per_class_accuracy'] == {'0': 0.5, '1': None}


def test_classification_of_scores():
    scores = np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0, 0.4, 0.6]])
    labels = np.array([0, 1, 1, 2], np.int32)
    found = metrics.classification(scores, labels, NAMES)
    assert found == metrics.summarise(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]), NAMES)
    assert found['accuracy'] == 0.75
    assert found['class_averaged_accuracy'] == pytest.approx(2.5 / 3)


def test_pooled_folds_are_the_summary_of_all_examples():
    draw = np.random.default_rng(0)
    scores, labels = draw.normal(size=(50, 3)), draw.integers(0, 3, 50)
    folds = [metrics.classification(scores[i::5], labels[i::5], NAMES)['confusion_matrix'] for i in range(5)]
    assert metrics.summarise(np.sum(folds, axis=0), NAMES) == metrics.classification(scores, labels, NAMES)


@pytest.mark.parametrize(
    ('scores', 'labels', 'message'),
    [
        (np.ones((2, 2)), np.array([0, 1]), 'shape'),
        (np.ones((2, 3)), np.array([0]), 'shape'),
        (np.array([[1, 2, np.nan]]), np.array([0]), 'not finite'),
        (np.ones((1, 3)), np.array([3]), 'labels'),
        (np.ones((1, 3)), np.array([-1]), 'labels'),
        (np.ones((0, 3)), np.zeros(0, int), 'no figures'),
    ],
)
def test_classification_refuses_what_it_cannot_count(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.classification(scores, labels, NAMES)


def test_summary_refuses_a_matrix_that_does_not_fit():
    with pytest.raises(ValueError, match='shape'):
        metrics.summarise(np.ones((2, 3)))
    with pytest.raises(ValueError, match='3 classes'):
        metrics.summarise(np.ones((2, 2)), NAMES)


def test_sequences_vote_by_their_mean_probability():
    logits = np.log([[0.6, 0.4], [0.1, 0.9], [0.45, 0.55], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.7, 0.3]])
    labels = np.array([1, 1, 0, 0, 0, 0, 1])
    sequences = ['a', 'a', 'b', 'b', 'a', '', 'c']
    frames = np.array([7, 8, 3, 2, 1, -1, 5])
    # a is of class 1, its last: (.35, .65) right, and its first frame, of class 0, has no vote; b: (.525, .475) right;
    # c: wrong; the still is no sequence
    found = metrics.sequence_votes(logits, labels, sequences, frames)
    assert found == {'sequence_accuracy': pytest.approx(2 / 3), 'num_sequences': 3}
    assert metrics.sequence_votes(logits[5:6], labels[5:6], [''], frames[5:6]) == {}


def test_a_neutral_first_frame_changes_no_vote():
    """Eight-class CK+ has four images of a sequence, of which three show its emotion."""
    draw = np.random.default_rng(0)
    emotions, neutral = draw.integers(0, 7, 50), 7
    labels = np.stack([np.full(50, neutral), emotions, emotions, emotions], axis=1).ravel()
    logits, frames = draw.normal(size=(200, 8)) + 2 * np.eye(8)[labels], np.tile([1, 18, 19, 20], 50)
    names = [f'S{k // 4}' for k in range(200)]
    mixed = draw.permutation(200)
    found = metrics.sequence_votes(logits[mixed], labels[mixed], [names[i] for i in mixed], frames[mixed])
    late = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    means = late.reshape(50, 4, 8)[:, 1:].mean(1)
    assert found == {'sequence_accuracy': pytest.approx((means.argmax(1) == emotions).mean()), 'num_sequences': 50}
    assert 0.5 < found['sequence_accuracy'] < 1


def test_votes_of_huge_logits():
    one = metrics.sequence_votes(np.array([[1e4, -1e4]]), np.array([0]), ['a'], np.array([1]))
    assert one['sequence_accuracy'] == 1.0
