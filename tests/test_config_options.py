"""Every option after the colon of every config, at full size: built, and the steps of every stage traced by shape."""

import importlib
import itertools
import json
import re
from pathlib import Path
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from benchmarks import expected_time
from configs import base
from fn2en_jax import config_checks, literature
from fn2en_jax.data import protocols
from fn2en_jax.data.datasets import DATASETS
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.methods import METHODS
from fn2en_jax.methods.fn2en import FeatureRegression
from fn2en_jax.stages import Stage, Stages
from tests import faces
from tests.test_configs import load

# How ml_collections loads a config file.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')


ROOT = Path(__file__).parents[1]
# What an option after the colon becomes, as it was written there.
BECOMES = {
    'classes': lambda data: str(data.classes),
    'extra': lambda data: data.extra,
    'edition': lambda data: {'affectnet': 'csv', 'affectnet_npy': 'npy'}[data.source],
    'faces': lambda data: {'sfew': 'aligned', 'sfew_frames': 'frames'}[data.source],
    'labels': lambda data: data.source,
}


def known_options(name: str) -> dict[str, tuple]:
    """What a config file passes to `base.options`; {} for one without options."""
    with mock.patch.object(base, 'options', wraps=base.options) as options:
        importlib.import_module(f'configs.{name}').get_config('scratch')
    return options.call_args.kwargs if options.called else {}


def arguments(name: str) -> list[str]:
    """Every combination of the options of a file, as it stands behind the method."""
    known = known_options(name)
    written = [[f',{option}={value}' if value else '' for value in values] for option, values in known.items()]
    return [''.join(parts) for parts in itertools.product(*written)]


NAMES = ('affectnet', 'ckplus', 'fer2013', 'jaffe', 'mmi', 'oulu_casia', 'rafdb', 'sfew', 'tfd')
CASES = [(name, argument) for name in NAMES for argument in arguments(name)]
IDS = [f'{name}{argument}' for name, argument in CASES]


def number_of_classes(config: ml_collections.ConfigDict) -> int:
    return config.data.classes or next(iter(protocols.PROTOCOLS[config.data.source].classes))


def shapes(name: str, argument: str) -> str:
    """Equal for configs whose nets and steps have the same shapes; batches are of one size in all of them."""
    config = importlib.import_module(f'configs.{name}').get_config(f'all{argument}')
    sections = config_checks.plain(config)
    data, nets = config.data, [sections['face_net'], sections['expression_net'], config.stage1.layer]
    return json.dumps([nets, number_of_classes(config), data.channels, data.stored_size, data.crop_size])


DIFFERENT = {shapes(*case): case for case in CASES}


def test_the_options_are_found():
    assert {path.stem for path in (ROOT / 'configs').glob('*.py')} == {*NAMES, '__init__', 'base', 'demo', 'faces'}
    assert set(IDS) > {'ckplus,classes=6', 'sfew,faces=frames,extra=ferplus', 'affectnet,classes=7,edition=npy', 'mmi'}
    assert len(IDS) == len(set(IDS)) == 3 + 6 + 2 + 4 + 2 + 4  # ckplus, sfew, fer2013, affectnet, jaffe, four others


@pytest.mark.parametrize(('name', 'argument'), CASES, ids=IDS)
def test_every_option_does_what_it_says_with_every_method(name, argument):
    for method in (*METHODS, 'all'):
        config = load(f'--config={ROOT}/configs/{name}.py:{method}{argument}')
        config_checks.check(config)
        assert config.methods == (tuple(METHODS) if method == 'all' else (method,))
        assert config.data.source in DATASETS
        for option, value in (part.split('=') for part in filter(None, argument.split(','))):
            assert BECOMES[option](config.data) == value
        if config.data.extra:
            protocols.check_extra(config.data.source, config.data.extra)


def test_an_option_is_given_once():
    assert base.options('all,classes=6', classes=(8, 7, 6)) == ('all', {'classes': 6})
    with pytest.raises(ValueError, match=r'^classes is given twice after the colon'):
        base.options('classes=6,all,classes=7', classes=(8, 7, 6))


