"""Opens a published set: from the licensee's folder to the stored one, with a report of what was found."""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from fn2en_jax.data import archives, listing, preparation, store
from fn2en_jax.data.alignment import FaceStep
from fn2en_jax.data.builders.published_faces import PublishedConfig, PublishedFaces
from fn2en_jax.data.datasets import DATASETS, LISTS, own_landmarks
from fn2en_jax.data.datasets.marks import MARKS
from fn2en_jax.data.records import ABOVE, Dataset, Tree
from fn2en_jax.errors import UserError

MAX_LISTED = 20  # names shown of a long list
# What is wrong with sets that were stored before the state of their folder was.
STALE = {'mmi': 'an older version stored it, which took frames of MPEG-1 clips one too early'}

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

    def flags(self) -> str:
        """How they are asked for, for people."""
        words = [f'--faces={self.mode}'] * bool(self.mode) + ['--no_face=drop'] * (self.no_face == 'drop')
        return ' '.join(words) or 'faces as needed'


# Every way of cutting; as they are, no face is looked for.
ALL_FACES = (*(Faces(mode, no_face) for mode in ('', 'align', 'box') for no_face in ('keep', 'drop')), Faces('none'))


def stored(dataset: Dataset, place: Place, faces: Faces) -> bool:
    """Whether the set is stored with faces cut like that."""
    return _builder(dataset, place, faces).data_path.exists()


def all_stored(dataset: Dataset, place: Place) -> list[Faces]:
    """With which faces the set is stored."""
    return [faces for faces in ALL_FACES if stored(dataset, place, faces)]


def is_there(dataset: Dataset, folder: Path, names: Iterable[str]) -> bool:
    """Whether files of these names in a folder are the set as far as names tell; archives are not looked into."""
    wanted = [f'{_above(folder)}/{name}' for name in names if dataset.wants(name)]
    return all(any(map(listing.ends_as([pattern]), wanted)) for pattern in MARKS[dataset.name].needed)


def part_of(dataset: Dataset, folder: Path) -> Callable[[str], str]:
    """What a file of this name in the folder is called in the set, wherever the folder lies in it; '' for no part of
    the set, as far as names tell. An archive has its own name."""
    marks, above = MARKS[dataset.name], _above(folder)
    matches = listing.ends_as((*marks.needed, *marks.more))

    def part(name: str) -> str:
        if archives.is_archive(name):
            return name.rpartition('/')[2] if dataset.wants(name) else ''
        found = matches(f'{above}/{name}') if dataset.wants(name) else None
        return found['end'] if found else ''

    return part


def prepare(
    dataset: Dataset,
    place: Place,
    faces: Faces,
    *,
    processes: int = 0,
    progress: Progress | None = None,
    on_change: Callable[[str], None] = logging.warning,
) -> tfds.core.DatasetBuilder:
    """The builder of the stored set, which is stored now if it is not yet.

    Args:
        dataset: which.
        place: from where to where.
        faces: how they are cut out.
        processes: see `preparation.prepare`.
        progress: told after each image.
        on_change: told, in one line, of a stored set that was not prepared from the folder as it is now.

    Raises:
        UserError: no folder is named or it is not this set; whatever `archives` and `store` refuse.
        commands.Stopped: after Ctrl-C or SIGTERM; what is finished is kept.
    """
    if stored(dataset, place, faces):
        return _compared(dataset, place, _builder(dataset, place, faces), on_change)
    source = _folder(dataset, place, faces)
    root = Path(place.data_dir).expanduser()
    workshop = root / 'unfinished' / _name(dataset, faces)
    with preparation.alone(workshop, dataset.title):
        if stored(dataset, place, faces):  # by another process, while this one waited
            return _compared(dataset, place, _builder(dataset, place, faces), on_change)
        store.clear_killed(_builder(dataset, place, faces))
        unpacked = root / 'unpacked' / dataset.name
        state = _state(dataset, place)
        tree = Tree(source, archives.unpack(source, unpacked, _unpacking(progress), dataset.wants))
        found = dataset.read(tree)
        step = faces.step(found.faces or dataset.faces)
        found = own_landmarks.put(found, tree, step.mode)
        told = progress and functools.partial(progress, f'preparing images of {dataset.name}')
        each = preparation.prepare(found.records, step, workshop, processes=processes, progress=told)
        with contextlib.closing(each) as prepared:
            make = _make(dataset, faces, found=found, mode=step.mode, prepared=prepared, **state)
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


def verdict(report: Mapping[str, Any]) -> str:
    """'not complete', 'more than published', or '' where a stored set is as published, as far as that is known."""
    numbers = [(number, report['expected'].get(key, number)) for key, number in report['stored'].items()]
    if report['missing'] or report['damaged'] or any(number < told for number, told in numbers):
        return 'not complete'
    return 'more than published' if report.get('surplus') or any(number > told for number, told in numbers) else ''


def warn(dataset: Dataset, report: Mapping[str, Any]) -> None:
    """One warning where a set is not as published."""
    if verdict(report):
        logging.warning('%s is not as published:\n%s', dataset.title, '\n'.join(report_lines(dataset, report)))
    else:
        warn_of_faceless(dataset.title, report)


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f'    ... and {len(names) - MAX_LISTED} more'] if len(names) > MAX_LISTED else []
    return [f'  {title} {len(names)}:', *(f'    {name}' for name in names[:MAX_LISTED]), *more]


