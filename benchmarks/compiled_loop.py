"""The project's compiled training loop on random images and random nets, for timing."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from fn2en_jax import parallel, rng
from fn2en_jax.data.augmentation import Augmentation
from fn2en_jax.data.batches import Resident
from fn2en_jax.data.examples import Examples

Runner = Callable[[int], None]  # makes a number of steps and waits for the last
PER_DISPATCH = base.get_config().steps_per_dispatch
SECONDS = 0.5  # a measurement takes as many steps as fill this time
FEWEST_STEPS = 3  # and at least these: a dispatch has a price of its own, and training never makes one for one step


def runner(
    method: Any, variables: Any, frozen: Any, examples: Examples, batch_size: int, augmentation: Augmentation
) -> Runner:
    """The steps of a method as training makes them: `parallel.train_dispatch` over a resident set."""
    feed = Resident(examples, batch_size=batch_size, augmentation=augmentation, steps=PER_DISPATCH)
    dispatch = parallel.train_dispatch(method, feed.reader)
    carry = parallel.replicate((jnp.int32(0), jax.jit(method.init)(variables)))
    frozen, key = parallel.broadcast((frozen, rng.stream(0, 'benchmark')))
    arrays = parallel.place(feed.reader, feed.arrays(0))

    def run(steps: int) -> None:
        nonlocal carry
        for done in range(0, steps, PER_DISPATCH):
            count = parallel.broadcast(jnp.int32(min(PER_DISPATCH, steps - done)))
            carry, _ = dispatch(carry, frozen, arrays, key, count)
        jax.block_until_ready(carry)

    return run


def random_variables(shapes: Any) -> Any:
    """Variables of He's size, zero biases, unit scales; drawn by NumPy: compiling `model.init` takes long."""
    draw = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        if len(leaf.shape) == 1:
            one = jax.tree_util.keystr(path[-1:], simple=True) in ('scale', 'var')  # of batch normalisation
            return np.full(leaf.shape, one, np.float32)
        return draw.standard_normal(leaf.shape, np.float32) * np.float32((2 / np.prod(leaf.shape[:-1])) ** 0.5)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def random_examples(side: int, channels: int, num_classes: int) -> Examples:
    """256 square images of noise."""
    count = 256
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)
    labels = np.arange(count, dtype=np.int32) % num_classes
    names = tuple(str(index) for index in range(count))
    return Examples(images, labels, names[:num_classes], None, names)


def measure(runners: dict[str, Runner], repeats: int) -> dict[str, np.ndarray]:
    """Seconds per step of every runner, [repeats]; the runners take turns, after a warm-up each."""
    for run in runners.values():
        run(1)
    steps = {name: max(FEWEST_STEPS, round(SECONDS / _timed(run, 1))) for name, run in runners.items()}
    rounds = [{name: _timed(run, steps[name]) for name, run in runners.items()} for _ in range(repeats)]
    return {name: np.asarray([times[name] for times in rounds]) for name in runners}


def _timed(run: Runner, steps: int) -> float:
    start = time.perf_counter()
    run(steps)
    return (time.perf_counter() - start) / steps
