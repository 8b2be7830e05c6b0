"""Faces of several pictures in one batch, and the pictures in their order again, none waiting for long."""

import collections
import time
from collections.abc import Callable, Iterator

import numpy as np

from fn2en_jax import cuts
from fn2en_jax.cuts import Cut, Pace

_WAITING = 4  # batches of pictures that may wait for a batch of faces to become full
_PATIENCE = 1.0  # seconds that a face waits for such a batch,
_BATCHES_WORTH = 4  # or as long as this many batches take, if that is longer: the net works a fifth of the time at most


class Batches:
    """Gathers the faces of several pictures into batches, and gives the pictures back in order.

    Args:
        classify: gives the probabilities [n, K] of n faces, at most `size`.
        size: faces in a full batch.
        pace: where the seconds are added.
    """

    def __init__(self, classify: Callable[[list[np.ndarray]], np.ndarray], size: int, pace: Pace):
        self._classify, self._size, self._pace = classify, size, pace
        self._pending: collections.deque[Cut] = collections.deque()
        self._faces: collections.deque[np.ndarray] = collections.deque()
        self._scores: collections.deque[np.ndarray] = collections.deque()
        self._since = 0.0
        self._quickest = 0.0  # seconds of a batch; the first may have taken a compilation

    def add(self, cut: Cut) -> None:
        """Takes the next picture."""
        if not self._faces:
            self._since = time.monotonic()
        self._pending.append(cut)
        self._faces.extend(cut.inputs)

    def due(self) -> Iterator[tuple[Cut, list[np.ndarray]]]:
        """Each picture that need not wait any longer, with the probabilities [K] of its faces."""
        while len(self._faces) >= self._size or (self._faces and self._have_waited()):
            self._next()
        yield from self._finished()

    def rest(self) -> Iterator[tuple[Cut, list[np.ndarray]]]:
        """All others."""
        while self._faces:
            self._next()
        yield from self._finished()

    def _have_waited(self) -> bool:
        return (
            len(self._pending) >= _WAITING * self._size
            or time.monotonic() - self._since > max(_PATIENCE, _BATCHES_WORTH * self._quickest)
            or sum(cut.held() for cut in self._pending) > cuts.HELD
        )

    def _next(self) -> None:
        begin = time.monotonic()
        batch = [self._faces.popleft() for _ in range(min(self._size, len(self._faces)))]
        self._scores.extend(self._classify(batch))
        self._since = time.monotonic()
        seconds = self._since - begin
        self._quickest = min(self._quickest or seconds, seconds)
        self._pace.classifying += seconds

    def _finished(self) -> Iterator[tuple[Cut, list[np.ndarray]]]:
        while self._pending and len(self._pending[0].inputs) <= len(self._scores):
            cut = self._pending.popleft()
            yield cut, [self._scores.popleft() for _ in cut.inputs]
