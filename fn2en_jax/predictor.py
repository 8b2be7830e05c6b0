"""A trained net at work: from pictures of any kind to rows of probabilities, in batches, with memory that stays flat.

Faces are cut out and brought to the net's form by the functions that prepare data sets: `alignment`, then the channels
and the size of `data.images`. So a picture gives the same probabilities as in an evaluation of a set that holds it.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import parallel, portable, trained
from fn2en_jax.data import alignment, images, pictures
from fn2en_jax.data.alignment import Face, FaceStep
from fn2en_jax.data.pictures import Picture
from fn2en_jax.errors import UserError
from fn2en_jax.predictions import NO_FACE, Prediction, Predictions

BATCH_SIZE = 32
MAX_BATCH_SIZE = 4096
_WAITING = 4  # batches of pictures that may wait for a batch of faces to become full
_PATIENCE = 1.0  # seconds that a face waits for such a batch,
_BATCHES_WORTH = 4  # or as long as this many batches take, if that is longer: the net works a fifth of the time at most
_HELD = 1 << 26  # bytes of pixels that may wait for a thread or to be taken from it, and as many for the net
_TICK = 0.1  # seconds from one look at the clock to the next


@dataclasses.dataclass(frozen=True)
class Looking:
    """How faces are looked for in pictures.

    Attributes:
        faces: 'align' by the eyes, 'box': the square around each face, 'none': every picture is one face already, of
            which the central square is taken.
        largest: only the largest face of a picture, in less time.
        centre: take the central square of a picture in which no face is found, as the preparation of data sets does.
    """

    faces: str
    largest: bool = False
    centre: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A picture that has been looked at.

    Attributes:
        rows: one per face; one without a face if there is none.
        image: the picture, uint8 [h, w, 1 or 3], shrunk so that no side is longer than was asked for; None if nobody
            asked, or it cannot be read.
        scale: pixels of `image` per pixel of the picture.
    """

    rows: tuple[Prediction, ...]
    image: np.ndarray | None = None
    scale: float = 1.0


@dataclasses.dataclass
class Pace:
    """How far `Predictor.look` is, and where the time went.

    Attributes:
        looked: pictures whose faces have been looked for.
        decoding, finding, classifying: seconds, summed over the threads: of reading and decoding pictures, of finding
            faces and cutting them out, of the net (its compilation included).
        cut_short: whether pictures are left out because it was asked to stop.
    """

    looked: int = 0
    decoding: float = 0.0
    finding: float = 0.0
    classifying: float = 0.0
    cut_short: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class _Cut:
    """What a worker makes of a picture: its faces, brought to the net's form, or the reason why there are none."""

    file: str
    frame: int | None
    faces: tuple[Face, ...] = ()
    inputs: tuple[np.ndarray, ...] = ()
    problem: str = ''
    image: np.ndarray | None = None
    scale: float = 1.0
    decoding: float = 0.0
    finding: float = 0.0

    def held(self) -> int:
        """Bytes of its pixels."""
        return sum(each.nbytes for each in self.inputs) + (0 if self.image is None else self.image.nbytes)


