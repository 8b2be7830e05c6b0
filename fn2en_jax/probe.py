"""What a linear classifier reads from the features of a frozen net: the expression, and who is shown.

Both probes are trained and tested on persons that no net was trained on, half against half, and then the other way
round:

* expression: trained on one half of the persons, tested on the other half;
* identity: trained on one half of every person's images, tested on the other half. Where images are frames of
  sequences, whole sequences are dealt out, so that neighbouring frames never face each other. Persons with a single
  image (or sequence) are left out.

Everything a probe learns (scales, principal components, the ridge) comes from its training half.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

ALPHAS = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
INNER_FOLDS = 3


@dataclasses.dataclass(frozen=True)
class Task:
    """Something to read from features.

    Attributes:
        images: int [n], positions of the images that take part.
        labels: int [n], 0..K-1: what is to be read.
        names: K names of what is to be read.
        units: int [n]; what must not be divided between training and testing: persons, or sequences of a person.
        across_persons: whether persons, rather than each person's units, are dealt to the halves.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    units: np.ndarray
    across_persons: bool

    @property
    def chance(self) -> float:
        """Class-averaged accuracy of whoever does not look."""
        return 1 / len(self.names)


def expression_task(
    labels: np.ndarray, class_names: Sequence[str], subjects: Sequence[str] | None, sequences: Sequence[str] | None
) -> Task | None:
    """Reading expressions of persons who are not among the probe's own training persons.

    Classes that fewer than two persons show are left out, and so are images of unknown persons. Where nobody is named,
    sequences take the place of persons, and without those single images.

    Args:
        labels: int [N], indices into `class_names`.
        class_names: names of the classes.
        subjects, sequences: N names, or None; '' among them is somebody unknown and a still.

    Returns:
        The task; None where fewer than two classes are left.
    """
    units = _numbers(subjects) if subjects is not None else _sequence_units(sequences, len(labels))
    known = np.ones(len(labels), bool) if subjects is None else np.asarray(subjects) != ''
    kept = [k for k in range(len(class_names)) if len(np.unique(units[known & (labels == k)])) >= 2]
    if len(kept) < 2:
        return None
    images = np.flatnonzero(known & np.isin(labels, kept))
    again = np.searchsorted(kept, labels[images])
    return Task(images, again, tuple(class_names[k] for k in kept), units[images], across_persons=True)


def identity_task(subjects: Sequence[str] | None, sequences: Sequence[str] | None, count: int) -> Task | None:
    """Reading who is shown, of those with at least two images, or two sequences.

    Args:
        subjects, sequences: `count` names, or None; '' among them is somebody unknown and a still.
        count: number of images.

    Returns:
        The task; None where the set names no persons, or fewer than two of them have two units.
    """
    if subjects is None:
        return None
    units, names = _sequence_units(sequences, count), np.asarray(subjects)
    kept = [name for name in dict.fromkeys(subjects) if name and len(np.unique(units[names == name])) >= 2]
    if len(kept) < 2:
        return None
    images = np.flatnonzero(np.isin(names, kept))
    place = {name: number for number, name in enumerate(kept)}
    labels = np.array([place[name] for name in names[images].tolist()])
    return Task(images, labels, tuple(kept), units[images], across_persons=False)


def halves(task: Task, seed: int) -> np.ndarray:
    """Deals the images of a task to two halves, bool [n]; the same for the same seed.

    Units stay whole. Persons are dealt so that both halves show every expression about equally often; of each person's
    units one half goes to either side, of an odd number the larger part to a side that is drawn.
    """
    return _by_person(task, seed) if task.across_persons else _within_persons(task, seed)


def accuracy(features: np.ndarray, task: Task, *, repeats: int, components: int, seed: int) -> np.ndarray:
    """Class-averaged accuracy of a linear probe, over all images of the task, for every repeat: [repeats].

    In a repeat every image is classified once, by a probe trained on the other half.

    Args:
        features: [N,F] of all images; `task.images` says which are used.
        task: what to read.
        repeats: how many times the images are dealt anew.
        components: at most this many principal components of the standardised features are used, so that layers of
            very different sizes are read by probes of one size.
        seed: of the dealing.
    """
    from threadpoolctl import threadpool_limits

    used = features[task.images].astype(np.float64)
    # The matrices are small: threads would mostly wait for each other, minutes where the cores are shared.
    with threadpool_limits(1):
        return np.array([_repeat(used, task, components, seed + repeat) for repeat in range(repeats)])


