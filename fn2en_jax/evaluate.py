"""Evaluates a trained net on another CSV of labelled faces.

    python -m fn2en_jax.evaluate --workdir=runs/faces --data=other.csv --output=predictions.csv

The CSV has the columns file, expression; its classes must be among those the net was trained on. The last line of the
output is JSON with the same keys as results.json.
"""

import json
import sys
from pathlib import Path

from absl import flags

from fn2en_jax import commands
from fn2en_jax.errors import UserError

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a finished run.')
DATA = flags.DEFINE_string('data', None, 'CSV with the columns file, expression.')
OUTPUT = flags.DEFINE_string('output', None, 'CSV to write: file, expression, prediction, probability of every class.')
METHOD = flags.DEFINE_string('method', '', 'fn2en, finetune or scratch; default: the first of these that is there.')
FOLD = flags.DEFINE_string('fold', '', "Which fold's net, where there are several.")


def main() -> None:
    if not WORKDIR.value or not DATA.value:
        raise UserError('--workdir=FOLDER and --data=FILE.csv are needed; see --help')
    from fn2en_jax import metrics, prediction_table, trained, workdir
    from fn2en_jax.data.sources import open_csv

    if OUTPUT.value and Path(OUTPUT.value).resolve() == Path(DATA.value).resolve():
        raise UserError(f'--output={OUTPUT.value} is the table to evaluate on; choose another file')
    if OUTPUT.value:
        workdir.check_replaceable(Path(OUTPUT.value))
    net = trained.find(WORKDIR.value, method=METHOD.value, fold=FOLD.value)
    examples = open_csv(DATA.value, net.class_names, net.reading)
    print(f'{net.method} net of fold {net.fold}: {len(examples)} images, classes {", ".join(net.class_names)}')
    logits = net.logits(examples)
    if OUTPUT.value:
        try:
            prediction_table.write(Path(OUTPUT.value), examples.files, examples.labels, logits, net.class_names)
        except OSError as error:
            raise UserError(f'cannot write {OUTPUT.value}: {error.strerror}') from error
    found = metrics.classification(logits, examples.labels, net.class_names)
    print(json.dumps({**found, 'class_names': list(net.class_names)}))


if __name__ == '__main__':
    sys.exit(commands.run(main, sys.argv, __doc__ or ''))
