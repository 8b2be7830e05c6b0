"""Learning-rate schedules and optimisers built from parameter groups."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fn2en_jax import trees
from fn2en_jax.errors import UserError
from fn2en_jax.types import Array, PyTree

Group = tuple[str, str, float]  # name, regular expression of parameter names, learning-rate multiplier
EVERYTHING: tuple[Group, ...] = (('all', '.*', 1.0),)


def schedule(
    kind: str = 'step',
    *,
    base: float,
    total_steps: int,
    steps_per_epoch: float,
    drop_epochs: Sequence[float] = (),
    drop_factor: float = 0.1,
    warmup_epochs: float = 0.0,
) -> optax.Schedule:
    """A learning rate (float32 scalar) as a function of the count of steps taken so far; jit-safe.

    kind: 'constant'; 'step': multiplied by `drop_factor` after each of `drop_epochs`; or 'cosine': half a
        cosine from `base` after the warm-up down to 0 at `total_steps`.
    warmup_epochs: the rate rises linearly before: the first step of W has base/W, the W-th has base. It
        multiplies the rate of every kind.

    Raises UserError for an unknown kind, or drop epochs or a warm-up that cannot be.
    """
    if kind not in ('constant', 'step', 'cosine'):
        raise UserError(f"learning-rate schedule {kind!r} is unknown; use 'step', 'cosine' or 'constant'")
    if min((warmup_epochs, *drop_epochs)) < 0:
        raise UserError(f'drop_epochs {tuple(drop_epochs)} and warmup_epochs {warmup_epochs} must not be negative')
    warmup = round(warmup_epochs * steps_per_epoch)
    drops = [round(epoch * steps_per_epoch) for epoch in drop_epochs]

    def rate(count: Array) -> Array:
        factor = jnp.float32(base)
        if kind == 'step':
            passed = sum((jnp.asarray(count >= drop, jnp.float32) for drop in drops), start=jnp.float32(0.0))
            factor = factor * jnp.float32(drop_factor) ** passed
        if kind == 'cosine':
            done = jnp.clip(jnp.float32(count - warmup) / jnp.float32(max(total_steps - warmup, 1)), 0.0, 1.0)
            factor = factor * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        if warmup:
            factor = factor * jnp.minimum(jnp.float32(count + 1) / jnp.float32(warmup), 1.0)
        return factor

    return rate


def optimiser(
    kind: str = 'sgd',
    *,
    learning_rate: optax.Schedule,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    decay_mask: str = 'kernels',
    clip_norm: float = 0.0,
    groups: Sequence[Group] = EVERYTHING,
) -> optax.GradientTransformation:
    """SGD with momentum as in Caffe, or AdamW; `update` needs the parameters.

    'sgd': g += decay * w;  v = momentum * v + rate * g;  w -= v. Caffe multiplies by the rate before the
        momentum buffer, `optax.sgd` after it: with one constant rate they agree, but after a drop of the rate
        Caffe's v still carries the large old steps and dies down over 1/(1 - momentum) steps. Caffe is
        followed here.
    'adamw': b1 is `momentum`, b2 0.999, epsilon 1e-8, decay outside the gradient (w -= rate * decay * w).
    decay_mask: 'kernels' decays the leaves named 'kernel' only (VGG's Caffe files: decay_mult 0 for biases),
        'all' every parameter.
    clip_norm: gradients of a larger global norm are scaled down to it, before the decay as in Caffe; 0: off.
    groups: (name, regular expression, multiplier of the rate); see `trees.match_groups`. The multiplier 0.0
        freezes a parameter: no bit changes, it has no optimiser state, clipping does not count its gradient.

    The state holds arrays only. Raises UserError for an unknown kind or mask, a negative number, two groups
    of one name, and (in `init`) for a parameter in no group.
    """
    if kind not in ('sgd', 'adamw'):
        raise UserError(f"optimiser {kind!r} is unknown; use 'sgd' or 'adamw'")
    if decay_mask not in ('kernels', 'all'):
        raise UserError(f"decay_mask {decay_mask!r} is unknown; use 'kernels' or 'all'")
    if min(momentum, weight_decay, clip_norm, *(multiplier for *_, multiplier in groups)) < 0:
        raise UserError(
            f'momentum {momentum}, weight_decay {weight_decay}, clip_norm {clip_norm} and the '
            'multipliers of the groups must not be negative'
        )
    if len({name for name, *_ in groups}) < len(groups):
        raise UserError(f'two parameter groups have one name: {[name for name, *_ in groups]}')
    decay = optax.add_decayed_weights(weight_decay, mask=_kernels if decay_mask == 'kernels' else None)
    rate = optax.chain(optax.scale_by_learning_rate(learning_rate), _scale_groups(groups))
    steps = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if kind == 'sgd':
        steps += [decay, rate, optax.trace(momentum)]
    else:
        steps += [optax.scale_by_adam(b1=momentum), decay, rate]
    return optax.partition(
        {'trained': optax.chain(*steps), 'frozen': _keep()}, lambda params: _frozen_or_trained(params, groups)
    )


def _frozen_or_trained(params: PyTree, groups: Sequence[Group]) -> PyTree:
    multipliers = {name: multiplier for name, _, multiplier in groups}
    return jax.tree.map(
        lambda name: 'trained' if multipliers[name] else 'frozen',
        trees.match_groups(params, [group[:2] for group in groups]),
    )


def _scale_groups(groups: Sequence[Group]) -> optax.GradientTransformation:
    """Multiplies every update by the multiplier of its group."""
    multipliers = {name: multiplier for name, _, multiplier in groups}

    def scale(updates: PyTree, _: PyTree) -> PyTree:
        names = trees.match_groups(updates, [group[:2] for group in groups])
        return jax.tree.map(lambda update, name: update * multipliers[name], updates, names)

    return optax.stateless(scale)


def _keep() -> optax.GradientTransformation:
    """Leaves parameters as they are: w + (-0.0) is w in every bit, while -0.0 + 0.0 would become +0.0."""
    return optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: jnp.full_like(leaf, -0.0), updates))


def _kernels(params: PyTree) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: trees.path_name(path).split('/')[-1] == 'kernel', params)


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """What `schedule` and `optimiser` need, as one hashable value: equal settings share one compiled step."""

    kind: str
    learning_rate: float
    total_steps: int
    steps_per_epoch: float
    schedule: str = 'step'
    drop_epochs: tuple[float, ...] = ()
    drop_factor: float = 0.1
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_mask: str = 'kernels'
    clip_norm: float = 0.0
    groups: tuple[Group, ...] = EVERYTHING

    def build(self) -> optax.GradientTransformation:
        """The optimiser; raises as `schedule` and `optimiser` do."""
        rate = schedule(
            self.schedule,
            base=self.learning_rate,
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            drop_epochs=self.drop_epochs,
            drop_factor=self.drop_factor,
            warmup_epochs=self.warmup_epochs,
        )
        return optimiser(
            self.kind,
            learning_rate=rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_mask=self.decay_mask,
            clip_norm=self.clip_norm,
            groups=self.groups,
        )
