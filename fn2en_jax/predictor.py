"""A trained net at work: from pictures of any kind to rows of probabilities, in batches, with memory that stays flat.

Faces are cut out and brought to the net's form by the functions that prepare data sets: `alignment`, then the channels
and the size of `data.images`. So a picture gives the same probabilities as in an evaluation of a set that holds it.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import os
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
_WAITING = 4  # batches of pictures that may wait for a batch of faces to become full


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
        if every < 1:
            raise UserError(f'every is {every}; it must be at least 1')
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
    ) -> Iterator[Seen]:
        """Looks at pictures one after another, without gathering anything: `predict` for any number of them.

        Args:
            source: taken from as needed, some dozens ahead.
            looking: from `looking`.
            batch_size, workers: see `predict`.
            keep: longest side to which pictures are shrunk and handed on; 0 hands none on.

        Yields:
            What was seen in each, in order.
        """
        if batch_size < 1 or workers < 0:
            raise UserError(f'batch_size is {batch_size} and workers {workers}; at least 1 and 0 are needed')
        work = functools.partial(_cut, looking=looking, shape=self.net.image_shape, keep=keep)
        workers = workers or os.cpu_count() or 1
        cuts = _in_order(work, source, workers, ahead=batch_size + 2 * workers)
        for cut, probabilities in self._classified(cuts, batch_size):
            yield Seen(self._rows(cut, probabilities), cut.image, cut.scale)

    def _classified(self, cuts: Iterator[_Cut], batch_size: int) -> Iterator[tuple[_Cut, list[np.ndarray]]]:
        """Each picture with the probabilities [K] of its faces; the faces of several share a batch."""
        pending: collections.deque[_Cut] = collections.deque()
        faces: collections.deque[np.ndarray] = collections.deque()
        scores: collections.deque[np.ndarray] = collections.deque()

        def classify() -> None:
            batch = [faces.popleft() for _ in range(min(batch_size, len(faces)))]
            scores.extend(self._probabilities(batch, batch_size))

        def finished() -> Iterator[tuple[_Cut, list[np.ndarray]]]:
            while pending and len(pending[0].inputs) <= len(scores):
                cut = pending.popleft()
                yield cut, [scores.popleft() for _ in cut.inputs]

        for cut in cuts:
            pending.append(cut)
            faces.extend(cut.inputs)
            while len(faces) >= batch_size or (faces and len(pending) >= _WAITING * batch_size):
                classify()
            yield from finished()
        while faces:
            classify()
        yield from finished()

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
    if not Path(path).exists():
        raise UserError(f'{path}: no such workdir or file of a net')
    if Path(path).is_dir():
        return trained.find(str(path), method=method, fold=fold)
    if method or fold:
        raise UserError(f'{path} is the file of one net; a method and a fold are chosen in a workdir')
    return portable.read(path)


def _cut(picture: Picture, looking: Looking, shape: tuple[int, int, int], keep: int) -> _Cut:
    """Decodes a picture and cuts its faces out of it, as `data.preparation` and `data.store` do."""
    try:
        pixels = picture.read()
    except UserError as error:
        return _Cut(picture.file, picture.frame, problem=str(error))
    faces, inputs = _faces(pixels, looking, shape)
    image, scale = _shrunk(pixels, keep) if keep else (None, 1.0)
    return _Cut(picture.file, picture.frame, faces, inputs, '', image, scale)


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


def _in_order(work: Callable[[Picture], _Cut], source: Iterable[Picture], workers: int, ahead: int) -> Iterator[_Cut]:
    """`map` by several threads, in order, that never begins more than `ahead` pieces before they are asked for."""
    begun: collections.deque[concurrent.futures.Future[_Cut]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            for picture in source:
                begun.append(pool.submit(work, picture))
                while begun and (len(begun) > ahead or begun[0].done()):
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for piece in begun:
                piece.cancel()
