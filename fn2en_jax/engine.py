"""The training loop and the evaluation loop. They know `Method`, never a model or a loss."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from fn2en_jax import checkpoint, parallel
from fn2en_jax.data.batches import Reader, eval_batches
from fn2en_jax.data.examples import Examples
from fn2en_jax.methods.base import Evaluator, Method
from fn2en_jax.types import Key, PyTree


class NonFiniteLoss(Exception):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class Interrupted(Exception):
    """Asked to stop (SIGTERM, SIGINT); the state has been saved."""


class Feed(Protocol):
    """Where training batches come from: `data.batches.Resident` or `data.batches.Streamed`."""

    reader: Reader

    def arrays(self, step: int, count: int = 0) -> PyTree: ...


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often things happen, in steps unless said otherwise.

    Attributes:
        last_step: where the stage ends.
        per_dispatch: most steps the device makes without the host.
        log_every: steps between two rows of metrics; also the grid on which everything else happens.
        eval_every: steps between two evaluations while training (0: none). They only draw curves.
        save_seconds: least time between two checkpoints.
    """

    last_step: int
    per_dispatch: int
    log_every: int
    eval_every: int = 0
    save_seconds: float = 30.0

    def next_stop(self, step: int) -> int:
        """The step at which the next dispatch must end: never past a row of metrics or the end."""
        row = (step // self.log_every + 1) * self.log_every
        return min(step + self.per_dispatch, row, self.last_step)


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop tells the outside.

    Attributes:
        row: (step, metrics): the means since the last row.
        evaluate: (step, replicated state): called every `eval_every` steps.
        stop_requested: asked between dispatches.
    """

    row: Callable[[int, dict[str, float]], None]
    evaluate: Callable[[int, PyTree], None] = lambda step, state: None
    stop_requested: Callable[[], bool] = lambda: False


def fit(
    method: Method,
    initial: Callable[[], PyTree],
    frozen: PyTree,
    feed: Feed,
    *,
    found: tuple[int, PyTree, dict[str, Any]] | None,
    key: Key,
    pace: Pace,
    checkpoints: checkpoint.Checkpoints,
    hooks: Hooks,
    facts: Mapping[str, Any],
) -> tuple[PyTree, float]:
    """Trains until `pace.last_step`, going on from a checkpoint if there is one.

    Args:
        method: makes the steps.
        initial: makes the host arrays to start from when there is no checkpoint.
        frozen: host arrays the step reads: teacher, class weights.
        feed: training batches.
        found: what `checkpoints.newest` gave: where to go on.
        key: root of every random draw of this stage; draws depend on it and on the step alone.
        pace: how long, how often.
        checkpoints: of this stage.
        hooks: where metrics go.
        facts: what every checkpoint says of the net beside its arrays: class names, preprocessing.

    Returns:
        (final state as host arrays, seconds spent training over all runs, compilation included).

    Raises:
        NonFiniteLoss: naming the step range; nothing is saved after it.
        Interrupted: after saving.
    """
    begin, state, meta = found or (0, initial(), {'seconds': 0.0})
    checkpoints.drop_after(begin)
    loop = _Loop(method, frozen, feed, key, pace, checkpoints, hooks, facts, meta['seconds'])
    state = loop.run(begin, state)
    checkpoints.wait()
    return state, loop.seconds


class _Loop:
    """State of the host side of one `fit`."""

    def __init__(
        self,
        method: Method,
        frozen: PyTree,
        feed: Feed,
        key: Key,
        pace: Pace,
        checkpoints: checkpoint.Checkpoints,
        hooks: Hooks,
        facts: Mapping[str, Any],
        spent: float,
    ):
        longest = min(pace.per_dispatch, pace.log_every, pace.last_step)
        if longest > feed.reader.steps:
            raise ValueError(f'dispatches of {longest} steps, but the feed is made for {feed.reader.steps}')
        self._dispatch = parallel.train_dispatch(method, feed.reader)
        self._frozen, self._key = parallel.broadcast(frozen), parallel.broadcast(np.asarray(key))
        self._feed, self._pace, self._checkpoints, self._hooks = feed, pace, checkpoints, hooks
        self._resident = None if feed.reader.streamed else parallel.place(feed.reader, feed.arrays(0))
        self._counts: dict[int, Any] = {}
        self._facts = facts
        self._spent, self._started, self._saved = spent, time.monotonic(), time.monotonic()

    @property
    def seconds(self) -> float:
        return self._spent + time.monotonic() - self._started

    def run(self, begin: int, state: PyTree) -> PyTree:
        carry = parallel.replicate((np.int32(begin), state))
        metrics: dict[str, Any] | None = None
        step = begin
        while step < self._pace.last_step:
            stop = self._pace.next_stop(step)
            carry, new = self._advance(carry, step, stop - step)
            metrics = new if metrics is None else {name: metrics[name].merge(m) for name, m in new.items()}
            step = stop
            self._check_finite(step, metrics)
            if step % self._pace.log_every == 0 or step == self._pace.last_step:
                self._report(step, metrics, carry)
                metrics = None
            self._save_if_due(step, carry)
        return parallel.unreplicate(carry)[1]

    def _advance(self, carry: PyTree, step: int, count: int) -> tuple[PyTree, dict[str, Any]]:
        arrays = self._resident or parallel.place(self._feed.reader, self._feed.arrays(step, count))
        if count not in self._counts:
            self._counts[count] = parallel.broadcast(np.int32(count))
        # Whatever still moves between host and device in here is a defect: fail rather than crawl.
        with jax.transfer_guard('disallow'):
            carry, metrics = self._dispatch(carry, self._frozen, arrays, self._key, self._counts[count])
        return carry, {name: parallel.first_metrics(metric) for name, metric in metrics.items()}

    def _check_finite(self, step: int, metrics: dict[str, Any]) -> None:
        for name, metric in metrics.items():
            if not math.isfinite(metric.total):
                raise NonFiniteLoss(f'{name} that is not finite at or before step {step}')

    def _report(self, step: int, metrics: dict[str, Any], carry: PyTree) -> None:
        self._hooks.row(step, {name: float(metric.compute()) for name, metric in metrics.items()})
        due = self._pace.eval_every and step % self._pace.eval_every == 0
        if due or step == self._pace.last_step:
            self._hooks.evaluate(step, carry[1])

    def _save_if_due(self, step: int, carry: PyTree) -> None:
        stopping = self._hooks.stop_requested()
        last = step == self._pace.last_step
        if not (last or stopping or time.monotonic() - self._saved >= self._pace.save_seconds):
            return
        state = parallel.unreplicate(carry)[1]
        # The losses were those of the steps before their updates: the last update may have spoilt the net.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
            raise NonFiniteLoss(f'parameters that are not finite at step {step}')
        self._checkpoints.save(step, state, {**self._facts, 'seconds': self.seconds})
        self._saved = time.monotonic()
        if stopping and not last:
            self._checkpoints.wait()
            raise Interrupted(f'saved at step {step} of {self._pace.last_step}')


def evaluate(
    method: Evaluator, state: PyTree, frozen: PyTree, examples: Examples, *, batch_size: int, crop: int
) -> dict[str, np.ndarray]:
    """Runs `method.eval_step` over a whole set, in order; padding is cut off, nothing is dropped.

    Args:
        method: gives per-example outputs.
        state: replicated state (`parallel.replicate`).
        frozen: from `parallel.broadcast`.
        examples: the set.
        batch_size: examples per call over all devices.
        crop: side of the centre crop.

    Returns:
        Host arrays [N, ...] by output name.
    """
    pieces = [
        parallel.eval_outputs(method, crop, state, frozen, batch)
        for batch in eval_batches(examples, batch_size=batch_size)
    ]
    return {name: _join(pieces, name, len(examples)) for name in pieces[0]}


def _join(pieces: list[PyTree], name: str, count: int) -> np.ndarray:
    def flat(pieces: list[PyTree]) -> Iterator[np.ndarray]:
        for piece in pieces:
            array = np.asarray(piece[name])
            yield array.reshape(-1, *array.shape[2:])

    return np.concatenate(list(flat(pieces)))[:count]
