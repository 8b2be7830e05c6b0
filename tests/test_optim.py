import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fn2en_jax import optim
from fn2en_jax.errors import UserError


def constant(rate):
    return optim.schedule('constant', base=rate, total_steps=100, steps_per_epoch=10)


def rates(kind, counts, **arguments):
    rate = jax.jit(optim.schedule(kind, base=0.5, total_steps=100, steps_per_epoch=10, **arguments))
    values = [rate(jnp.int32(count)) for count in counts]
    assert all(value.dtype == jnp.float32 and value.shape == () for value in values)
    return values


def params():
    return {
        'features': {'kernel': jnp.array([[1.0, -2.0]]), 'bias': jnp.array([0.5])},
        'head': {'kernel': jnp.array([[3.0]]), 'bias': jnp.array([-0.0])},
    }


def gradients(scale=1.0):
    return jax.tree.map(lambda leaf: scale * (jnp.ones_like(leaf) + leaf), params())


def run(optimiser, steps, start=None):
    """Parameters after the given gradients, all steps compiled as one function."""
    start = params() if start is None else start

    @jax.jit
    def step(tree, state, gradient):
        updates, state = optimiser.update(gradient, state, tree)
        return optax.apply_updates(tree, updates), state

    state = optimiser.init(start)
    for gradient in steps:
        start, state = step(start, state, gradient)
    return start, state


def test_constant_rate():
    np.testing.assert_array_equal(rates('constant', (0, 99)), 0.5)


def test_rate_drops_at_the_first_step_of_each_named_epoch():
    found = rates('step', (0, 19, 20, 49, 50, 99), drop_epochs=(2, 5), drop_factor=0.1)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-6)
    np.testing.assert_allclose(rates('step', (24, 25), drop_epochs=(2.5,)), [0.5, 0.05], rtol=1e-6)
    np.testing.assert_array_equal(rates('step', (0, 99)), 0.5)


def test_cosine_ends_at_zero():
    found = rates('cosine', (0, 25, 50, 100, 200))
    np.testing.assert_allclose(found, [0.5, 0.25 * (1 + math.cos(math.pi / 4)), 0.25, 0.0, 0.0], atol=1e-7)


