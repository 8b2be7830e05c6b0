"""Batches as a pure function of (key, step): permutations, both feeds, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import rng
from fn2en_jax.data.augmentation import Augmentation
from fn2en_jax.data.batches import Resident, Streamed, epoch_orders, eval_batches, example_ids, padded_length
from tests import faces

KEY = rng.stream(3, 'stage')
AUGMENTATION = Augmentation(crop=8)


def ids_of_steps(key, steps: np.ndarray, batch_size: int, count: int) -> np.ndarray:
    """The examples of each step's batch [T,B]."""
    return np.asarray(_ids(key, jnp.asarray(steps, jnp.int32), batch_size, padded_length(count), jnp.int32(count)))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _ids(key, steps, batch_size: int, padded: int, count):
    def one(step):
        epochs = epoch_orders(key, step, steps=1, batch_size=batch_size, padded=padded, count=count)
        return example_ids(epochs, step, jnp.arange(batch_size), batch_size=batch_size, count=count)

    return jax.vmap(one)(steps)


@pytest.mark.parametrize(('batch_size', 'count'), [(8, 24), (8, 30), (7, 257), (64, 5), (1, 1), (5, 256)])
def test_every_epoch_is_a_fresh_permutation_without_padding(batch_size, count):
    """Also when batches span epochs, or an epoch is shorter than a batch."""
    epochs = 4
    steps = np.arange(-(-epochs * count // batch_size))
    sequence = ids_of_steps(KEY, steps, batch_size, count).reshape(-1)[: epochs * count].reshape(epochs, count)
    np.testing.assert_array_equal(np.sort(sequence, 1), np.broadcast_to(np.arange(count), sequence.shape))
    if count > 4:
        assert len(np.unique(sequence, axis=0)) == epochs


def test_a_batch_depends_on_key_and_step_alone():
    steps = np.arange(12)
    straight = ids_of_steps(KEY, steps, 8, 30)
    np.testing.assert_array_equal(ids_of_steps(KEY, steps[7:], 8, 30), straight[7:])  # as after a resume
    np.testing.assert_array_equal(ids_of_steps(KEY, steps[::-1], 8, 30), straight[::-1])
    assert not np.array_equal(ids_of_steps(rng.stream(4, 'stage'), steps, 8, 30), straight)


@pytest.mark.parametrize(('count', 'first'), [(5, 7), (210, 7), (1025, 7), (33, 2), (225, 14), (1, 3)])
def test_a_dispatch_has_the_orders_of_all_its_steps(count, first):
    """A long dispatch from the middle of the run gives what its steps give by themselves.

    33 and 225 are the fewest of their padded length, and the dispatch starts at the end of an epoch: as many epochs as
    there can be.
    """
    steps, batch_size = 40, 16
    epochs = epoch_orders(
        KEY, first, steps=steps, batch_size=batch_size, padded=padded_length(count), count=jnp.int32(count)
    )
    each = [
        example_ids(epochs, step, jnp.arange(batch_size), batch_size=batch_size, count=count)
        for step in range(first, first + steps)
    ]
    np.testing.assert_array_equal(np.stack(each), ids_of_steps(KEY, first + np.arange(steps), batch_size, count))


def test_no_step_sorts(feeds):
    """Only a dispatch does, for all its steps."""
    resident, _, _ = feeds
    arrays, step = resident.arrays(0), jnp.int32(5)
    prepared = jax.eval_shape(lambda: resident.reader.prepare(arrays, KEY, step))
    prepare = jax.make_jaxpr(lambda step: resident.reader.prepare(arrays, KEY, step))(step)
    one_step = jax.make_jaxpr(lambda x, step: resident.reader.select(x, KEY, step, jnp.arange(8)))(prepared, step)
    assert 'sort[' in str(prepare)
    assert 'sort[' not in str(one_step)


def test_padding_leaves_the_orders_as_they_are():
    """Folds that differ by a few examples share a compiled step, and no figure depends on how they are padded."""
    settings = {'steps': 3, 'batch_size': 8, 'count': jnp.int32(30)}
    _, short = epoch_orders(KEY, 0, padded=32, **settings)
    _, long = epoch_orders(KEY, 0, padded=64, **settings)
    rows = min(len(short), len(long))
    np.testing.assert_array_equal(short[:rows, :30], long[:rows, :30])


def test_positions_decide_not_how_they_are_split():
    """Four devices with two examples each see what one device with eight sees."""
    step, count = jnp.int32(3), jnp.int32(30)
    epochs = epoch_orders(KEY, step, steps=1, batch_size=8, padded=32, count=count)
    pick = jax.jit(lambda positions: example_ids(epochs, step, positions, batch_size=8, count=count))
    whole = pick(jnp.arange(8))
    np.testing.assert_array_equal(jnp.concatenate([pick(2 * d + jnp.arange(2)) for d in range(4)]), whole)


@pytest.fixture(scope='module', params=[28, 300])
def feeds(request):
    resident = Resident(faces.make(request.param, size=10), batch_size=8, augmentation=AUGMENTATION, steps=3)
    on_demand = faces.make(request.param, size=10, on_demand=True)
    streamed = Streamed(on_demand, batch_size=8, augmentation=AUGMENTATION, key=KEY, steps=3)
    return resident, streamed, on_demand


@functools.partial(jax.jit, static_argnums=0)
def select(reader, arrays, step, positions):
    return reader.select(reader.prepare(arrays, KEY, step), KEY, step, positions)


def test_resident_and_streamed_feeds_give_identical_batches(feeds):
    resident, streamed, _ = feeds
    positions = jnp.arange(8)
    seen = set()
    for first in (0, 3, 6, 4):  # 4: as after a resume, not what was read ahead
        arrays = streamed.arrays(first)
        for step in range(first, first + 3):
            ours = select(streamed.reader, arrays, step, positions)
            theirs = select(resident.reader, resident.arrays(step), step, positions)
            assert set(ours) == set(theirs) == {'image', 'label', 'mask', 'position'}
            for name in ours:
                assert ours[name].dtype == theirs[name].dtype
                np.testing.assert_array_equal(ours[name], theirs[name])
            seen.add(np.asarray(ours['image']).tobytes())
    assert len(seen) == 9  # every step another batch
    assert ours['image'].shape == (8, 8, 8, 3)
    assert ours['mask'].all()


def test_labels_stay_with_their_images(feeds):
    resident, _, examples = feeds
    plain = Augmentation(crop=10, flip=False)
    crop_all = Resident(faces.make(len(examples), size=10), batch_size=8, augmentation=plain, steps=3)
    batch = select(crop_all.reader, crop_all.arrays(0), 5, jnp.arange(8))
    ids = ids_of_steps(rng.named(KEY, 'order'), np.array([5]), 8, len(examples))[0]
    np.testing.assert_array_equal(batch['image'], examples.gather(ids))
    np.testing.assert_array_equal(batch['label'], examples.labels[ids])
    assert len(examples) == int(resident.arrays(0)['count'])


def test_the_stream_reads_the_next_dispatch_ahead():
    examples = faces.make(28, size=10, on_demand=True)
    streamed = Streamed(examples, batch_size=8, augmentation=AUGMENTATION, key=KEY, steps=3)
    streamed.arrays(0)
    streamed._next[1].result()
    assert examples.images.requests == 2
    streamed.arrays(3)
    streamed._next[1].result()
    assert examples.images.requests == 3  # steps 3.. were there already


def test_equal_settings_share_a_reader():
    def reader(count: int, **changes):
        settings = {'batch_size': 8, 'augmentation': AUGMENTATION, 'steps': 3} | changes
        return Resident(faces.make(count, size=10), **settings).reader

    assert reader(20) == reader(28)  # folds of nearly equal size
    assert hash(reader(20)) == hash(reader(28))
    assert reader(20) != reader(20, batch_size=4)
    assert reader(20) != reader(257)
    assert reader(1020) != reader(1030) == reader(1280)


@pytest.mark.parametrize('on_demand', [False, True])
def test_evaluation_reads_all_in_order_and_masks_the_padding(on_demand):
    examples = faces.make(22, size=10, on_demand=on_demand)
    batches = list(eval_batches(examples, batch_size=8))
    assert [batch['image'].shape for batch in batches] == [(8, 10, 10, 3)] * 3
    mask = np.concatenate([batch['mask'] for batch in batches])
    np.testing.assert_array_equal(mask, np.arange(24) < 22)
    for name, expected in (('image', examples.gather(np.arange(22))), ('label', examples.labels)):
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches])[mask], expected)
