"""Pictures of nets: what excites their neurons, where they look, what a probe reads; as PNG."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from fn2en_jax.plots import GRID, INK, tidy

DPI = 130
TILE = 72  # pixels
GAP = 4
LARGE = 280_000  # bytes of a file
RIGHT, WRONG = '#2a7f3f', '#c23b4b'
# Told apart by people who see colours differently (Okabe and Ito 2008).
COLOURS = {'face_net': '#999999', 'finetune': '#d55e00', 'fn2en': '#0072b2', 'scratch': '#009e73'}
MARKS = {'face_net': 'v', 'finetune': 's', 'fn2en': 'o', 'scratch': '^'}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of pictures.

    Attributes:
        label: to the left of it.
        images: uint8 [H,W,C] each.
    """

    label: str
    images: Sequence[np.ndarray]


def columns_of_rows(blocks: Mapping[str, Sequence[Row]], path: Path, *, headings: Sequence[str] = ()) -> None:
    """Blocks side by side, each with a title, its rows of pictures, and the same headings above its columns.

    Args:
        blocks: rows by title.
        path: the PNG to write.
        headings: above the first columns.
    """
    sizes = [mosaic([row.images for row in rows]).shape for rows in blocks.values()]
    label = 1.5
    widths = [label + size[1] / DPI for size in sizes]
    figure = Figure(figsize=(sum(widths) + 0.2, 0.75 + max(size[0] for size in sizes) / DPI), layout='constrained')
    axes = figure.subplots(1, len(blocks), squeeze=False, width_ratios=widths)[0]
    for axis, (title, rows) in zip(axes, blocks.items(), strict=True):
        _rows(axis, rows, headings)
        axis.set_title(title, color=INK, fontsize=10, loc='left', pad=8 + 9 * bool(headings), parse_math=False)
    _save(figure, path)


def _rows(axis: Any, rows: Sequence[Row], headings: Sequence[str]) -> None:
    axis.imshow(mosaic([row.images for row in rows]), interpolation='none')
    middles = [TILE / 2 + index * (TILE + GAP) for index in range(max(len(rows), len(headings)))]
    axis.set_yticks(middles[: len(rows)], [row.label for row in rows], fontsize=8, color=INK, parse_math=False)
    axis.set_xticks(middles[: len(headings)], headings, fontsize=8, color=INK, parse_math=False)
    axis.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)


def grid(
    images: Sequence[Sequence[np.ndarray]],
    path: Path,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    notes: Sequence[Sequence[tuple[str, str]]],
) -> None:
    """A table of pictures, each with a note below it.

    Args:
        images: uint8 [H,W,C], by row and column.
        path: the PNG to write.
        rows, columns: labels to the left, and above.
        notes: (text, colour) below each picture.
    """
    height, width = len(rows), len(columns)
    close = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.02)
    figure = Figure(figsize=(1.25 + 1.06 * width, 0.35 + 1.27 * height), layout=close)
    axes = figure.subplots(height, width, squeeze=False)
    for line in range(height):
        for place in range(width):
            axis = axes[line][place]
            axis.imshow(tile(images[line][place], 2 * TILE), interpolation='antialiased')
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            text, colour = notes[line][place]
            axis.set_xlabel(text, fontsize=7.5, color=colour, labelpad=2, parse_math=False)
            if line == 0:
                axis.set_title(columns[place], fontsize=8.5, color=INK, pad=3, parse_math=False)
        style: dict[str, Any] = {'rotation': 0, 'ha': 'right', 'va': 'center', 'parse_math': False}
        axes[line][0].set_ylabel(rows[line], fontsize=8.5, color=INK, **style)
    _save(figure, path)


def selectivity(shares: Mapping[str, tuple[np.ndarray, np.ndarray]], titles: Mapping[str, str], path: Path) -> None:
    """A panel per net: every neuron by how much of its variance persons explain (x) and expressions explain (y).

    Args:
        shares: per net, of its neurons, ([F] by person, [F] by expression).
        titles: of the panels.
        path: the PNG to write.
    """
    figure = Figure(figsize=(2.65 * len(shares) + 0.5, 3.1), layout='constrained')
    axes = figure.subplots(1, len(shares), squeeze=False, sharex=True, sharey=True)[0]
    low = min(-0.04, *(float(part.min()) for pair in shares.values() for part in pair))
    high = max(float(part.max()) for pair in shares.values() for part in pair) * 1.05
    for axis, (net, (person, expression)) in zip(axes, shares.items(), strict=True):
        axis.plot([low, high], [low, high], color=GRID, linewidth=1)
        axis.scatter(person, expression, s=9, alpha=0.55, color=COLOURS[net], linewidths=0, rasterized=True)
        axis.plot(np.median(person), np.median(expression), '+', color=INK, markersize=12, markeredgewidth=1.6)
        axis.set_title(titles[net], fontsize=9, color=INK, loc='left', parse_math=False)
        axis.set_xlabel('share explained by person', fontsize=8.5)
        axis.tick_params(labelsize=8)
        axis.set(xlim=(low, high), ylim=(low, high))
        tidy(axis)
    axes[0].set_ylabel('share explained by expression', fontsize=8.5)
    _save(figure, path)


