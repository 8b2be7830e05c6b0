"""Opens the sets a run names: rendered faces, a user's CSV, a user's folder."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from fn2en_jax.data import folds, store, tables
from fn2en_jax.data.builders import synthetic_faces, table_faces
from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError

SYNTHETIC = 'synthetic'
MakeBuilder = Callable[..., Any]  # called with data_dir=, gives a TFDS builder


@dataclasses.dataclass(frozen=True)
class Data:
    """The sets of a run.

    Attributes:
        expressions: labelled faces.
        identities: faces of persons, for the face net; None when the run needs none.
        fingerprint: of both, '' for identities that were not opened; changes when any picture or word changes.
    """

    expressions: Examples
    identities: Examples | None
    fingerprint: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How sets are kept and read.

    Attributes:
        data_dir: where prepared sets are stored.
        stored_size: side of the images, pixels.
        channels: 1 (grey) or 3 (RGB).
        in_memory_bytes: larger sets stay on disk.
        synthetic: persons, images and seed of rendered sets; see `configs/base.py`.
    """

    data_dir: str
    stored_size: int
    channels: int
    in_memory_bytes: int
    synthetic: Mapping[str, int]


def open_data(source: str, expressions: str, identities: str, reading: Reading, *, need_identities: bool) -> Data:
    """Prepares what is not prepared yet and reads it.

    Args:
        source: 'synthetic', 'csv' or 'folder': where labelled faces come from.
        expressions: the CSV or the folder.
        identities: a CSV, 'synthetic', or '' for none; rendered expressions come with rendered identities.
        reading: how.
        need_identities: whether a face net will be trained.

    Raises:
        UserError: for an unknown source, a missing path, and whatever is wrong with the files.
    """
    if source not in (SYNTHETIC, 'csv', 'folder'):
        raise UserError(f"config.data.source is {source!r}; use 'synthetic', 'csv' or 'folder'")
    if source != SYNTHETIC and not expressions:
        raise UserError(f'config.data.source is {source!r}: name the {source} with --config.data.expressions=PATH')
    labelled = _open_expressions(source, expressions, reading)
    if not (need_identities and (identities or source == SYNTHETIC)):
        return Data(labelled.examples, None, {'expressions': labelled.mark, 'identities': ''})
    persons = _open_identities(identities or SYNTHETIC, reading)
    _warn_of_shared(persons, labelled)
    marks = {'expressions': labelled.mark, 'identities': persons.mark}
    return Data(labelled.examples, persons.examples, marks)


def open_csv(path: str, class_names: tuple[str, ...], reading: Reading) -> Examples:
    """Reads a user's CSV for evaluation: its classes must be among `class_names`, and may be fewer.

    Raises:
        UserError: for whatever is wrong with the file.
    """
    table = tables.read_expressions(path, class_names=class_names, complete=False)
    return _load_table(table, reading, class_names).examples


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A set, its fingerprint, and what tells its files' bytes apart (nothing for rendered faces)."""

    examples: Examples
    mark: str
    digests: frozenset[str] = frozenset()


def _open_expressions(source: str, path: str, reading: Reading) -> _Opened:
    if source == SYNTHETIC:
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
    read = tables.read_expressions if source == 'csv' else tables.read_folder
    return _load_table(read(path), reading)


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
    opened = _load(functools.partial(table_faces.TableFaces, config=config), reading, class_names)
    return dataclasses.replace(opened, digests=frozenset(digests))


def _load(make_builder: MakeBuilder, reading: Reading, class_names: tuple[str, ...] | None = None) -> _Opened:
    builder = store.prepare(make_builder, reading.data_dir)
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