def _above(folder: Path) -> str:
    """The end of a folder's path: users may name one inside of the set."""
    return '/'.join(Path(os.path.abspath(folder)).parts[-ABOVE:])


def _state(dataset: Dataset, place: Place) -> dict[str, Any]:
    """What a set that is stored today is to know of the folder of its download, see `PublishedFaces`."""
    folder, own = (Path(path).expanduser() for path in (place.manual_dir, place.data_dir))
    part, is_list = part_of(dataset, folder), listing.ends_as(list(map(re.escape, LISTS[dataset.name])))
    lists: dict[str, Path] = {}
    files: list[tuple[str, os.DirEntry[str]]] = []
    packed: list[tuple[str, os.DirEntry[str]]] = []
    for name, entry in listing.files(folder, [own / 'unpacked']):
        if is_list(name):
            lists[name] = Path(entry.path)
        elif called := part(name):
            (packed if archives.is_archive(name) else files).append((called, entry))
    if not is_there(dataset, folder, (name for name, _ in files)):  # else archives may be of other sets
        files += packed
    found = {'files': len(files), 'digest': listing.digest(files), 'date': datetime.date.today().isoformat()}
    return {'lists': _lists(dataset, lists), 'download': found}


def _lists(dataset: Dataset, files: Mapping[str, Path]) -> dict[str, str]:
    """The digests of the user's own lists, by their names."""
    found = {}
    for name in LISTS[dataset.name]:
        if paths := sorted(filter(listing.ends_as([re.escape(name)]), files)):
            found[name] = _digest(files[paths[0]])
    return found


def _digest(path: Path) -> str:
    try:
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError:  # whoever prepares from it is told; a stored set does not need it
        return 'unreadable'


def _compared(
    dataset: Dataset, place: Place, builder: tfds.core.DatasetBuilder, on_change: Callable[[str], None]
) -> tfds.core.DatasetBuilder:
    """The builder; where the folder is there and not as it was when the set was prepared, that is told."""
    folder, then = Path(place.manual_dir).expanduser(), builder.info.metadata
    if place.manual_dir and os.path.isdir(folder):  # sets that are stored need no folder
        now = _state(dataset, place)
        stale = STALE.get(dataset.name, '') if 'download' not in then else ''
        changes = [stale, *_other_lists(then, now, folder), _other_files(then, now, folder)]
        if not now['download']['files']:
            on_change(f'{dataset.title} is stored already, and is used; nothing of it is in {folder}')
        elif change := '; '.join(filter(None, changes)):
            on_change(
                f'{dataset.title} is stored already; {change}; delete {builder.data_path} or name another data_dir to '
                'prepare anew, or leave manual_dir out to use it as it is'
            )
    return builder


def _other_lists(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> Iterator[str]:
    before, after = then.get('lists', now['lists']), now['lists']
    for name in sorted({*before, *after}):
        unused = name == own_landmarks.LIST and then.get('faces') == 'none'
        if before.get(name) != after.get(name) and not unused:
            how = 'added to' if name not in before else 'removed from' if name not in after else 'changed in'
            yield f'{name} has been {how} {folder} since, which is not used'


def _other_files(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> str:
    before, after = then.get('download', now['download']), now['download']
    if before['digest'] == after['digest']:
        return ''
    return (
        f'{folder} has changed since the set was prepared, on {before["date"]}, or is another folder '
        f'({before["files"]} files then, {after["files"]} now), and is not used'
    )


def _unpacking(progress: Progress | None) -> Progress | None:
    return progress and (lambda name, done, total: progress(f'unpacking {name}, bytes', done, total))


def _folder(dataset: Dataset, place: Place, faces: Faces) -> Path:
    if not place.manual_dir:
        if others := ' or '.join(other.flags() for other in all_stored(dataset, place)):
            raise UserError(
                f'{dataset.title} is prepared in {place.data_dir} with {others}, not with {faces.flags()}: ask for it '
                'like that (config.data.faces and config.data.no_face of launch.py), or name the folder of your '
                'download with --manual_dir=PATH (--config.data.manual_dir=PATH) to prepare it as you ask for it now'
            )
        raise UserError(
            f'{dataset.title} is not prepared in {place.data_dir}; name the folder of your download with '
            '--config.data.manual_dir=PATH (of launch.py) or --manual_dir=PATH (of fn2en_jax.datasets); '
            f'expected there: {dataset.layout}. To get it: {dataset.access}'
        )
    folder = Path(place.manual_dir).expanduser()
    if not os.path.isdir(folder):
        raise UserError(f'{folder}: no such folder; expected there for {dataset.title}: {dataset.layout}')
    return folder


def _name(dataset: Dataset, faces: Faces) -> str:
    return '-'.join([dataset.name, *faces.words()])


def _builder(dataset: Dataset, place: Place, faces: Faces) -> tfds.core.DatasetBuilder:
    return store.open_builder(_make(dataset, faces), Path(place.data_dir).expanduser())


def _make(dataset: Dataset, faces: Faces, **needed: Any) -> Callable[..., tfds.core.DatasetBuilder]:
    return functools.partial(PublishedFaces, config=PublishedConfig(name=_name(dataset, faces), **needed))
