"""The page of a run: `report.html`, one file with everything a workdir says and no link to anything else.

What it shows is read from the workdir, so a later run, a resumed one and `fn2en_jax.report_page` make the same page.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fn2en_jax import embedded, literature, plots, prediction_table, report, results, workdir
from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError

TEMPLATES = Path(__file__).parent / 'templates'
NAME, PICTURES = 'report.html', 'visualize'  # in the workdir; the latter is the folder of `fn2en_jax.visualize`
MISTAKES = 24  # of each method
STAGES = {
    'face_net': 'Face net (learns persons)',
    'finetune': 'VGG fine-tune',
    'stage1': 'Stage 1 (imitates the face net)',
    'stage2': 'Stage 2 (FN2EN)',
    'scratch': 'Train from scratch (BN)',
}
PARTS = ('train', 'validation', 'test')  # of a fold
COLUMN = {name: k for k, name in enumerate(literature.COLUMNS)}
FIGURES = {
    'accuracy': 'accuracy',
    'class_averaged_accuracy': 'class-averaged',
    'macro_f1': 'macro F1',
    results.VOTES: 'whole sequences',
}
# The curves' colours as the page names them in its style sheet.
COLOURS = {
    plots.INK: 'currentColor',
    plots.GRID: 'var(--line)',
    **{colour: f'var(--{name}, {colour.upper()})' for name, colour in plots.COLOURS.items()},
}


def predictions(folder: Path, fold: str, method: str) -> Path:
    """Where a run keeps what the net of a method said of a fold's test images; see `prediction_table`."""
    return folder / fold / f'predictions_{method}.csv'


def write(
    folder: Path, images: Examples | None, *, faces: bool = True, missing: str = '', output: Path | None = None
) -> Path:
    """Draws the page of a finished run.

    Args:
        folder: the workdir.
        images: the set whose images were tested, None where it cannot or need not be read.
        faces: False leaves out every picture that shows images of the set.
        missing: why `images` is None although faces are wanted, for the reader of the page.
        output: the file to write; None for `report.html` in the workdir.

    Returns:
        The file.

    Raises:
        UserError: for a workdir without results, or damaged ones.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # class names, file names and settings are anybody's words
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = content(folder, images if faces else None, faces=faces, missing=missing)
    place = output or folder / NAME
    workdir.write_text(place, environment.get_template('report.html').render(shown))
    return place


def content(folder: Path, images: Examples | None, *, faces: bool, missing: str) -> dict[str, Any]:
    """Everything the page shows, by the names its template uses; arguments and errors as for `write`."""
    config = workdir.read_json(folder / 'config.json')
    found = workdir.read_json(folder / 'results.json')
    divided = workdir.read_json(folder / 'folds.json')
    try:
        title, compared = literature.beside_published(config, found)
        rows, no_curves = _rows(folder)
        shown, left_out = embedded.pictures(folder / PICTURES, faces=faces)
        return {
            'title': title,
            'source': config['data']['source'],
            'faces': faces,
            'missing': missing,
            'methods': found['methods'],
            'titles': results.TITLES,
            'stage_titles': STAGES,
            'figures': {name: FIGURES[name] for name in FIGURES if _all_have(found['methods'], name)},
            'spread': results.spread,
            'classes': found['class_names'],
            'compared': [_beside(row, found['methods']) for row in compared],
            'paper': any(row[COLUMN['published']] for row in compared),
            'curves': _curves(rows),
            'no_curves': no_curves,
            'mistakes': _mistakes(folder, found, images),
            'pictures': shown,
            'left_out': left_out,
            'watched': {name: found['methods'][name]['validation'] for name in _watched(found['methods'])},
            'divided': divided,
            'parts': [part for part in PARTS if any(f'{part}_counts' in fold for fold in divided['folds'])],
            'counted': _counted,
            'dataset': _text(folder / 'dataset.txt'),
            'seconds': found['seconds'],
            'clock': report.clock,
            'seed': found['seed'],
            'versions': found['versions'],
            'commands': found.get('commands', []),
            'config': [(key, json.dumps(value, ensure_ascii=False)) for key, value in sorted(workdir.flatten(config))],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{folder} is not the workdir of a finished run, or damaged: {error!r}') from error


def _beside(row: Sequence[str], methods: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the result table: ours, then the paper's, which only the rows of a set with a paper have."""
    method = next((found for name, found in methods.items() if results.TITLES[name] == row[0]), None)
    figures = [results.spread(method, 'macro_f1'), f'{method["num_examples"]:,}'] if method else ['', '']
    ours = [row[COLUMN['ours']], row[COLUMN['class-averaged']], *figures, row[COLUMN['folds']]]
    return {'method': row[0], 'ours': ours, 'theirs': [row[COLUMN['published']], row[COLUMN['difference']]]}


