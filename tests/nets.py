"""Nets with weights, without compiling their initialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.PRNGKey(0)


def filled(net, image):
    """Variables of `net` drawn with NumPy: kernels He normal, the rest around its usual start (quick to make)."""
    draw = np.random.default_rng(0)

    def leaf(path, abstract):
        name, shape = path[-1].key, abstract.shape
        if name == 'kernel':
            return jnp.float32(draw.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])))
        return jnp.float32(draw.normal(size=shape) * 0.1 + (name in ('scale', 'var')))

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(net.init, KEY, image))


@functools.cache
def compiled(net, **arguments):
    return jax.jit(functools.partial(net.apply, **arguments))
