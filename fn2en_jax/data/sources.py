"""Opens the sets a run names: rendered faces, a user's CSV or folder, a published set."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from fn2en_jax.data import folds, preparation, protocols, published, store, tables
from fn2en_jax.data.alignment import FaceStep
from fn2en_jax.data.builders import schema, synthetic_faces, table_faces
from fn2en_jax.data.datasets import DATASETS
from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError

SYNTHETIC = 'synthetic'
OWN = (SYNTHETIC, 'csv', 'folder')  # sources that need no licence
MakeBuilder = Callable[..., Any]  # called with data_dir=, gives a TFDS builder


@dataclasses.dataclass(frozen=True)
class Data:
    """The sets of a run.

    Attributes:
        expressions: labelled faces.
        identities: faces of persons, for the face net; None when the run needs none.
        fingerprint: of both, '' for identities that were not opened; changes when any word or a user's picture does. Of
            published sets also 'stored_bytes', how many bytes their stored images have together.
        faces: how the faces of `expressions` were cut out: 'align', 'box' or 'none'.
        found: what was found in the download of a published set, line by line; empty for others.
    """

    expressions: Examples
    identities: Examples | None
    fingerprint: Mapping[str, str]
    faces: str = 'none'
    found: tuple[str, ...] = ()

    def is_of(self, fingerprint: Mapping[str, str]) -> bool:
        """Whether the labelled faces are those of a run's fingerprint; older ones do not know `stored_bytes`."""
        now, then = self.fingerprint, fingerprint
        stored = then.get('stored_bytes', '')
        return now['expressions'] == then.get('expressions') and stored in ('', now.get('stored_bytes', ''))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which sets a run wants.

    Attributes:
        source: 'synthetic', 'csv', 'folder' or the name of a published set: where labelled faces come from.
        expressions: the CSV or the folder.
        identities: a CSV, 'synthetic', or '' for none; rendered expressions come with rendered identities.
        manual_dir: folder of the download of a published set; needed until it is stored.
        choice: how a published set is used.
        extra: another published set that joins the training part, '' for none.
        extra_manual_dir: folder of its download.
    """

    source: str
    expressions: str = ''
    identities: str = ''
    manual_dir: str = ''
    choice: protocols.Choice = dataclasses.field(default_factory=protocols.Choice)
    extra: str = ''
    extra_manual_dir: str = ''

    def for_published(self) -> list[str]:
        """The keys of the config that are set and mean something for published sets only."""
        choice = self.choice
        values = {
            'manual_dir': self.manual_dir,
            'classes': choice.classes,
            'fold_rule': choice.rule,
            'fold_subjects': choice.subjects if choice.subjects != protocols.Choice().subjects else '',
            'test_split': choice.test,
            'extra': self.extra,
            'extra_manual_dir': self.extra_manual_dir,
        }
        return [key for key, value in values.items() if value]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How sets are kept and read.

    Attributes:
        data_dir: where prepared sets are stored.
        stored_size: side of the images, pixels.
        channels: 1 (grey) or 3 (RGB).
        in_memory_bytes: larger sets stay on disk.
        synthetic: persons, images and seed of rendered sets; see `configs/base.py`.
        faces: how faces are cut out of published sets and users' photographs: 'align', 'box', 'none', or '' for what
            a published set needs (none for photographs).
        no_face: 'keep' the centre of an image without a face, or 'drop' it.
        progress: told how many images are prepared, and of how many.
    """

    data_dir: str
    stored_size: int
    channels: int
    in_memory_bytes: int
    synthetic: Mapping[str, int]
    faces: str = ''
    no_face: str = 'keep'
    progress: published.Progress | None = None