class Predictor:
    """A net that is loaded.

    Attributes:
        net: with its class names, config and preprocessing.
    """

    def __init__(self, net: trained.Trained):
        """Reads the net's parameters.

        Raises:
            UserError: when they are damaged.
        """
        self.net = net
        self._variables = jax.tree.map(jnp.asarray, net.variables())  # stay on the first device
        self._apply = jax.jit(net.probabilities())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Its K classes, in the order of its outputs."""
        return self.net.class_names

    def looking(
        self, *, cropped: bool = False, faces: str = '', largest: bool = False, centre: bool = False
    ) -> Looking:
        """How this net wants faces to be looked for, where nothing else is asked.

        As its training images were cut. A net that was trained on images that were faces already, cut by others, gets
        aligned faces: alignment shows the part of the head that face detectors show, without the roll.

        Raises:
            UserError: for options that contradict each other.
        """
        if faces not in ('', 'align', 'box', 'none'):
            raise UserError(f"faces is {faces!r}; use 'align', 'box' or 'none'")
        if cropped and faces not in ('', 'none'):
            raise UserError(f'cropped says that pictures are faces already, and faces={faces!r} that they are not')
        if cropped:
            return Looking('none')
        trained_on = self.net.faces if self.net.faces != 'none' else 'align'
        return Looking(faces or trained_on, largest, centre)

    def predict(
        self,
        what: Any,
        *,
        cropped: bool = False,
        faces: str = '',
        largest: bool = False,
        centre: bool = False,
        every: int = 1,
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
    ) -> Predictions:
        """Finds the faces in pictures and says what they express.

        A picture that cannot be read, or shows no face, gives a row that says so, and the others go on. Rows come in
        the order of the pictures and depend on nothing but their own picture.

        Args:
            what: paths of photographs, clips or folders, arrays uint8 [h, w(, C)] or [N, h, w, C] (C 1, 3 or 4, RGB),
                Pillow pictures, bytes of image files, or an iterable of them; see `data.pictures.given`.
            cropped: the pictures are faces already; only their central square is taken.
            faces: 'align' or 'box'; '' as the net was trained, see `looking`.
            largest: only the largest face of every picture.
            centre: classify the centre of a picture without a face.
            every: frames of a clip from one that is looked at to the next.
            batch_size: faces that the net takes at once; fewer are padded, so that one program serves all.
            workers: threads that decode and look for faces; 0 for one per core.

        Raises:
            UserError: for options and inputs that make no sense.
        """
        looking = self.looking(cropped=cropped, faces=faces, largest=largest, centre=centre)
        if not isinstance(every, int) or every < 1:
            raise UserError(f'every is {every!r}; it must be a whole number, at least 1')
        source = pictures.given(what, every=every)
        seen = self.look(source, looking, batch_size=batch_size, workers=workers)
        return Predictions([row for each in seen for row in each.rows], self.class_names)

    def look(
        self,
        source: Iterable[Picture],
        looking: Looking,
        *,
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
        keep: int = 0,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[Pace], None] = lambda pace: None,
    ) -> Iterator[Seen]:
        """Looks at pictures one after another, without gathering anything: `predict` for any number of them.

        Args:
            source: taken from as needed, some dozens ahead.
            looking: from `looking`.
            batch_size, workers: see `predict`.
            keep: longest side to which pictures are shrunk and handed on; 0 hands none on.
            stop: asked all the time; once it says so nothing new is begun, and what is under way is finished.
            progress: told (with one object that goes on counting) about every picture that has been looked at, which
                may be some time before it is yielded, and about every batch.

        Yields:
            What was seen in each, in order.

        Raises:
            UserError: for options that make no sense.
        """
        if not isinstance(batch_size, int) or not 1 <= batch_size <= MAX_BATCH_SIZE:
            raise UserError(f'batch_size is {batch_size!r}; it must be a whole number from 1 to {MAX_BATCH_SIZE}')
        if not isinstance(workers, int) or workers < 0:
            raise UserError(f'workers is {workers!r}; it must be a whole number, 0 for one per core')
        work = functools.partial(_cut, looking=looking, shape=self.net.image_shape, keep=keep)
        workers = workers or os.cpu_count() or 1
        pace = Pace()
        begun = _Begun(workers, batch_size + 2 * workers, expected=3 * keep**2)
        cuts = _in_order(work, _timed(source, pace), workers, begun, stop, pace)
        batches = _Batches(lambda faces: self._probabilities(faces, batch_size), batch_size, pace)
        for cut in cuts:
            if cut is not None:
                batches.add(cut)
                pace.looked += 1
                pace.decoding += cut.decoding
                pace.finding += cut.finding
                progress(pace)
            for one, probabilities in batches.due():
                yield Seen(self._rows(one, probabilities), one.image, one.scale)
        for one, probabilities in batches.rest():
            yield Seen(self._rows(one, probabilities), one.image, one.scale)
        progress(pace)

    def _probabilities(self, batch: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
        """[n, K] of n faces [S, S, C], n up to `batch_size`."""
        padded = np.zeros((batch_size, *self.net.image_shape), np.uint8)
        padded[: len(batch)] = batch
        found = np.asarray(self._apply(self._variables, padded))[: len(batch)]
        if not np.isfinite(found).all():
            raise UserError(f'{self.net.place}: the net gives probabilities that are not finite; it is damaged')
        return found

    def _rows(self, cut: _Cut, probabilities: list[np.ndarray]) -> tuple[Prediction, ...]:
        if not cut.faces:
            return (Prediction(cut.file, cut.frame, problem=cut.problem or NO_FACE),)
        return tuple(
            Prediction(
                cut.file,
                cut.frame,
                face=number,
                box=face.box,
                eyes=face.eyes,
                cut_by=face.how,
                expression=self.class_names[int(found.argmax())],
                probabilities=dict(zip(self.class_names, found.tolist(), strict=True)),
            )
            for number, (face, found) in enumerate(zip(cut.faces, probabilities, strict=True))
        )


def load(path: str | Path, method: str = '', fold: str = '', *, compilation_cache: str = '') -> Predictor:
    """Opens a trained net; `fn2en_jax.load` is this function.

    Args:
        path: the workdir of a finished run, or the file of an exported net.
        method, fold: which net of a workdir, see `trained.find`.
        compilation_cache: where compiled programs are kept, '' for the user's cache (or where the process keeps them
            already), 'none' for nowhere.

    Raises:
        UserError: when there is no such net, or it is damaged.
    """
    parallel.keep_compiled(compilation_cache)
    return Predictor(open_net(path, method, fold))


def open_net(path: str | Path, method: str = '', fold: str = '') -> trained.Trained:
    """The net in a workdir or a file; raises UserError as `load`."""
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such workdir or file of a net') from error
    except (OSError, ValueError) as error:  # a ValueError for a name with a zero byte
        reason = getattr(error, 'strerror', '') or str(error)
        raise UserError(
            f'{pictures.spelled(path)[:200]}: no workdir or file of a net can be read here ({reason})'
        ) from error
    if is_folder:
        return trained.find(str(path), method=method, fold=fold)
    if method or fold:
        raise UserError(f'{path} is the file of one net; a method and a fold are chosen in a workdir')
    return portable.read(path)


class _Batches:
    """Gathers the faces of several pictures into batches, and gives the pictures back in order.

    Args:
        classify: gives the probabilities [n, K] of n faces, at most `size`.
        size: faces in a full batch.
        pace: where the seconds are added.
    """

    def __init__(self, classify: Callable[[list[np.ndarray]], np.ndarray], size: int, pace: Pace):
        self._classify, self._size, self._pace = classify, size, pace
        self._pending: collections.deque[_Cut] = collections.deque()
        self._faces: collections.deque[np.ndarray] = collections.deque()
        self._scores: collections.deque[np.ndarray] = collections.deque()
        self._since = 0.0
        self._quickest = 0.0  # seconds of a batch; the first may have taken a compilation

    def add(self, cut: _Cut) -> None:
        """Takes the next picture."""
        if not self._faces:
            self._since = time.monotonic()
        self._pending.append(cut)
        self._faces.extend(cut.inputs)

    def due(self) -> Iterator[tuple[_Cut, list[np.ndarray]]]:
        """Each picture that need not wait any longer, with the probabilities [K] of its faces."""
        while len(self._faces) >= self._size or (self._faces and self._have_waited()):
            self._next()
        yield from self._finished()

    def rest(self) -> Iterator[tuple[_Cut, list[np.ndarray]]]:
        """All others."""
        while self._faces:
            self._next()
        yield from self._finished()

    def _have_waited(self) -> bool:
        return (
            len(self._pending) >= _WAITING * self._size
            or time.monotonic() - self._since > max(_PATIENCE, _BATCHES_WORTH * self._quickest)
            or sum(cut.held() for cut in self._pending) > _HELD
        )

    def _next(self) -> None:
        begin = time.monotonic()
        batch = [self._faces.popleft() for _ in range(min(self._size, len(self._faces)))]
        self._scores.extend(self._classify(batch))
        self._since = time.monotonic()
        seconds = self._since - begin
        self._quickest = min(self._quickest or seconds, seconds)
        self._pace.classifying += seconds

    def _finished(self) -> Iterator[tuple[_Cut, list[np.ndarray]]]:
        while self._pending and len(self._pending[0].inputs) <= len(self._scores):
            cut = self._pending.popleft()
            yield cut, [self._scores.popleft() for _ in cut.inputs]


def _cut(picture: Picture, looking: Looking, shape: tuple[int, int, int], keep: int) -> _Cut:
    """Decodes a picture and cuts its faces out of it, as `data.preparation` and `data.store` do."""
    begin = time.monotonic()
    try:
        pixels = picture.read()
    except UserError as error:
        return _Cut(picture.file, picture.frame, problem=str(error), decoding=time.monotonic() - begin)
    decoded = time.monotonic()
    faces, inputs = _faces(pixels, looking, shape)
    found = time.monotonic()
    image, scale = _shrunk(pixels, keep) if keep else (None, 1.0)
    return _Cut(picture.file, picture.frame, faces, inputs, '', image, scale, decoded - begin, found - decoded)


def _faces(
    pixels: np.ndarray, looking: Looking, shape: tuple[int, int, int]
) -> tuple[tuple[Face, ...], tuple[np.ndarray, ...]]:
    """The faces of a picture, and each as the net takes it, uint8 [S, S, C]."""
    size, _, channels = shape
    if looking.faces == 'none':  # images that are stored as they are change their channels first
        face = alignment.cut_all(images.with_channels(pixels, channels), FaceStep('none', size))[0]
        return (face,), (face.image,)
    step = FaceStep(looking.faces, no_face='keep' if looking.centre else 'drop')
    found: Sequence[Face | None] = [alignment.cut(pixels, step)] if looking.largest else alignment.cut_all(pixels, step)
    faces = tuple(face for face in found if face is not None)
    return faces, tuple(images.fit(images.with_channels(face.image, channels), size) for face in faces)


def _shrunk(pixels: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1.0, longest / max(height, width))
    if scale == 1:
        return pixels, scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1), scale


def _timed(source: Iterable[Picture], pace: Pace) -> Iterator[Picture]:
    """The source, whose time is that of decoding where it is a clip."""
    begin = time.monotonic()
    for picture in source:
        pace.decoding += time.monotonic() - begin
        yield picture
        begin = time.monotonic()


class _Begun(collections.deque[tuple['concurrent.futures.Future[_Cut]', int]]):
    """Pictures at work in threads, each with the bytes of pixels that it kept before it was read.

    Args:
        workers: how many threads there are; twice as many pictures may be begun, whatever they hold.
        ahead: how many pictures may be.
        expected: bytes that are kept of a picture, as far as is known before the first is ready.
    """

    def __init__(self, workers: int, ahead: int, expected: int):
        super().__init__()
        self._workers, self._ahead, self._expected = workers, ahead, expected
        self._largest = 0

    def enough(self) -> bool:
        """Whether the first should be taken off before another is begun."""
        if not self:
            return False
        held = sum(max(before, self._largest or self._expected) for _, before in self)
        return self[0][0].done() or len(self) > (2 * self._workers if held > _HELD else self._ahead)

    def first(self) -> _Cut | None:
        """Takes the first off, unless it is not ready within a _TICK."""
        concurrent.futures.wait([self[0][0]], _TICK)
        if not self[0][0].done():
            return None
        cut = self.popleft()[0].result()
        self._largest = max(self._largest, cut.held())
        return cut

    def cancel(self) -> bool:
        """Drops those that no thread has taken, which are the last ones; whether there were any."""
        before = len(self)
        while self and self[-1][0].cancel():
            self.pop()
        return len(self) < before


def _in_order(
    work: Callable[[Picture], _Cut],
    source: Iterable[Picture],
    workers: int,
    begun: _Begun,
    stop: Callable[[], bool],
    pace: Pace,
) -> Iterator[_Cut | None]:
    """`map` by several threads, in order, that never begins more than `begun` allows before they are asked for.

    None comes in between for every _TICK without news.
    """
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for picture in source:
                if stop():
                    pace.cut_short = True
                    break
                begun.append((pool.submit(work, picture), picture.nbytes))
                while begun.enough() and not stop():
                    yield begun.first()
            while begun:
                if stop() and begun.cancel():
                    pace.cut_short = True
                    continue
                yield begun.first()
        finally:
            begun.cancel()