def abstract(stage: Stage, image_shape: tuple[int, int, int]) -> tuple:
    """Shapes of what a training step takes: state, frozen arrays, a whole batch, a key."""
    count = stage.batch_size
    batch = {
        'image': jax.ShapeDtypeStruct((count, *image_shape), jnp.float32),
        'label': jax.ShapeDtypeStruct((count,), jnp.int32),
        'mask': jax.ShapeDtypeStruct((count,), jnp.bool_),
        'position': jax.ShapeDtypeStruct((count,), jnp.int32),
    }
    if isinstance(stage.method, FeatureRegression):
        teacher = stage.method.teacher
        channels = stage.method.student.target_shape[-1]
        moments = jax.ShapeDtypeStruct((channels,), jnp.float32)
        variables = jax.eval_shape(teacher.init, jax.random.PRNGKey(0), batch['image'])
        frozen = {'teacher': variables, 'mean': moments, 'scale': moments}
    else:
        frozen = {'class_weights': jax.ShapeDtypeStruct((stage.method.model.num_classes,), jnp.float32)}
    return stage.template(), frozen, batch, jax.eval_shape(lambda: jax.random.PRNGKey(0))


@pytest.mark.parametrize(('name', 'argument'), DIFFERENT.values(), ids=map(''.join, DIFFERENT.values()))
def test_every_step_of_every_stage_fits_at_full_size(name, argument):
    config = load(f'--config={ROOT}/configs/{name}.py:all{argument}')
    classes, size, channels = number_of_classes(config), config.data.stored_size, config.data.channels
    expressions = faces.make(2 * classes, size=size, classes=classes, channels=channels)
    sets = Data(expressions, faces.make(8, size=size, channels=channels), {})
    count = len(expressions)
    stages = Stages(config, sets, Fold('fold0', np.arange(count - 2), np.arange(count - 2, count)))
    assert stages.names() == ('face_net', 'finetune', 'stage1', 'stage2', 'scratch')
    for stage in map(stages.build, stages.names()):
        taken = abstract(stage, stages.image_shape)
        state, _ = jax.eval_shape(stage.method.train_step, *taken)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, taken[0])
        outputs = jax.eval_shape(stage.method.eval_step, *taken[:3])
        if stage.name == 'stage1':
            assert outputs['loss'].shape == (stage.batch_size,)
        else:
            assert outputs['logits'].shape == (stage.batch_size, 3 if stage.name == 'face_net' else classes)


HEADER = re.compile(
    r'Command: python launch\.py --config=configs/(?P<name>\w+)\.py --workdir=runs/(?P=name) '
    r'--config\.data\.manual_dir=PATH --config\.face_net\.weights=vgg_face\.safetensors '
    r'Argument: the method \(fn2en, finetune, scratch, all\).* Expected: (?P<expected>(?:not in )?the paper\b.*) '
    r'Time: (?P<fn2en>[\d.]+ \w+) expected on one NVIDIA Tesla P100, from a published throughput .*, not measured; '
    r'(?P<fold>a fold with )?(?P<images>[\d,]+) training images: '
    r'fine-tune (?P<finetune>\S+ \w+), stage 1 (?P<stage1>\S+ \w+), stage 2 (?P<stage2>\S+ \w+), '
    r'scratch (?P<scratch>\S+ \w+)'
)


def header(name: str) -> re.Match[str]:
    text = ' '.join(importlib.import_module(f'configs.{name}').__doc__.split())
    found = HEADER.search(text)
    assert found, text
    assert found['name'] == name
    return found


@pytest.mark.parametrize('name', NAMES)
def test_headers_tell_the_command_the_published_figures_and_the_cost(name):
    source = importlib.import_module(f'configs.{name}').get_config().data.source
    papers = [paper for (key, *_), paper in literature.PUBLISHED.items() if key == source]
    expected = header(name)['expected']
    assert expected.startswith('the paper has') == any(paper.methods for paper in papers)
    figures = [figure for paper in papers for figure in paper.methods.values()]
    figures += [figure for paper in papers for title, figure in paper.others.items() if title.startswith('FMPN')]
    assert all(str(figure) in expected for figure in figures)


@pytest.mark.parametrize(
    'name', [name if name == 'ckplus' else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_the_time_in_a_header_is_the_expected_one(name):
    throughput = expected_time.published_rate()
    (row,) = expected_time.expect([name], lambda *stage: throughput)
    found = header(name).groupdict()
    assert found['images'] == f'{row.images:,}'
    assert bool(found['fold']) == (row.folds > 1)
    assert found['fn2en'] == expected_time.about(row.fn2en_seconds)
    for stage, seconds in row.seconds.items():
        assert found[stage] == expected_time.about(seconds)
