"""What makes a workdir refuse a run, beside its config."""

import json
from pathlib import Path
from unittest import mock

import ml_collections
import numpy as np
import pytest
from PIL import Image

from configs import base
from fn2en_jax import config_checks, experiment, finished
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.errors import UserError
from tests import faces, tiny_config


def test_the_bytes_of_the_weights_are_part_of_a_run(tmp_path):
    path = tmp_path / 'face.safetensors'
    data = Data(faces.make(6), None, {'expressions': 'a', 'identities': ''})

    def mark(method: str) -> dict[str, str]:
        config = base.get_config(method)
        config.face_net.weights = str(path)
        return experiment._fingerprint(config, data)

    path.write_bytes(b'1')
    first = mark('fn2en')
    assert {**first, 'face_net_weights': ''} == {'expressions': 'a', 'identities': '', 'face_net_weights': ''}
    path.write_bytes(b'2')
    assert mark('fn2en') != first
    assert mark('scratch')['face_net_weights'] == ''  # which reads no weights


def test_a_finished_run_is_opened_with_its_own_images_only(caplog):
    data = Data(faces.make(6), None, {'expressions': 'a', 'identities': '', 'stored_bytes': '7'})

    def open_again(trust=False, **marks):
        finished._check_fingerprint('run', ml_collections.ConfigDict({'data_fingerprint': marks}), data, trust)

    for marks in ({'expressions': 'a', 'stored_bytes': '7'}, {'expressions': 'a'}):
        open_again(**marks)
    with pytest.raises(UserError, match=r'that run was trained on \(the stored images have another number of bytes\);'):
        open_again(expressions='a', stored_bytes='8')
    with pytest.raises(UserError, match=r'that run was trained on \(b\), but a;'):
        open_again(expressions='b', stored_bytes='7')
    assert not caplog.text
    open_again(trust=True, expressions='a', stored_bytes='8')
    assert 'another number of bytes' in caplog.text


@pytest.mark.parametrize(('power', 'explained'), [(4.0, {'test_explained': 0.75}), (0.0, {})])
def test_what_a_student_explains_of_a_dead_teacher_is_not_asked(power, explained):
    run = mock.Mock()
    run._evaluate.return_value = {'loss': np.ones(3), 'target_power': np.full(3, power)}
    stage = mock.Mock(watched_part='test')
    assert experiment.Run._curve_point(run, stage, None, None, None) == {'test_loss': 1.0, **explained}


@pytest.mark.parametrize('source', ['csv', 'ckplus', 'tfd'])
def test_a_folds_file_that_shares_persons_is_refused_for_every_set(tmp_path, source):
    config = tiny_config.get_config()
    config.data.update(source=source, folds_file=str(tmp_path / 'folds.json'))
    entry = {'name': 'mine', 'test_files': ['b.png', 'c.png']}
    (tmp_path / 'folds.json').write_text(json.dumps({'folds': [entry]}))
    examples = Examples(
        np.zeros((4, 2, 2, 1), np.uint8),
        np.array([0, 1, 0, 1], np.int32),
        ('anger', 'joy'),
        ('a', 'a', 'b', 'b'),
        ('a.png', 'b.png', 'c.png', 'd.png'),
        splits=('train', 'test', 'test', 'train') if source == 'tfd' else None,
    )
    with pytest.raises(UserError, match='mine both trains on and tests a, b: keep each person in one fold'):
        experiment.all_folds(config, Data(examples, None, {}))


def write_table(folder: Path) -> str:
    """Eight persons with two expressions each; the path of the table."""
    draw, rows = np.random.default_rng(0), ['file,expression,subject']
    for k in range(16):
        Image.fromarray(draw.integers(0, 256, (40, 40), np.uint8)).save(folder / f'{k:02}.png')
        rows.append(f'{k:02}.png,{("anger", "joy")[k % 2]},person{k // 2}')
    (folder / 'faces.csv').write_text('\n'.join(rows))
    return str(folder / 'faces.csv')


