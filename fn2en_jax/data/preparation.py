"""From records of a published set to encoded faces: in parallel, and without doing anything twice after a kill.

Records are prepared in chunks by several processes. A finished chunk is a file of its own in the `workshop`, so that a
preparation that was killed goes on where it stopped; `builders.published_faces` writes the chunks in order.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import process
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import cv2
import msgpack
import numpy as np

from fn2en_jax import commands
from fn2en_jax.data import alignment, images, locks
from fn2en_jax.data.records import Record
from fn2en_jax.data.video import VideoFrame
from fn2en_jax.errors import UserError

VERSION = 1  # rises whenever the same record comes out differently
CHUNK = 32  # records of one file in the workshop: fewer are lost by a kill, and wait for the last process at the end
PARALLEL_FROM = 256  # below this many records further processes cost more than they save
AHEAD = 8  # chunks given out per process
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One record, ready to be stored.

    Attributes:
        encoded: PNG or JPEG; b'' when `fault` or `no_face` says why there is none.
        digest: size and check sum of `encoded` where these are the bytes of the record's own file, which a workshop
            does not keep a second time; else ''.
        face: how the face was cut out, '' where nothing was cut.
        box, eyes: in pixels of the source; () where unknown.
        no_face: no face was found in it.
        fault: why it cannot be read, '' when it can.
    """

    encoded: bytes
    digest: str = ''
    face: str = ''
    box: tuple[float, ...] = ()
    eyes: tuple[float, ...] = ()
    no_face: bool = False
    fault: str = ''


def prepare(
    records: Sequence[Record],
    step: alignment.FaceStep,
    workshop: Path,
    *,
    processes: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[tuple[Record, Prepared], None, None]:
    """Prepares records that are not prepared yet and yields all of them in order.

    Others go on being prepared while the caller stores the first ones.

    Args:
        records: of one set.
        step: how the face is cut out.
        workshop: folder for finished chunks; remove it with `clear` when everything is stored.
        processes: that prepare; 0 takes one per core, see `cores`, for sets that are worth it. The result does not
            depend on it.
        progress: told, with each record, how many there have been, and of how many.

    Raises:
        UserError: one of the processes was killed.
    """
    workshop.mkdir(parents=True, exist_ok=True)
    chunks = [records[start : start + CHUNK] for start in range(0, len(records), CHUNK)]
    work = functools.partial(_chunk, step=step, workshop=workshop)
    done = 0
    with contextlib.closing(_mapped(work, chunks, processes, len(records))) as paths:
        for chunk, path in zip(chunks, paths, strict=True):
            for record, fields in zip(chunk, msgpack.unpackb(path.read_bytes()), strict=True):
                done += 1
                if progress:
                    progress(done, len(records))
                yield record, _unpacked(record, fields, step)


@contextlib.contextmanager
def alone(workshop: Path, title: str) -> Iterator[None]:
    """Lets one process at a time use a workshop: the first to finish clears what the others would be working on.

    Args:
        workshop: the folder.
        title: of what is prepared in it, for messages.

    Raises:
        UserError: its folder cannot be written.
        commands.Stopped: after Ctrl-C or SIGTERM; what is finished is kept.
    """
    lock = workshop.parent / f'.{workshop.name}.lock'
    with locks.only_one(lock, f'another process prepares {title}'):
        try:
            yield
        except KeyboardInterrupt:
            raise commands.Stopped(f'{title} is prepared in part') from None


def clear(workshop: Path) -> None:
    """Removes what `prepare` left in the workshop."""
    shutil.rmtree(workshop, ignore_errors=True)


def prepare_one(record: Record, step: alignment.FaceStep) -> Prepared:
    """Reads a record, cuts out its face, encodes it; what cannot be read is returned with its fault."""
    try:
        if step.mode == 'none':
            return _as_it_is(record)
        face = alignment.cut(_pixels(record), step, box=record.box, points=record.points)
    except UserError as error:
        return Prepared(b'', fault=str(error))
    if face is None:
        return Prepared(b'', no_face=True)
    png = images.encode_png(face.image)
    return Prepared(png, face=face.how, box=_floats(face.box), eyes=_floats(face.eyes), no_face=face.how == 'centre')


def words(step: alignment.FaceStep) -> list[str]:
    """What tells sets with differently cut faces apart, as parts of a name: ['align', '256', 'keep', 'v1']."""
    return [step.mode] if step.mode == 'none' else [step.mode, str(step.size), step.no_face, f'v{VERSION}']


def cores() -> int:
    """How many this process may use; fewer than the machine has where a job system or `taskset` says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _as_it_is(record: Record) -> Prepared:
    if not isinstance(record.image, Path):
        return Prepared(images.encode_png(_pixels(record)))
    data = _bytes(record.image)
    stored = images.storable(data)
    return Prepared(stored, digest=_digest(data) if stored is data else '')


def _mapped(
    work: Callable[[Sequence[Record]], Path], chunks: list[Sequence[Record]], processes: int, count: int
) -> Generator[Path, None, None]:
    processes = processes or (cores() if count >= PARALLEL_FROM else 1)
    if processes == 1:
        yield from map(work, chunks)
        return
    # Spawned, because a fork of a process that has started JAX's threads may deadlock.
    context = multiprocessing.get_context('spawn')
    ending, alive = context.Pipe(duplex=False)
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, initializer=_begin_work, initargs=(ending,))
    try:
        yield from _in_order(pool, work, chunks, AHEAD * processes)
    finally:
        alive.close()  # ends the processes at once, which would else finish what they have begun
        pool.shutdown(cancel_futures=True)
        ending.close()


def _in_order(
    pool: concurrent.futures.Executor,
    work: Callable[[Sequence[Record]], Path],
    chunks: Sequence[Sequence[Record]],
    ahead: int,
) -> Generator[Path, None, None]:
    """Like `map`, with so many chunks under way."""
    under_way: collections.deque[concurrent.futures.Future[Path]] = collections.deque()
    for number, chunk in enumerate(chunks):
        try:
            for following in chunks[number + len(under_way) : number + ahead]:
                with _without_signals():  # processes and threads are started here
                    under_way.append(pool.submit(work, following))
            path = under_way.popleft().result()
        except process.BrokenProcessPool as error:
            raise UserError(
                f'a process that prepares images was killed (out of memory?), at {chunk[0].file} or after it; '
                'finished work is kept: run the same command again'
            ) from error
        yield path


def _begin_work(ending: connection.Connection) -> None:
    """Makes a process one of those that prepare: on one core of its own, and ended by its parent alone.

    Ctrl-C comes from a terminal to all processes, as SIGTERM does from some job systems: the parent decides what
    becomes of it. When the other end of `ending` is closed, also by the death of the parent, the process is gone.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)

    def watch() -> None:
        ending.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """Processes and threads that start meanwhile are never asked to stop: the first process ends them."""
    resource_tracker.ensure_running()  # whose start would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _chunk(records: Sequence[Record], step: alignment.FaceStep, workshop: Path) -> Path:
    """The file of these records, made unless it is there."""
    path = workshop / f'{_identity(records, step)}.msgpack'
    if not path.exists():
        packed = msgpack.packb([_packed(prepare_one(record, step)) for record in records])
        temporary = path.with_suffix(f'.{os.getpid()}.tmp')
        temporary.write_bytes(packed)
        os.replace(temporary, path)
    return path


