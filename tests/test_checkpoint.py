"""Checkpoints: what is written is read back, whatever a crash left beside it."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import checkpoint, parallel, workdir
from fn2en_jax.errors import UserError
from fn2en_jax.methods.base import NetState
from tests import toy

pytestmark = [
    pytest.mark.usefixtures('_orbax_leftovers'),
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]


def state(seed: int) -> NetState:
    """One leaf of every kind that a net or an optimiser holds."""
    draw = np.random.default_rng(seed)
    params = {'conv': {'kernel': draw.normal(size=(3, 3, 2, 4)).astype(np.float32), 'bias': np.zeros(4, np.float32)}}
    moments = jax.tree.map(lambda x: x + np.float32(seed), params)
    opt_state = toy.Toy()._optimiser().init({'w': jnp.ones(3) * seed})
    return NetState(params, (jax.device_get(opt_state), moments, np.int32(seed)), {'half': jnp.ones(3, jnp.bfloat16)})


def write(folder: Path, *steps: int, keep: int = 2) -> None:
    """A checkpoint of `state(step)` at each step."""
    checkpoints = checkpoint.Checkpoints(folder, keep=keep)
    for step in steps:
        checkpoints.save(step, state(step), {'seconds': step / 2})
    checkpoints.close()


def newest(folder: Path, template=None):
    checkpoints = checkpoint.Checkpoints(folder)
    found = checkpoints.newest(state(99) if template is None else template)
    checkpoints.close()
    return found


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('written') / 'stage'
    write(folder, 1, 2, 3)
    return folder


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A copy of three checkpoints of which two were kept, to be damaged."""
    return shutil.copytree(written, tmp_path / 'stage')


def test_a_round_trip_is_exact_whatever_the_template_holds(folder):
    for template in (state(99), jax.eval_shape(lambda: state(99))):
        step, found, meta = newest(folder, template)
        assert step == 3
        chex.assert_trees_all_equal(found, state(3))
        chex.assert_trees_all_equal_shapes_and_dtypes(found, state(3))
        assert jax.tree.structure(found) == jax.tree.structure(state(3))
        assert meta['seconds'] == 1.5


def test_the_number_kept_is_bounded(folder, tmp_path):
    assert sorted(path.name for path in folder.iterdir()) == ['2', '3']
    write(tmp_path / 'more', *range(6), keep=3)
    assert sorted(path.name for path in (tmp_path / 'more').iterdir()) == ['3', '4', '5']


def test_an_empty_folder_holds_none(tmp_path):
    assert newest(tmp_path / 'new') is None


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob('*') if path.is_file())


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_empty(path: Path) -> None:
    path.write_bytes(b'')


def damage_delete(path: Path) -> None:
    path.unlink()


def damage_flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(bytes(content))


@pytest.mark.parametrize('damage', [damage_truncate, damage_empty, damage_delete, damage_flip])
def test_damage_to_any_file_is_survived(folder, damage, caplog):
    """Each file of the newest checkpoint in turn: the checkpoint before it is used, or it does not matter."""
    used = {}
    for path in files(folder / '3'):
        content = path.read_bytes()
        if damage is damage_flip and not content:
            continue
        caplog.clear()
        with caplog.at_level(logging.WARNING, 'absl'):
            damage(path)
            step, found, _ = newest(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        chex.assert_trees_all_equal(found, state(step))
        used[path.relative_to(folder / '3').as_posix()] = step
        if step != 3:
            assert f'checkpoint {folder / "3"} is damaged, using the one before' in caplog.text
    # Some files hold what others hold too; these are needed whatever happens.
    assert used['meta/metadata'] == 2
    assert used['state/_METADATA'] == 2
    assert 2 in {step for name, step in used.items() if name.startswith('state/d/')}, used
    assert newest(folder)[0] == 3  # all of it was put back


def test_bits_flipped_in_the_arrays_are_noticed_by_the_checksum(folder, monkeypatch):
    """Whatever the storage layer checks itself: here it hands out arrays with one changed bit."""
    restore = checkpoint.ocp.CheckpointManager.restore

    def spoilt(self, step, **kwargs):
        restored = restore(self, step, **kwargs)
        if step == 3:
            bias = np.array(restored['state'].params['conv']['bias'])
            bias.view(np.uint32)[1] ^= 1
            restored['state'].params['conv']['bias'] = bias
        return restored

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'restore', spoilt)
    assert newest(folder)[0] == 2