def responses(pairs: Mapping[str, np.ndarray], shares: np.ndarray, path: Path) -> None:
    """Responses as matrices above one another, images by channels on one scale, and below the share that is explained.

    Args:
        pairs: [n,F] by title; the first one's range gives the scale.
        shares: [F], of every channel.
        path: the PNG to write.
    """
    first = next(iter(pairs.values()))
    low, high = np.percentile(first, (1, 99))
    figure = Figure(figsize=(9.0, 1.9 * len(pairs) + 1.7), layout='constrained')
    axes = figure.subplots(len(pairs) + 1, 1, sharex=True, height_ratios=[*(1.25 for _ in pairs), 1])
    for axis, (title, values) in zip(axes, pairs.items(), strict=False):
        picture = axis.imshow(values, aspect='auto', vmin=low, vmax=high, cmap='viridis', interpolation='nearest')
        axis.set_title(title, fontsize=9, color=INK, loc='left', parse_math=False)
        axis.set_ylabel('test image', fontsize=8.5)
        axis.tick_params(labelsize=8)
    figure.colorbar(picture, ax=list(axes[:-1]), shrink=0.8, label='response')
    axes[-1].bar(np.arange(len(shares)), np.clip(shares, 0, 1), width=1.0, color=COLOURS['fn2en'])
    axes[-1].set(ylim=(0, 1), xlabel="channel, in the order of the teacher's variance", ylabel='explained')
    tidy(axes[-1])
    _save(figure, path)


def probe(
    results: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]],
    chances: Mapping[str, float],
    titles: Mapping[str, str],
    places: Mapping[str, int],
    path: Path,
) -> None:
    """A panel per task: accuracy of a linear probe by layer, a line per net, and the level of chance.

    Args:
        results: per task, net and layer (mean, standard deviation), 0..1.
        chances: per task.
        titles: of the nets.
        places: of the layers on the axis; layers of different nets may share a place.
        path: the PNG to write.
    """
    figure = Figure(figsize=(4.9 * len(results), 3.7), layout='constrained')
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for axis, (task, nets) in zip(axes, results.items(), strict=True):
        for net, layers in nets.items():
            x = [places[layer] for layer in layers]
            mean, spread = (np.array(part) * 100 for part in zip(*layers.values(), strict=True))
            style = {'color': COLOURS.get(net, INK), 'marker': MARKS.get(net, 'D'), 'markersize': 4, 'linewidth': 1.5}
            axis.errorbar(x, mean, spread, capsize=2, label=titles[net], **style)
        axis.axhline(100 * chances[task], color=INK, linestyle=':', linewidth=1.2, label='chance')
        shared: dict[int, list[str]] = {}
        for layer, place in places.items():
            shared.setdefault(place, []).append(layer)
        axis.set_xticks(list(shared), ['\n'.join(names) for names in shared.values()], fontsize=8)
        axis.set_ylabel('class-averaged accuracy, %', fontsize=9)
        axis.set_ylim(0, None)
        axis.set_title(f'a linear probe for {task}', fontsize=10, color=INK, loc='left')
        tidy(axis)
    axes[-1].legend(frameon=False, fontsize=8)
    _save(figure, path)


# What pictures are made of.


def tile(image: np.ndarray, side: int = TILE) -> np.ndarray:
    """An image [H,W,C], C of 1 or 3, as uint8 RGB [side,side,3]."""
    values = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    colour = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values
    return np.asarray(Image.fromarray(colour).resize((side, side), Image.Resampling.BICUBIC))


def mosaic(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Rows of images as one picture, uint8 RGB, white between them; short rows end in white."""
    width = max(len(row) for row in rows)
    step = TILE + GAP
    canvas = np.full((len(rows) * step - GAP, width * step - GAP, 3), 255, np.uint8)
    for line, row in enumerate(rows):
        for place, image in enumerate(row):
            canvas[line * step : line * step + TILE, place * step : place * step + TILE] = tile(image)
    return canvas


def difference(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What is brighter and darker in the first of two images [H,W,C], in 0..255 [H,W,1] around grey.

    Colour and a difference of the whole are left out, and the largest difference takes the full range.
    """
    gap = (image.astype(np.float64) - other).mean(2, keepdims=True)
    gap -= gap.mean()
    return 127.5 + 127.5 * gap / max(float(np.abs(gap).max()), 1e-9)


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A grey version of the image [H,W,C] in 0..255 under evidence [H,W] in 0..1, uint8 [H,W,3]."""
    grey = np.repeat(image.astype(np.float64).mean(2, keepdims=True), 3, axis=2)
    colour = 255 * colormaps['inferno'](heat)[..., :3]
    share = 0.65 * heat[..., None]
    return np.rint((1 - share) * grey + share * colour).astype(np.uint8)


def heat(values: np.ndarray) -> np.ndarray:
    """Values [H,W] in 0..1 as colours, uint8 [H,W,3]."""
    return np.rint(255 * colormaps['inferno'](values)[..., :3]).astype(np.uint8)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values [H,W] between `low` and `high` as colours, uint8 [H,W,3]."""
    span = high - low if high > low else 1.0
    return np.rint(255 * colormaps['viridis'](np.clip((values - low) / span, 0, 1))[..., :3]).astype(np.uint8)


def _save(figure: Figure, path: Path) -> None:
    """Writes the PNG; one of many photographs with a palette of 256 colours, which makes it a third as large."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')
    options: dict[str, Any] = {'format': 'PNG', 'optimize': True, 'dpi': (DPI, DPI)}
    picture.save(path, **options)
    if path.stat().st_size > LARGE:
        picture.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, **options)