def open_data(wanted: Wanted, reading: Reading, *, need_identities: bool) -> Data:
    """Prepares what is not prepared yet and reads it.

    Args:
        wanted: which sets.
        reading: how.
        need_identities: whether a face net will be trained.

    Raises:
        UserError: for an unknown source, a missing path, and whatever is wrong with the files.
        commands.Stopped: after Ctrl-C or SIGTERM while faces are prepared; what is finished is kept.
    """
    source, identities = wanted.source, wanted.identities
    if source not in (*OWN, *DATASETS):
        raise UserError(f'config.data.source is {source!r}; use one of {", ".join((*OWN, *DATASETS))}')
    if source in ('csv', 'folder') and not wanted.expressions:
        raise UserError(f'config.data.source is {source!r}: name the {source} with --config.data.expressions=PATH')
    _refuse_unread(wanted)
    labelled = _open_published(wanted, reading) if source in DATASETS else _open_expressions(wanted, reading)
    marks = {'expressions': labelled.mark, 'identities': ''}
    if labelled.num_bytes:
        marks['stored_bytes'] = labelled.num_bytes
    if not (need_identities and (identities or source == SYNTHETIC)):
        return Data(labelled.examples, None, marks, labelled.faces, labelled.found)
    persons = _open_identities(identities or SYNTHETIC, reading)
    _warn_of_shared(persons, labelled)
    marks['identities'] = persons.mark
    return Data(labelled.examples, persons.examples, marks, labelled.faces, labelled.found)


def _refuse_unread(wanted: Wanted) -> None:
    source = wanted.source
    if source in OWN and (of_published := wanted.for_published()):
        raise UserError(f'config.data.{of_published[0]} is for published sets; config.data.source is {source!r}')
    if wanted.expressions and source not in ('csv', 'folder'):
        raise UserError(f'config.data.expressions is for the sources csv and folder; config.data.source is {source!r}')
    if wanted.extra_manual_dir and not wanted.extra:
        raise UserError('config.data.extra_manual_dir is the download of config.data.extra, which names no set')


