"""Trained nets without training: the nets of a config with weights drawn by NumPy."""

from pathlib import Path

import jax
import numpy as np

from fn2en_jax.methods.base import NetState
from fn2en_jax.trained import Trained
from tests import tiny_config

NAMES = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')
PROVENANCE = {'licence': 'made up for a test', 'results_of_fold': {'accuracy': 0.5}}


def make(method='scratch', *, names=NAMES, faces='align', **settings):
    """A net of `tests/tiny_config.py`; settings by name, '__' for the dot: data__channels=1."""
    config = tiny_config.get_config()
    config.update_from_flattened_dict({key.replace('__', '.'): value for key, value in settings.items()})
    return Trained(method, 'fold0', names, config, Path('nowhere'), _filled, faces, PROVENANCE)


def _filled(template):
    draw = np.random.default_rng(0)

    def leaf(path, abstract):
        name, shape = path[-1].key, abstract.shape
        if name == 'kernel':
            return np.float32(draw.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])))
        return np.float32(draw.normal(size=shape) * 0.1 + (name in ('scale', 'var')))

    params, stats = (jax.tree_util.tree_map_with_path(leaf, tree) for tree in (template.params, template.stats))
    return NetState(params, (), stats)


def faces(net, count=5, seed=1):
    """uint8 [count,S,S,C] as the net takes them."""
    return np.random.default_rng(seed).integers(0, 256, (count, *net.image_shape)).astype(np.uint8)


def probabilities(net, images):
    return np.asarray(jax.jit(net.probabilities())(net.variables(), images))
