"""The folder of a run: whose it is, and files that are never half-written."""

import json
import os
from pathlib import Path

import pytest

from fn2en_jax import workdir
from fn2en_jax.errors import UserError

CONFIG = {'seed': 0, 'data': {'source': 'csv', 'data_dir': ''}, 'stage1': {'p': 2.0, 'drop_epochs': (100,)}}


def test_a_new_folder_is_made_and_the_same_settings_are_welcome_again(tmp_path):
    folder = tmp_path / 'a/b'
    for _ in range(2):
        with workdir.only_run(folder):
            workdir.claim(folder, CONFIG)
            assert json.loads((folder / 'config.json').read_text())['stage1'] == {'p': 2.0, 'drop_epochs': [100]}
    assert sorted(path.name for path in folder.iterdir()) == ['.lock', 'config.json']


def test_a_second_run_in_the_same_folder_is_refused_until_the_first_ends(tmp_path):
    with workdir.only_run(tmp_path), pytest.raises(UserError, match='another run'), workdir.only_run(tmp_path):
        pass
    with workdir.only_run(tmp_path):
        pass


def test_identities_that_were_not_opened_are_no_difference(tmp_path):
    def config(expressions, identities):
        return {'data_fingerprint': {'expressions': expressions, 'identities': identities}}

    workdir.claim(tmp_path, config('a', ''))
    workdir.claim(tmp_path, config('a', 'b'))
    workdir.claim(tmp_path, config('a', ''))  # what is known is kept
    for other in (config('c', 'b'), config('a', 'c')):
        with pytest.raises(UserError, match='data_fingerprint'):
            workdir.claim(tmp_path, other)


def test_a_fingerprint_that_older_workdirs_lack_is_no_difference(tmp_path):
    workdir.claim(tmp_path, {'data_fingerprint': {'expressions': 'a'}})
    workdir.claim(tmp_path, {'data_fingerprint': {'expressions': 'a', 'face_net_weights': 'b'}})
    with pytest.raises(UserError, match=r'data_fingerprint\.face_net_weights'):
        workdir.claim(tmp_path, {'data_fingerprint': {'expressions': 'a', 'face_net_weights': 'c'}})


def test_the_same_weights_and_folds_may_lie_elsewhere(tmp_path):
    def config(weights: str, digest: str, folds: str = '') -> dict:
        return {
            'data': {'folds_file': folds},
            'face_net': {'weights': weights},
            'data_fingerprint': {'face_net_weights': digest},
        }

    workdir.claim(tmp_path, config('/a/vgg.mat', 'x', '/a/folds.json'))
    workdir.claim(tmp_path, config('/b/vgg.mat', 'x', '/b/folds.json'))
    assert json.loads((tmp_path / 'config.json').read_text())['face_net']['weights'] == '/b/vgg.mat'
    for other, key in (
        (config('/b/vgg.mat', 'x'), 'data.folds_file'),
        (config('', '', '/b/folds.json'), 'face_net.weights'),
        (config('/c/vgg.mat', '', '/b/folds.json'), 'face_net.weights'),  # bytes that nobody has read
        (config('/c/vgg.mat', 'y', '/b/folds.json'), 'face_net.weights'),
    ):
        with pytest.raises(UserError, match=rf'other settings: (data_fingerprint.*; )?{key} \('):
            workdir.claim(tmp_path, other)
    with pytest.raises(UserError, match=r'data_fingerprint\.face_net_weights'):
        workdir.claim(tmp_path, config('/b/vgg.mat', 'y', '/b/folds.json'))


def test_weights_whose_bytes_an_older_workdir_does_not_know_must_lie_where_they_lay(tmp_path):
    workdir.claim(tmp_path, {'face_net': {'weights': '/a/vgg.mat'}})
    with pytest.raises(UserError, match=r'face_net\.weights'):
        workdir.claim(tmp_path, {'face_net': {'weights': '/b/vgg.mat'}, 'data_fingerprint': {'face_net_weights': 'x'}})


