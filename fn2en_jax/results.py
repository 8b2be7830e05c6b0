"""From the outputs of every fold to `results.json` and the table a run ends with."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fn2en_jax import metrics

VOTES = 'sequence_accuracy'  # of sets of sequences; see metrics.sequence_votes
TITLES = {'scratch': 'Train from scratch (BN)', 'finetune': 'VGG fine-tune', 'fn2en': 'FN2EN'}
SPREAD = ('accuracy', 'class_averaged_accuracy', 'macro_f1')  # figures with a mean and a spread over folds


def summarise(folds: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Joins the folds of one method.

    Args:
        folds: per fold what `metrics.classification` returns.
        class_names: K names.

    Returns:
        The same keys over all test images of all folds (confusion matrices are added), `mean` and `std` (of the
        sample, over folds; 0 for one fold) of the figures per fold, and `folds`; where folds have validation images,
        the same of these under `validation`.
    """
    matrices = np.stack([fold['confusion_matrix'] for fold in folds.values()])
    pooled = {**metrics.summarise(matrices.sum(0), class_names), **_sequences(folds.values())}
    values = {name: [fold[name] for fold in folds.values()] for name in (*SPREAD, VOTES) if name in pooled}
    watched = {name: fold['validation'] for name, fold in folds.items() if 'validation' in fold}
    return {
        **pooled,
        **({'validation': summarise(watched, class_names)} if watched else {}),
        'mean': {name: float(np.mean(value)) for name, value in values.items()},
        'std': {name: float(np.std(value, ddof=1)) if len(value) > 1 else 0.0 for name, value in values.items()},
        'folds': dict(folds),
    }


def join(
    scores: Mapping[str, Mapping[str, Any]], earlier: Mapping[str, Any], class_names: Sequence[str]
) -> dict[str, Any]:
    """The methods of `results.json`: what was judged now, and what earlier runs in the workdir judged besides.

    Args:
        scores: per fold, per method what `metrics.classification` returns.
        earlier: the methods of the `results.json` that is there, {} where there is none.
        class_names: K names.

    Returns:
        What `summarise` returns, per method.
    """
    methods = {}
    for name in TITLES:
        now = {fold: score[name] for fold, score in scores.items() if name in score}
        folds = {**earlier.get(name, {}).get('folds', {}), **now}
        if folds:
            in_order = sorted(folds, key=lambda fold: (len(fold), fold))  # fold2 before fold10
            methods[name] = summarise({fold: folds[fold] for fold in in_order}, class_names)
    return methods


def table(methods: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> str:
    """The closing table: a line per method, then the accuracy of each class."""
    order = [name for name in TITLES if name in methods]
    lines = [f'{"method":26}{"accuracy":>16}{"class-averaged":>18}{"macro F1":>16}{"images":>9}']
    lines += [_line(name, methods[name]) for name in order]
    if watched := [name for name in order if 'validation' in methods[name]]:
        lines += ['', 'the same nets on the validation images']
        lines += [_line(name, methods[name]['validation']) for name in watched]
    if all(VOTES in method for method in methods.values()):
        lines += ['', 'whole sequences, by the mean of their frames']
        lines += [f'{TITLES[name]:26}{spread(methods[name], VOTES) + " %":>16}' for name in order]
    width = max(10, *(len(name) + 2 for name in class_names))
    lines += ['', 'accuracy per class, %', ' ' * 26 + ''.join(f'{name:>{width}}' for name in class_names)]
    for name in order:
        values = methods[name]['per_class_accuracy']
        cells = ['-' if values[c] is None else f'{100 * values[c]:.1f}' for c in class_names]
        lines.append(f'{TITLES[name]:26}' + ''.join(f'{cell:>{width}}' for cell in cells))
    return '\n'.join(lines)


def _line(name: str, method: Mapping[str, Any]) -> str:
    cells = [f'{spread(method, figure)} %' for figure in SPREAD]
    return f'{TITLES[name]:26}{cells[0]:>16}{cells[1]:>18}{cells[2]:>16}{method["num_examples"]:>9}'


def _sequences(folds: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """The votes of whole sequences over all folds; {} where the test images are stills."""
    if not all(VOTES in fold for fold in folds):
        return {}
    count = sum(fold['num_sequences'] for fold in folds)
    hits = sum(fold[VOTES] * fold['num_sequences'] for fold in folds)
    return {VOTES: hits / count, 'num_sequences': count}


def spread(method: Mapping[str, Any], figure: str) -> str:
    """'mean ± standard deviation' of a figure over the folds of a method, in percent; the mean alone of one fold."""
    mean = f'{100 * method["mean"][figure]:.1f}'
    return f'{mean} ± {100 * method["std"][figure]:.1f}' if len(method['folds']) > 1 else mean
