"""What the engine knows of a training method, and the gradient step that all of ours share."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from fn2en_jax.metrics import Mean
from fn2en_jax.types import Array, Batch, Key, PyTree


class NetState(NamedTuple):
    """One network under training. No random key and no teacher: those are arguments of the step.

    Attributes:
        params: float32 parameter tree.
        opt_state: state of the optimiser for exactly these parameters.
        stats: running means and variances of batch normalisation ({} without it).
    """

    params: PyTree
    opt_state: PyTree
    stats: PyTree


class Evaluator(Protocol):
    """Something that judges images. Implementations are hashable, so equal ones share one compiled step."""

    def __hash__(self) -> int: ...

    def eval_step(self, state: Any, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        """Per-example outputs, each [B, ...]; of a method always 'loss' [B], of a classifier also 'logits' [B,K]."""
        ...


class Method(Evaluator, Protocol):
    """A way to train.

    `State` is any pytree of arrays; a method with several networks keeps several `NetState`s in it. `frozen` is a
    pytree of arrays that the step reads and never changes: a teacher, class weights.
    """

    def train_step(
        self, state: Any, frozen: PyTree, batch: Batch, key: Key, axis: str | None = None
    ) -> tuple[Any, dict[str, Mean]]:
        """One update; with `axis`, gradients and metrics are summed over that mapped axis."""
        ...


# loss_fn(params) -> (per-example loss [B], (new stats, metric values {name: [B]}))
LossFn = Callable[[PyTree], tuple[Array, tuple[PyTree, dict[str, Array]]]]


def gradient_step(
    state: NetState,
    loss_fn: LossFn,
    mask: Array,
    optimiser: optax.GradientTransformation,
    axis: str | None,
) -> tuple[NetState, dict[str, Mean]]:
    """Descends the mean of a per-example loss over the valid examples of the *global* batch.

    Gradients of the local sum and the count are each summed over `axis` and divided once: a mean of per-device means
    would be wrong where devices hold different numbers of valid examples.
    """

    def total(params: PyTree) -> tuple[Array, tuple[Array, PyTree, dict[str, Array]]]:
        losses, (stats, values) = loss_fn(params)
        return jnp.sum(jnp.where(mask, losses, 0.0)), (losses, stats, values)

    grads, (losses, stats, values) = jax.grad(total, has_aux=True)(state.params)
    metrics = {name: Mean.of(value, mask) for name, value in {'loss': losses, **values}.items()}
    if axis is not None:
        grads, metrics = jax.lax.psum((grads, metrics), axis)
    count = jnp.maximum(metrics['loss'].count, 1)
    grads = jax.tree.map(lambda g: g / count, grads)
    updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
    return NetState(optax.apply_updates(state.params, updates), opt_state, stats), metrics
