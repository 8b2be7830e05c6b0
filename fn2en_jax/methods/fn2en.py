"""FaceNet2ExpNet (Ding, Zhou, Chellappa, FG 2017): a face net regularises an expression net.

Stage 1 regresses the convolutional part of a small net g onto a late layer of the frozen, fine-tuned face net G:
maximum likelihood under f(X) = C_p exp(-||X - mu||_p^p) with mean mu = G(I) gives

    L1(theta) = || g_theta(I) - G(I) ||_p^p

without any label. Stage 2 attaches randomly initialised fully-connected layers and trains everything jointly with
cross-entropy; it is a `Classifier` whose variables come from `attach_head`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fn2en_jax import losses
from fn2en_jax.methods.base import NetState, gradient_step
from fn2en_jax.metrics import Mean
from fn2en_jax.models.expression_net import ExpressionFeatures
from fn2en_jax.models.vgg_face import VGGFace
from fn2en_jax.optim import Optimiser
from fn2en_jax.types import Array, Batch, Key, PyTree


@dataclasses.dataclass(frozen=True)
class FeatureRegression:
    """Stage 1: the student's features are drawn to the teacher's response to the very same crop.

    The teacher is `frozen`, an argument of the step: it is in no state, no optimiser, no checkpoint of this stage,
    and is never donated.

    Attributes:
        student: the convolutional part of the expression net, up to the bridge.
        teacher: the face net.
        layer: which of the teacher's activations supervises ('pool5' in the paper).
        optimiser: what `optim.build` makes the optimiser from.
        p: exponent of the density.
        reduction: 'sum' over features as in the paper, or 'mean'.
        standardise: whether the target's channels are shifted and scaled to zero mean and unit variance with
            the constants in `frozen` (see `target_moments`); the paper regresses the raw response.
    """

    student: ExpressionFeatures
    teacher: VGGFace
    layer: str
    optimiser: Optimiser
    p: float = 2.0
    reduction: str = 'sum'
    standardise: bool = False

    def init(self, variables: Mapping[str, PyTree]) -> NetState:
        """State for the student's variables; the optimiser holds the student's leaves only."""
        params = variables['params']
        return NetState(params, self.optimiser.build().init(params), variables.get('batch_stats', {}))

    def train_step(
        self, state: NetState, frozen: PyTree, batch: Batch, key: Key, axis: str | None = None
    ) -> tuple[NetState, dict[str, Mean]]:
        """See `Method.train_step`; `frozen` holds `teacher` (the face net's variables), `mean` and `scale`."""
        del key  # nothing is random: the teacher is in inference mode and the student has no dropout here
        student = self.student.clone(axis_name=axis)
        target = self._target(frozen, batch)

        def loss_fn(params: PyTree) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
            features, updates = student.apply(
                {'params': params, 'batch_stats': state.stats},
                batch['image'],
                train=True,
                mutable=['batch_stats'],
            )
            return self._loss(features, target), (updates.get('batch_stats', {}), {})

        return gradient_step(state, loss_fn, batch['mask'], self.optimiser.build(), axis)

    def eval_step(self, state: NetState, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        """Per-example regression 'loss' [B], and 'target_power' [B], the loss of predicting the target's mean."""
        features, target = self.responses(state, frozen, batch)
        mean = frozen['mean'] if not self.standardise else jnp.zeros_like(frozen['mean'])
        constant = jnp.broadcast_to(mean, target.shape).astype(target.dtype)
        return {'loss': self._loss(features, target), 'target_power': self._loss(constant, target)}

    def responses(self, state: NetState, frozen: PyTree, batch: Batch) -> tuple[Array, Array]:
        """The student's features and the target that they imitate, each [B,...]."""
        variables = {'params': state.params, 'batch_stats': state.stats}
        features: Any = self.student.apply(variables, batch['image'])
        return features, self._target(frozen, batch)

    def _loss(self, features: Array, target: Array) -> Array:
        return losses.feature_regression(features, target, p=self.p, reduction=self.reduction)

    def _target(self, frozen: PyTree, batch: Batch) -> Array:
        response = _response(self.teacher, self.layer, frozen, batch)
        if self.standardise:
            scale = jnp.expand_dims(frozen['scale'], range(response.ndim - 1))
            response = (response - jnp.expand_dims(frozen['mean'], range(response.ndim - 1))) / scale
        # The gradient is taken with respect to the student only; this line says so to the reader.
        return jax.lax.stop_gradient(response)


@dataclasses.dataclass(frozen=True)
class TargetMoments:
    """Channel statistics of the teacher's response, for `standardise` and for judging stage 1's loss."""

    teacher: VGGFace
    layer: str

    def eval_step(self, state: PyTree, frozen: PyTree, batch: Batch) -> dict[str, Array]:
        """Per-example channel means of the response and of its square, each [B,F]; `frozen` holds `teacher`."""
        del state
        response = _response(self.teacher, self.layer, frozen, batch)
        flat = response.reshape(response.shape[0], -1, response.shape[-1])
        return {'mean': flat.mean(1), 'square': (flat**2).mean(1)}


def _response(teacher: VGGFace, layer: str, frozen: PyTree, batch: Batch) -> Array:
    """G(I): the teacher's activation in inference mode, float32."""
    activations: Any = teacher.apply(frozen['teacher'], batch['image'])
    return activations[layer].astype(jnp.float32)


def attach_head(variables: Mapping[str, PyTree], features: NetState) -> dict[str, PyTree]:
    """Puts stage 1's convolutions under a freshly initialised expression net.

    Args:
        variables: `ExpressionNet.init(...)`: random features and the random fully-connected head.
        features: the state that stage 1 left.

    Returns:
        The same tree with `params/features` (and its batch statistics) taken from stage 1.
    """
    attached = {'params': {**variables['params'], 'features': features.params}}
    if 'batch_stats' in variables:
        attached['batch_stats'] = {**variables['batch_stats'], 'features': features.stats}
    return attached
