"""Metrics as sums and counts that add up over batches and devices, and the figures computed from them."""

from collections.abc import Sequence
from typing import Any, Self

import chex
import flax.struct
import jax.numpy as jnp
import numpy as np

from fn2en_jax.types import Array


class Mean(flax.struct.PyTreeNode):
    """A mean as a sum and a count, which may be summed over devices (psum) and merged over batches."""

    total: Array  # float32 scalar
    count: Array  # int32 scalar

    @classmethod
    def of(cls, values: Array, mask: Array) -> Self:
        """values: [B]; mask: bool [B], False leaves the value out, even where it is not-a-number."""
        chex.assert_equal_shape((values, mask))
        total = jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0.0))
        return cls(total, jnp.sum(mask, dtype=jnp.int32))

    def merge(self, other: Self) -> Self:
        """The metric of both sets of examples."""
        return self.replace(total=self.total + other.total, count=self.count + other.count)

    def compute(self) -> Array:
        """The mean, float32 scalar; not-a-number when nothing was counted."""
        return self.total / self.count.astype(jnp.float32)


def classification(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """The figures of `summarise` for scores [N,K] (probabilities or logits) and true labels [N] in 0..K-1.

    Raises ValueError for wrong shapes, scores that are not finite, labels out of range, and no example at
    all.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape != (len(labels), len(class_names)):
        raise ValueError(
            f'scores have shape {scores.shape}; {len(labels)} labels and {len(class_names)} '
            f'classes need {(len(labels), len(class_names))}'
        )
    if not np.isfinite(scores).all():
        raise ValueError('scores contain values that are not finite')
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(class_names)):
        raise ValueError(f'labels must lie in 0..{len(class_names) - 1}')
    matrix = np.zeros((len(class_names), len(class_names)), np.int64)
    np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
    return summarise(matrix, class_names)


def sequence_votes(
    scores: np.ndarray, labels: np.ndarray, sequences: Sequence[str], frames: np.ndarray
) -> dict[str, Any]:
    """How often a whole sequence is recognised: the class of the highest mean probability over its frames.

    A sequence is of the class of its last frame, and only its frames of that class vote: a neutral first frame is no
    sequence, and neither is a still.

    Args:
        scores: logits [N,K].
        labels: [N].
        sequences: N names; '' for a still.
        frames: numbers in the sequence, int [N].

    Returns:
        sequence_accuracy and num_sequences; {} where all are stills.
    """
    truth = {sequences[i]: labels[i] for i in np.argsort(frames, kind='stable') if sequences[i]}
    voting = [i for i, name in enumerate(sequences) if name and labels[i] == truth[name]]
    if not voting:
        return {}
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    place = {name: k for k, name in enumerate(truth)}
    votes = np.zeros((len(truth), scores.shape[1]))
    np.add.at(votes, [place[sequences[i]] for i in voting], probabilities[voting])
    hits = votes.argmax(axis=1) == list(truth.values())
    return {'sequence_accuracy': float(hits.mean()), 'num_sequences': len(hits)}


def summarise(confusion: np.ndarray, class_names: Sequence[str] | None = None) -> dict[str, Any]:
    """The figures of a confusion matrix [K,K], rows the truth, ready for JSON. To pool folds, add matrices.

    class_averaged_accuracy: mean of the accuracies (recalls) of the classes that have examples.
    macro_f1: mean of 2 TP / (2 TP + FP + FN) over the classes that occur as truth or as prediction.
    per_class_accuracy: by name (by index without names); None for a class without examples.

    Raises ValueError for a matrix that is not square or is empty.
    """
    matrix = np.asarray(confusion).astype(np.int64)
    names = [str(k) for k in range(len(matrix))] if class_names is None else list(class_names)
    if matrix.shape != (len(names), len(names)) or matrix.sum() == 0:
        raise ValueError(
            f'a confusion matrix of shape {matrix.shape} with {matrix.sum()} examples has no '
            f'figures for {len(names)} classes'
        )
    hits, truths, predictions = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    recalls = [float(hit / n) if n else None for hit, n in zip(hits, truths, strict=True)]
    f1 = [2 * hit / (n + m) for hit, n, m in zip(hits, truths, predictions, strict=True) if n + m]
    return {
        'accuracy': float(hits.sum() / matrix.sum()),
        'class_averaged_accuracy': float(np.mean([recall for recall in recalls if recall is not None])),
        'macro_f1': float(np.mean(f1)),
        'confusion_matrix': matrix.tolist(),
        'num_examples': int(matrix.sum()),
        'per_class_accuracy': dict(zip(names, recalls, strict=True)),
    }
