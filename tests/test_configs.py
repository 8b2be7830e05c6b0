"""Every config file builds for every method; every key is read by somebody."""

import re
import sys
from pathlib import Path
from unittest import mock

import ml_collections
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from fn2en_jax import config_checks, experiment, workdir
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.stages import Stages, ascent, augmentation, reading
from tests import faces, tiny_config

# How ml_collections loads a config file.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / 'configs').glob('*.py') if path.name != '__init__.py')


def load(*arguments: str) -> ml_collections.ConfigDict:
    """As launch.py loads it."""
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file('config', flag_values=values)
    with mock.patch.object(sys, 'argv', ['test', *arguments]):  # where overrides are looked for
        values(sys.argv)
    return holder.value


@pytest.mark.parametrize('method', [*METHODS, 'all'])
@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_config_builds_and_passes_the_checks(path, method):
    config = load(f'--config={path}:{method}')
    assert config.methods == (tuple(METHODS) if method == 'all' else (method,))
    config_checks.check(config)
    size, channels = config.data.stored_size, config.data.channels
    data = Data(faces.make(12, size=size, channels=channels), faces.make(8, size=size, channels=channels), '')
    stages = Stages(config, data, Fold('fold0', np.arange(8), np.arange(8, 12)))
    for name in stages.names():
        stage = stages.build(name)
        stage.method.optimiser.build()
        assert stage.last_step >= 1


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_a_config_only_overrides_keys_of_the_base(path):
    own = dict(workdir.flatten(config_checks.plain(load(f'--config={path}'))))
    assert own.keys() == dict(workdir.flatten(config_checks.plain(base.get_config()))).keys()
    if path.stem != 'base':
        assert re.search(r'^Command: +python launch\.py --config=configs/\w+\.py', path.read_text(), re.M)


def test_methods_of_the_configs_are_those_of_the_package():
    assert set(base.METHODS) == set(METHODS)


def test_a_mean_is_set_as_a_run_asks_for_it():
    config = load(f'--config={FILES[0]}', '--config.face_net.mean_rgb=(123.6750,116.2800,103.5300)')
    assert config.face_net.mean_rgb == (123.675, 116.28, 103.53)


def test_an_unknown_key_fails():
    assert load(f'--config={FILES[0]}', '--config.stage1.p=1.5').stage1.p == 1.5
    for key in ('stage1.q', 'stage3.p', 'data.sorce'):
        with pytest.raises((AttributeError, KeyError), match=re.escape(key.split('.')[-1]) + '|' + key.split('.')[0]):
            load(f'--config={FILES[0]}', f'--config.{key}=1')


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('methods', ('fn3en',), 'unknown method fn3en; choose from fn2en'),
        ('dtype', 'float16', r'config\.dtype'),
        ('loss.class_weights', 'equal', 'none or balanced'),
        ('data.crop_size', 257, 'stored_size'),
        ('data.crop_size', 31, 'at least 32'),
        ('data.channels', 4, 'grey'),
        ('data.faces', 'twist', 'align, box, none'),
        ('data.no_face', 'skip', 'keep or drop'),
        ('face_net.image_size', 16, '0 or at least 32'),
        ('stage1.epochs', 0.0, r'config\.stage1\.epochs is 0'),
        ('scratch.learning_rate', -1.0, 'greater than 0'),
        ('stage2.batch_size', 6, 'does not divide over 4 devices'),
        ('steps_per_dispatch', 0, 'at least 1'),
        ('stage1.p', 0.5, r'config\.stage1\.p is 0\.5; it must be at least 1'),
        ('stage1.reduction', 'median', 'sum or mean'),
        ('stage1.epochs', float('nan'), 'greater than 0'),
        ('loss.label_smoothing', 1.5, 'at most 0.999'),
        ('finetune.dropout_rate', 1.0, 'at most 0.999'),
        ('report.rows_per_stage', 0, 'at least 1'),
        ('seed', -1, 'at least 0'),
        ('face_net.colour_order', 'brg', 'use rgb, bgr or nothing'),
        ('face_net.layers', 'some', 'use all or convolutions'),
        ('face_net.mean_rgb', (1.0, 2.0), 'three numbers'),
    ],
)
def test_values_that_could_only_fail_later_are_refused(key, value, message):
    config = base.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        config_checks.check(config)


def test_no_key_is_dead(monkeypatch):
    """A key counts as read when building the stages asks for it, or when the code names it with its section."""
    config = tiny_config.get_config('all')
    sections = {id(config): ''}

    def name_sections(section, prefix):
        for key, value in section.items():
            if isinstance(value, ml_collections.ConfigDict):
                sections[id(value)] = f'{prefix}{key}.'
                name_sections(value, f'{prefix}{key}.')

    name_sections(config, '')
    every = {key for key, _ in workdir.flatten(config_checks.plain(config))}
    read = set()
    original = ml_collections.ConfigDict.__getitem__

    def noting(self, key):
        read.add(sections.get(id(self), '?') + key)
        return original(self, key)

    monkeypatch.setattr(ml_collections.ConfigDict, '__getitem__', noting)
    data = Data(faces.make(18), faces.make(8), '')
    stages = Stages(config, data, Fold('fold0', np.arange(8), np.arange(8, 12)))
    for name in stages.names():
        stages.build(name)
    augmentation(config)
    ascent(config)
    reading(config)
    experiment.choose_folds(config, experiment.all_folds(config, data))
    monkeypatch.undo()
    assert 'stage1.p' in read
    names = ('experiment.py', 'stages.py', 'data/sources.py', 'finished.py', 'exhibits.py', 'probing.py')
    files = [ROOT / 'fn2en_jax' / name for name in names]
    source = '\n'.join(path.read_text() for path in files)

    def named(key: str) -> bool:
        *_, section, last = ('config', *key.split('.'))
        synthetic = section == 'synthetic' and f"['{last}']" in source
        return synthetic or bool(re.search(rf'(?<![a-z]){section}\.{last}\b', source))

    assert {key for key in every - read if not named(key)} == set()
