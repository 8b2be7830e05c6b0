"""The training loop: where it stops, what it reports, how it goes on; and evaluation."""

import logging
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import checkpoint, engine, parallel
from fn2en_jax.data.augmentation import centre_crop
from fn2en_jax.data.batches import Resident, Streamed
from tests import faces, toy

pytestmark = [
    pytest.mark.usefixtures('_orbax_leftovers'),
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """Folder, final state and log of an undisturbed fit of 20 steps."""
    folder, log = tmp_path_factory.mktemp('straight'), toy.Log()
    return folder, toy.fit(folder, log=log, eval_every=10), log


def read(folder, template=None):
    checkpoints = checkpoint.Checkpoints(folder)
    found = checkpoints.newest(template or toy.Toy().init())
    checkpoints.close()
    return found


def test_dispatches_end_at_rows_and_at_the_end():
    pace = engine.Pace(last_step=11, per_dispatch=4, log_every=6)
    stops, step = [], 0
    while step < pace.last_step:
        step = pace.next_stop(step)
        stops.append(step)
    assert stops == [4, 6, 10, 11]


def test_rows_are_means_over_the_steps_and_examples_since_the_last_row(straight):
    _, state, log = straight
    assert [step for step, _ in log.rows] == [5, 10, 15, 20]
    for step, values in log.rows:
        assert values['steps'] == step - 2  # the mean of step-4 ... step
        assert values['position'] == 3.5  # the mean of 0 ... 7
        assert np.isfinite(values['loss'])
    assert state.stats['steps'] == 20
    assert log.rows[-1][1]['loss'] < log.rows[0][1]['loss']


def test_a_feed_made_for_shorter_dispatches_is_refused_before_anything_is_trained(tmp_path):
    feed = Resident(toy.EXAMPLES, batch_size=8, augmentation=toy.AUGMENTATION, steps=2)
    with pytest.raises(ValueError, match='dispatches of 3 steps, but the feed is made for 2'):
        toy.fit(tmp_path, feed=feed)


def test_a_last_short_row_is_reported_too(tmp_path):
    log = toy.Log()
    toy.fit(tmp_path, log=log, last_step=7)
    assert [(step, values['steps']) for step, values in log.rows] == [(5, 3.0), (7, 6.5)]


def test_evaluation_is_called_on_its_grid_and_at_the_end(straight, tmp_path):
    assert [step for step, _ in straight[2].evaluated] == [10, 20]
    log = toy.Log()
    toy.fit(tmp_path, log=log, last_step=12)  # eval_every = 0
    assert [step for step, _ in log.evaluated] == [12]


def test_one_compilation_serves_dispatches_of_any_length(straight, tmp_path):
    before = len(toy.traces)
    toy.fit(tmp_path / 'a', last_step=20, per_dispatch=7, log_every=20)  # dispatches of 7, 7 and 6 steps
    toy.fit(tmp_path / 'b', last_step=3)
    assert len(toy.traces) == before
    toy.fit(tmp_path / 'c', toy.Toy(rate=0.2), last_step=3)
    assert len(toy.traces) > before  # the counter counts


def test_the_number_of_steps_per_dispatch_changes_nothing(straight, tmp_path):
    chex.assert_trees_all_equal(toy.fit(tmp_path, per_dispatch=1, log_every=20), straight[1])


def test_a_host_array_in_the_loop_is_an_error(straight, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, 'broadcast', lambda tree: tree)
    with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
        toy.fit(tmp_path)


@pytest.mark.parametrize('dispatches', [1, 3, 6])
def test_stopped_and_started_again_it_ends_the_same(straight, tmp_path, dispatches):
    with pytest.raises(engine.Interrupted, match=r'saved at step \d+ of 20'):
        toy.fit(tmp_path, stop_after=dispatches)
    step, _, meta = read(tmp_path)
    assert step == (3, 5, 8, 10, 13, 15)[dispatches - 1]
    assert meta['class_names'] == ['a', 'b']
    log = toy.Log()
    chex.assert_trees_all_equal(toy.fit(tmp_path, log=log), straight[1])
    assert [s for s, _ in log.rows] == [s for s in (5, 10, 15, 20) if s > step]
    assert read(tmp_path)[2]['seconds'] > meta['seconds']


def test_the_state_returned_is_the_state_saved(straight):
    step, state, _ = read(straight[0])
    assert step == 20
    chex.assert_trees_all_equal(state, straight[1])
    chex.assert_trees_all_equal_shapes_and_dtypes(state, straight[1])


def test_without_time_for_checkpoints_only_the_last_is_written(straight, tmp_path):
    toy.fit(tmp_path, save_seconds=1e6)
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ['20']


def test_a_damaged_newest_checkpoint_is_trained_again(straight, tmp_path, caplog):
    folder = shutil.copytree(straight[0], tmp_path / 'copy')
    for path in (folder / '20').rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    log = toy.Log()
    with caplog.at_level(logging.WARNING, 'absl'):
        chex.assert_trees_all_equal(toy.fit(folder, log=log), straight[1])
    assert '20 is damaged, using the one before' in caplog.text
    assert [step for step, _ in log.rows] == [20]
    assert read(folder)[0] == 20


def test_a_streamed_set_trains_the_same_net(straight, tmp_path):
    """Through a whole fit, with dispatches shorter than what was read ahead, and a stop in the middle."""
    examples = faces.make(30, size=8, on_demand=True)

    def feed():
        return Streamed(examples, batch_size=8, augmentation=toy.AUGMENTATION, key=toy.KEY, steps=3)

    with pytest.raises(engine.Interrupted):
        toy.fit(tmp_path, feed=feed(), stop_after=3)
    state = toy.fit(tmp_path, feed=feed())
    chex.assert_trees_all_close(state, straight[1], rtol=1e-6)
    assert examples.images.requests >= 8


def test_a_loss_that_is_not_finite_stops_and_leaves_good_checkpoints(tmp_path):
    with pytest.raises(engine.NonFiniteLoss, match=r'loss that is not finite at or before step \d+'):
        toy.fit(tmp_path, toy.Toy(rate=1e6))
    found = read(tmp_path)
    assert found[0] > 0
    chex.assert_tree_all_finite(found[1])


def test_parameters_spoilt_by_the_very_last_update_are_not_saved(tmp_path):
    with pytest.raises(engine.NonFiniteLoss, match='parameters that are not finite at step 1'):
        toy.fit(tmp_path, toy.Toy(rate=3e38, gain=1000.0), last_step=1)
    assert read(tmp_path) is None


def test_evaluation_of_a_padded_set_equals_the_unpadded(straight):
    """22 examples in batches of 8 on four devices, against all at once on one."""
    examples, state = faces.make(22, size=8), straight[1]
    found = engine.evaluate(
        toy.Toy(), parallel.replicate(state), parallel.broadcast(toy.FROZEN), examples, batch_size=8, crop=6
    )
    batch = {'image': centre_crop(jnp.asarray(examples.images), 6), 'label': jnp.asarray(examples.labels)}
    expected = jax.jit(toy.Toy().eval_step)(state, toy.FROZEN, batch)
    np.testing.assert_array_equal(found['image'], expected['image'])  # order kept, nothing dropped
    np.testing.assert_allclose(found['loss'], expected['loss'], rtol=1e-5)
