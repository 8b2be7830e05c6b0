"""From pictures to the faces in them, as a net takes them: decoded, found and cut out by several threads, in order."""

import collections
import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from fn2en_jax.data import alignment, images
from fn2en_jax.data.alignment import Face, FaceStep
from fn2en_jax.data.pictures import Picture
from fn2en_jax.errors import UserError

HELD = 1 << 26  # bytes of pixels that may wait for a thread or to be taken from it
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
class Cut:
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


def cut(picture: Picture, looking: Looking, shape: tuple[int, int, int], keep: int) -> Cut:
    """Decodes a picture and cuts its faces out of it, as `data.preparation` and `data.store` do."""
    begin = time.monotonic()
    try:
        pixels = picture.read()
    except UserError as error:
        return Cut(picture.file, picture.frame, problem=str(error), decoding=time.monotonic() - begin)
    decoded = time.monotonic()
    faces, inputs = _faces(pixels, looking, shape)
    found = time.monotonic()
    image, scale = _shrunk(pixels, keep) if keep else (None, 1.0)
    return Cut(picture.file, picture.frame, faces, inputs, '', image, scale, decoded - begin, found - decoded)


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


def timed(source: Iterable[Picture], pace: Pace) -> Iterator[Picture]:
    """The source, whose time is that of decoding where it is a clip."""
    begin = time.monotonic()
    for picture in source:
        pace.decoding += time.monotonic() - begin
        yield picture
        begin = time.monotonic()


class Begun(collections.deque[tuple['concurrent.futures.Future[Cut]', int]]):
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
        return self[0][0].done() or len(self) > (2 * self._workers if held > HELD else self._ahead)

    def first(self) -> Cut | None:
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


def in_order(
    work: Callable[[Picture], Cut],
    source: Iterable[Picture],
    workers: int,
    begun: Begun,
    stop: Callable[[], bool],
    pace: Pace,
) -> Iterator[Cut | None]:
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
