"""From a config to stages: lengths, keys, what each adopts, and what is refused."""

import chex
import jax
import numpy as np
import pytest

from fn2en_jax import stages as stages_lib
from fn2en_jax import trees
from fn2en_jax.data.folds import Fold, all_data
from fn2en_jax.data.sources import Data
from fn2en_jax.errors import UserError
from fn2en_jax.models.vgg_face import LAYERS
from fn2en_jax.stages import Stages
from tests import faces, tiny_config, weight_files

EXAMPLES, IDENTITIES = faces.make(30), faces.make(12, classes=4)
KEY = jax.random.PRNGKey(0)
FOLD = Fold('fold0', np.arange(20), np.arange(20, 30))


def make(method: str = 'all', identities=IDENTITIES, fold=FOLD, **overrides) -> Stages:
    config = tiny_config.get_config(method)
    config.update_from_flattened_dict({key.replace('__', '.'): value for key, value in overrides.items()})
    return Stages(config, Data(EXAMPLES, identities, ''), fold)


def test_each_method_names_its_stages_and_all_name_each_once():
    assert make('fn2en').names() == ('face_net', 'finetune', 'stage1', 'stage2')
    assert make('finetune').names() == ('face_net', 'finetune')
    assert make('scratch').names() == ('scratch',)
    assert make('all').names() == ('face_net', 'finetune', 'stage1', 'stage2', 'scratch')
    assert make('finetune', face_net__weights='net.safetensors').names() == ('finetune',)


@pytest.mark.parametrize(
    ('epochs', 'batch_size', 'per_epoch', 'last'), [(4.0, 8, 2, 8), (0.5, 8, 2, 1), (0.01, 8, 2, 1), (3.0, 64, 1, 3)]
)
def test_a_stage_lasts_its_epochs(epochs, batch_size, per_epoch, last):
    stage = make(scratch__epochs=epochs, scratch__batch_size=batch_size).build('scratch')
    assert (stage.steps_per_epoch, stage.last_step) == (per_epoch, last)
    assert stage.method.optimiser.total_steps == last


def test_training_and_testing_never_share_an_image():
    stage = make().build('stage2')
    assert stage.train.files == EXAMPLES.files[:20]
    assert (stage.watched_part, stage.watched.files) == ('test', EXAMPLES.files[20:])
    assert make().build('face_net').train.files == IDENTITIES.files
    assert make().build('face_net').watched is None
    assert make(fold=all_data(EXAMPLES)).build('stage2').watched is None


def test_validation_images_are_watched_instead_of_the_test_images():
    fold = Fold('test', FOLD.train[:15], FOLD.test, FOLD.train[15:])
    for name in ('finetune', 'stage1', 'stage2', 'scratch'):
        stage = make(fold=fold).build(name)
        assert (stage.watched_part, stage.watched.files) == ('validation', EXAMPLES.files[15:20])
        assert stage.train.files == EXAMPLES.files[:15]


def test_the_face_net_is_shared_by_folds_and_the_rest_is_not():
    keys = {}
    for fold in (FOLD, Fold('fold1', FOLD.train, FOLD.test)):
        for name in ('face_net', 'finetune', 'scratch'):
            stage = make(fold=fold).build(name)
            keys[stage.fold, name] = tuple(np.asarray(stage.key(0)).tolist())
            assert not np.array_equal(stage.key(0), stage.key(1))
    assert len(keys) == 5
    assert len(set(keys.values())) == 5


def test_equal_stages_of_two_folds_share_one_method():
    other = Fold('fold1', FOLD.train + 5, FOLD.test)
    assert make(fold=other).build('scratch').method == make().build('scratch').method


def test_the_initial_state_fits_the_template_and_follows_the_seed():
    stage = make('scratch').build('scratch')
    states = [stage.initial(seed, {}.__getitem__) for seed in (0, 0, 1)]
    chex.assert_trees_all_equal_shapes_and_dtypes(states[0], stage.template())
    chex.assert_trees_all_equal(states[0], states[1])
    assert (states[0].params['head']['fc1']['kernel'] != states[2].params['head']['fc1']['kernel']).any()
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(states[0]))


@pytest.mark.parametrize('layer', LAYERS)
def test_any_layer_can_supervise(layer):
    """Shapes only: the student gives what the teacher's layer gives, and its net takes it up in stage 2."""
    stages = make(stage1__layer=layer)
    first, second = stages.build('stage1'), stages.build('stage2')
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    key = jax.random.PRNGKey(0)
    target = jax.eval_shape(lambda k, x: first.method.teacher.init_with_output(k, x)[0][layer], key, image)
    features = jax.eval_shape(lambda k, x: first.method.student.init_with_output(k, x)[0], key, image)
    assert features.shape == target.shape
    chex.assert_trees_all_equal_shapes(second.template().params['features'], first.template().params)


def test_fine_tuning_adopts_the_face_net_but_its_classifier():
    stages = make('finetune')

    def fill(template, value):
        return jax.tree.map(lambda leaf: np.full(leaf.shape, value, leaf.dtype), template)

    face = fill(stages.build('face_net').template(), 2.0)
    stage = stages.build('finetune')
    fresh = fill(jax.eval_shape(stage.variables, jax.random.PRNGKey(0)), 1.0)
    adopted = stage.adopt(fresh, {'face_net': face}.__getitem__)
    for name, leaf in trees.paths(adopted).items():
        assert (leaf == (1.0 if '/fc8/' in name else 2.0)).all(), name
    groups = stage.method.optimiser.groups
    assert trees.paths(trees.match_groups(adopted['params'], [g[:2] for g in groups]))['fc8/kernel'] == 'new'


