"""Pictures of runs: learning curves, confusion matrices, the comparison of supervising layers; as PNG."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, GRID = '#222222', '#dddddd'
COLOURS = {'train': '#2a6fbb', 'validation': '#7a5195', 'test': '#d1495b'}


def learning_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel per stage: the regression loss, or the accuracy of classifiers over epochs; a line per fold.

    Args:
        rows: rows of `metrics.jsonl`.
        path: the PNG to write.
    """
    stages = list(dict.fromkeys(row['stage'] for row in rows))
    if not stages:
        return  # someone removed metrics.jsonl of a finished run
    columns = min(3, len(stages))
    lines = -(-len(stages) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * lines), layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(stages) :]:
        axis.remove()
    for axis, stage in zip(axes, stages, strict=False):
        _stage_panel(axis, stage, [row for row in rows if row['stage'] == stage])
    _save(figure, path)


def stage_svg(stage: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The panel of one stage as an SVG document: the same curves, its text kept as text.

    Args:
        stage: its name.
        rows: rows of `metrics.jsonl` of this stage.
    """
    colours: dict[Any, str] = dict.fromkeys(
        ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color'), INK
    )
    # The salt keeps names inside the document the same from run to run, and different between stages on one page.
    with rc_context({**colours, 'svg.fonttype': 'none', 'svg.hashsalt': stage}):
        figure = Figure(figsize=(4.4, 3.1), layout='constrained')
        axis = figure.subplots()
        _stage_panel(axis, stage, rows)
        axis.set_title('', loc='left')  # where it stands, a heading says it
        text = io.StringIO()
        figure.savefig(text, format='svg', transparent=True)
    return text.getvalue()


def _stage_panel(axis: Any, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
    accuracy = any('accuracy' in row for row in rows)
    figure = 'accuracy' if accuracy else 'loss'
    drawn = {}  # one line of each colour, for the legend
    for fold in dict.fromkeys(row['fold'] for row in rows):
        for name, colour in COLOURS.items():
            key = figure if name == 'train' else f'{name}_{figure}'
            points = [(row['epoch'], row[key]) for row in rows if row['fold'] == fold and key in row]
            if points:
                x, y = zip(*points, strict=True)
                style = {'color': colour, 'linewidth': 1.4, 'alpha': 0.8, 'marker': '' if name == 'train' else 'o'}
                (drawn[name],) = axis.plot(x, y, markersize=3, **style)
    axis.set_title(stage, color=INK, fontsize=11, loc='left', parse_math=False)
    axis.set_xlabel('epoch')
    if accuracy:
        axis.set_ylabel('accuracy')
        axis.set_ylim(0, 1.02)
    else:
        axis.set_ylabel('regression loss per image')
        axis.set_yscale('log')
    axis.legend(drawn.values(), drawn.keys(), frameon=False, fontsize=9)
    tidy(axis)


def confusion_matrix(matrix: Sequence[Sequence[int]], class_names: Sequence[str], title: str, path: Path) -> None:
    """Rows are the truth; colour is the share of the row, the number in each cell counts images.

    Args:
        matrix: [K,K] counts.
        class_names: K names.
        title: above the picture.
        path: the PNG to write.
    """
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 1.8 + 0.62 * len(class_names)
    figure = Figure(figsize=(size + 0.9, size), layout='constrained')
    axis = figure.subplots()
    picture = axis.imshow(share, cmap='Blues', vmin=0, vmax=1)
    ticks = range(len(class_names))
    # Names are anybody's words: a pair of dollar signs in them makes no formula.
    axis.set_xticks(ticks, class_names, rotation=40, ha='right', parse_math=False)
    axis.set_yticks(ticks, class_names, parse_math=False)
    for row in ticks:
        for column in ticks:
            colour = 'white' if share[row, column] > 0.55 else INK
            axis.text(column, row, str(counts[row, column]), ha='center', va='center', color=colour, fontsize=9)
    axis.set(xlabel='predicted', ylabel='true')
    axis.set_title(title, color=INK, fontsize=11, loc='left', parse_math=False)
    figure.colorbar(picture, ax=axis, shrink=0.85, label='share of the true class')
    _save(figure, path)


def layers(accuracies: Mapping[str, np.ndarray], teacher: float, path: Path) -> None:
    """Accuracy by supervising layer: the mean over folds, each fold as a dot, the fine-tuned face net as a line.

    Args:
        accuracies: per layer, of each fold, [folds], 0..1.
        teacher: of the fine-tuned face net, mean over folds.
        path: the PNG to write.
    """
    figure = Figure(figsize=(1.6 + 0.7 * len(accuracies), 3.4), layout='constrained')
    axis = figure.subplots()
    places = np.arange(len(accuracies))
    axis.axhline(100 * teacher, color=COLOURS['test'], linewidth=1.2, linestyle='--', label='fine-tuned face net')
    axis.plot(places, [100 * values.mean() for values in accuracies.values()], color=COLOURS['train'], label='FN2EN')
    for place, values in zip(places, accuracies.values(), strict=True):
        axis.plot(np.full(len(values), place), 100 * values, 'o', color=COLOURS['train'], markersize=4)
    axis.set_xticks(places, list(accuracies), parse_math=False)
    axis.set(xlabel='supervising layer', ylabel='class-averaged accuracy, %')
    axis.legend(frameon=False, fontsize=9)
    tidy(axis)
    _save(figure, path)


def tidy(axis: Any) -> None:
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)