def open_csv(path: str, class_names: tuple[str, ...], reading: Reading) -> Examples:
    """Reads a user's CSV for evaluation: its classes must be among `class_names`, and may be fewer.

    Raises:
        UserError: for whatever is wrong with the file.
    """
    table = tables.read_expressions(path, class_names=class_names, complete=False)
    return _load_table(table, reading, class_names).examples


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A set, its fingerprint, what tells its files' bytes apart (nothing for rendered faces), how faces were cut, and
    of a published set what was found and how many bytes its stored images have."""

    examples: Examples
    mark: str
    digests: frozenset[str] = frozenset()
    faces: str = 'none'
    found: tuple[str, ...] = ()
    num_bytes: str = ''


def _open_published(wanted: Wanted, reading: Reading) -> _Opened:
    """The set as its protocol uses it, with the extra set behind it."""
    if wanted.extra:
        protocols.check_extra(wanted.source, wanted.extra)
    opened = _load_published(wanted.source, wanted.manual_dir, reading)
    examples = protocols.apply(wanted.source, opened.examples, wanted.choice)
    if not wanted.extra:
        return dataclasses.replace(opened, examples=examples)
    extra = _load_published(wanted.extra, wanted.extra_manual_dir, reading)
    joined = protocols.join(examples, extra.examples, wanted.extra)
    found, num_bytes = opened.found + extra.found, f'{opened.num_bytes}+{extra.num_bytes}'
    mark = f'{opened.mark}+{extra.mark}'
    return dataclasses.replace(opened, examples=joined, mark=mark, found=found, num_bytes=num_bytes)


def _load_published(name: str, manual_dir: str, reading: Reading) -> _Opened:
    dataset = published.find(name)
    place = published.Place(manual_dir, reading.data_dir)
    faces = published.Faces(reading.faces, reading.no_face)
    builder = published.prepare(dataset, place, faces, progress=reading.progress)
    report = builder.info.metadata
    published.warn(dataset, report)
    opened = _read(builder, reading)
    # The name of a published set says nothing of the edition that was prepared. Reading all pixels takes too long at
    # every start; other pictures under the same names hardly ever have the same number of bytes. It is kept apart: the
    # same pictures have another number where another build of the PNG encoder stored them.
    examples, num_bytes = opened.examples, str(builder.info.splits[schema.SPLIT].num_bytes)
    content = [examples.files, examples.class_names, examples.labels.tolist()]
    mark = f'{opened.mark}/{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}'
    found = tuple(published.report_lines(dataset, report))
    return dataclasses.replace(opened, mark=mark, faces=report['faces'], found=found, num_bytes=num_bytes)


def _open_expressions(wanted: Wanted, reading: Reading) -> _Opened:
    if wanted.source == SYNTHETIC:
        counts = reading.synthetic
        return _load(
            _rendered(
                'expressions',
                reading,
                persons=counts['train_persons'],
                per_person=counts['train_images'],
                test_persons=counts['test_persons'],
                test_per_person=counts['test_images'],
            ),
            reading,
        )
    read = tables.read_expressions if wanted.source == 'csv' else tables.read_folder
    return _load_table(read(wanted.expressions), reading)


def _open_identities(path: str, reading: Reading) -> _Opened:
    if path == SYNTHETIC:
        counts = reading.synthetic
        persons, images = counts['identity_persons'], counts['identity_images']
        return _load(_rendered('identities', reading, persons=persons, per_person=images), reading)
    return _load_table(tables.read_identities(path), reading)


def _rendered(kind: str, reading: Reading, **counts: int) -> MakeBuilder:
    fields = {'size': reading.stored_size, 'channels': reading.channels, 'seed': reading.synthetic['seed'], **counts}
    return lambda data_dir: synthetic_faces.builder(kind, data_dir=data_dir, **fields)


def _load_table(table: tables.Table, reading: Reading, class_names: tuple[str, ...] | None = None) -> _Opened:
    config = table_faces.table_config(table)
    digests = config.digests or ()
    tables.warn_of_copies(table, digests)
    faces = reading.faces or 'none'
    if faces == 'none':
        if table.points:
            logging.warning(
                '%s: its landmarks are not used; --config.data.faces=align cuts faces by them', table.source
            )
        opened = _load(functools.partial(table_faces.TableFaces, config=config), reading, class_names)
    else:
        opened = _load_faces(config, table, reading, class_names)
    return dataclasses.replace(opened, digests=frozenset(digests), faces=faces)


def _load_faces(
    config: table_faces.TableConfig, table: tables.Table, reading: Reading, class_names: tuple[str, ...] | None
) -> _Opened:
    """The faces in the images of a table, cut out when they are stored."""
    root = Path(reading.data_dir).expanduser()
    workshop = root / 'unfinished' / config.name
    told = reading.progress and functools.partial(reading.progress, f'preparing images of {table.source.name}')
    step = FaceStep(reading.faces, no_face=reading.no_face)
    cut = table_faces.with_faces(config, table, step, workshop, told)
    make = functools.partial(table_faces.TableFaces, config=cut)
    if not store.open_builder(make, root).data_path.exists():
        with preparation.alone(workshop, str(table.source)):
            store.clear_killed(store.open_builder(make, root))
            store.prepare(make, root)
            preparation.clear(workshop)
    published.warn_of_faceless(table.source.name, store.open_builder(make, root).info.metadata)
    return _load(make, reading, class_names)


def _load(make_builder: MakeBuilder, reading: Reading, class_names: tuple[str, ...] | None = None) -> _Opened:
    return _read(store.prepare(make_builder, reading.data_dir), reading, class_names)


def _read(builder: Any, reading: Reading, class_names: tuple[str, ...] | None = None) -> _Opened:
    examples = store.load(
        builder,
        size=reading.stored_size,
        channels=reading.channels,
        class_names=class_names,
        in_memory_bytes=reading.in_memory_bytes,
    )
    return _Opened(examples, f'{builder.name}/{builder.builder_config.name}/{builder.version}')


def _warn_of_shared(identities: _Opened, expressions: _Opened) -> None:
    shared = folds.shared_persons(identities.examples, expressions.examples)
    if shared:
        logging.warning(
            '%d persons are in both sets, so the face net will have seen persons who are tested: %s%s',
            len(shared),
            ', '.join(shared[:5]),
            ' ...' if len(shared) > 5 else '',
        )
    if same := len(identities.digests & expressions.digests):
        logging.warning('%d images are in both sets, so the face net will have seen images that are tested', same)
