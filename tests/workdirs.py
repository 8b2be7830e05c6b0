"""A finished workdir without any training: every file that a page is drawn from, with hostile words in it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from configs import base
from fn2en_jax import config_checks, metrics, prediction_table, results
from fn2en_jax.data.examples import Examples

CLASSES = ('<script>alert(1)</script>', 'joy & "bliss"', 'a class with a rather long name')
FOLDS = ('fold0', 'fold1')
METHODS = ('scratch', 'finetune', 'fn2en')
PER_FOLD = 40
SIDE = 40  # pixels


def images() -> Examples:
    """40 images per fold."""
    rng = np.random.default_rng(0)
    count = PER_FOLD * len(FOLDS)
    return Examples(
        rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8),
        (np.arange(count) % len(CLASSES)).astype(np.int32),
        CLASSES,
        None,
        tuple(f'<img src=https://example.org/{number}>.png' for number in range(count)),
    )


def write(folder: Path, *, source: str = 'csv', predicted: bool = True) -> Path:
    """A run of three methods and two folds; `predicted` False leaves the predictions away, as old workdirs do."""
    folder.mkdir()
    examples, rng = images(), np.random.default_rng(1)
    scores: dict[str, dict] = {fold: {} for fold in FOLDS}
    for k, fold in enumerate(FOLDS):
        part = examples.take(np.arange(k * PER_FOLD, (k + 1) * PER_FOLD))
        (folder / fold).mkdir()
        for name in METHODS:
            logits = rng.normal(size=(PER_FOLD, len(CLASSES))) + 1.5 * np.eye(len(CLASSES))[part.labels]
            scores[fold][name] = metrics.classification(logits, part.labels, CLASSES)
            if predicted:
                table = folder / fold / f'predictions_{name}.csv'
                prediction_table.write(table, part.files, part.labels, logits, CLASSES)
    _json(folder / 'results.json', _results(scores))
    config = config_checks.plain(base.get_config())
    config['data'] |= {'source': source, 'expressions': '<nowhere>.csv'}
    _json(folder / 'config.json', {**config, 'note': '</td><script>'})
    _json(folder / 'folds.json', _folds(examples))
    rows = [row for stage in ('face_net', 'finetune', 'stage1', 'stage2') for row in _rows(stage)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return folder


def visualise(folder: Path, entries: list[dict] | None = None) -> None:
    """What the tool for pictures of neurons leaves: one picture of the data, one that shows none."""
    place = folder / 'visualize'
    place.mkdir()
    for name, colour in (('faces', 200), ('maximal', 90)):
        Image.new('RGB', (300, 80), (colour, 0, 90)).save(place / f'{name}.png')
    told = [
        {'file': 'faces.png', 'title': 'Nine <b>', 'caption': 'Top', 'alt': 'Nine faces', 'shows_data': True},
        {'file': 'maximal.png', 'title': 'Inputs', 'caption': '', 'alt': 'Seven inputs', 'shows_data': False},
    ]
    _json(place / 'index.json', told if entries is None else entries)


def _results(scores: dict) -> dict:
    return {
        'class_names': list(CLASSES),
        'methods': results.join(scores, {}, CLASSES),
        'seconds': {'face_net': 12.34, 'fold0/finetune': 5.6, 'fold1/finetune': 7.8},
        'seed': 3,
        'versions': {'python': '3.11.7', 'jax': '0.10.2', 'hardware': '1 x cpu (cpu)'},
        'commands': ['python launch.py --config=configs/faces.py --workdir=<where>'],
    }


def _folds(examples: Examples) -> dict:
    part = PER_FOLD * np.arange(len(FOLDS) + 1)
    folds = [
        {
            'name': fold,
            'train_counts': examples.class_counts(np.setdiff1d(np.arange(len(examples)), ids)),
            'test_counts': examples.class_counts(ids),
            'test_files': [],
        }
        for fold, ids in ((fold, np.arange(part[k], part[k + 1])) for k, fold in enumerate(FOLDS))
    ]
    return {
        'class_names': list(CLASSES),
        'num_examples': len(examples),
        'person_independent': False,
        'folds': folds,
    }


def _rows(stage: str) -> list[dict]:
    rows = []
    for k, fold in enumerate(('',) if stage == 'face_net' else FOLDS):
        for step in (10, 20, 30):
            row = {'fold': fold, 'stage': stage, 'step': step, 'epoch': step / 10, 'loss': 9 / step + k}
            if stage != 'stage1':
                row['accuracy'] = step / 40
            if stage != 'face_net' and step == 30:
                row |= {'test_loss': 0.731, 'test_explained' if stage == 'stage1' else 'test_accuracy': 0.611}
            rows.append(row)
    return rows


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