def test_warm_up_rises_linearly_and_reaches_the_base():
    np.testing.assert_allclose(rates('constant', (0, 9, 19, 20), warmup_epochs=2), [0.025, 0.25, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(rates('cosine', (0, 20, 60), warmup_epochs=2), [0.025, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(rates('step', (4, 30), warmup_epochs=1, drop_epochs=(3,)), [0.25, 0.05], rtol=1e-6)


@pytest.mark.parametrize('arguments', [{'kind': 'linear'}, {'drop_epochs': (-1,)}, {'warmup_epochs': -1.0}])
def test_a_schedule_that_cannot_be_is_an_error(arguments):
    with pytest.raises(UserError):
        optim.schedule(**{'kind': 'step', 'base': 0.1, 'total_steps': 10, 'steps_per_epoch': 1} | arguments)


def test_sgd_is_caffes_also_after_a_drop_of_the_rate():
    """By hand: v = 0.9 v + rate (g + 0.1 w); w -= v, with the rates 1, 1, 0.1 and the gradient 1."""
    rate = optim.schedule('step', base=1.0, total_steps=3, steps_per_epoch=1, drop_epochs=(2,))
    sgd = optim.optimiser('sgd', learning_rate=rate, momentum=0.9, weight_decay=0.1)
    found, _ = run(sgd, [{'kernel': jnp.ones(1)}] * 3, {'kernel': jnp.array([2.0])})
    w1 = 2.0 - 1.2  # v = 1.2,   w = 0.8
    w2 = w1 - (0.9 * 1.2 + 1.08)  # v = 2.16,  w = -1.36
    w3 = w2 - (0.9 * 2.16 + 0.1 * 0.864)  # v = 2.0304
    np.testing.assert_allclose(found['kernel'], [w3], rtol=1e-6)

    optax_sgd = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(rate, momentum=0.9))
    other, _ = run(optax_sgd, [{'kernel': jnp.ones(1)}] * 2, {'kernel': jnp.array([2.0])})
    np.testing.assert_allclose(other['kernel'], [w2], rtol=1e-6)  # the same until the rate changes
    other, _ = run(optax_sgd, [{'kernel': jnp.ones(1)}] * 3, {'kernel': jnp.array([2.0])})
    assert abs(float(other['kernel'][0]) - w3) > 1.0


def test_decay_touches_kernels_only_unless_asked():
    zeros = jax.tree.map(jnp.zeros_like, params())
    found, _ = run(optim.optimiser(learning_rate=constant(0.1), weight_decay=0.5), [zeros])
    chex.assert_trees_all_equal(found['features']['bias'], params()['features']['bias'])
    chex.assert_trees_all_close(found['features']['kernel'], 0.95 * params()['features']['kernel'])
    found, _ = run(optim.optimiser(learning_rate=constant(0.1), weight_decay=0.5, decay_mask='all'), [zeros])
    chex.assert_trees_all_close(found, jax.tree.map(lambda leaf: 0.95 * leaf, params()))


def test_group_multiplier_scales_the_rate_with_decay_and_momentum():
    groups = (('new', 'head/.*', 10.0), ('rest', '.*', 1.0))
    steps = [gradients(), gradients(0.3)]
    found, _ = run(optim.optimiser(learning_rate=constant(0.01), groups=groups), steps)
    slow, _ = run(optim.optimiser(learning_rate=constant(0.01)), steps)
    fast, _ = run(optim.optimiser(learning_rate=constant(0.1)), steps)
    chex.assert_trees_all_close(found, {'features': slow['features'], 'head': fast['head']}, rtol=1e-6)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(slow['head'], fast['head'], rtol=1e-2)


@pytest.mark.parametrize('kind', ['sgd', 'adamw'])
def test_a_frozen_group_keeps_every_bit_and_has_no_state(kind):
    groups = (('frozen', 'head/.*', 0.0), ('rest', '.*', 1.0))
    optimiser = optim.optimiser(kind, learning_rate=constant(0.1), decay_mask='all', groups=groups)
    found, state = run(optimiser, [gradients(), gradients()])
    for leaf, start in zip(jax.tree.leaves(found['head']), jax.tree.leaves(params()['head']), strict=True):
        np.testing.assert_array_equal(np.asarray(leaf).view(np.uint32), np.asarray(start).view(np.uint32))
    assert (np.asarray(found['features']['kernel']) != np.asarray(params()['features']['kernel'])).all()
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(state))
    buffers = 1 if kind == 'sgd' else 2
    counts = 1 if kind == 'sgd' else 2
    assert shapes == [()] * counts + [(1,)] * buffers + [(1, 2)] * buffers


def test_a_parameter_in_no_group_is_an_error():
    optimiser = optim.optimiser(learning_rate=constant(0.1), groups=(('new', 'head/.*', 1.0),))
    with pytest.raises(UserError, match='features/bias, features/kernel'):
        optimiser.init(params())


@pytest.mark.parametrize(
    'arguments',
    [
        {'kind': 'lbfgs'},
        {'decay_mask': 'some'},
        {'momentum': -0.1},
        {'groups': (('a', '.*', -1.0),)},
        {'groups': (('a', 'x', 1.0), ('a', '.*', 0.0))},
    ],
)
def test_settings_that_cannot_be_are_errors(arguments):
    with pytest.raises(UserError):
        optim.optimiser(**{'learning_rate': constant(0.1)} | arguments)


def test_clipping_scales_the_whole_gradient_before_the_decay():
    start, gradient = (
        {'a': jnp.array([1.0]), 'kernel': jnp.array([1.0])},
        {'a': jnp.array([3.0]), 'kernel': jnp.array([4.0])},
    )
    optimiser = optim.optimiser(learning_rate=constant(1.0), weight_decay=0.5, clip_norm=1.0)
    found, _ = run(optimiser, [gradient], start)
    chex.assert_trees_all_close(found, {'a': jnp.array([1 - 0.6]), 'kernel': jnp.array([1 - 0.8 - 0.5])}, rtol=1e-6)
    small, _ = run(optimiser, [jax.tree.map(lambda leaf: leaf / 10, gradient)], start)
    np.testing.assert_allclose(small['a'], [1 - 0.3], rtol=1e-6)


def test_clipping_does_not_count_frozen_gradients():
    groups = (('frozen', 'head/.*', 0.0), ('rest', '.*', 1.0))
    huge = gradients() | {'head': jax.tree.map(lambda leaf: leaf + 1e6, params()['head'])}
    optimiser = optim.optimiser(learning_rate=constant(0.1), clip_norm=1.0, groups=groups)
    chex.assert_trees_all_equal(run(optimiser, [huge])[0], run(optimiser, [gradients()])[0])


def test_adamw_equals_optax():
    rate = optim.schedule('step', base=0.1, total_steps=4, steps_per_epoch=1, drop_epochs=(2,))
    steps = [gradients(scale) for scale in (1.0, -0.5, 0.2, 2.0)]
    found, _ = run(optim.optimiser('adamw', learning_rate=rate, weight_decay=0.01, decay_mask='all'), steps)
    expected, _ = run(optax.adamw(rate, weight_decay=0.01), steps)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    kernels, _ = run(optim.optimiser('adamw', learning_rate=rate, weight_decay=0.01), steps)
    chex.assert_trees_all_close(kernels['head']['kernel'], expected['head']['kernel'], rtol=1e-6)
    assert not np.allclose(kernels['features']['bias'], expected['features']['bias'], rtol=1e-5)


def test_sgd_finds_a_known_minimum_in_one_compilation():
    minimum = jax.tree.map(lambda leaf: leaf + 2.0, params())
    optimiser = optim.optimiser(learning_rate=constant(0.05), weight_decay=0.0)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(tree, state):
        gradient = jax.tree.map(lambda leaf, best: leaf - best, tree, minimum)
        updates, state = optimiser.update(gradient, state, tree)
        return optax.apply_updates(tree, updates), state

    tree, state = params(), optimiser.init(params())
    for _ in range(300):
        tree, state = step(tree, state)
    chex.assert_trees_all_close(tree, minimum, atol=1e-4)


@pytest.mark.parametrize('kind', ['sgd', 'adamw'])
def test_state_holds_arrays_only_and_survives_donation_and_devices(kind):
    optimiser = optim.optimiser(
        kind,
        learning_rate=constant(0.1),
        clip_norm=1.0,
        groups=(('new', 'head/.*', 10.0), ('frozen', '.*bias', 0.0), ('rest', '.*', 1.0)),
    )
    state = optimiser.init(params())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))

    def step(tree, state, gradient):
        updates, state = optimiser.update(jax.lax.pmean(gradient, 'd'), state, tree)
        return optax.apply_updates(tree, updates), state

    devices = jax.local_devices()[:2]
    assert len(devices) == 2
    repeated = [jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), part) for part in (params(), state)]
    spread = jax.tree.map(lambda leaf: jnp.stack([0.5 * leaf, 1.5 * leaf]), gradients())
    found = jax.pmap(step, axis_name='d', devices=devices, donate_argnums=(0, 1))(*repeated, spread)
    expected = run(optimiser, [gradients()])
    for device in range(2):
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[device], found), expected, rtol=1e-6)  # noqa: B023


def test_settings_build_the_same_optimiser_and_compare_by_value():
    settings = {'kind': 'sgd', 'learning_rate': 0.1, 'total_steps': 4, 'steps_per_epoch': 2.0, 'drop_epochs': (1,)}
    assert optim.Optimiser(**settings) == optim.Optimiser(**settings)
    assert hash(optim.Optimiser(**settings)) == hash(optim.Optimiser(**settings))
    assert optim.Optimiser(**settings) != optim.Optimiser(**settings | {'momentum': 0.5})
    rate = optim.schedule('step', base=0.1, total_steps=4, steps_per_epoch=2, drop_epochs=(1,))
    steps = [gradients()] * 3
    chex.assert_trees_all_equal(
        run(optim.Optimiser(**settings).build(), steps), run(optim.optimiser('sgd', learning_rate=rate), steps)
    )
