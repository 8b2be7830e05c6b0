"""Published accuracies, in percent, on the sets and class counts of the paper; sources beside each table.

Ding, Zhou, Chellappa, "FaceNet2ExpNet", FG 2017 (arXiv:1609.06591), whose tables also quote the others; and Chen et
al., "Facial Motion Prior Networks" (FMPN), VCIP 2019 (arXiv:1902.08788), whose figures are given as lists of results
quote them and agree with those of the folds in the authors' public code (donydchen/FMPN-FER).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fn2en_jax import results

COLUMNS = ('method', 'ours', 'class-averaged', 'published', 'difference', 'folds')
Rows = list[tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Published:
    """What a paper's table says.

    Attributes:
        protocol: how the numbers were measured.
        methods: accuracy of the methods of this project, by their names in `results.TITLES`.
        others: accuracy of other methods, by the names their authors gave them; where they were measured differently,
            how stands behind the name.
    """

    protocol: str
    methods: Mapping[str, float]
    others: Mapping[str, float]


_TEN_FOLDS = '10-fold, person-independent'

# By data set, number of classes and extra training data.
PUBLISHED = {
    ('ckplus', 6, ''): Published(
        f'927 images, {_TEN_FOLDS}',
        {'fn2en': 98.6},
        {
            'CSPL': 89.9,
            '3DCNN-DAP': 92.4,
            'Inception': 93.2,
            'AdaGabor': 93.3,
            'STM-ExpLet': 94.2,
            'LBPSVM': 95.1,
            'LOMo': 95.1,
            'BDBN': 96.7,
            'DTAGN': 97.3,
            'PPDN': 97.3,
        },
    ),
    ('ckplus', 8, ''): Published(
        f'1,308 images, {_TEN_FOLDS}', {'scratch': 88.7, 'finetune': 89.9, 'fn2en': 96.8}, {'AUDN': 92.1}
    ),
    ('ckplus', 7, ''): Published(
        f'981 images, {_TEN_FOLDS}, contiguous (fold_rule=blocks; mean of the folds)', {}, {'FMPN': 98.06}
    ),
    ('oulu_casia', 6, ''): Published(
        _TEN_FOLDS,
        {'scratch': 76.87, 'finetune': 83.26, 'fn2en': 87.71},
        {
            'HOG 3D': 70.63,
            'AdaLBP': 73.54,
            'STM-ExpLet': 74.59,
            'Atlases': 75.52,
            'DTAGN': 81.46,
            'LOMo': 82.10,
            'PPDN': 84.59,
        },
    ),
    ('mmi', 6, ''): Published(
        f'208 clips, 624 images, {_TEN_FOLDS}, contiguous (mean of the folds)', {}, {'FMPN': 82.74}
    ),
    # Its images of the official validation part hold contempt and no neutral, as far as they can be told.
    ('affectnet', 7, ''): Published(
        'another split and other classes: 22,077 images train, 2,453 test, probably contempt in place of neutral',
        {},
        {'FMPN (own split)': 61.52},
    ),
    ('tfd', 7, ''): Published('the five official folds', {'scratch': 82.5, 'finetune': 86.7, 'fn2en': 88.9}, {}),
    ('sfew', 7, ''): Published(
        '958 images train, 436 test (validation part)',
        {'scratch': 39.55, 'finetune': 41.23, 'fn2en': 48.19},
        {'AUDN': 26.14, 'STM-ExpLet': 31.73, 'Mapped LBP': 41.92, 'Inception': 47.70},
    ),
    ('sfew', 7, 'fer2013'): Published(
        '958 images and FER2013 train, 436 test (validation part)',
        {'fn2en': 55.15},
        {'Transfer learning': 48.50, 'Multiple deep network': 52.29},
    ),
}


def published(source: str, classes: int, extra: str) -> Published | None:
    """The published numbers for a set, None where it has none.

    Full frames of SFEW count as SFEW, and the npy edition of AffectNet, of equal parts but for one image, as AffectNet.
    """
    return PUBLISHED.get((source.removesuffix('_frames').removesuffix('_npy'), classes, extra))


def of_run(config: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, Published | None]:
    """What a run was tested on and how the published numbers were measured, as a title; and these numbers.

    config, found: what `config.json` and `results.json` hold.
    """
    data, classes = config['data'], len(found['class_names'])
    paper = published(data['source'], classes, data.get('extra', ''))
    title = f'{data["source"]}{" + " + data["extra"] if data.get("extra") else ""}, {classes} classes'
    return title + (f'; published: {paper.protocol}' if paper else ''), paper


def beside_published(config: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, Rows]:
    """A run beside the paper: a title, and rows as long as COLUMNS; '' where there is no number.

    config, found: see `of_run`.
    """
    title, paper = of_run(config, found)
    numbers = paper.methods if paper else {}
    rows = [row(name, found['methods'].get(method), numbers.get(method)) for method, name in results.TITLES.items()]
    rows = [cells for cells in rows if any(cells[1:])]
    others = sorted(paper.others.items(), key=lambda item: item[1]) if paper else []
    return title, rows + [(name, '', '', f'{value:g}', '', '') for name, value in others]


def on_validation(found: Mapping[str, Any]) -> Rows:
    """Rows like those of `beside_published` for the same nets on the validation images; none where there are none."""
    watched = {name: method['validation'] for name, method in found['methods'].items() if 'validation' in method}
    return [
        row(f'{title}, validation images', watched[name], None)
        for name, title in results.TITLES.items()
        if name in watched
    ]


def row(title: str, method: Mapping[str, Any] | None, paper: float | None) -> tuple[str, ...]:
    """Cells of COLUMNS behind a title: the figures of a method as `results.join` makes them, and a published accuracy.

    `method` is None where it was not run, `paper` where nobody published one.
    """
    told = '' if paper is None else f'{paper:g}'
    if method is None:
        return (title, '', '', told, '', '')
    ours = 100 * method['mean']['accuracy']
    difference = '' if paper is None else f'{ours - paper:+.1f}'
    cells = [results.spread(method, figure) for figure in ('accuracy', 'class_averaged_accuracy')]
    return (title, *cells, told, difference, str(len(method['folds'])))
