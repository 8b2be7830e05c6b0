"""From the outputs of every fold to `results.json` and the table a run ends with."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fn2en_jax import metrics, workdir
from fn2en_jax.errors import UserError

VOTES = 'sequence_accuracy'  # of sets of sequences; see metrics.sequence_votes
TITLES = {'scratch': 'Train from scratch (BN)', 'finetune': 'VGG fine-tune', 'fn2en': 'FN2EN'}
SPREAD = ('accuracy', 'class_averaged_accuracy', 'macro_f1')  # figures with a mean and a spread over folds


def read(folder: Path) -> dict[str, Any]:
    """`results.json` of a workdir in which something was judged.

    Raises:
        UserError: where it is missing, damaged, or nothing was judged.
    """
    path = folder / 'results.json'
    found = workdir.read_json(path)
    if not isinstance(found, dict) or not found.get('methods') or 'class_names' not in found:
        raise UserError(f'{path} holds no results; was the run tested on anything (config.fold is not none)?')
    check(found, path)
    return found


def check(found: Any, path: Path) -> None:
    """Refuses what is not the content of a `results.json`, before anybody computes with it.

    Raises:
        UserError: naming `path` and what is wrong.
    """
    if fault := _fault(found):
        raise UserError(f'{path} is damaged ({fault}); delete it and run the same command again')


def _fault(found: Any) -> str:
    """What is wrong with the content of a `results.json`; '' for nothing."""
    if not isinstance(found, Mapping) or not isinstance(methods := found.get('methods'), Mapping):
        return 'it has no methods'
    names = found.get('class_names')
    if not _are_texts(names) or not names or len(set(names)) < len(names):
        return 'it has no class names'
    seconds = found.get('seconds', {})
    if not isinstance(seconds, Mapping) or not all(map(_is_number, seconds.values())):
        return 'its seconds are no numbers'
    if not _are_texts(found.get('commands', [])):
        return 'its commands are no texts'
    for name, method in methods.items():
        folds = method.get('folds') if isinstance(method, Mapping) else None
        if name not in TITLES or not isinstance(folds, Mapping) or not folds:
            return f'there are no folds of a method {name!r}'
        for fold, score in folds.items():
            if not _is_score(score, len(names)):
                return f'{fold} of {name} has no figures'
    return ''


def _is_score(score: Any, classes: int) -> bool:
    """Whether these are figures of one fold: those of `metrics`, with those on validation images if there are any."""
    if not isinstance(score, Mapping) or not _is_matrix(score.get('confusion_matrix'), classes):
        return False
    votes = (VOTES, 'num_sequences') if VOTES in score else ()
    if not all(_is_number(score.get(figure)) for figure in (*SPREAD, *votes)):
        return False
    return 'validation' not in score or _is_score(score['validation'], classes)


def _is_matrix(rows: Any, classes: int) -> bool:
    """Whether this is a confusion matrix [K,K] of at least one image."""
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == classes for row in rows):
        return False
    cells = [cell for row in rows for cell in row]
    return len(rows) == classes and all(type(cell) is int and cell >= 0 for cell in cells) and sum(cells) > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def summarise(folds: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """Joins the folds of one method.

    Args:
        folds: per fold what `metrics.classification` returns.
        class_names: K names.

    Returns:
        The same keys over all test images of all folds (confusion matrices are added), `mean` and `std` (of the
        sample, over folds; 0 for one fold) of the figures per fold, and `folds`; where every fold has validation
        images, the same of these under `validation`.
    """
    matrices = np.stack([fold['confusion_matrix'] for fold in folds.values()])
    pooled = {**metrics.summarise(matrices.sum(0), class_names), **_sequences(folds.values())}
    values = {name: [fold[name] for fold in folds.values()] for name in (*SPREAD, VOTES) if name in pooled}
    watched = {name: fold['validation'] for name, fold in folds.items() if 'validation' in fold}
    return {
        **pooled,
        **({'validation': summarise(watched, class_names)} if len(watched) == len(folds) else {}),
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
        lines += ['', f'{"whole sequences, by the mean of the frames of their class":60}{"sequences":>25}']
        lines += [_votes(name, methods[name]) for name in order]
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


def _votes(name: str, method: Mapping[str, Any]) -> str:
    return f'{TITLES[name]:26}{spread(method, VOTES) + " %":>16}{method["num_sequences"]:>43}'


def _sequences(folds: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """The votes of whole sequences over all folds that test any; {} where all test images are stills."""
    voting = [fold for fold in folds if VOTES in fold]
    if not voting:
        return {}
    count = sum(fold['num_sequences'] for fold in voting)
    hits = sum(fold[VOTES] * fold['num_sequences'] for fold in voting)
    return {VOTES: hits / count, 'num_sequences': count}


def spread(method: Mapping[str, Any], figure: str) -> str:
    """'mean ± standard deviation' of a figure over the folds of a method, in percent; the mean alone of one fold."""
    mean = f'{100 * method["mean"][figure]:.1f}'
    return f'{mean} ± {100 * method["std"][figure]:.1f}' if len(method['folds']) > 1 else mean
