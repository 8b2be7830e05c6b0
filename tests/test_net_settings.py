"""Workdirs of other versions are refused by the keys that they lack."""

import json

import pytest

from configs import base
from fn2en_jax import config_checks, net_settings, trained
from fn2en_jax.errors import UserError


def config() -> dict:
    return config_checks.plain(base.get_config())


def without(key: str) -> dict:
    stored = config()
    room = stored
    *rooms, last = key.split('.')
    for name in rooms:
        room = room[name]
    del room[last]
    return stored


def test_every_config_of_this_version_makes_a_net():
    assert net_settings.lacking(config()) == []


@pytest.mark.parametrize('key', net_settings.BEFORE)
def test_keys_younger_than_a_workdir_may_lack(key):
    assert net_settings.lacking(without(key)) == []


@pytest.mark.parametrize('key', ['expression_net.features', 'loss', 'face_net.train', 'scratch', 'data', 'dtype'])
@pytest.mark.parametrize('find', [trained.find, lambda folder: trained.of_stage(folder, 'all', 'scratch')])
def test_a_workdir_without_a_key_is_of_another_version(tmp_path, key, find):
    (tmp_path / 'config.json').write_text(json.dumps(without(key)))
    with pytest.raises(UserError, match=rf'its config\.json lacks {key}.*of another version of this program, or dam'):
        find(str(tmp_path))


@pytest.mark.parametrize(
    ('key', 'value', 'told'),
    [
        ('expression_net.hidden', '256', '"256"'),
        ('finetune.batch_size', None, 'null'),
        ('data.crop_size', True, 'true'),
        ('face_net.width', 1e9, r'1000000000\.0'),
        ('visualize.cam_side', [3], r'\[3\]'),
        ('stage1.layer', 'pool9', '"pool9"'),
    ],
)
def test_a_value_that_no_run_would_have_written_is_refused(tmp_path, key, value, told):
    stored = config()
    room, last = key.split('.')
    stored[room][last] = value
    (tmp_path / 'config.json').write_text(json.dumps(stored))
    with pytest.raises(UserError, match=rf'{key} in its config\.json cannot be {told}; the file is damaged') as refused:
        trained.find(str(tmp_path))
    assert '\n' not in str(refused.value)


def test_numbers_may_be_whole_and_lists_tuples():
    stored = {**config(), 'checkpoint': {'every_seconds': 60}, 'methods': ('fn2en',)}
    assert net_settings.odd(stored, config()) == []


def test_an_empty_config_is_refused_in_one_line(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(UserError, match=r'lacks .* and [0-9]+ more keys; it is of another version') as refused:
        trained.find(str(tmp_path))
    assert '\n' not in str(refused.value)
