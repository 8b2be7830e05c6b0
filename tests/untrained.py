"""The workdir of a run that never happened: a tiny net with random weights, for tests of what is done with nets."""

import json
from pathlib import Path

import jax
import numpy as np

from fn2en_jax import checkpoint, config_checks, parallel
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.methods.base import NetState
from fn2en_jax.stages import Stages
from tests import tiny_config

CLASSES = ('anger', 'fear', 'happiness')


def write(folder: Path, *, faces: str = 'align', channels: int = 3) -> Path:
    """Writes `config.json` and the last checkpoint of the stage 'scratch' of the fold 'all', as a run does.

    The state passes through all devices of this process, as that of a training does.
    """
    config = tiny_config.get_config('scratch')
    config.data.update(channels=channels, faces=faces)
    side, ids = config.data.stored_size, np.arange(3)
    blank = Examples(
        np.zeros((3, side, side, channels), np.uint8), np.arange(3, dtype=np.int32), CLASSES, None, ('a', 'b', 'c')
    )
    stage = Stages(config, Data(blank, None, {}), Fold('all', ids, ids)).build('scratch')
    state = parallel.unreplicate(parallel.replicate(_random(stage.template())))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(config_checks.plain(config)))
    preprocessing = {key: config.data[key] for key in ('stored_size', 'crop_size', 'channels', 'no_face')}
    facts = {'class_names': list(CLASSES), 'preprocessing': {**preprocessing, 'faces': faces}}
    checkpoints = checkpoint.Checkpoints(folder / 'all' / 'scratch')
    checkpoints.save(stage.last_step, state, {**facts, 'last_step': stage.last_step, 'seconds': 0.0})
    checkpoints.close()
    return folder


def _random(template: NetState) -> NetState:
    """Kernels that keep the variance of what passes, so that images differ in their probabilities; no bias."""
    draw = np.random.default_rng(0)

    def leaf(path: tuple, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(shape.shape) > 1:
            spread = np.sqrt(2 / np.prod(shape.shape[:-1]))
            return (spread * draw.standard_normal(shape.shape)).astype(shape.dtype)
        return np.full(shape.shape, path[-1].key in ('scale', 'var'), shape.dtype)

    params, stats = (jax.tree_util.tree_map_with_path(leaf, tree) for tree in (template.params, template.stats))
    rest = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), template.opt_state)
    return NetState(params, rest, stats)
