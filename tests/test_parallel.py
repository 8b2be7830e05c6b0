"""Devices: division of a batch, donation, and one device against four."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import optim, parallel, rng
from fn2en_jax.data.augmentation import Augmentation
from fn2en_jax.data.batches import Resident, Streamed
from fn2en_jax.errors import UserError
from fn2en_jax.methods.classifier import Classifier
from fn2en_jax.methods.fn2en import FeatureRegression
from fn2en_jax.models.expression_net import ExpressionFeatures, ExpressionNet
from fn2en_jax.models.vgg_face import VGGFace
from tests import faces, toy

KEY = np.asarray(rng.stream(1, 'stage'))
EXAMPLES = faces.make(30, size=36)
FEED = Resident(EXAMPLES, batch_size=8, augmentation=Augmentation(crop=32, brightness=0.1), steps=10)
IMAGE = jnp.zeros((1, 32, 32, 3))
SGD = optim.Optimiser('sgd', 1e-2, 10, 4, schedule='constant')


def random_variables(model, seed: int = 0):
    """Variables as `model.init` would draw them, but for the shapes only: nothing is compiled."""
    draw = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), IMAGE)

    def fill(path, leaf):
        name = path[-1].key
        if name == 'kernel':
            return draw.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        return np.full(leaf.shape, name in ('scale', 'var'), np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def classifier():
    """A net with batch normalisation and dropout, its initial state and what its step reads."""
    model = ExpressionNet(
        num_classes=3, features=(4, 8), target_shape=(8, 8, 8), hidden=16, batch_norm=True, input_scale=1 / 64
    )
    method = Classifier(model, 'logits', SGD, label_smoothing=0.1)
    return method, method.init(random_variables(model)), {'class_weights': np.array([0.5, 1.0, 2.0], np.float32)}


def regression():
    """Stage 1 with a teacher that has batch statistics of its own."""
    teacher = VGGFace(num_classes=3, width=1 / 16, fc_features=64, batch_norm=True, input_scale=1 / 64)
    student = ExpressionFeatures(features=(4, 8), target_shape=(8, 8, 8), batch_norm=True, input_scale=1 / 64)
    method = FeatureRegression(student, teacher, 'pool2', SGD, reduction='mean', standardise=True)
    frozen = {
        'teacher': random_variables(teacher, seed=1),
        'mean': np.linspace(0.1, 0.5, 8, dtype=np.float32),
        'scale': np.linspace(0.5, 2, 8, dtype=np.float32),
    }
    return method, method.init(random_variables(student)), frozen


@pytest.fixture(scope='module', params=[classifier, regression], ids=['classifier', 'stage 1'])
def case(request):
    method, state, frozen = request.param()
    return method, jax.device_get(state), frozen


def on_four(method, state, frozen, steps: int):
    """The state after some steps, the metrics, and what was passed in."""
    carry = parallel.replicate((np.int32(0), state))
    placed = parallel.broadcast(frozen)
    arrays = parallel.place(FEED.reader, FEED.arrays(0))
    dispatch = parallel.train_dispatch(method, FEED.reader)
    new, metrics = dispatch(carry, placed, arrays, parallel.broadcast(KEY), parallel.broadcast(np.int32(steps)))
    return new, metrics, (carry, placed, arrays)


def on_one(method, state, frozen, steps: int):
    """The same steps under plain jit, without any device axis."""

    @jax.jit
    def run(state, frozen, arrays):
        arrays = FEED.reader.prepare(arrays, KEY, 0)

        def body(step, both):
            state, total = both
            batch = FEED.reader.select(arrays, KEY, step, jnp.arange(8))
            state, metrics = method.train_step(state, frozen, batch, rng.at_step(rng.named(KEY, 'step'), step))
            return state, total + metrics['loss'].total

        return jax.lax.fori_loop(0, steps, body, (state, jnp.float32(0)))

    return run(state, frozen, FEED.arrays(0))


@pytest.fixture(scope='module')
def ten_steps(case):
    before = jax.tree.map(np.copy, (case[1], case[2]))
    return case, before, on_four(*case, 10)


def test_one_device_and_four_train_the_same_net(ten_steps):
    (method, state, frozen), _, (carry, metrics, _) = ten_steps
    step, four = parallel.unreplicate(carry)
    one, total = on_one(method, state, frozen, 10)
    assert step == 10
    for path, ours, theirs in zip(
        jax.tree_util.tree_leaves_with_path(four.params),
        jax.tree.leaves(four.params),
        jax.tree.leaves(one.params),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=str(path[0]))
    chex.assert_trees_all_close(four.stats, jax.device_get(one.stats), rtol=1e-4, atol=1e-5)
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), four.params, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-3  # ten steps went somewhere
    loss = parallel.first_metrics(metrics['loss'])
    np.testing.assert_allclose(loss.total, total, rtol=1e-4)
    assert loss.count == 80  # summed over steps and devices


def test_all_devices_hold_the_same_state(ten_steps):
    for leaf in jax.tree.leaves(ten_steps[2][0]):
        slices = np.asarray(leaf)
        assert len(slices) == 4
        np.testing.assert_array_equal(slices, np.broadcast_to(slices[:1], slices.shape))


def test_the_state_is_donated_and_nothing_else(ten_steps):
    carry, placed, arrays = ten_steps[2][2]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(carry))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((placed, arrays)))


def test_host_arrays_are_left_alone(ten_steps):
    """Neither donation nor the steps write into the caller's state or into the teacher."""
    (_, state, frozen), before, (_, _, (_, placed, _)) = ten_steps
    chex.assert_trees_all_equal((state, frozen), before)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, placed), before[1])