def class_averaged(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of the share of a class's images that are predicted right; both int [n]."""
    right = np.bincount(labels, weights=predictions == labels)
    return float(np.mean(right / np.bincount(labels)))


def _repeat(features: np.ndarray, task: Task, components: int, seed: int) -> float:
    side = halves(task, seed)
    predictions = np.empty(len(side), np.int64)
    for train in (side, ~side):
        predictions[~train] = _predict(features, task, train, components, seed)
    return class_averaged(predictions, task.labels)


def _predict(features: np.ndarray, task: Task, train: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Labels of the images outside `train` (bool [n]) by a probe trained on those inside."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = min(components, int(train.sum()) - 1, features.shape[1])
    reduce = make_pipeline(StandardScaler(), PCA(count, random_state=seed))
    seen, unseen = reduce.fit_transform(features[train]), reduce.transform(features[~train])
    labels, units = task.labels[train], task.units[train]
    alpha = _best_alpha(seen, labels, list(_inner_splits(task, labels, units)))
    return _ridge(alpha, seen, labels, unseen)


def _inner_splits(task: Task, labels: np.ndarray, units: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of positions (train, test) inside a training half, units whole; none where there are too few."""
    from sklearn.model_selection import GroupKFold

    if task.across_persons:
        if (folds := min(INNER_FOLDS, len(np.unique(units)))) >= 2:
            yield from GroupKFold(folds).split(labels, labels, units)
        return
    fold = np.zeros(len(labels), np.int64)  # the units of each person in turn
    for person in np.unique(labels):
        here = labels == person
        fold[here] = np.unique(units[here], return_inverse=True)[1] % INNER_FOLDS
    for index in range(INNER_FOLDS):
        if (fold == index).any() and len(np.unique(labels[fold != index])) >= 2:
            yield np.flatnonzero(fold != index), np.flatnonzero(fold == index)


def _best_alpha(features: np.ndarray, labels: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The strength of the ridge with the best class-averaged accuracy over the splits; of equals the strongest."""
    scores = {}
    for alpha in ALPHAS:
        predictions, truth = [], []
        for train, test in splits:
            if len(np.unique(labels[train])) >= 2:
                predictions.append(_ridge(alpha, features[train], labels[train], features[test]))
                truth.append(labels[test])
        if truth:
            both = np.concatenate(predictions), np.concatenate(truth)
            scores[alpha] = float(np.mean([(both[0] == both[1])[both[1] == k].mean() for k in np.unique(both[1])]))
    best = max(scores.values(), default=0.0)
    return max((alpha for alpha, score in scores.items() if score == best), default=ALPHAS[len(ALPHAS) // 2])


def _ridge(alpha: float, features: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeClassifier

    with warnings.catch_warnings():
        # scikit-learn takes many classes of few images each for a regression; they are persons.
        warnings.filterwarnings('ignore', 'The number of unique classes is greater than 50%', UserWarning)
        probe = RidgeClassifier(alpha, class_weight='balanced').fit(features, labels)
    return probe.predict(unseen)


def _by_person(task: Task, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        # A class of a single image more in one half than in the other is no reason to warn.
        warnings.filterwarnings('ignore', 'The least populated class', UserWarning)
        split = StratifiedGroupKFold(2, shuffle=True, random_state=seed).split(task.labels, task.labels, task.units)
        first, _ = next(iter(split))
    side = np.zeros(len(task.labels), bool)
    side[first] = True
    return side


def _within_persons(task: Task, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    side = np.zeros(len(task.labels), bool)
    for person in range(len(task.names)):
        here = task.labels == person
        units = draw.permutation(np.unique(task.units[here]))
        larger = int(draw.integers(2))
        first = units[: (len(units) + larger) // 2]
        side |= here & np.isin(task.units, first)
    return side


def _numbers(names: Sequence[str]) -> np.ndarray:
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], np.int64)


def _sequence_units(sequences: Sequence[str] | None, count: int) -> np.ndarray:
    """A number for every sequence, and one for every still."""
    if sequences is None:
        return np.arange(count)
    return _numbers([name or f'\0{index}' for index, name in enumerate(sequences)])