def test_balanced_class_weights_make_classes_count_the_same():
    stage = make(loss__class_weights='balanced').build('scratch')
    weights = stage.frozen({}.__getitem__)['class_weights']
    totals = np.bincount(stage.train.labels) * weights
    np.testing.assert_allclose(totals, 20 / 3, rtol=1e-6)
    plain = make().build('scratch').frozen({}.__getitem__)['class_weights']
    np.testing.assert_array_equal(plain, np.ones(3))


def test_unlabelled_faces_join_stage_1_without_labels():
    stage = make(stage1__unlabelled=True).build('stage1')
    assert len(stage.train) == 20 + 12
    assert not stage.train.labels.any()
    np.testing.assert_array_equal(stage.train.images[20:], IDENTITIES.images)
    assert stage.watched.files == EXAMPLES.files[20:]
    assert not set(stage.watched.files) & set(stage.train.files[:20])


@pytest.mark.parametrize('folds_file', ['', 'mine.json'])
def test_persons_are_dealt_unless_a_file_says_who_is_tested(folds_file):
    config = tiny_config.get_config()
    config.data.folds_file = folds_file
    assert stages_lib._wanted(config.data).choice.deal == (not folds_file)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r'config\.stage1\.layer is .pool9.; choose one of pool1'):
        make(stage1__layer='pool9').build('stage1')
    with pytest.raises(UserError, match='face net needs either'):
        make('finetune', identities=None).build('face_net')
    with pytest.raises(UserError, match='unlabelled needs'):
        make(identities=None, stage1__unlabelled=True).build('stage1')
    with pytest.raises(UserError, match='there is no file'):
        make(face_net__weights='none.safetensors').build('finetune').adopt({}, {}.__getitem__)


def face_file(folder, *, side=(1, 1), **options):
    """A face net of the shape that the tiny config wants, as a Caffe file."""
    folder.mkdir(exist_ok=True)
    made = weight_files.net(side=side, features=8, classes=9, channels=(2, 4, 8, 16, 16))
    weight_files.caffe(folder / 'face', made, **options)
    return made, str(folder / 'face')


PLAIN = {'face_net__batch_norm': False, 'face_net__input_scale': 1.0}


def adopted(stages):
    stage = stages.build('finetune')
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, np.float32), jax.eval_shape(stage.variables, KEY))
    return stage.adopt(fresh, {}.__getitem__)['params']


def test_a_published_file_becomes_the_face_net(tmp_path):
    made, path = face_file(tmp_path)
    stages = make('finetune', face_net__weights=path, **PLAIN)
    stages.check_weights()
    found = adopted(stages)
    for layer, parts in weight_files.canonical(made).items():
        for part, array in parts.items():
            expected = np.full_like(found[layer][part], 7) if layer == 'fc8' else array
            np.testing.assert_array_equal(found[layer][part], expected)


def test_convolutions_alone_leave_the_rest_fresh(tmp_path):
    made, path = face_file(tmp_path, side=(7, 7))
    with pytest.raises(UserError, match=r'fc6 of .* is for images of 224x224 .*face_net.layers=convolutions'):
        make('finetune', face_net__weights=path, **PLAIN).check_weights()
    stages = make('finetune', face_net__weights=path, face_net__layers='convolutions', **PLAIN)
    stages.check_weights()
    found = adopted(stages)
    np.testing.assert_array_equal(found['conv5_3']['kernel'], made['conv5_3'][0])
    assert set(found['fc6']['kernel'].flat) == set(found['fc7']['bias'].flat) == {7}


def test_what_is_odd_about_a_file_is_logged_once(tmp_path, caplog):
    made, _ = face_file(tmp_path)
    made['fc7'] = (made['fc7'][0] * 0, made['fc7'][1])
    weight_files.pytorch(tmp_path / 'fer', weight_files.state(made, 'fer'))
    stages = make('finetune', face_net__weights=str(tmp_path / 'fer'), **PLAIN)
    with caplog.at_level('WARNING'):
        stages.check_weights()
        adopted(stages)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert 'so RGB is taken' in texts[0]
    assert 'params/fc7/kernel: all values are zero' in texts[1]


def test_a_file_for_other_input_is_refused(tmp_path):
    made, path = face_file(tmp_path)
    with pytest.raises(UserError, match=r'needs --config.face_net.batch_norm=False'):
        make('finetune', face_net__weights=path, face_net__batch_norm=True).check_weights()
    with pytest.raises(UserError, match=r'needs --config.face_net.input_scale=1'):
        make('finetune', face_net__weights=path, face_net__batch_norm=False).check_weights()
    mean = (1.0, 2.0, 3.0)
    with pytest.raises(
        UserError, match=r'wants RGB minus \(129.1863,104.7624,93.5940\); set --config.face_net.mean_rgb='
    ):
        make('finetune', face_net__weights=path, face_net__mean_rgb=mean, **PLAIN).check_weights()
    stages = make('finetune', face_net__mean_rgb=mean, **PLAIN)
    assert stages.build('finetune').method.model.mean_rgb == mean
    weight_files.pytorch(tmp_path / 'twin', weight_files.state(made, 'dag'))
    with pytest.raises(UserError, match='cannot tell the colour order'):
        make('finetune', face_net__weights=str(tmp_path / 'twin'), **PLAIN).check_weights()
    make('finetune', face_net__weights=str(tmp_path / 'twin'), face_net__colour_order='rgb', **PLAIN).check_weights()
