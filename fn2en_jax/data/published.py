"""Opens a published set: from the licensee's folder to the stored one, with a report of what was found."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from fn2en_jax.data import archives, preparation, store
from fn2en_jax.data.alignment import FaceStep
from fn2en_jax.data.builders.published_faces import PublishedConfig, PublishedFaces
from fn2en_jax.data.datasets import DATASETS, LISTS, own_landmarks
from fn2en_jax.data.records import Dataset, Tree
from fn2en_jax.errors import UserError

MAX_LISTED = 20  # names shown of a long list

Progress = Callable[[str, int, int], None]  # called with what is done, how far it is, and of how much


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a set comes from and where it is stored.

    Attributes:
        manual_dir: the licensee's folder, '' where the set is stored already.
        data_dir: root folder of all stored sets.
    """

    manual_dir: str
    data_dir: str


def find(name: str) -> Dataset:
    """The set of this name; raises UserError for an unknown one."""
    if name not in DATASETS:
        raise UserError(f'unknown data set {name!r}; there are {", ".join(DATASETS)}')
    return DATASETS[name]


@dataclasses.dataclass(frozen=True)
class Faces:
    """How faces are to be cut out.

    Attributes:
        mode: 'align', 'box', 'none', or '' for what the edition of the set needs.
        no_face: 'keep' the centre of an image without a face, or 'drop' it.
    """

    mode: str = ''
    no_face: str = 'keep'

    def step(self, needed: str) -> FaceStep:
        """The step where `needed` is what the images need."""
        mode = self.mode or needed
        return FaceStep(mode, no_face=self.no_face) if mode != 'none' else FaceStep('none')

    def words(self) -> list[str]:
        """What tells sets with differently cut faces apart, as parts of a name."""
        return [self.mode or 'as_needed', *preparation.words(self.step('align'))[1:]]


def stored(dataset: Dataset, place: Place, faces: Faces) -> bool:
    """Whether the set is stored with faces cut like that."""
    return _builder(dataset, place, faces).data_path.exists()


def prepare(
    dataset: Dataset, place: Place, faces: Faces, *, processes: int = 0, progress: Progress | None = None
) -> tfds.core.DatasetBuilder:
    """The builder of the stored set, which is stored now if it is not yet.

    A stored set that was prepared with other lists of the user's than those now in the folder is warned of.

    Args:
        dataset: which.
        place: from where to where.
        faces: how they are cut out.
        processes: see `preparation.prepare`.
        progress: told after each image.

    Raises:
        UserError: no folder is named or it is not this set; whatever `archives` and `store` refuse.
        commands.Stopped: after Ctrl-C or SIGTERM; what is finished is kept.
    """
    if stored(dataset, place, faces):
        builder = _builder(dataset, place, faces)
        _warn_of_lists(dataset, place, builder)
        return builder
    source = _folder(dataset, place)
    root = Path(place.data_dir).expanduser()
    workshop = root / 'unfinished' / _name(dataset, faces)
    with preparation.alone(workshop, dataset.title):
        if stored(dataset, place, faces):  # by another process, while this one waited
            return _builder(dataset, place, faces)
        store.clear_killed(_builder(dataset, place, faces))
        unpacked = root / 'unpacked' / dataset.name
        lists = _lists(dataset, source)
        tree = Tree(source, archives.unpack(source, unpacked, _unpacking(progress), dataset.wants))
        found = dataset.read(tree)
        step = faces.step(found.faces or dataset.faces)
        found = own_landmarks.put(found, tree, step.mode)
        told = progress and functools.partial(progress, f'preparing images of {dataset.name}')
        each = preparation.prepare(found.records, step, workshop, processes=processes, progress=told)
        with contextlib.closing(each) as prepared:
            make = _make(dataset, faces, found=found, mode=step.mode, prepared=prepared, lists=lists)
            builder = store.prepare(make, place.data_dir)
        preparation.clear(workshop)
        preparation.clear(unpacked)
    return builder


