"""The gradient step and both methods, in closed form where there is one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fn2en_jax import optim
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.methods.base import NetState, gradient_step
from fn2en_jax.methods.classifier import Classifier
from fn2en_jax.methods.finetune import from_face_net
from fn2en_jax.methods.fn2en import FeatureRegression, TargetMoments, attach_head
from fn2en_jax.models.expression_net import ExpressionNet
from fn2en_jax.models.vgg_face import VGGFace
from tests.test_parallel import IMAGE, SGD, classifier, random_variables, regression

BATCH = {
    'image': jnp.asarray(np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)), jnp.float32),
    'label': jnp.array([0, 1, 2, 0], jnp.int32),
    'mask': jnp.array([True, True, False, True]),
    'position': jnp.arange(4),
}
KEY = jax.random.PRNGKey(0)


def test_every_method_ends_with_the_stage_that_is_judged():
    assert {name: stages[-1] for name, stages in METHODS.items()} == {
        'fn2en': 'stage2',
        'finetune': 'finetune',
        'scratch': 'scratch',
    }
    assert METHODS['fn2en'] == ('face_net', 'finetune', 'stage1', 'stage2')


def test_the_gradient_is_of_the_mean_over_valid_examples():
    """loss_i = (w - x_i)^2 for x = 1, 2, 3 and a masked-out 60: the mean's gradient at w = 0 is -2 * 2."""
    x = jnp.array([1.0, 2.0, 60.0, 3.0])
    state = NetState(jnp.float32(0), optax.sgd(0.5).init(jnp.float32(0)), {})

    def loss_fn(w):
        return (w - x) ** 2, ({'seen': w}, {'x': x})

    new, metrics = gradient_step(state, loss_fn, BATCH['mask'], optax.sgd(0.5), None)
    assert new.params == 2.0  # 0 - 0.5 * -4
    assert new.stats == {'seen': 0.0}
    assert (metrics['loss'].total, metrics['loss'].count) == (14.0, 3)
    assert metrics['x'].compute() == 2.0


def test_devices_with_different_numbers_of_valid_examples_weigh_by_example():
    """One valid example on one device and two on the other: the mean of per-device means would be 1.75."""
    x, mask = jnp.array([[1.0, 9.0], [2.0, 3.0]]), jnp.array([[True, False], [True, True]])
    state = NetState(jnp.float32(0), optax.sgd(0.5).init(jnp.float32(0)), {})

    def step(x, mask):
        return gradient_step(state, lambda w: ((w - x) ** 2, ({}, {})), mask, optax.sgd(0.5), 'batch')

    new, metrics = jax.vmap(step, axis_name='batch')(x, mask)
    np.testing.assert_allclose(new.params, [2.0, 2.0])
    np.testing.assert_array_equal(metrics['loss'].count, [3, 3])


def test_a_batch_without_valid_examples_changes_nothing():
    state = NetState(jnp.float32(1), optax.sgd(0.5).init(jnp.float32(0)), {})
    new, metrics = gradient_step(state, lambda w: (w * jnp.ones(4), ({}, {})), jnp.zeros(4, bool), optax.sgd(0.5), None)
    assert new.params == 1.0
    assert metrics['loss'].count == 0


@pytest.fixture(scope='module')
def classified():
    method, state, frozen = classifier()
    step = jax.jit(method.train_step)
    return method, state, frozen, step, step(state, frozen, BATCH, KEY)


def test_a_classifier_reports_accuracy_over_valid_examples_and_moves_its_statistics(classified):
    _, state, _, _, (new, metrics) = classified
    assert set(metrics) == {'loss', 'accuracy'}
    assert metrics['accuracy'].count == 3
    assert 0 <= metrics['accuracy'].total <= 3
    changed = jax.tree.map(
        lambda a, b: bool((np.asarray(a) != np.asarray(b)).any()), (new.params, new.stats), (state.params, state.stats)
    )
    assert changed[0]['features']['conv1']['kernel']
    assert changed[0]['head']['fc2']['bias']
    assert all(jax.tree.leaves(changed[1]))


def test_dropout_follows_the_key_and_the_position_alone(classified):
    _, state, frozen, step, (new, _) = classified
    chex.assert_trees_all_equal(step(state, frozen, BATCH, KEY)[0], new)
    other = step(state, frozen, BATCH, jax.random.PRNGKey(1))[0]
    assert (other.params['head']['fc2']['kernel'] != new.params['head']['fc2']['kernel']).any()


def test_class_weights_and_smoothing_reach_the_loss(classified):
    method, state, frozen, *_ = classified
    evaluate = jax.jit(method.eval_step)
    ones = evaluate(state, {'class_weights': np.ones(3, np.float32)}, BATCH)
    weighted = evaluate(state, frozen, BATCH)
    np.testing.assert_allclose(weighted['loss'] / ones['loss'], frozen['class_weights'][BATCH['label']], rtol=1e-5)
    target = 0.9 * np.eye(3)[BATCH['label']] + 0.1 / 3
    expected = -(target * np.asarray(jax.nn.log_softmax(ones['logits']))).sum(1)
    np.testing.assert_allclose(ones['loss'], expected, rtol=1e-5)


