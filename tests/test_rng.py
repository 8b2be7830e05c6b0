import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import rng


def test_stream_is_the_folded_name():
    expected = jax.random.fold_in(jax.random.PRNGKey(7), np.uint32(zlib.crc32(b'dropout')))
    chex.assert_trees_all_equal(rng.stream(7, 'dropout'), expected)
    chex.assert_shape(expected, (2,))


def test_names_of_any_checksum_make_streams():
    names = [f'stream{n}' for n in range(8)]
    assert max(zlib.crc32(name.encode()) for name in names) >= 2**31  # beyond int32, which fold_in could refuse
    keys = {tuple(np.asarray(rng.stream(0, name)).tolist()) for name in names}
    assert len(keys) == len(names)


def test_seed_name_and_step_all_matter():
    keys = [
        rng.stream(0, 'crop'),
        rng.stream(1, 'crop'),
        rng.stream(0, 'flip'),
        rng.at_step(rng.stream(0, 'crop'), 0),
        rng.at_step(rng.stream(0, 'crop'), 1),
    ]
    assert len({tuple(np.asarray(key).tolist()) for key in keys}) == len(keys)


def test_at_step_is_the_same_traced():
    key = rng.stream(3, 'crop')
    chex.assert_trees_all_equal(jax.jit(rng.at_step)(key, jnp.int32(11)), rng.at_step(key, 11))


def test_keys_of_examples_do_not_depend_on_how_the_batch_is_cut():
    key = rng.stream(3, 'dropout')
    whole = rng.per_example(key, jnp.arange(8))
    chex.assert_shape(whole, (8, 2))
    parts = [rng.per_example(key, jnp.arange(start, start + 2)) for start in range(0, 8, 2)]
    chex.assert_trees_all_equal(jnp.concatenate(parts), whole)
    chex.assert_trees_all_equal(whole[5], jax.random.fold_in(key, 5))
    assert len(np.unique(np.asarray(whole), axis=0)) == 8