def _all_have(methods: Mapping[str, Any], figure: str) -> bool:
    return all(figure in method['mean'] for method in methods.values())


def _watched(methods: Mapping[str, Any]) -> list[str]:
    """The methods that were judged on validation images, too."""
    return [name for name in results.TITLES if 'validation' in methods.get(name, {})]


def _counted(fold: Mapping[str, Any], class_name: str | None = None) -> str:
    """How many images of a class, or of all, the parts of a fold in `folds.json` have: '30 + 200'."""
    counts = [fold[f'{part}_counts'] for part in PARTS if f'{part}_counts' in fold]
    return ' + '.join(f'{sum(part.values()) if class_name is None else part[class_name]:,}' for part in counts)


def _text(path: Path) -> str:
    return workdir.read_text(path) if path.exists() else ''


# Learning curves.


def _rows(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of metrics that are sound, and what is to be said of the others: '' where all are, or there is none."""
    name = 'metrics.jsonl'
    try:
        rows = report.Metrics(folder).rows()
    except (ValueError, RecursionError) as error:
        return [], f'{name} of the workdir is damaged, so no learning curve can be drawn ({error}).'
    sound = [row for row in rows if _is_row(row)]
    if len(sound) < len(rows):
        return (
            sound,
            f'{name} of the workdir is damaged: {len(rows) - len(sound)} of its {len(rows)} rows are left out.',
        )
    empty = not rows and (folder / name).exists() and (folder / name).stat().st_size > 0
    return sound, f'{name} of the workdir holds no whole row, so no learning curve can be drawn.' if empty else ''


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not row.keys() >= {*_PLACE}:
        return False
    texts = ('fold', 'stage')
    return all(isinstance(value, str if key in texts else int | float) for key, value in row.items())


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each stage its panel and the last row of every fold."""
    from markupsafe import Markup

    panels = []
    for stage in dict.fromkeys(row['stage'] for row in rows):
        own = [row for row in rows if row['stage'] == stage]
        last = {row['fold']: row for row in own}
        keys = [key for key in dict.fromkeys(key for row in last.values() for key in row) if key not in _PLACE]
        svg = embedded.curve(plots.stage_svg(stage, own), _spoken(stage, last, keys), COLOURS)
        panels.append({'stage': stage, 'svg': Markup(svg), 'last': last, 'keys': keys})
    return panels


_PLACE = ('fold', 'stage', 'step', 'epoch')


def _spoken(stage: str, last: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> str:
    """What the curves of a stage end in, in words."""
    ends = []
    for key in keys:
        values = [row[key] for row in last.values() if key in row]
        ends.append(f'{key.replace("_", " ")} {np.mean(values):.3g}')
    epochs = max(row['epoch'] for row in last.values())
    over = f', mean of {len(last)} folds' if len(last) > 1 else ''
    return f'Learning curves of {STAGES.get(stage, stage)} over {epochs:g} epochs. At the end{over}: {", ".join(ends)}.'


# Mistakes.


def _mistakes(folder: Path, found: Mapping[str, Any], images: Examples | None) -> dict[str, dict[str, Any]]:
    """Per method its most confident mistakes, most confident first; only methods whose predictions are kept."""
    place = {} if images is None else {file: i for i, file in enumerate(images.files)}
    shown = {}
    for name, method in found['methods'].items():
        tables = {
            fold: prediction_table.read(predictions(folder, fold, name), found['class_names'])
            for fold in method['folds']
            if predictions(folder, fold, name).exists()
        }
        if not tables:
            continue
        wrong = [entry for fold, table in tables.items() for entry in _wrong(fold, table, found['class_names'])]
        first = sorted(wrong, key=lambda entry: (-entry['probability'], entry['fold'], entry['file']))[:MISTAKES]
        shown[name] = {
            'entries': first,
            'number': len(wrong),
            'tested': sum(len(table.files) for table in tables.values()),
            'pictures': {} if images is None else _faces([entry['file'] for entry in first], images, place),
        }
    return shown


def _wrong(fold: str, table: prediction_table.Predictions, class_names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            'fold': fold,
            'file': table.files[i],
            'truth': class_names[table.labels[i]],
            'prediction': class_names[table.predicted[i]],
            'probability': float(table.probabilities[i, table.predicted[i]]),
        }
        for i in np.flatnonzero(table.predicted != table.labels)
    ]


def _faces(files: Sequence[str], images: Examples, place: Mapping[str, int]) -> dict[str, str]:
    """Data URIs of the images that the set still holds."""
    there = [file for file in files if file in place]
    faces = images.gather(np.array([place[file] for file in there], np.int64))
    return {file: embedded.face(image) for file, image in zip(there, faces, strict=True)}
