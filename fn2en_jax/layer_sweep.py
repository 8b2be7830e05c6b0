"""Which layer of the face net should supervise? Runs FN2EN once per layer, the paper's experiment, and compares.

    python -m fn2en_jax.layer_sweep --config=configs/demo.py:fn2en --workdir=runs/layers

The face net and its fine-tuning are trained once, in the workdir of the first layer, and shared. Ends with a table
(layers.txt, .md, .csv and .tex) and a plot (layers.png) of the accuracy by layer: mean ± standard deviation over the
folds, in percent, and where the paper has numbers for the set these and the differences from them. The same command
continues a sweep that was stopped, and writes the table of a finished one again.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from fn2en_jax import commands, literature, table_formats
from fn2en_jax.errors import UserError
from fn2en_jax.literature import Rows

CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file; its methods are replaced by fn2en.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder with a workdir per layer.')
LAYERS = flags.DEFINE_list('sweep', 'pool1,pool2,pool3,pool4,pool5,fc6,fc7,fc8', 'The layers to compare.')
FORMAT = flags.DEFINE_enum('format', 'text', [*table_formats.FORMATS], 'How the table is printed.', allow_override=True)

PAPERS = 'pool5'  # the layer that supervised the published nets
COLUMNS = ('supervised by', *literature.COLUMNS[1:])
SUFFIXES = {'text': '.txt', 'markdown': '.md', 'csv': '.csv', 'latex': '.tex'}
SHARED = ('face_net', 'finetune')  # stages that do not depend on the layer


def main() -> None:
    """Runs what is not finished, then writes the comparison."""
    from fn2en_jax import engine, plots, workdir
    from fn2en_jax.models.vgg_face import LAYERS as KNOWN

    if not WORKDIR.value or CONFIG.value is None:
        raise UserError('--config=FILE and --workdir=FOLDER are needed; see --help')
    if not LAYERS.value:
        raise UserError('--sweep names no layer; see --help')
    if CONFIG.value.fold == 'none':
        raise UserError('config.fold is none, so nothing would be tested; a sweep compares test folds')
    if unknown := [layer for layer in LAYERS.value if layer not in KNOWN]:
        raise UserError(f'unknown layer {", ".join(unknown)}; choose from {", ".join(KNOWN)}')
    root = Path(WORKDIR.value)
    try:
        runs = {layer: _run(root, layer) for layer in LAYERS.value}
    except engine.Interrupted as interrupted:
        raise commands.Stopped(interrupted) from interrupted
    title, cells = rows(CONFIG.value, runs)
    for name, suffix in SUFFIXES.items():
        workdir.write_text(root / f'layers{suffix}', table_formats.FORMATS[name](title, cells) + '\n')
    figures = {layer: _figures(found) for layer, found in runs.items()}
    plots.layers(figures, _teacher(runs), root / 'layers.png')
    print(f'\n{table_formats.FORMATS[FORMAT.value](title, cells)}\n\nTable and plot are in {root}')


def rows(config: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> tuple[str, Rows]:
    """The comparison as a title and rows, of which the first is COLUMNS.

    A row per layer with the accuracies of FN2EN, then that of the fine-tuned face net, which supervised them. The
    paper's FN2EN stands in the row of the layer that it used, or in one of its own where that is not among ours; every
    layer's difference is from it.

    config, runs: what `config.json` and, by layer, `results.json` hold.
    """
    first = next(iter(runs.values()))
    title, paper = literature.of_run(config, first)
    numbers = paper.methods if paper else {}
    theirs = numbers.get('fn2en')
    cells = [_row(layer, found['methods']['fn2en'], theirs) for layer, found in runs.items()]
    if theirs is not None and PAPERS not in runs:
        cells.append(literature.row(f'{PAPERS} (published)', None, theirs))
    teacher = literature.row('(the fine-tuned face net)', first['methods']['finetune'], numbers.get('finetune'))
    return title, [COLUMNS, *cells, teacher]


def _row(layer: str, method: Mapping[str, Any], theirs: float | None) -> tuple[str, ...]:
    name, *ours, told, difference, folds = literature.row(layer, method, theirs)
    return (name, *ours, told if layer == PAPERS else '', difference, folds)


def _run(root: Path, layer: str) -> dict[str, Any]:
    from fn2en_jax import experiment

    config = CONFIG.value.copy_and_resolve_references()
    config.methods = ('fn2en',)
    config.stage1.layer = layer
    folder, first = root / layer, root / LAYERS.value[0]
    if folder != first:
        _share(first, folder)
    print(f'\nsupervised by {layer}', flush=True)
    command = shlex.join(['python', '-m', 'fn2en_jax.layer_sweep', *sys.argv[1:]])
    return experiment.run(config, str(folder), command=command)


def _share(first: Path, folder: Path) -> None:
    """Gives a workdir the finished shared stages of the first one; finished checkpoints never change, so links do."""
    for stage in sorted(path for name in SHARED for path in first.rglob(name) if path.is_dir()):
        place = folder / stage.relative_to(first)
        if not place.exists():
            temporary = place.with_name(place.name + '.tmp')
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(stage, temporary, copy_function=_link)
            temporary.rename(place)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # some file systems have no hard links
        shutil.copyfile(source, target)


def _figures(found: Mapping[str, Any]) -> np.ndarray:
    """Class-averaged accuracy of FN2EN per fold, [folds]."""
    return np.array([fold['class_averaged_accuracy'] for fold in found['methods']['fn2en']['folds'].values()])


def _teacher(runs: Mapping[str, Mapping[str, Any]]) -> float:
    return next(iter(runs.values()))['methods']['finetune']['mean']['class_averaged_accuracy']


if __name__ == '__main__':
    sys.exit(commands.run(main, sys.argv, __doc__ or ''))
