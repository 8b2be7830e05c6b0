"""Stage 1, its checkpoint, stage 2: the hand-over that is FaceNet2ExpNet."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest

from fn2en_jax import checkpoint, engine, trees
from fn2en_jax.data.batches import Resident
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.methods.base import NetState
from fn2en_jax.stages import Stages, augmentation
from tests import faces, tiny_config

FOLD = Fold('fold0', np.arange(24), np.arange(24, 30))
STEPS = 3


def make_stages(labels=lambda labels: labels) -> Stages:
    config = tiny_config.get_config('fn2en')
    config.expression_net.features = (4, 4)
    config.stage1.layer = 'pool2'
    examples = faces.make(30)
    examples = dataclasses.replace(examples, labels=labels(examples.labels))
    return Stages(config, Data(examples, faces.make(12, classes=4), ''), FOLD)


def random_net(template) -> NetState:
    """A net of the shapes in `template`, as an earlier stage might have left it."""
    draw = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: draw.uniform(0.05, 0.3, leaf.shape).astype(leaf.dtype), template)


def train_stage1(stages: Stages, folder, teacher: NetState):
    """A few steps of stage 1; returns what its checkpoint holds, and the frozen tree."""
    stage = stages.build('stage1')
    frozen = stage.frozen({'finetune': teacher}.__getitem__)
    checkpoints = checkpoint.Checkpoints(folder)
    engine.fit(
        stage.method,
        lambda: stage.initial(0, {}.__getitem__),
        frozen,
        Resident(
            stage.train,
            batch_size=stage.batch_size,
            augmentation=augmentation(tiny_config.get_config()),
            steps=STEPS,
        ),
        found=None,
        key=stage.key(0),
        pace=engine.Pace(STEPS, STEPS, STEPS),
        checkpoints=checkpoints,
        facts={},
        hooks=engine.Hooks(lambda step, values: None),
    )
    step, state, _ = checkpoints.newest(stage.template())
    checkpoints.close()
    assert step == STEPS
    return stage, state, frozen


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder, stages, teacher, its copy from before, and stage 1 as read back from its checkpoint."""
    folder, stages = tmp_path_factory.mktemp('stage1'), make_stages()
    teacher = random_net(stages.build('finetune').template())
    before = jax.tree.map(np.copy, teacher)
    return folder, stages, teacher, before, train_stage1(stages, folder, teacher)


def test_stage_2_starts_from_the_features_of_stage_1_and_a_random_head(trained):
    _, stages, _, _, (_, first, _) = trained
    stage = stages.build('stage2')
    second = stage.initial(0, {'stage1': first}.__getitem__)
    chex.assert_trees_all_equal(second.params['features'], first.params)
    chex.assert_trees_all_equal(second.stats['features'], first.stats)
    assert set(second.params) == {'features', 'head'}
    assert np.std(second.params['head']['fc1']['kernel']) == pytest.approx(0.01, rel=0.2)
    other = stage.initial(1, {'stage1': first}.__getitem__)
    assert (other.params['head']['fc1']['kernel'] != second.params['head']['fc1']['kernel']).any()
    chex.assert_trees_all_equal(other.params['features'], second.params['features'])
    # The optimiser holds the whole student, head included, and starts anew.
    moments = [leaf for leaf in jax.tree.leaves(second.opt_state) if np.ndim(leaf)]
    assert sorted(leaf.shape for leaf in moments) == sorted(leaf.shape for leaf in jax.tree.leaves(second.params))
    assert not any(np.any(leaf) for leaf in moments)


def test_stage_1_moved_every_parameter_of_the_student(trained):
    stage, first, _ = trained[4]
    start = stage.initial(0, {}.__getitem__)
    for name, leaf in trees.paths(first.params).items():
        assert (leaf != trees.paths(start.params)[name]).any(), name


def test_the_teacher_is_unchanged_and_in_no_checkpoint(trained):
    folder, _, teacher, before, (_, first, frozen) = trained
    chex.assert_trees_all_equal(teacher, before)
    chex.assert_trees_all_equal(frozen['teacher']['params'], before.params)
    content = json.loads((folder / str(STEPS) / 'state' / '_METADATA').read_text())['tree_metadata']
    assert not [name for name in content if 'fc6' in name or 'conv1_1' in name]
    arrays = [name for name, value in content.items() if value['value_metadata'].get('value_type') != 'None']
    assert len([name for name in arrays if 'params' in name]) == len(jax.tree.leaves(first.params))
    students = jax.tree.leaves(first.params)
    held = [leaf for leaf in jax.tree.leaves(first.opt_state) if np.ndim(leaf)]
    assert len(held) == 2 * len(students)  # Adam: a mean and a mean square for each
    assert trees.num_params(first.params) < trees.num_params(frozen['teacher']['params'])


def test_permuted_labels_give_the_same_stage_1_to_the_last_bit(trained, tmp_path):
    _, _, teacher, _, (_, first, frozen) = trained
    stages = make_stages(lambda labels: np.roll(labels, 1))
    _, again, other_frozen = train_stage1(stages, tmp_path, teacher)
    chex.assert_trees_all_equal(again, first)
    chex.assert_trees_all_equal(other_frozen, frozen)


def test_the_moments_standardise_the_target(trained):
    """Over the training images each channel of the target has mean 0 and, where it is alive, variance 1."""
    stage, _, frozen = trained[4]
    images = stage.train.images[:, 2:34, 2:34].astype(np.float32)
    response = np.asarray(jax.jit(stage.method.teacher.apply)(frozen['teacher'], images)['pool2'], np.float64)
    np.testing.assert_allclose(frozen['mean'], response.mean((0, 1, 2)), rtol=1e-4)
    deviation = response.std((0, 1, 2))
    floor = 0.1 * np.sqrt((deviation**2).mean())
    np.testing.assert_allclose(frozen['scale'], np.maximum(deviation, floor), rtol=1e-2)
