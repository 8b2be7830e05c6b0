"""Training batches as a pure function of (key, step), from device memory or streamed from the host.

Both feeds answer the same questions, so the engine cannot tell them apart: `arrays(step)`, asked on the host once per
dispatch, gives the arrays the compiled steps will read; `prepare(arrays, ...)`, traced once into the dispatch, adds
what its steps share; `select(arrays, step, ...)`, traced into the step, takes one batch out of them. Which example
stands where depends on the key and the step alone: a resumed run sees the batches that the uninterrupted run would
have seen.
"""

import concurrent.futures
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import rng
from fn2en_jax.data.augmentation import Augmentation, augment
from fn2en_jax.data.examples import Examples
from fn2en_jax.types import Array, Batch, Key, PyTree


def padded_length(count: int) -> int:
    """Places in the order of `count` examples; folds of nearly equal size get the same, and share compiled steps."""
    return -(-count // _grain(count)) * _grain(count)


def _grain(count: int) -> int:
    return 32 if count <= 1024 else 256


def epoch_orders(
    key: Key, step: Array, *, steps: int, batch_size: int, padded: int, count: Array
) -> tuple[Array, Array]:
    """The epochs that `steps` steps from `step` on may touch: (the number of the first, their orders [E, padded]).

    Training reads an endless sequence of epochs, each a fresh permutation of the `count` examples in the first `count`
    places (a batch may span two epochs, or many). Padding, `count` ≤ id < `padded`, comes after them.
    """
    fewest = padded - _grain(padded) + 1  # what `count` is at least
    first = step * batch_size // count
    touched = first + jnp.arange(1 + -(-steps * batch_size // fewest))
    return first, jax.vmap(lambda epoch: _order(jax.random.fold_in(key, epoch), padded, count))(touched)


def _order(key: Key, padded: int, count: Array) -> Array:
    """A permutation of 0..count-1 in the first `count` places of an array of static length."""
    draws = jax.random.bits(key, (padded,)) >> 1  # below 2^31, so that padding sorts last
    return jnp.argsort(jnp.where(jnp.arange(padded) < count, draws, jnp.uint32(0xFFFFFFFF)))


def example_ids(epochs: tuple[Array, Array], step: Array, positions: Array, *, batch_size: int, count: Array) -> Array:
    """The examples of one batch: ids [B] for positions [B] of the global batch at `step`.

    epochs: from `epoch_orders`, for a range of steps that holds this one.
    """
    first, orders = epochs
    place = step * batch_size + positions
    return orders[place // count - first, place % count]


@dataclasses.dataclass(frozen=True)
class Reader:
    """The static half of a feed: hashable, so equal readers share one compiled step.

    Attributes:
        streamed: whether the arrays hold the batches of one dispatch rather than the whole set.
        padded: length of the order of an epoch (see `padded_length`).
        batch_size: examples in a global batch.
        steps: most steps of one dispatch.
        augmentation: what happens to a training image.
    """

    streamed: bool
    padded: int
    batch_size: int
    steps: int
    augmentation: Augmentation

    def prepare(self, arrays: PyTree, key: Key, step: Array) -> PyTree:
        """The arrays with what the steps of a dispatch share: sorting is done once per epoch in it, not per step."""
        return arrays if self.streamed else {**arrays, 'epochs': self.epochs(key, step, arrays['count'])}

    def epochs(self, key: Key, step: Array, count: Array) -> tuple[Array, Array]:
        """The orders that a dispatch starting at `step` needs; see `epoch_orders`."""
        order_key = rng.named(key, 'order')
        sizes = {'steps': self.steps, 'batch_size': self.batch_size, 'padded': self.padded}
        return epoch_orders(order_key, step, **sizes, count=count)

    def select(self, arrays: PyTree, key: Key, step: Array, positions: Array) -> Batch:
        """One training batch: positions [B] of the global batch at `step`, augmented (see `types.Batch`).

        arrays: from `prepare`, for a dispatch that holds this step.
        """
        if self.streamed:
            raw = jax.tree.map(lambda x: x[step - arrays['first']], arrays['batches'])
        else:
            ids = example_ids(arrays['epochs'], step, positions, batch_size=self.batch_size, count=arrays['count'])
            raw = jax.tree.map(lambda x: x[ids], arrays['examples'])
        keys = rng.per_example(rng.at_step(rng.named(key, 'augment'), step), positions)
        return {
            'image': augment(raw['image'], keys, self.augmentation),
            'label': raw['label'],
            'mask': jnp.ones(positions.shape, bool),
            'position': positions,
        }


class Resident:
    """A set that lives on the device as uint8 and is never touched by the host again.

    Args:
        examples: the set.
        batch_size: examples in a global batch.
        augmentation: what happens to a training image.
        steps: most steps of one dispatch.
    """

    def __init__(self, examples: Examples, *, batch_size: int, augmentation: Augmentation, steps: int):
        padded = padded_length(len(examples))
        self.reader = Reader(False, padded, batch_size, steps, augmentation)
        fill = padded - len(examples)
        images = examples.gather(np.arange(len(examples)))
        self._arrays = {
            'examples': {
                'image': np.pad(images, ((0, fill), (0, 0), (0, 0), (0, 0))),
                'label': np.pad(examples.labels, (0, fill)),
            },
            'count': np.int32(len(examples)),
        }

    def arrays(self, step: int, count: int = 0) -> PyTree:
        """The same arrays at every step; `image` uint8 [N,S,S,C], `label` int32 [N]."""
        del step, count
        return self._arrays


class Streamed:
    """A set read from the host: while the device computes one dispatch, a thread decodes the next.

    Args:
        examples: the set; its images may be decoded on demand.
        batch_size: examples in a global batch.
        augmentation: applied on the device, as for a resident set.
        key: the stage's data key, the one passed to the compiled step.
        steps: steps per dispatch.
    """

    def __init__(self, examples: Examples, *, batch_size: int, augmentation: Augmentation, key: Key, steps: int):
        self.reader = Reader(True, padded_length(len(examples)), batch_size, steps, augmentation)
        self._examples, self._key = examples, key
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._next: tuple[int, concurrent.futures.Future] | None = None

    def arrays(self, step: int, count: int = 0) -> PyTree:
        """The batches of the dispatch that starts at `step`: `image` uint8 [T,B,S,S,C], `label` int32 [T,B].

        `count` says how many of them it will use (0: all), and so where the next dispatch starts.
        """
        after = step + (count or self.reader.steps)
        ready = self._next
        chunk = ready[1].result() if ready and ready[0] == step else self._chunk(step)
        self._next = (after, self._pool.submit(self._chunk, after))
        return chunk

    def _chunk(self, step: int) -> PyTree:
        ids = np.asarray(_chunk_ids(self._key, step, len(self._examples), self.reader))
        pixels = self._examples.gather(ids.reshape(-1))
        return {
            'batches': {
                'image': pixels.reshape(*ids.shape, *pixels.shape[1:]),
                'label': self._examples.labels[ids],
            },
            'first': np.int32(step),
        }


@functools.partial(jax.jit, static_argnames='reader')
def _chunk_ids(key: Key, step: Array, count: Array, reader: Reader) -> Array:
    epochs, positions = reader.epochs(key, step, count), jnp.arange(reader.batch_size)
    each = functools.partial(example_ids, epochs, positions=positions, batch_size=reader.batch_size, count=count)
    return jax.vmap(each)(step + jnp.arange(reader.steps))


def eval_batches(examples: Examples, *, batch_size: int):
    """Yields the set in order as host batches of one shape, the last one padded and masked.

    Each batch holds `image` uint8 [B,S,S,C], `label` int32 [B], `mask` bool [B] and `position` int32 [B].
    """
    for start in range(0, len(examples), batch_size):
        ids = np.arange(start, start + batch_size)
        mask = ids < len(examples)
        ids = np.minimum(ids, len(examples) - 1)
        yield {
            'image': examples.gather(ids),
            'label': examples.labels[ids],
            'mask': mask,
            'position': np.arange(batch_size, dtype=np.int32),
        }
