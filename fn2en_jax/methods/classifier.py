"""Training with labels: the step shared by the face net, both baselines and stage 2."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fn2en_jax import losses, rng
from fn2en_jax.methods.base import NetState, gradient_step
from fn2en_jax.metrics import Mean
from fn2en_jax.optim import Optimiser
from fn2en_jax.types import Array, Batch, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Joint training of a whole network with cross-entropy.

    Attributes:
        model: a Linen module that returns a mapping of activations.
        output: the name of the logits among them ('fc8' of the face net, 'logits' of the expression net).
        optimiser: what `optim.build` makes the optimiser from.
        label_smoothing: share of the target spread evenly over all classes.
        flip_test: average the logits of a test image and its mirror image.
    """

    model: nn.Module
    output: str
    optimiser: Optimiser
    label_smoothing: float = 0.0
    flip_test: bool = False

    def init(self, variables: Mapping[str, PyTree]) -> NetState:
        """State for a network's variables, as made by `model.init` or taken from an earlier stage."""
        params = variables['params']
        return NetState(params, self.optimiser.build().init(params), variables.get('batch_stats', {}))

    def train_step(
        self, state: NetState, frozen: PyTree, batch: Batch, key: Key, axis: str | None = None
    ) -> tuple[NetState, dict[str, Mean]]:
        """See `Method.train_step`; `frozen` holds `class_weights` [K]."""
        model: Any = self.model.clone(axis_name=axis)
        dropout_keys = rng.per_example(rng.named(key, 'dropout'), batch['position'])

        def loss_fn(params: PyTree) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
            outputs, updates = model.apply(
                {'params': params, 'batch_stats': state.stats},
                batch['image'],
                train=True,
                dropout_keys=dropout_keys,
                mutable=['batch_stats'],
            )
            loss = self._loss(outputs[self.output], frozen, batch)
            correct = jnp.argmax(outputs[self.output], -1) == batch['label']
            return loss, (updates.get('batch_stats', {}), {'accuracy': correct.astype(jnp.float32)})

        return gradient_step(state, loss_fn, batch['mask'], self.optimiser.build(), axis)

    def eval_step(self, state: NetState, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        """Per-example 'loss' [B] and 'logits' [B,K]."""
        logits = self.logits({'params': state.params, 'batch_stats': state.stats}, batch['image'])
        return {'loss': self._loss(logits, frozen, batch), 'logits': logits}

    def logits(self, variables: PyTree, images: Array) -> Array:
        """Logits [B,K] of images [B,H,W,C] in 0..255, averaged with those of their mirror images if so wished."""
        logits = self._logits(variables, images)
        return (logits + self._logits(variables, images[:, :, ::-1])) / 2 if self.flip_test else logits

    def _logits(self, variables: PyTree, images: Array) -> Array:
        activations: Any = self.model.apply(variables, images)
        return activations[self.output]

    def _loss(self, logits: Array, frozen: PyTree, batch: Batch) -> Array:
        return losses.cross_entropy(
            logits,
            batch['label'],
            class_weights=frozen['class_weights'],
            label_smoothing=self.label_smoothing,
        )
