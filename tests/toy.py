"""The smallest method the engine can train, and runs of it: seconds would go into compiling anything larger."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import checkpoint, engine, optim, rng
from fn2en_jax.data.augmentation import Augmentation
from fn2en_jax.data.batches import Resident
from fn2en_jax.methods.base import NetState, gradient_step
from tests import faces

KEY = np.asarray(rng.stream(5, 'toy'))
EXAMPLES = faces.make(30, size=8)
FROZEN = {'scale': np.float32(1.0)}
traces: list[str] = []  # a word for every time a step is traced


@dataclasses.dataclass(frozen=True)
class Toy:
    """Linear regression of the label from the mean colour, with noise; its metrics tell which steps were made."""

    rate: float = 0.1
    gain: float = 1.0

    def _optimiser(self):
        return optim.Optimiser('sgd', self.rate, 20, 4, schedule='constant').build()

    def init(self) -> NetState:
        params = {'w': jnp.full((3,), 0.5), 'b': jnp.zeros((1,))}
        return jax.device_get(NetState(params, self._optimiser().init(params), {'steps': jnp.float32(0)}))

    def _losses(self, params, scale, batch):
        colour = batch['image'].mean((1, 2)) / 255 * scale
        return self.gain * (colour @ params['w'] + params['b'] - batch['label'].astype(jnp.float32)) ** 2

    def train_step(self, state, frozen, batch, key, axis=None):
        traces.append('train')
        noise = jax.vmap(jax.random.normal)(rng.per_example(key, batch['position']))
        steps = state.stats['steps'] + 1
        values = {'steps': jnp.full(noise.shape, steps), 'position': batch['position'].astype(jnp.float32)}

        def loss_fn(params):
            losses = self._losses(params, frozen['scale'], batch) + 0.01 * noise * params['b']
            return losses, ({'steps': steps}, values)

        return gradient_step(state, loss_fn, batch['mask'], self._optimiser(), axis)

    def eval_step(self, state, frozen, batch):
        traces.append('eval')
        return {'loss': self._losses(state.params, frozen['scale'], batch), 'image': batch['image']}


AUGMENTATION = Augmentation(crop=6, brightness=0.1)
FEED = Resident(EXAMPLES, batch_size=8, augmentation=AUGMENTATION, steps=20)


@dataclasses.dataclass
class Log:
    """What the engine told its hooks."""

    rows: list = dataclasses.field(default_factory=list)
    evaluated: list = dataclasses.field(default_factory=list)


def fit(folder: Path, method=None, *, feed=FEED, log=None, stop_after=None, keep=2, **pace):
    """Trains as the experiment does: from the newest checkpoint in the folder on. Returns the final state."""
    method = method or Toy()
    log = Log() if log is None else log
    pace = engine.Pace(**{'last_step': 20, 'per_dispatch': 3, 'log_every': 5, 'save_seconds': 0.0} | pace)
    checkpoints = checkpoint.Checkpoints(folder, keep=keep)
    asked = []

    def stop_requested() -> bool:
        asked.append(None)
        return stop_after is not None and len(asked) >= stop_after

    hooks = engine.Hooks(
        lambda step, values: log.rows.append((step, values)),
        lambda step, state: log.evaluated.append((step, state)),
        stop_requested,
    )
    try:
        state, _ = engine.fit(
            method,
            method.init,
            FROZEN,
            feed,
            found=checkpoints.newest(method.init()),
            key=KEY,
            pace=pace,
            checkpoints=checkpoints,
            facts={'class_names': ['a', 'b']},
            hooks=hooks,
        )
    finally:
        checkpoints.close()
    return state