def test_other_settings_are_refused_and_every_differing_key_is_named(tmp_path):
    workdir.claim(tmp_path, CONFIG)
    before = (tmp_path / 'config.json').read_bytes()
    other = {'data': {'source': 'folder', 'data_dir': ''}, 'stage1': {'p': 2.0, 'drop_epochs': (50,)}, 'new': 'x'}
    with pytest.raises(UserError) as error:
        workdir.claim(tmp_path, other)
    message = str(error.value)
    for expected in (
        'data.source ("csv" there, "folder" now)',
        'stage1.drop_epochs ([100] there, [50] now)',
        'seed (0 there, unset now)',
        'new (unset there, "x" now)',
        str(tmp_path),
    ):
        assert expected in message
    assert 'stage1.p' not in message
    assert 'data_dir' not in message
    assert (tmp_path / 'config.json').read_bytes() == before


def test_a_value_of_none_is_not_a_missing_one(tmp_path):
    workdir.claim(tmp_path, {'key': None})
    with pytest.raises(UserError, match='key'):
        workdir.claim(tmp_path, {})


@pytest.mark.parametrize('key', ['methods', 'fold', 'data.data_dir', 'checkpoint.keep', 'report.rows_per_stage'])
def test_keys_that_change_no_result_may_differ(tmp_path, key):
    def config(value: object) -> dict:
        *sections, last = key.split('.')
        inner: dict = {last: value}
        for section in reversed(sections):
            inner = {section: inner}
        return inner

    workdir.claim(tmp_path, config(1))
    workdir.claim(tmp_path, config(2))


def test_a_key_that_only_begins_like_a_free_one_may_not_differ(tmp_path):
    workdir.claim(tmp_path, {'folder': 1})  # begins with 'fold'
    with pytest.raises(UserError, match='folder'):
        workdir.claim(tmp_path, {'folder': 2})


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'cannot write to the workdir .*file'), workdir.only_run(tmp_path / 'file'):
        pass


def test_files_are_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / 'results.json'
    workdir.write_json(path, {'a': 1})

    def crash(source, target):
        assert Path(source).read_text() == '{\n "a": 2\n}\n'  # whole before it takes the name
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, 'replace', crash)
        with pytest.raises(KeyboardInterrupt):
            workdir.write_json(path, {'a': 2})
    assert workdir.read_json(path) == {'a': 1}
    workdir.write_json(path, {'a': 3})
    assert workdir.read_json(path) == {'a': 3}
    assert [p.name for p in tmp_path.iterdir()] == ['results.json']


def test_values_that_json_lacks_are_not_written(tmp_path):
    with pytest.raises(ValueError, match='not JSON compliant'):
        workdir.write_json(tmp_path / 'a.json', {'x': float('nan')})
    assert not list(tmp_path.iterdir())


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        workdir.read_json(tmp_path / 'config.json')
    (tmp_path / 'config.json').write_text('{"seed": ')
    with pytest.raises(UserError, match='is damaged'):
        workdir.read_json(tmp_path / 'config.json')
    with pytest.raises(UserError, match='is damaged'):
        workdir.claim(tmp_path, CONFIG)


@pytest.mark.parametrize('content', [b'[]', b'1', b'{', b'\xff', b'[' * 100_000], ids=str)
def test_a_file_that_holds_no_object_is_refused(tmp_path, content):
    (tmp_path / 'config.json').write_bytes(content)
    with pytest.raises(UserError, match=r'config\.json is damaged'):
        workdir.read_json(tmp_path / 'config.json')


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / 'config.json').mkdir()
    with pytest.raises(UserError, match='cannot be read'):
        workdir.read_json(tmp_path / 'config.json')


def test_a_special_file_is_never_replaced(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    with pytest.raises(UserError, match='special file'):
        workdir.write_text(pipe, 'x')
    with pytest.raises(UserError, match='special file'), workdir.replacing(pipe) as temporary:
        temporary.write_text('x')
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
