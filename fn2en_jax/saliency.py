"""Where in an image the evidence for a class lies: Grad-CAM (Selvaraju et al. 2017)."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax.types import Array, PyTree


def grad_cam(
    model: nn.Module,
    variables: PyTree,
    images: Array,
    classes: Array,
    *,
    layer: str,
    output: str,
    mirror: bool = False,
) -> Array:
    """Grad-CAM of one class per image, [B,h,w], at least 0.

    The maps A [h,w,F] of a layer are added up with weights alpha, the mean over the map of the gradient of the class's
    logit, and what speaks against the class is cut off: ReLU(sum_f alpha_f A_f).

    Args:
        model: returns a mapping of activations, and takes `offsets` of its maps.
        variables: of the model.
        images: [B,H,W,C], 0..255.
        classes: int [B].
        layer: whose maps.
        output: the name of the logits.
        mirror: average with the evidence in the mirror image, turned back, for a net whose logits are averaged so.
    """
    found = _of_images(model, variables, images, classes, layer, output)
    if not mirror:
        return found
    return (found + _of_images(model, variables, images[:, :, ::-1], classes, layer, output)[:, :, ::-1]) / 2


def _of_images(model: nn.Module, variables: PyTree, images: Array, classes: Array, layer: str, output: str) -> Array:
    def logit(offset: Array) -> tuple[Array, Array]:
        found: Any = model.apply(variables, images, offsets={layer: offset})
        picked = jnp.take_along_axis(found[output], classes[:, None], axis=1)
        return picked.sum(), found[layer].astype(jnp.float32)

    shape: Any = jax.eval_shape(lambda: model.apply(variables, images))
    zero = jnp.zeros(shape[layer].shape, shape[layer].dtype)
    gradient, maps = jax.grad(logit, has_aux=True)(zero)
    return evidence(maps, gradient.astype(jnp.float32))


def evidence(maps: Array, gradient: Array) -> Array:
    """ReLU of the maps [B,h,w,F] added up with the means of their gradients [B,h,w,F]: [B,h,w]."""
    weights = gradient.mean((1, 2))
    return jax.nn.relu(jnp.einsum('bhwf,bf->bhw', maps, weights, precision='highest'))


def over(evidence: Array, side: int) -> Array:
    """Evidence [B,h,w] as an overlay [B,side,side] in 0..1: enlarged bilinearly, its maximum 1 unless all is 0."""
    large = jax.image.resize(evidence, (len(evidence), side, side), 'bilinear')
    top = large.max((1, 2), keepdims=True)
    return jnp.where(top > 0, large / jnp.where(top > 0, top, 1.0), 0.0)


def deepest_map(shapes: Mapping[str, Sequence[int]], least_side: int) -> str:
    """The last map, in the order in which the net computes them, of at least this side; else the largest of the latest.

    Small images leave one pixel of the last map, in which no place can be told from another.

    Args:
        shapes: by name, [B,h,w,F] of maps and [B,F] of other layers, which are passed over.
        least_side: pixels.

    Raises:
        ValueError: when there is no map.
    """
    maps = {name: min(shape[1:3]) for name, shape in shapes.items() if len(shape) == 4}
    if not maps:
        raise ValueError(f'none of {", ".join(shapes)} is a map')
    fitting = [name for name, side in maps.items() if side >= least_side]
    return fitting[-1] if fitting else max(maps, key=maps.__getitem__)


def telling(right: np.ndarray, sure: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of images that tell nets apart: those all get right, those only some do, those none does.

    Args:
        right: bool [M,N], which of M nets gets which of N images right.
        sure: [N], how sure the nets are; of each kind the surest come first, classes not shown yet before others.
        labels: int [N].
        count: how many.

    Returns:
        int [min(N,count)], kinds in order, as evenly as there are images of them.
    """
    patterns = sorted(set(map(tuple, right.T.tolist())), reverse=True)
    kinds = [_surest(np.flatnonzero(np.equal(right.T, pattern).all(1)), sure, labels) for pattern in patterns]
    wanted = [0] * len(kinds)
    while sum(wanted) < min(count, right.shape[1]):
        open_kinds = [k for k in range(len(kinds)) if wanted[k] < len(kinds[k])]
        wanted[min(open_kinds, key=wanted.__getitem__)] += 1
    return np.concatenate([kind[:number] for kind, number in zip(kinds, wanted, strict=True)])


def _surest(ids: np.ndarray, sure: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Positions in the order of certainty, but the surest of every class before the second of any."""
    ordered = ids[np.argsort(-sure[ids], kind='stable')]
    turn: dict[int, int] = {}
    rank = []
    for label in labels[ordered].tolist():
        rank.append(turn.get(label, 0))
        turn[label] = rank[-1] + 1
    return ordered[np.argsort(rank, kind='stable')]
