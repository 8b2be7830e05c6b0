"""Between TFDS on disk and `Examples` in memory: writing a set once, and reading it back decoded."""

import concurrent.futures
import contextlib
import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from google.protobuf import json_format
from google.protobuf import message as protobuf_message
from tensorflow_datasets.core import file_adapters

from fn2en_jax.data import images
from fn2en_jax.data.builders import schema
from fn2en_jax.data.examples import Examples
from fn2en_jax.errors import UserError

_CHUNK = 64  # records read and decoded by one thread at a time
COLUMNS_FILE = 'columns.msgpack'  # of sets that stay on disk
_COLUMNS = ('file', 'label', 'subject', 'fold', 'split', 'sequence', 'frame', 'folds')

# How ArrayRecord words what the operating system refused, for example "write() failed: No space left on
# device; ...".
_SYSTEM_FAULT = re.compile(r'\w+\(\) failed: ([^;]+)')

# What ArrayRecord, protobuf and TFDS raise over a damaged file.
_READ_FAULTS = (RuntimeError, ValueError, KeyError, IndexError, protobuf_message.DecodeError)


def prepare(make_builder: Callable[..., tfds.core.DatasetBuilder], data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """Stores a set below `data_dir` unless it is there already; a failure leaves nothing half-written.

    Args:
      make_builder: called with the keyword `data_dir`: a builder class, or `functools.partial` of one with
        its config.
      data_dir: root folder of all stored sets; created where needed.

    Returns:
      The builder of the stored set.

    Raises:
      UserError: the folder cannot be written, the disk is full, a source image is bad, or the stored set is
        damaged.
    """
    data_dir = Path(data_dir).expanduser()
    with _disk_faults(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
    builder = open_builder(make_builder, data_dir)
    if not builder.data_path.exists():
        _write(builder, data_dir)
        builder = open_builder(make_builder, data_dir)
    if schema.SPLIT not in builder.info.splits:
        raise _damaged(builder, 'it lacks its description')
    return builder


def load(
    builder: tfds.core.DatasetBuilder,
    *,
    size: int,
    channels: int,
    labels: str = 'label',
    class_names: Sequence[str] | None = None,
    in_memory_bytes: int = 4 << 30,
) -> Examples:
    """Reads a stored set, its images cut square and resized (see `images.fit`), in the order of their file
    names.

    Args:
      builder: a builder with the schema of `builders.schema`, already prepared.
      size: side S of the images in pixels.
      channels: C, 1 or 3.
      labels: which field the labels come from, 'label' or 'subject'.
      class_names: the classes in the order of their numbers; None takes the names that occur, sorted.
      in_memory_bytes: sets whose pixels need more than this stay on disk: their `images` is a `StoredImages`.

    Returns:
      N examples; the columns that the set does not know are None.

    Raises:
      UserError: a record or an image is damaged, or a label is not among `class_names`.
    """
    source = _Source(builder)
    stays = len(source) * size * size * channels > in_memory_bytes
    columns = _kept_columns(source) if stays else source.columns()  # those in memory are read as a whole anyway
    order = np.array(sorted(range(len(source)), key=columns['file'].__getitem__), np.int64)
    columns = {name: [column[i] for i in order] for name, column in columns.items()}
    stored = StoredImages(source, order, tuple(columns['file']), size, channels)
    names = tuple(class_names or sorted(set(columns[labels])))
    return Examples(
        images=stored if stays else stored.gather(np.arange(len(stored))),
        labels=_numbers(columns[labels], columns['file'], names, builder),
        class_names=names,
        subjects=tuple(columns['subject']) if any(columns['subject']) else None,
        files=tuple(columns['file']),
        folds=np.array(columns['fold'], np.int32) if max(columns['fold']) >= 0 else None,
        splits=tuple(columns['split']) if any(columns['split']) else None,
        sequences=tuple(columns['sequence']) if any(columns['sequence']) else None,
        frames=np.array(columns['frame'], np.int32) if max(columns['frame']) >= 0 else None,
        official_folds=tuple(columns['folds']) if any(columns['folds']) else None,
    )


class StoredImages:
    """The `Images` of a stored set: read and decoded when asked for, by threads (Pillow frees the GIL)."""

    def __init__(self, source: '_Source', order: np.ndarray, files: tuple[str, ...], size: int, channels: int):
        """`order` [N]: the record of each image; `files`: N names for messages; the rest as in `load`."""
        self._source, self._order, self._files = source, order, files
        self._size, self._channels = size, channels
        self._pool = concurrent.futures.ThreadPoolExecutor()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, C)."""
        return len(self._order), self._size, self._size, self._channels

    @property
    def num_bytes(self) -> int:
        """What all images would take as one array."""
        return int(np.prod(self.shape, dtype=np.int64))

    def gather(self, ids: np.ndarray) -> np.ndarray:
        """The images at positions `ids` [n], as uint8 [n, S, S, C]; raises UserError for a damaged one."""
        ids = np.asarray(ids, np.int64)
        out = np.empty((len(ids), *self.shape[1:]), np.uint8)
        starts = range(0, len(ids), _CHUNK)
        for _ in self._pool.map(lambda start: self._fill(out, ids, start), starts):
            pass  # reraises what a thread raised
        return out

    def _fill(self, out: np.ndarray, ids: np.ndarray, start: int) -> None:
        chunk = ids[start : start + _CHUNK]
        for place, record in enumerate(self._source.read(self._order[chunk]), start):
            file = self._files[ids[place]]
            if record['file'] != file:
                raise _damaged(self._source.builder, f'{record["file"]} stands where {file} was')
            try:
                out[place] = images.fit(images.decode(record['image'], self._channels), self._size)
            except UserError as error:
                raise _damaged(self._source.builder, f'{file}: {error}') from error


class _Source:
    """The records of a stored set, images still encoded."""

    def __init__(self, builder: tfds.core.DatasetBuilder):
        self.builder = builder
        self._data = builder.as_data_source(schema.SPLIT, decoders={'image': tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self._data)

    def read(self, records: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Some records, in the order asked for; text as str."""
        try:
            return [_plain(record) for record in self._data.__getitems__([int(i) for i in records])]
        except _READ_FAULTS as error:
            raise _damaged(self.builder, f'{self._first_bad(records)} ({error})') from error

    def columns(self) -> dict[str, list]:
        """Everything but the images, in the order of storage."""
        columns: dict[str, list] = {name: [] for name in _COLUMNS}
        for start in range(0, len(self), _CHUNK):
            for record in self.read(range(start, min(start + _CHUNK, len(self)))):
                for name, column in columns.items():
                    column.append(record[name])
        return columns

    def _first_bad(self, records: Sequence[int] | np.ndarray) -> str:
        for i in records:
            try:
                _plain(self._data[int(i)])
            except _READ_FAULTS:
                return f'record {int(i)} cannot be read'
        return 'its records cannot be read together'


def _kept_columns(source: _Source) -> dict[str, list]:
    """The columns out of a file beside the shards, made when there is none of just these: they are a thousandth of what
    would have to be read otherwise."""
    folder = Path(source.builder.data_dir)
    state = [
        [path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(folder.glob('*array_record*'))
    ]
    path = folder / COLUMNS_FILE
    if columns := _unpacked(path, state, len(source)):
        return columns
    columns = source.columns()
    packed = msgpack.packb(columns)
    kept = msgpack.packb({'state': state, 'digest': hashlib.sha256(packed).digest(), 'columns': packed})
    temporary = path.with_suffix(f'.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(kept)
        os.replace(temporary, path)
    except OSError as error:  # a full disk, a folder of somebody else: the set is there all the same
        logging.info('%s: cannot be written (%s)', path, error.strerror)
        with contextlib.suppress(OSError):
            temporary.unlink()
    return columns


def _unpacked(path: Path, state: list, count: int) -> dict[str, list] | None:
    """The columns in a file; None where there is none, or it cannot be read, is damaged, or of other shards."""
    try:
        found = msgpack.unpackb(path.read_bytes())
        if not isinstance(found, dict) or found.get('state') != state:
            return None
        packed = found.get('columns')
        if not isinstance(packed, bytes) or hashlib.sha256(packed).digest() != found.get('digest'):
            return None
        columns = msgpack.unpackb(packed)
    except (OSError, ValueError):  # the latter is what all of msgpack's own exceptions are
        return None
    if not isinstance(columns, dict) or columns.keys() != set(_COLUMNS):
        return None
    return columns if all(_is_column(name, column, count) for name, column in columns.items()) else None


def _is_column(name: str, column: Any, count: int) -> bool:
    kind = str if name in schema.TEXTS else int
    return isinstance(column, list) and len(column) == count and all(type(value) is kind for value in column)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    empty = [name for name, value in record.items() if value is None]
    if empty:  # what ArrayRecord returns, without complaint, for some records of a file cut short
        raise ValueError(f'a record without {", ".join(empty)}')
    return {name: value.decode() if name in schema.TEXTS else value for name, value in record.items()}


def _numbers(
    labels: Sequence[str], files: Sequence[str], names: tuple[str, ...], builder: tfds.core.DatasetBuilder
) -> np.ndarray:
    """Label names as int32 [N], indices into `names`."""
    number = {name: k for k, name in enumerate(names)}
    for label, file in zip(labels, files, strict=True):
        if label not in number:
            raise UserError(f'{builder.data_dir}: {file}: unknown class {label!r}; the classes are {", ".join(names)}')
    return np.array([number[label] for label in labels], np.int32)


def open_builder(make_builder: Callable[..., tfds.core.DatasetBuilder], data_dir: Path) -> tfds.core.DatasetBuilder:
    with _disk_faults(data_dir):
        try:
            return make_builder(data_dir=str(data_dir))
        except json_format.ParseError as error:
            raise UserError(f'{data_dir}: the description of a stored set is damaged ({error}); delete it') from error


def clear_killed(builder: tfds.core.DatasetBuilder) -> None:
    """Removes what processes that were killed while they wrote this set have left; none may be writing it now."""
    for folder in builder.data_path.parent.glob(f'incomplete.*_{builder.data_path.name}'):
        shutil.rmtree(folder, ignore_errors=True)


def _write(builder: tfds.core.DatasetBuilder, data_dir: Path) -> None:
    """TFDS writes into a folder of its own and renames it at the end."""
    logging.info('storing %s in %s', builder.info.full_name, builder.data_dir)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # TFDS prints about downloads, of which there are none, and makes a folder for them.
        quiet = contextlib.redirect_stdout(io.StringIO())
        with _disk_faults(data_dir), tempfile.TemporaryDirectory() as downloads, quiet, _uncompressed():
            builder.download_and_prepare(file_format=schema.FILE_FORMAT, download_dir=downloads)
    except BaseException as error:
        if isinstance(error, UserError) and builder.data_path.exists():
            return  # another process was quicker, and our folder could not take the name
        _remove_empty(Path(builder.data_dir).parent, data_dir)
        raise


class _Uncompressed(file_adapters.ArrayRecordFileAdapter):
    @classmethod
    def write_examples(cls, path: str | os.PathLike[str], iterator: Iterable[tuple[Any, bytes]]) -> None:
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), 'group_size:1,uncompressed')
        for _, example in iterator:
            writer.write(example)
        writer.close()


class _Uncompressing:
    """Images are compressed already; ArrayRecord did it once more, in a sixth of the time that preparing takes.

    TFDS leaves no choice but that of the adapter, which is the process's: the first of several writers at once changes
    it, and the last one puts back what was there.
    """

    def __init__(self) -> None:
        self._form = file_adapters.FileFormat(schema.FILE_FORMAT)
        self._lock = threading.Lock()
        self._writers = 0
        self._usual = file_adapters.ADAPTER_FOR_FORMAT[self._form]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """While a set is written."""
        adapters = file_adapters.ADAPTER_FOR_FORMAT
        with self._lock:
            if not self._writers:
                self._usual, adapters[self._form] = adapters[self._form], _Uncompressed
            self._writers += 1
        try:
            yield
        finally:
            with self._lock:
                self._writers -= 1
                if not self._writers:
                    adapters[self._form] = self._usual


_uncompressed = _Uncompressing()


def _remove_empty(folder: Path, root: Path) -> None:
    """Removes folders that TFDS made on its way down to the one it failed to write."""
    while folder != root and folder.is_relative_to(root):
        try:
            folder.rmdir()
        except OSError:
            return  # holds other sets
        folder = folder.parent


@contextlib.contextmanager
def _disk_faults(data_dir: Path) -> Iterator[None]:
    """Turns what the operating system refuses into a UserError; ArrayRecord reports it in a RuntimeError."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{data_dir}: cannot store data here ({error.strerror or error})') from error
    except RuntimeError as error:
        if found := _SYSTEM_FAULT.search(str(error)):
            raise UserError(f'{data_dir}: cannot store data here ({found[1]})') from error
        raise


def _damaged(builder: tfds.core.DatasetBuilder, what: str) -> UserError:
    return UserError(
        f'the stored set in {builder.data_dir} is damaged: {what}; delete that folder, it will be made again'
    )