def _packed(face: Prepared) -> dict[str, Any]:
    return {**vars(face), 'encoded': b''} if face.digest else vars(face)


def _unpacked(record: Record, fields: dict[str, Any], step: alignment.FaceStep) -> Prepared:
    """What `_packed` was given; a file that is another one by now is prepared once more."""
    encoded = fields['encoded']
    if isinstance(record.image, Path) and fields['digest']:
        try:
            encoded = _bytes(record.image)
        except UserError as error:
            return Prepared(b'', fault=str(error))
        if _digest(encoded) != fields['digest']:
            return prepare_one(record, step)
    return Prepared(**{**fields, 'encoded': encoded, 'box': tuple(fields['box']), 'eyes': tuple(fields['eyes'])})


def _digest(data: bytes) -> str:
    """Tells whether a file changed since it was looked at; nobody gains by forging it, so a check sum will do."""
    return f'{len(data)} {zlib.crc32(data):08x}'


def _identity(records: Sequence[Record], step: alignment.FaceStep) -> str:
    """Changes when what the records show or how it is cut changes: a chunk is never used for another one's records."""
    facts = [(record.file, _state(record.image), record.box, record.points) for record in records]
    form = [field.name for field in dataclasses.fields(Prepared)]  # of a chunk; another version's are made again
    said = json.dumps([facts, dataclasses.asdict(step), VERSION, form], default=float)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _state(image: Path | np.ndarray | VideoFrame) -> Any:
    if isinstance(image, np.ndarray):
        return hashlib.sha256(image.tobytes()).hexdigest()
    if isinstance(image, VideoFrame):
        # Chunks of when frames were looked up by time are not used: in MPEG-1 they were others. VERSION stays what it
        # was, for it would have all sets prepared again.
        return [_state(image.path), image.index, image.quarter_turns, image.columns, 'read in order']
    try:
        found = image.stat()
    except OSError:
        return 'missing'
    return [str(image), found.st_size, found.st_mtime_ns]


def _pixels(record: Record) -> np.ndarray:
    """uint8 [h,w,C]; grey files stay grey."""
    if isinstance(record.image, VideoFrame):
        return record.image.read()
    if isinstance(record.image, np.ndarray):
        return record.image if record.image.ndim == 3 else record.image[..., None]
    return images.decode_as_it_is(_bytes(record.image))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error


def _floats(values: Any) -> tuple[float, ...]:
    return () if values is None else tuple(float(value) for value in np.ravel(values))
