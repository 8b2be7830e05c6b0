"""Dropout with one key per example: a step does not depend on how the batch is spread over devices."""

import jax
import jax.numpy as jnp

from fn2en_jax.types import Array


def dropout(x: Array, keys: Array | None, rate: float, *, layer: int = 0) -> Array:
    """Zeroes each number of x [B,...] with probability `rate` and divides the others by 1 - rate.

    keys: uint32 [B,2], one an example, or None for no dropout. layer: distinguishes dropout layers of one
        net.
    Raises ValueError for a rate outside [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f'the dropout rate is {rate}; it must be at least 0 and below 1')
    if keys is None or rate == 0.0:
        return x

    def keep(key: Array) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, layer), 1.0 - rate, x.shape[1:])

    return jnp.where(jax.vmap(keep)(keys), x / (1.0 - rate), jnp.zeros_like(x))
