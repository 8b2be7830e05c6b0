"""What excites a neuron: the share of its variance that a label explains, and the images that excite it most."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A neuron that was picked to be shown.

    Attributes:
        layer: name of its layer.
        index: its place in the layer.
        preferred: the class whose images excite it most on average, as an index.
    """

    layer: str
    index: int
    preferred: int


def explained(activations: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The share of every neuron's variance that knowing an image's group explains, [F].

    It is epsilon squared, (SSB - (G-1) MSW) / SST: around 0 for groups that say nothing, whatever their number, where
    the plain ratio SSB / SST would be (G-1) / (N-1). 0 for a neuron that never changes.

    Args:
        activations: [N,F].
        groups: int [N]; at least two groups, and fewer than N.

    Raises:
        ValueError: when the groups leave nothing to compare.
    """
    values = activations.astype(np.float64)
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if not 1 < len(sizes) < len(values):
        raise ValueError(f'{len(sizes)} groups of {len(values)} images leave no variance to divide')
    means = _group_sums(values, place, len(sizes)) / sizes[:, None]
    total = ((values - values.mean(0)) ** 2).sum(0)
    within = ((values - means[place]) ** 2).sum(0)
    noise = within / (len(values) - len(sizes))
    between = total - within - (len(sizes) - 1) * noise
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def class_means(activations: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean activation of every neuron over the images of every class, [K,F]; -inf for a class without images."""
    sums = _group_sums(activations.astype(np.float64), labels, num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], -np.inf)


def most_selective(layer: str, activations: np.ndarray, labels: np.ndarray, num_classes: int) -> list[Chosen]:
    """One neuron per class: of those that it excites most on average, the one whose variance classes explain best.

    A class that no neuron prefers has none. Of equals the first is taken.

    Args:
        layer: name of the layer.
        activations: [N,F].
        labels: int [N].
        num_classes: K.
    """
    share = explained(activations, labels)
    preferred = class_means(activations, labels, num_classes).argmax(0)
    alive = activations.std(0) > 0
    found = []
    for label in range(num_classes):
        own = np.flatnonzero((preferred == label) & alive)
        if len(own):
            found.append(Chosen(layer, int(own[share[own].argmax()]), label))
    return found


def most_exciting(activations: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` images that excite a neuron most, strongest first; of equals the first. [min(N,count)].

    activations: [N] of one neuron.
    """
    return np.argsort(-activations, kind='stable')[:count]


def _group_sums(values: np.ndarray, place: np.ndarray, count: int) -> np.ndarray:
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, place, values)
    return sums