def test_flip_test_averages_the_logits_of_image_and_mirror_image(classified):
    method, state, frozen, *_ = classified
    flipped = Classifier(method.model, 'logits', SGD, flip_test=True)
    mirror = {**BATCH, 'image': BATCH['image'][:, :, ::-1]}
    evaluate = jax.jit(method.eval_step)
    plain, other = (evaluate(state, frozen, batch)['logits'] for batch in (BATCH, mirror))
    assert np.abs(plain - other).max() > 1e-3
    found = jax.jit(flipped.eval_step)(state, frozen, BATCH)['logits']
    np.testing.assert_allclose(found, (plain + other) / 2, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope='module')
def regressed():
    method, state, frozen = regression()
    return method, state, frozen, jax.jit(method.eval_step)(state, frozen, BATCH)


def test_stage_1_regresses_the_standardised_response_of_the_teacher(regressed):
    method, state, frozen, found = regressed
    response = np.asarray(method.teacher.apply(frozen['teacher'], BATCH['image'])['pool2'])
    features = np.asarray(method.student.apply({'params': state.params, 'batch_stats': state.stats}, BATCH['image']))
    target = (response - frozen['mean']) / frozen['scale']
    np.testing.assert_allclose(found['loss'], ((features - target) ** 2).mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found['target_power'], (target**2).mean((1, 2, 3)), rtol=1e-4)


def test_no_gradient_reaches_the_teacher(regressed):
    method, state, frozen, _ = regressed

    def loss(teacher):
        return method.eval_step(state, {**frozen, 'teacher': teacher}, BATCH)['loss'].sum()

    gradients = jax.jit(jax.grad(loss))(frozen['teacher'])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_labels_have_no_influence_on_stage_1():
    """To the last bit, over several steps; the labels are permuted and then made nonsense."""
    method, state, frozen = regression()
    step = jax.jit(method.train_step)
    ends = []
    for labels in (BATCH['label'], BATCH['label'][::-1], jnp.full(4, -7)):
        net = state
        for number in range(3):
            net, _ = step(net, frozen, {**BATCH, 'label': labels}, jax.random.fold_in(KEY, number))
        ends.append(jax.device_get(net))
    chex.assert_trees_all_equal(*ends)
    assert (ends[0].params['conv1']['kernel'] != state.params['conv1']['kernel']).any()


def test_target_moments_are_channel_means(regressed):
    method, _, frozen, _ = regressed
    found = jax.jit(TargetMoments(method.teacher, 'pool2').eval_step)({}, frozen, BATCH)
    response = np.asarray(method.teacher.apply(frozen['teacher'], BATCH['image'])['pool2'])
    np.testing.assert_allclose(found['mean'], response.mean((1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found['square'], (response**2).mean((1, 2)), rtol=1e-4, atol=1e-6)


def test_attach_head_takes_stage_1_and_keeps_the_random_head():
    net = ExpressionNet(num_classes=3, features=(4, 8), target_shape=(8, 8, 8), hidden=16, batch_norm=True)
    fresh = random_variables(net, seed=2)
    _, state, _ = regression()
    attached = attach_head(fresh, state)
    chex.assert_trees_all_equal_structs(attached, fresh)
    chex.assert_trees_all_equal(attached['params']['features'], state.params)
    chex.assert_trees_all_equal(attached['batch_stats']['features'], state.stats)
    chex.assert_trees_all_equal(attached['params']['head'], fresh['params']['head'])


def test_fine_tuning_takes_the_face_net_but_its_classifier():
    nets = [VGGFace(num_classes=k, width=1 / 64, fc_features=64, batch_norm=True) for k in (3, 50)]
    fresh, face = (random_variables(net, seed) for seed, net in enumerate(nets))
    found = from_face_net(fresh, face)
    for collection in ('params', 'batch_stats'):
        for name in face[collection]:
            expected = fresh if name == 'fc8' else face
            chex.assert_trees_all_equal(found[collection][name], expected[collection][name])
    assert (found['params']['fc6']['kernel'] != fresh['params']['fc6']['kernel']).any()
    del face['params']['conv3_2']
    with pytest.raises(UserError, match='missing: conv3_2/bias, conv3_2/kernel'):
        from_face_net(fresh, face)
    wider = random_variables(VGGFace(num_classes=50, width=1 / 32, fc_features=64, batch_norm=True))
    with pytest.raises(UserError, match=r'of another shape: .*conv1_1'):
        from_face_net(fresh, wider)


def test_optimisers_of_equal_settings_are_equal():
    """What lets folds share compiled steps."""
    again = optim.Optimiser('sgd', 1e-2, 10, 4, schedule='constant')
    assert again is not SGD
    assert (again, hash(again)) == (SGD, hash(SGD))
    assert classifier()[0] == classifier()[0]
    assert hash(regression()[0]) == hash(regression()[0])
    assert IMAGE.shape == (1, 32, 32, 3)
    assert isinstance(regression()[0], FeatureRegression)