def test_a_state_read_back_outlives_the_next_dispatch(case):
    method, state, frozen = case
    carry, _, (_, placed, arrays) = on_four(method, state, frozen, 1)
    read = parallel.unreplicate(carry)
    copy = jax.tree.map(np.copy, read)
    dispatch = parallel.train_dispatch(method, FEED.reader)
    dispatch(carry, placed, arrays, parallel.broadcast(KEY), parallel.broadcast(np.int32(2)))
    chex.assert_trees_all_equal(read, copy)


def test_equal_methods_share_a_compiled_step(case):
    same = {Classifier: classifier, FeatureRegression: regression}[type(case[0])]()[0]
    assert same is not case[0]
    assert parallel.train_dispatch(same, FEED.reader) is parallel.train_dispatch(case[0], FEED.reader)


def test_the_optimiser_and_the_state_hold_the_students_leaves_only():
    method, state, frozen = regression()
    assert set(state.params) == {'conv1', 'conv1_bn', 'conv2', 'conv2_bn', 'bridge'}
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if np.ndim(leaf)]
    assert sorted(leaf.shape for leaf in moments) == sorted(leaf.shape for leaf in jax.tree.leaves(state.params))
    assert len(jax.tree.leaves(frozen['teacher'])) > len(jax.tree.leaves(state))
    with pytest.raises(KeyError):  # it is nowhere but in `frozen`
        method.eval_step(state, {}, {'image': IMAGE})


@pytest.mark.parametrize(('batch_size', 'suggestion'), [(6, 4), (2, 4), (9, 8)])
def test_a_batch_that_the_devices_do_not_divide_is_refused(batch_size, suggestion):
    message = rf'batch size {batch_size} does not divide over 4 devices; .* multiple of 4, such as {suggestion}$'
    with pytest.raises(UserError, match=message):
        parallel.per_device(batch_size)
    reader = Resident(EXAMPLES, batch_size=batch_size, augmentation=Augmentation(crop=32), steps=3).reader
    with pytest.raises(UserError, match='does not divide'):
        parallel.train_dispatch(toy.Toy(), reader)


def test_streamed_batches_are_split_between_devices_in_order():
    feed = Streamed(EXAMPLES, batch_size=8, augmentation=Augmentation(crop=32), key=KEY, steps=3)
    arrays = feed.arrays(3)
    placed = parallel.place(feed.reader, arrays)
    whole = arrays['batches']['label']
    assert placed['batches']['image'].shape == (4, 3, 2, 36, 36, 3)
    for device, shard in enumerate(placed['batches']['label'].addressable_shards):
        np.testing.assert_array_equal(np.asarray(shard.data)[0], whole[:, 2 * device : 2 * device + 2])
    assert placed['first'] == 3
