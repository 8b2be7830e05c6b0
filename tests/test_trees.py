import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fn2en_jax import trees
from fn2en_jax.errors import UserError


def net():
    return {
        'fc8': {'kernel': jnp.arange(6.0).reshape(3, 2), 'bias': jnp.zeros(2)},
        'myfc8': {'kernel': jnp.ones((2, 2))},
        'fc80': {'kernel': jnp.ones(4)},
    }


def test_paths_name_every_leaf():
    assert list(trees.paths(net())) == ['fc8/bias', 'fc8/kernel', 'fc80/kernel', 'myfc8/kernel']
    assert trees.paths({'a': [jnp.ones(1), (jnp.ones(2),)]})['a/1/0'].shape == (2,)


def test_num_params_counts_numbers_of_real_and_abstract_leaves():
    assert trees.num_params(net()) == 6 + 2 + 4 + 4
    assert trees.num_params(jax.eval_shape(net)) == 16
    assert trees.num_params({'scalar': jnp.float32(1)}) == 1


def test_groups_match_whole_names_only():
    groups = trees.match_groups(net(), (('new', 'fc8/.*'), ('rest', '.*')))
    assert trees.paths(groups) == {
        'fc8/bias': 'new',
        'fc8/kernel': 'new',
        'fc80/kernel': 'rest',
        'myfc8/kernel': 'rest',
    }


def test_the_first_matching_group_counts():
    groups = trees.match_groups(net(), (('kernels', '.*/kernel'), ('fc8', 'fc8/.*'), ('rest', '.*')))
    assert groups['fc8'] == {'kernel': 'kernels', 'bias': 'fc8'}


def test_a_leaf_without_group_is_an_error():
    with pytest.raises(UserError, match=r"no group matches fc80/kernel, myfc8/kernel; groups: new='fc8/\.\*'"):
        trees.match_groups(net(), (('new', 'fc8/.*'),))


def test_a_malformed_expression_is_an_error():
    with pytest.raises(UserError, match=r"group 'new'.*not a regular expression"):
        trees.match_groups(net(), (('new', 'fc8/('),))


def test_strict_merge_takes_every_leaf_and_casts_it():
    loaded = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) + 10.0, net())
    merged = trees.strict_merge(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), net()), loaded)
    chex.assert_trees_all_equal(merged, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), loaded))


def test_strict_merge_lists_everything_that_does_not_fit():
    loaded = {
        'fc8': {'kernel': jnp.ones((3, 5)), 'bias': jnp.ones(2)},
        'fc9': {'bias': jnp.ones(1)},
        'fc80': {'kernel': jnp.ones(4)},
    }
    with pytest.raises(UserError) as caught:
        trees.strict_merge(net(), loaded)
    assert 'missing: myfc8/kernel; surplus: fc9/bias; ' in str(caught.value)
    assert 'of another shape: fc8/kernel (3, 5) where (3, 2) is needed' in str(caught.value)


def test_strict_merge_allows_what_is_named():
    loaded = {'fc8': {'kernel': jnp.full((3, 2), 7.0), 'bias': jnp.ones(2)}, 'fc9': {'bias': jnp.ones(1)}}
    merged = trees.strict_merge(net(), loaded, allow_missing=('fc80/.*', 'myfc8/.*'), allow_surplus=('fc9/.*',))
    chex.assert_trees_all_equal(merged, net() | {'fc8': loaded['fc8']})
    with pytest.raises(UserError, match='missing: myfc8/kernel'):  # 'fc8.*' does not cover 'myfc8/kernel'
        trees.strict_merge(net(), loaded, allow_missing=('fc8.*',), allow_surplus=('fc9/.*',))


def test_a_leaf_of_another_shape_must_be_both_missing_and_surplus():
    loaded = net() | {'fc8': {'kernel': jnp.ones((3, 5)), 'bias': jnp.ones(5)}}
    merged = trees.strict_merge(net(), loaded, allow_missing=('fc8/.*',), allow_surplus=('fc8/.*',))
    chex.assert_trees_all_equal(merged, net())
    with pytest.raises(UserError, match='of another shape'):
        trees.strict_merge(net(), loaded, allow_missing=('fc8/.*',))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'uint32', 'uint8'])
def test_checksum_sees_one_changed_bit(dtype):
    leaf = jnp.arange(40).reshape(5, 8).astype(dtype)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, unsigned)
    sums = {int(trees.checksum({'a': leaf}))}
    for bit in range(8 * leaf.dtype.itemsize):
        flipped = bits.at[3, 2].set(bits[3, 2] ^ unsigned(1 << bit))
        sums.add(int(trees.checksum({'a': jax.lax.bitcast_convert_type(flipped, leaf.dtype)})))
    assert len(sums) == 8 * leaf.dtype.itemsize + 1


def test_checksum_sees_booleans_and_the_sign_of_zero():
    flags = jnp.array([True, False, True])
    assert trees.checksum([flags]) != trees.checksum([~flags])
    assert trees.checksum([jnp.zeros(3)]) != trees.checksum([jnp.zeros(3).at[1].set(-0.0)])


def test_checksum_sees_exchanged_leaves_and_elements():
    # Powers of two in tensors of 2**k elements: plain weighted sums of bits are equal here.
    one, two = jnp.full(256, 1.0), jnp.full(256, 2.0)
    assert trees.checksum({'a': one, 'b': two}) != trees.checksum({'a': two, 'b': one})
    mixed = jnp.concatenate([one, two])
    assert trees.checksum([mixed]) != trees.checksum([jnp.roll(mixed, 256)])
    assert trees.checksum([mixed]) != trees.checksum([mixed.at[0].set(2.0).at[511].set(1.0)])


def test_checksum_is_the_same_on_any_number_of_devices_and_on_the_host():
    tree = {'a': jax.random.normal(jax.random.PRNGKey(0), (8, 33)), 'b': jnp.arange(7)}
    mesh = Mesh(np.array(jax.devices()[:4]), ('d',))
    spread = tree | {'a': jax.device_put(tree['a'], NamedSharding(mesh, PartitionSpec('d')))}
    assert trees.checksum(spread) == trees.checksum(tree) == trees.checksum(jax.device_get(tree))


def test_checksum_sees_names_shapes_and_dtypes():
    leaf = jnp.arange(6, dtype=jnp.int32)
    others = ({'b': leaf}, {'a': leaf.reshape(2, 3)}, {'a': leaf.astype(jnp.uint32)})
    assert trees.checksum({'a': leaf}) not in {trees.checksum(other) for other in others}
