"""Puts several runs of one experiment side by side, such as one per seed.

    python -m fn2en_jax.compare runs/demo0 runs/demo1 runs/demo2

Prints every run's class-averaged accuracy and accuracy, their mean and spread, and the differences between FN2EN and
the other methods, paired by run and fold.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fn2en_jax import commands, results
from fn2en_jax.errors import UserError

FIGURES = {'class_averaged_accuracy': 'class-averaged accuracy', 'accuracy': 'accuracy'}


def check_alike(runs: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> None:
    """Figures can be paired only where every method of every run has the same folds.

    Raises:
        UserError: naming what differs.
    """
    found = {
        f'{title}, {name}': tuple(sorted(method['folds']))
        for run, title in zip(runs, titles, strict=True)
        for name, method in run['methods'].items()
    }
    first = next(iter(found), '')
    for place, folds in found.items():
        if folds != found[first]:
            raise UserError(
                f'these cannot be paired: {first} has {", ".join(found[first])}, but {place} has {", ".join(folds)}; '
                'finish all methods on all folds first'
            )
    if len({frozenset(run['methods']) for run in runs}) > 1:
        raise UserError('these runs have different methods; compare runs of one experiment')


def paired(runs: Sequence[Mapping[str, Any]], figure: str) -> dict[str, np.ndarray]:
    """Per method the figure of every fold of every run, in the same order for all methods: {name: [runs * folds]}."""
    names = [name for name in results.TITLES if all(name in run['methods'] for run in runs)]
    return {
        name: np.asarray([fold[figure] for run in runs for fold in run['methods'][name]['folds'].values()])
        for name in names
    }


def table(runs: Sequence[Mapping[str, Any]], titles: Sequence[str], figure: str) -> str:
    """The text for one figure: a line per method (mean over folds of each run; mean ± standard deviation over the
    runs), then FN2EN's lead over each other method: mean ± standard deviation over the pairs, and how many it wins."""
    width = max(10, *(len(title) + 2 for title in titles))
    lines = [f'{FIGURES[figure]:26}' + ''.join(f'{title:>{width}}' for title in titles) + f'{"mean ± sd":>16}']
    values = paired(runs, figure)
    for name, all_folds in values.items():
        means = all_folds.reshape(len(runs), -1).mean(1) * 100
        cells = ''.join(f'{mean:>{width}.1f}' for mean in means)
        lines.append(f'{results.TITLES[name]:26}{cells}{_spread(means):>16}')
    for name in values:
        if name != 'fn2en' and 'fn2en' in values:
            lead = (values['fn2en'] - values[name]) * 100
            title = f'FN2EN − {results.TITLES[name]}'
            lines.append(f'{title:36} {_spread(lead)} over {len(lead)} pairs, {int((lead > 0).sum())} won')
    return '\n'.join(lines)


def _spread(values: np.ndarray) -> str:
    return f'{values.mean():.1f} ± {values.std(ddof=1):.1f}' if len(values) > 1 else f'{values.mean():.1f}'


def main(folders: Sequence[str]) -> None:
    """Prints the comparison of these workdirs."""
    if not folders:
        raise UserError('name the workdirs to compare; see --help')
    runs = [results.read(Path(folder)) for folder in folders]
    check_alike(runs, folders)
    titles = [Path(folder).name for folder in folders]
    print('\n\n'.join(table(runs, titles, figure) for figure in FIGURES))


if __name__ == '__main__':
    named, rest = commands.divide(sys.argv)
    sys.exit(commands.run(lambda: main(named), rest, __doc__ or ''))
