"""Evaluates a trained net on another CSV of labelled faces.

    python -m fn2en_jax.evaluate --workdir=runs/faces --data=other.csv --output=predictions.csv

The CSV has the columns file, expression; its classes must be among those the net was trained on. The last line of the
output is JSON with the same keys as results.json.
"""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
from absl import flags

from fn2en_jax import commands, workdir
from fn2en_jax.errors import UserError

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a finished run.')
DATA = flags.DEFINE_string('data', None, 'CSV with the columns file, expression.')
OUTPUT = flags.DEFINE_string('output', None, 'CSV to write: file, expression, prediction, probability of every class.')
METHOD = flags.DEFINE_string('method', '', 'fn2en, finetune or scratch; default: the first of these that is there.')
FOLD = flags.DEFINE_string('fold', '', "Which fold's net, where there are several.")


def main() -> None:
    if not WORKDIR.value or not DATA.value:
        raise UserError('--workdir=FOLDER and --data=FILE.csv are needed; see --help')
    from fn2en_jax import metrics, trained
    from fn2en_jax.data.sources import open_csv

    if OUTPUT.value and Path(OUTPUT.value).resolve() == Path(DATA.value).resolve():
        raise UserError(f'--output={OUTPUT.value} is the table to evaluate on; choose another file')
    net = trained.find(WORKDIR.value, method=METHOD.value, fold=FOLD.value)
    examples = open_csv(DATA.value, net.class_names, net.reading)
    print(f'{net.method} net of fold {net.fold}: {len(examples)} images, classes {", ".join(net.class_names)}')
    logits = net.logits(examples)
    if OUTPUT.value:
        _write(OUTPUT.value, examples.files, examples.labels, logits, net.class_names)
    found = metrics.classification(logits, examples.labels, net.class_names)
    print(json.dumps({**found, 'class_names': list(net.class_names)}))


def _write(path: str, files, labels: np.ndarray, logits: np.ndarray, names: tuple[str, ...]) -> None:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['file', 'expression', 'prediction', *names])
    for name, label, row in zip(files, labels, probabilities, strict=True):
        writer.writerow([name, names[label], names[row.argmax()], *(f'{p:.6f}' for p in row)])
    try:
        workdir.write_text(Path(path), text.getvalue())
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}') from error


if __name__ == '__main__':
    sys.exit(commands.run(main, sys.argv, __doc__ or ''))
