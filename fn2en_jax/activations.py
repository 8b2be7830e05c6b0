"""Activations of a net by name, reduced to what fits on the host."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fn2en_jax.types import Array, Batch, PyTree

WHOLE = 0


@dataclasses.dataclass(frozen=True)
class Activations:
    """An `Evaluator` that returns chosen activations of every image; `frozen` holds the net's variables.

    Attributes:
        model: a Linen module that returns a mapping of activations.
        names: which of them.
        grid: maps larger than this are averaged to `grid` x `grid` regions; WHOLE leaves them as they are.
    """

    model: nn.Module
    names: tuple[str, ...]
    grid: int = WHOLE

    def eval_step(self, state: PyTree, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        """The activations of a batch in float32: [B,F] of a layer of units, [B,h,w,F] of a map."""
        del state
        found: Any = self.model.apply(frozen, batch['image'])
        return {name: regional_means(found[name].astype(jnp.float32), self.grid) for name in self.names}


@dataclasses.dataclass(frozen=True)
class Pixels:
    """An `Evaluator` that returns the images themselves, reduced like a map: what a net has to be better than."""

    grid: int

    def eval_step(self, state: PyTree, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        """'pixels' [B,g,g,C] in 0..255."""
        del state, frozen
        return {'pixels': regional_means(batch['image'], self.grid)}


def regional_means(x: Array, grid: int) -> Array:
    """Means of `grid` x `grid` regions of maps x [B,H,W,F] -> [B,min(H,grid),min(W,grid),F]; anything else as it is.

    Regions are those of adaptive average pooling: along a side of n the i-th begins at floor(i n / grid) and ends
    before ceil((i+1) n / grid), so they overlap by one where the side does not divide.
    """
    if not grid or x.ndim != 4:
        return x
    rows, columns = (jnp.asarray(_regions(side, grid)) for side in x.shape[1:3])
    return jnp.einsum('bhwf,ih,jw->bijf', x, rows, columns, precision='highest')


def _regions(side: int, grid: int) -> np.ndarray:
    """[min(side,grid), side]: the weights of the average of every region."""
    count = min(side, grid)
    weights = np.zeros((count, side), np.float32)
    for index in range(count):
        begin, end = index * side // count, -(-(index + 1) * side // count)
        weights[index, begin:end] = 1 / (end - begin)
    return weights


def flat(activations: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named activations in that order, each as one row per image, [N,F]."""
    return {name: activations[name].reshape(len(activations[name]), -1) for name in names}