def test_a_checkpoint_of_another_net_is_not_called_damaged(folder, caplog):
    whole = state(99)
    wider = whole._replace(params={'conv': {**whole.params['conv'], 'bias': np.zeros(5, np.float32)}})
    more = whole._replace(params={**whole.params, 'fc': np.zeros(2, np.float32)})
    for template in (wider, more):
        with pytest.raises(UserError, match=r'3 is whole, but of another net than config\.json'):
            newest(folder, template)
    assert 'damaged' not in caplog.text


def test_when_all_are_damaged_nothing_is_deleted_and_the_folder_is_named(folder):
    for path in files(folder):
        damage_truncate(path)
    before = sorted(files(folder))
    with pytest.raises(UserError, match=str(folder)):
        newest(folder)
    assert sorted(files(folder)) == before


def test_a_half_written_checkpoint_is_ignored_and_removed(folder):
    half = folder / '4.orbax-checkpoint-tmp'
    shutil.copytree(folder / '3', half)
    assert newest(folder)[0] == 3
    write(folder, 4)
    assert newest(folder)[0] == 4
    assert not half.exists()


def test_what_is_newer_than_the_step_gone_on_from_can_be_dropped_and_written_again(folder):
    for path in files(folder / '3'):
        damage_truncate(path)
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.drop_after(2)
    assert not (folder / '3').exists()
    checkpoints.save(3, state(30), {'seconds': 0.0})
    checkpoints.close()
    chex.assert_trees_all_equal(newest(folder)[1], state(30))
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.drop_after(0)
    checkpoints.close()
    assert newest(folder) is None


def test_facts_are_read_without_arrays_from_the_newest_whole_checkpoint(folder):
    def facts():
        checkpoints = checkpoint.Checkpoints(folder)
        found = checkpoints.facts()
        checkpoints.close()
        return found

    assert facts() | {'checksum': 0} == {'seconds': 1.5, 'step': 3, 'checksum': 0}
    damage_truncate(folder / '3/meta/metadata')
    assert facts()['seconds'] == 1.0


def test_a_reader_leaves_a_save_under_way_alone(folder):
    half = folder / '4.orbax-checkpoint-tmp'
    shutil.copytree(folder / '3', half)
    checkpoints = checkpoint.Checkpoints(folder, read_only=True)
    assert checkpoints.facts()['step'] == 3
    checkpoints.close()
    assert half.exists()


def test_saving_does_not_wait_and_later_changes_elsewhere_do_not_matter(tmp_path):
    """The engine hands over copies: what the devices do next must not reach the file."""
    carry = parallel.replicate(state(7))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(7, parallel.unreplicate(carry), {})
    jax.tree.map(lambda leaf: leaf.delete(), carry)
    checkpoints.close()
    chex.assert_trees_all_equal(newest(tmp_path)[1], state(7))


READ_ON_ONE = """
import jax, json, sys
from pathlib import Path
from fn2en_jax import checkpoint, trees
from tests.test_checkpoint import state
assert jax.local_device_count() == 1
step, found, meta = checkpoint.Checkpoints(Path(sys.argv[1])).newest(jax.eval_shape(lambda: state(99)))
print(json.dumps([step, int(trees.checksum(found)), meta['checksum']]))
"""


def test_written_with_four_devices_it_opens_on_one(tmp_path):
    carry = parallel.replicate(state(5))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(5, parallel.unreplicate(carry), {})
    checkpoints.close()
    env = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
    root = Path(__file__).parents[1]
    command = [sys.executable, '-c', READ_ON_ONE, str(tmp_path)]
    output = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True, timeout=280).stdout
    step, ours, written = json.loads(output.splitlines()[-1])
    assert step == 5
    assert ours == written == int(checkpoint.trees.checksum(state(5)))


def test_a_full_disk_and_a_forbidden_one_are_told_in_a_line(tmp_path):
    for error, message in (
        (OSError(28, 'No space left on device'), 'no space left on the disk of'),
        (ValueError('tensorstore: write failed: No space left on device [x.cc]'), 'no space left on the disk of'),
        (PermissionError(13, 'Permission denied'), 'cannot write'),
    ):
        with pytest.raises(UserError, match=message), workdir.disk_errors(tmp_path):
            raise error
    with pytest.raises(ValueError, match='another'), workdir.disk_errors(tmp_path):
        raise ValueError('another matter')
