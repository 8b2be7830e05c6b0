"""Random keys as pure functions of (seed, name, step, example).

Nothing is stored, so a resumed run draws the same numbers.
Every key is derived by `fold_in`. Adding a stream does not shift another, and a key per example of the global
batch gives the same numbers however many devices share the batch.
"""

import zlib

import jax
import numpy as np

from fn2en_jax.types import Array, Key


def stream(seed: int, name: str) -> Key:
    """The root key uint32 [2] of the named stream of random numbers, for example 'dropout'."""
    return named(jax.random.PRNGKey(seed), name)


def at_step(key: Key, step: int | Array) -> Key:
    """The key uint32 [2] of one training step (or epoch, layer, ...) of a stream; `step` may be traced."""
    return jax.random.fold_in(key, step)


def per_example(key: Key, positions: Array) -> Array:
    """One key for every example: int [B] positions within the global batch -> uint32 [B,2]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def named(key: Key, name: str) -> Key:
    """The key uint32 [2] of a named purpose below `key`: purposes of one stage never share draws."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