def test_a_workdir_does_not_go_on_with_other_folds(tmp_path):
    """Its nets would be judged on whom they were trained on; those of `fold=none` have a folder of their own."""
    mine, work = tmp_path / 'mine.json', tmp_path / 'run'
    config = tiny_config.get_config('scratch')
    config.data.update(source='csv', expressions=write_table(tmp_path), folds_file=str(mine))
    config.data.update(data_dir=str(tmp_path / 'data'), identities='')
    config.compilation_cache = 'none'

    def plan(*persons: int, **lists: list[str]) -> None:
        tested = [f'{2 * person + side:02}.png' for person in persons for side in (1, 0)]
        mine.write_text(json.dumps({'folds': [{'name': 'a', 'test_files': tested, **lists}]}))
        experiment.run(config, str(work), mode='plan')

    config.fold = 'none'
    plan(5)
    config.fold = 'all'
    plan(3, 4)
    plan(0, 1)  # nothing is trained yet
    (work / 'a' / 'scratch').mkdir(parents=True)

    def kept() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in work.iterdir() if path.is_file()}

    before = kept()
    config.fold = 'none'
    plan(2, 3)
    assert (work / 'folds.json').read_bytes() == before[work / 'folds.json']
    config.fold = 'all'
    plan(1, 0)
    assert kept() == before
    for persons, lists in (((2, 3), {}), ((0,), {}), ((0, 1), {'unused_files': ['15.png', '14.png']})):
        with pytest.raises(UserError, match=r'run was begun with other folds, those of its folds\.json; use another'):
            plan(*persons, **lists)
        assert kept() == before
    config.data.num_folds = 7
    with pytest.raises(UserError, match=r'other settings: data\.num_folds'):  # which says more
        plan(2, 3)


def test_a_damaged_list_of_the_folds_is_named(tmp_path):
    data = Data(faces.make(6), None, {})
    every = (Fold('a', np.arange(4), np.arange(4, 6)),)
    assert experiment._kept_folds(tmp_path, every, data) == {}
    (tmp_path / 'folds.json').write_text('{"folds": [{"name": "a"}]}')
    (tmp_path / 'a' / 'scratch').mkdir(parents=True)
    with pytest.raises(UserError, match=r'folds\.json: not a folds file'):
        experiment._kept_folds(tmp_path, every, data)


@pytest.mark.parametrize('features', [(4,) * 6, (), (4, 0)])
def test_an_expression_net_that_no_image_survives_is_refused(features):
    config = tiny_config.get_config()
    config.data.update(stored_size=36, crop_size=32)
    config.expression_net.features = (4,) * 5
    config_checks.check(config)
    config.expression_net.features = features
    with pytest.raises(UserError, match=r'^config\.expression_net\.features is .*; it must be 1 to 5 positive numbers'):
        config_checks.check(config)


def test_a_folds_file_excludes_rules_for_folds(tmp_path):
    for key, value in (('fold_rule', 'step'), ('fold_subjects', 'chosen')):
        config = tiny_config.get_config()
        config.data.update({'folds_file': str(tmp_path / 'folds.json'), key: value})
        with pytest.raises(UserError, match='folds_file excludes'):
            experiment.all_folds(config, Data(faces.make(6), None, {}))


def test_the_time_of_the_whole_run_counts_every_stage_to_come(tmp_path):
    two = tuple(Fold(name, np.arange(4), np.arange(4, 6)) for name in ('fold0', 'fold1'))
    work = {'face_net': 100.0, 'finetune': 300.0, 'scratch': 50.0}
    run = experiment.Run(tiny_config.get_config(), tmp_path, Data(faces.make(6), None, {}), two, work)
    stage = mock.Mock(last_step=10)
    stage.name, run._made = 'face_net', 1
    to_come = run._later(stage)
    assert to_come(2.0) == pytest.approx(0.2 * 2 * 350)  # 20 s for 100 operations; two folds without the face net
    run._seconds_per_flop['finetune'] = 1.0  # as measured
    assert to_come(2.0) == pytest.approx(1.0 * 2 * 300 + 0.2 * 2 * 50)
    run._finished = {'fold1/finetune', 'fold0/scratch'}  # by an earlier run
    assert to_come(2.0) == pytest.approx(1.0 * 2 * 300 + 0.2 * 2 * 50)  # as it was when it was asked for
    assert run._later(stage)(2.0) == pytest.approx(1.0 * 300 + 0.2 * 50)
    stage.name, run._made = 'scratch', 5
    assert run._later(stage)(2.0) == 0
