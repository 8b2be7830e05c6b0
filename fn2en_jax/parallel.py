"""The only file that knows about devices: `pmap`, donation, replication, sharding.

Training runs several steps per dispatch: a `fori_loop` with a traced trip count, so that every dispatch, the last and
shorter one too, is one compiled program. Its arguments already live on the devices, so a dispatch moves nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fn2en_jax import rng, workdir
from fn2en_jax.data.augmentation import centre_crop
from fn2en_jax.data.batches import Reader
from fn2en_jax.errors import UserError
from fn2en_jax.methods.base import Evaluator, Method
from fn2en_jax.metrics import Mean
from fn2en_jax.types import Array, Key, PyTree

AXIS = 'batch'


def keep_compiled(folder: str) -> None:
    """Keeps compiled programs from one process to the next: compiling takes longer than training a small net.

    Args:
        folder: '' for where the process keeps them already, or else the user's cache; 'none' for nowhere.
    """
    if folder != 'none':
        kept: str | None = jax.config.values['jax_compilation_cache_dir']
        jax.config.update('jax_compilation_cache_dir', folder or kept or str(workdir.cache('xla')))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def num_devices() -> int:
    return jax.local_device_count()


def per_device(batch_size: int) -> int:
    """The share of one device in a global batch.

    Raises:
        UserError: when the devices do not divide the batch.
    """
    share, left = divmod(batch_size, num_devices())
    if left:
        nearest = max(1, share) * num_devices()
        raise UserError(
            f'batch size {batch_size} does not divide over {num_devices()} devices; '
            f'use a multiple of {num_devices()}, such as {nearest}'
        )
    return share


def _sharding(spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,)), spec)


def broadcast(tree: PyTree) -> PyTree:
    """One read-only copy of every leaf on every device, to be passed with `in_axes=None`."""
    return jax.device_put(tree, _sharding(PartitionSpec()))


def replicate(tree: PyTree) -> PyTree:
    """Leaves with a new leading device axis [D, ...], one slice on each device: what is donated."""
    stacked = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x)[None], (num_devices(), *np.shape(x))), tree)
    return jax.device_put(stacked, _sharding(PartitionSpec(AXIS)))


def unreplicate(tree: PyTree) -> PyTree:
    """The first device's slice of a replicated tree, as host arrays that own their memory.

    The copy matters: on the CPU an array may share memory with a device buffer that the next dispatch overwrites.
    """
    return jax.tree.map(lambda x: np.array(x.addressable_shards[0].data)[0], tree)


def place(reader: Reader, arrays: PyTree) -> PyTree:
    """Puts a feed's arrays on the devices: a resident set whole on each, streamed batches split between them."""
    if not reader.streamed:
        return broadcast(arrays)
    share = per_device(reader.batch_size)

    def split(x: np.ndarray) -> np.ndarray:  # [T,B,...] -> [D,T,b,...]
        parts = x.reshape(x.shape[0], num_devices(), share, *x.shape[2:])
        return np.ascontiguousarray(np.moveaxis(parts, 1, 0))

    batches = jax.device_put(jax.tree.map(split, arrays['batches']), _sharding(PartitionSpec(AXIS)))
    return {'batches': batches, 'first': broadcast(arrays['first'])}


def first_metrics(metrics: PyTree) -> PyTree:
    """Metrics summed over devices are equal on all of them: the first device's, on the host."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], metrics)


@functools.lru_cache(maxsize=32)
def train_dispatch(method: Method, reader: Reader) -> Callable[..., tuple[PyTree, PyTree]]:
    """The compiled training loop of a method.

    Returns:
        dispatch(carry, frozen, arrays, key, count) -> (carry, metrics), where carry = (step, state) is replicated
        and donated, `arrays` come from `place`, `key` and `count` (steps to make, traced) from `broadcast`. Metrics
        are summed over the steps and the devices. Call it positionally: keyword arguments defeat donation.
    """
    share = per_device(reader.batch_size)

    def dispatch(carry: PyTree, frozen: PyTree, arrays: PyTree, key: Key, count: Array) -> tuple[PyTree, PyTree]:
        positions = jax.lax.axis_index(AXIS) * share + jnp.arange(share)
        arrays = reader.prepare(arrays, key, carry[0])

        def one_step(carry: PyTree) -> tuple[PyTree, dict[str, Mean]]:
            step, state = carry
            batch = reader.select(arrays, key, step, positions)
            state, metrics = method.train_step(state, frozen, batch, rng.at_step(rng.named(key, 'step'), step), AXIS)
            return (step + 1, state), metrics

        def body(_: Array, both: PyTree) -> PyTree:
            carry, total = both
            carry, metrics = one_step(carry)
            return carry, {name: total[name].merge(metric) for name, metric in metrics.items()}

        shapes = jax.eval_shape(one_step, carry)[1]
        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, count, body, (carry, empty))

    arrays_axes: Any = {'batches': 0, 'first': None} if reader.streamed else None
    return jax.pmap(
        dispatch,
        axis_name=AXIS,
        in_axes=(0, None, arrays_axes, None, None),
        donate_argnums=(0,),
    )


@functools.lru_cache(maxsize=32)
def _eval_dispatch(method: Evaluator, crop: int) -> Callable[..., PyTree]:
    def step(state: PyTree, frozen: PyTree, batch: PyTree) -> PyTree:
        return method.eval_step(state, frozen, {**batch, 'image': centre_crop(batch['image'], crop)})

    return jax.pmap(step, axis_name=AXIS, in_axes=(0, None, 0))


def eval_outputs(method: Evaluator, crop: int, state: PyTree, frozen: PyTree, batch: PyTree) -> PyTree:
    """Per-example outputs of one host batch [B,...], still on the devices as [D,b,...].

    Args:
        method: gives the `eval_step`.
        crop: side of the centre crop.
        state: replicated state.
        frozen: from `broadcast`.
        batch: from `data.batches.eval_batches`; its size must divide over the devices.
    """
    share = per_device(len(batch['label']))
    split = jax.tree.map(lambda x: x.reshape(num_devices(), share, *x.shape[1:]), batch)
    return _eval_dispatch(method, crop)(state, frozen, jax.device_put(split, _sharding(PartitionSpec(AXIS))))