def report_lines(dataset: Dataset, report: Mapping[str, Any]) -> list[str]:
    """What a stored set holds, line by line: expected and found numbers, then names."""
    expected, numbers = report['expected'], report['stored']
    width = max(len(key) for key in ('class', *numbers))
    lines = [f'{dataset.title}: {report["edition"]}, {sum(numbers.values())} images']
    lines.append(f'  {"class":{width}}{"expected":>10}{"found":>8}')
    for key, number in numbers.items():
        told = expected.get(key, 0) if expected else '-'
        lines.append(f'  {key:{width}}{told:>10}{number:>8}' + ('' if told in (number, '-') else '  differs'))
    titles = {'missing': 'missing', 'surplus': 'more than published', 'damaged': 'damaged', 'skipped': 'passed over'}
    for key, title in {**titles, 'no_face': _faceless(report)}.items():
        lines.extend(_listed(title, report.get(key, ())))  # sets that were stored before it was told have no surplus
    return lines


def warn_of_faceless(title: str, report: Mapping[str, Any]) -> None:
    """One warning that names the images in which no face was found, and says what became of them."""
    if report['no_face']:
        logging.warning('%s:\n%s', title, '\n'.join(_listed(_faceless(report), report['no_face'])))


def _faceless(report: Mapping[str, Any]) -> str:
    kept = report.get('no_face_kept')  # unknown of sets that were stored before it was told
    became = '' if kept is None else ' and dropped' if not kept else ' and kept the centre of'
    return f'no face found in{became}'


def warn(dataset: Dataset, report: Mapping[str, Any]) -> None:
    """One warning where a set is not as published."""
    differing = [key for key, number in report['stored'].items() if report['expected'].get(key, number) != number]
    if differing or report['missing'] or report['damaged'] or report.get('surplus'):
        logging.warning('%s is not as published:\n%s', dataset.title, '\n'.join(report_lines(dataset, report)))
    else:
        warn_of_faceless(dataset.title, report)


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f'    ... and {len(names) - MAX_LISTED} more'] if len(names) > MAX_LISTED else []
    return [f'  {title} {len(names)}:', *(f'    {name}' for name in names[:MAX_LISTED]), *more]


def _lists(dataset: Dataset, folder: Path) -> dict[str, str]:
    """The digests of the user's own lists in the folder, by their names."""
    if dataset.name not in LISTS:
        return {}
    tree = Tree(folder)
    found = {name: path for name in LISTS[dataset.name] for _, path in itertools.islice(tree.match(re.escape(name)), 1)}
    return {name: _digest(path) for name, path in found.items()}


def _digest(path: Path) -> str:
    try:
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error


def _warn_of_lists(dataset: Dataset, place: Place, builder: tfds.core.DatasetBuilder) -> None:
    folder, then = Path(place.manual_dir).expanduser(), builder.info.metadata.get('lists')
    if not place.manual_dir or not folder.is_dir() or then is None:  # sets that are stored need no folder
        return
    now = _lists(dataset, folder)
    if changed := [name for name in LISTS.get(dataset.name, ()) if then.get(name) != now.get(name)]:
        logging.warning(
            '%s was prepared with another %s than %s has now, which is not used; '
            'prepare into another data_dir or delete %s',
            dataset.title,
            ' and '.join(changed),
            folder,
            builder.data_path,
        )


def _unpacking(progress: Progress | None) -> Progress | None:
    return progress and (lambda name, done, total: progress(f'unpacking {name}, bytes', done, total))


def _folder(dataset: Dataset, place: Place) -> Path:
    if not place.manual_dir:
        raise UserError(
            f'{dataset.title} is not prepared in {place.data_dir}; name the folder of your download with '
            '--config.data.manual_dir=PATH (of launch.py) or --manual_dir=PATH (of fn2en_jax.datasets); '
            f'expected there: {dataset.layout}. To get it: {dataset.access}'
        )
    folder = Path(place.manual_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder; expected there for {dataset.title}: {dataset.layout}')
    return folder


def _name(dataset: Dataset, faces: Faces) -> str:
    return '-'.join([dataset.name, *faces.words()])


def _builder(dataset: Dataset, place: Place, faces: Faces) -> tfds.core.DatasetBuilder:
    return store.open_builder(_make(dataset, faces), Path(place.data_dir).expanduser())


def _make(dataset: Dataset, faces: Faces, **needed: Any) -> Callable[..., tfds.core.DatasetBuilder]:
    return functools.partial(PublishedFaces, config=PublishedConfig(name=_name(dataset, faces), **needed))
