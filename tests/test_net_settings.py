"""Workdirs of other versions are refused by the keys that they lack."""

import json

import pytest

from configs import base
from fn2en_jax import experiment, net_settings, trained
from fn2en_jax.errors import UserError


def config() -> dict:
    return experiment.plain(base.get_config())


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


def test_an_empty_config_is_refused_in_one_line(tmp_path):
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(UserError, match=r'lacks .* and [0-9]+ more keys; it is of another version') as refused:
        trained.find(str(tmp_path))
    assert '\n' not in str(refused.value)
