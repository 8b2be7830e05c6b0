"""A user's own photographs, stored once through TFDS."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fn2en_jax.data import images, preparation, tables
from fn2en_jax.data.alignment import FaceStep
from fn2en_jax.data.builders import schema
from fn2en_jax.data.builders.in_order import InOrderBuilder
from fn2en_jax.data.preparation import Prepared
from fn2en_jax.data.records import Record
from fn2en_jax.errors import UserError

HASHED_BYTES = 1 << 30  # up to this total the pixels decide whether a set has changed, above it size and date


@dataclasses.dataclass(eq=False)
class TableConfig(tfds.core.BuilderConfig):
    """Names one state of one table: another word or pixel gives another `name`, hence another folder.

    `digests` tell the bytes of the files apart, N strings; None where the files are too many bytes to read. `faces` are
    cut out of the N images; None where these are stored as they are.
    """

    table: tables.Table | None = dataclasses.field(default=None, repr=False)
    digests: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)
    faces: Iterable[Prepared] | None = dataclasses.field(default=None, repr=False)


class TableFaces(InOrderBuilder):
    """TFDS builder over a checked table; image files are stored as they are wherever TFDS can read them.

    Usage: `TableFaces(config=table_config(table), data_dir=...)`, most easily through `store.prepare`. Its
    `info.metadata` names the images in which no face was found, as `published_faces.report` does.
    """

    VERSION = tfds.core.Version('1.2.0')

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description='Photographs listed by a table of the user.',
            features=schema.features(),
            disable_shuffling=True,  # the order of the table is kept
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        tables.verify(self._table)  # before the first byte is written, and naming every bad file at once
        return {schema.SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        table = self._table
        faces = self.builder_config.faces
        whole = (Prepared(_storable(path)) for path in table.paths)
        faceless, count = [], 0
        for row, face in enumerate(whole if faces is None else faces):
            if face.fault:  # only now: `verify` has read it
                raise UserError(f'{table.paths[row]}: {face.fault}')
            if face.no_face:
                faceless.append(table.files[row])
            if face.encoded:  # else it shows no face, and such images were to be dropped
                yield row, _example(table, row, face)
                count += 1
        self.info.metadata.update(no_face=faceless, no_face_kept=len(faceless) + count - len(table))
        if not count:
            raise UserError(f'{table.source}: no image is left, since no face was found in any')

    @property
    def told(self) -> bool:
        return self.builder_config.faces is not None

    @property
    def _table(self) -> tables.Table:
        return self.builder_config.table

    def _create_builder_config(self, builder_config: TableConfig, version: str | None) -> TableConfig:
        """Every config is made for its table; TFDS would warn that it is not among those of the class."""
        del version
        return builder_config


def _example(table: tables.Table, row: int, face: Prepared) -> dict[str, Any]:
    return schema.example(
        face.encoded,
        label=table.labels[row],
        file=table.files[row],
        subject=table.subjects[row] if table.subjects else '',
        fold=table.folds[row] if table.folds else schema.NO_FOLD,
        split=table.splits[row] if table.splits else '',
        face=face.face,
        box=face.box or schema.UNKNOWN,
        eyes=face.eyes or schema.UNKNOWN,
    )


def with_faces(
    config: TableConfig,
    table: tables.Table,
    step: FaceStep,
    workshop: Path,
    progress: Callable[[int, int], None] | None,
) -> TableConfig:
    """The config of the same table with the faces cut out of its images, which is done when they are stored.

    Args:
      config: the table's, from `table_config`.
      table: the table.
      step: how faces are cut out.
      workshop, progress: see `preparation.prepare`.
    """
    return TableConfig(
        name='-'.join([config.name, *preparation.words(step)]),
        table=table,
        digests=config.digests,
        faces=_Faces(table, step, workshop, progress),
    )


@dataclasses.dataclass(frozen=True)
class _Faces:
    """The faces of a table's images, prepared when they are asked for."""

    table: tables.Table
    step: FaceStep
    workshop: Path
    progress: Callable[[int, int], None] | None

    def __iter__(self) -> Iterator[Prepared]:
        table = self.table
        points: Sequence[Any] = table.points or [None] * len(table)
        records = [
            Record(path, file, label, points=five)
            for path, file, label, five in zip(table.paths, table.files, table.labels, points, strict=True)
        ]
        each = preparation.prepare(records, self.step, self.workshop, progress=self.progress)
        with contextlib.closing(each) as prepared:
            for _, face in prepared:
                yield face


def table_config(table: tables.Table) -> TableConfig:
    """The config of this table in its present state, named `<stem of the source>-<content hash>`.

    The hash covers every row and every image: the bytes of the files where they are HASHED_BYTES together at
    most, else their sizes and times of change. It does not cover class names, which are not stored.

    Raises:
      UserError: an image cannot be read.
    """
    stem = re.sub('[^a-z0-9]+', '_', table.source.resolve().stem.lower()).strip('_') or 'table'
    stats = [_stat(path) for path in table.paths]
    digests = None
    if sum(size for size, _ in stats) <= HASHED_BYTES:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            digests = tuple(pool.map(_digest, table.paths))
    columns = [table.files, table.labels, table.subjects, table.folds, table.splits, table.points, digests or stats]
    content = hashlib.sha256(json.dumps(columns).encode()).hexdigest()
    return TableConfig(name=f'{stem}-{content[:16]}', table=table, digests=digests)


def _digest(path: Path) -> str:
    return hashlib.sha256(_bytes(path)).hexdigest()


def _stat(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    return found.st_size, found.st_mtime_ns


def _storable(path: Path) -> bytes:
    data = _bytes(path)
    try:
        return images.storable(data)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
