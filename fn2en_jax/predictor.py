"""A trained net at work: from pictures of any kind to rows of probabilities, in batches, with memory that stays flat.

Faces are cut out and brought to the net's form by the functions that prepare data sets: `alignment`, then the channels
and the size of `data.images`. So a picture gives the same probabilities as in an evaluation of a set that holds it.
"""

import dataclasses
import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import cuts, parallel, portable, trained
from fn2en_jax.cuts import Cut, Looking, Pace
from fn2en_jax.data import pictures
from fn2en_jax.data.pictures import Picture
from fn2en_jax.errors import UserError
from fn2en_jax.face_batches import Batches
from fn2en_jax.predictions import NO_FACE, Prediction, Predictions

BATCH_SIZE = 32
MAX_BATCH_SIZE = 4096


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
        work = functools.partial(cuts.cut, looking=looking, shape=self.net.image_shape, keep=keep)
        workers = workers or os.cpu_count() or 1
        pace = Pace()
        begun = cuts.Begun(workers, batch_size + 2 * workers, expected=3 * keep**2)
        found = cuts.in_order(work, cuts.timed(source, pace), workers, begun, stop, pace)
        batches = Batches(lambda faces: self._probabilities(faces, batch_size), batch_size, pace)
        for cut in found:
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

    def _rows(self, cut: Cut, probabilities: list[np.ndarray]) -> tuple[Prediction, ...]:
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
