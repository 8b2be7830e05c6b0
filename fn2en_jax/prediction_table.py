"""The table of predictions as CSV: file, expression, prediction, and the probability of every class.

Names that a spreadsheet would compute are marked, see `spreadsheet`.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fn2en_jax import spreadsheet, workdir
from fn2en_jax.errors import UserError

COLUMNS = ('file', 'expression', 'prediction')  # then a column per class, in the order of the net's outputs


class Predictions(NamedTuple):
    """What a net said of N images."""

    files: tuple[str, ...]  # N names
    labels: np.ndarray  # int64 [N], the true classes
    predicted: np.ndarray  # int64 [N]
    probabilities: np.ndarray  # float64 [N,K]


def write(path: Path, files: Sequence[str], labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str]) -> None:
    """Replaces the table in one step.

    Args:
        path: the CSV.
        files: N names.
        labels: true classes [N], in 0..K-1.
        logits: [N,K].
        class_names: K names, the order of the logits.
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    names = [spreadsheet.marked(name) for name in class_names]
    writer.writerow([*COLUMNS, *names])
    for name, label, row in zip(files, labels, probabilities, strict=True):
        writer.writerow([spreadsheet.marked(name), names[label], names[row.argmax()], *(f'{p:.6f}' for p in row)])
    workdir.write_text(path, text.getvalue())


def read(path: Path, class_names: Sequence[str]) -> Predictions:
    """Reads what `write` wrote, for the same classes in the same order.

    Raises:
        UserError: for a file that is of other classes or damaged.
    """
    with path.open(newline='', encoding='utf-8') as file:
        try:
            header, *rows = csv.reader(file, strict=True)
            if [spreadsheet.plain(cell) for cell in header] != [*COLUMNS, *class_names]:
                raise ValueError(f'its columns are {", ".join(header)}')
            number = {name: k for k, name in enumerate(class_names)}
            files, labels, predicted, *columns = zip(*rows, strict=True)
            probabilities = np.array(columns, np.float64).T
            return Predictions(
                tuple(map(spreadsheet.plain, files)),
                np.array([number[spreadsheet.plain(name)] for name in labels]),
                np.array([number[spreadsheet.plain(name)] for name in predicted]),
                probabilities,
            )
        except (ValueError, KeyError, csv.Error) as error:
            message = f'{path} is no table of predictions of this run ({error}); delete it and run launch.py again'
            raise UserError(message) from error
