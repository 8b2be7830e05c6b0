"""The config of every published set, from a generated download to results.json, at reduced width."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections
import pytest

from fn2en_jax import experiment, literature, report_table
from tests import tiny_config
from tests.test_configs import load
from tests.trees import (
    affectnet,
    affectnet_npy,
    ckplus,
    fer2013,
    ferplus,
    jaffe,
    mmi,
    oulu_casia,
    rafdb,
    sfew,
    tfd,
)

# How ml_collections loads a config file; and the sets here are far from complete.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')

CONFIGS = Path(__file__).parents[1] / 'configs'


@dataclasses.dataclass(frozen=True)
class Case:
    """A config with its argument behind the colon, what writes its download, and what comes out."""

    config: str
    options: str
    write: Callable[..., Any]
    knobs: dict[str, Any]
    classes: int
    folds: int
    sequences: bool = False
    validation: bool = False  # whether the set keeps images beside those that are tested

    def __str__(self) -> str:
        return f'{self.config}{self.options}'


CASES = (
    Case('ckplus', '', ckplus.write, {'subjects': 4, 'last': 4}, 8, 4, sequences=True),
    Case('oulu_casia', '', oulu_casia.write, {'subjects': 3, 'frames': 4}, 6, 3, sequences=True),
    Case('mmi', '', mmi.write, {'subjects': 3, 'frames': 6}, 6, 3, sequences=True),
    Case('jaffe', '', jaffe.write, {}, 7, 10),
    Case('tfd', '', tfd.write, {}, 7, 5, validation=True),
    Case('sfew', '', sfew.write, {}, 7, 1),
    Case('sfew', ',faces=frames', sfew.write, {'aligned': False}, 7, 1),
    Case('fer2013', '', fer2013.write, {}, 7, 1, validation=True),
    Case('fer2013', ',labels=ferplus', ferplus.write, {}, 8, 1, validation=True),
    Case('affectnet', ',classes=7', affectnet.write, {}, 7, 1),
    Case('affectnet', ',edition=npy', affectnet_npy.write, {}, 8, 1),
    Case('rafdb', '', rafdb.write, {}, 7, 1),
)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """Compiled steps are shared where the shapes are."""
    return tmp_path_factory.mktemp('cache')


def reduced(case: Case, method: str, download: Path, cache: Path) -> ml_collections.ConfigDict:
    """The config as it is, but for sizes and lengths."""
    config = load(f'--config={CONFIGS / case.config}.py:{method}{case.options}')
    tiny = tiny_config.get_config(method)
    for name in ('face_net', 'finetune', 'stage1', 'stage2', 'scratch'):
        config[name].update(tiny[name])
    assert case.folds in (1, 5) or config.data.num_folds == 10  # as published, and fewer for fewer persons below
    if config.data.stored_size > 48:
        config.data.stored_size, config.data.crop_size = 36, 32
    else:
        config.face_net.image_size = 64
    width = len(config.expression_net.features)
    config.expression_net.update(features=(4,) * width, hidden=8, batch_norm=True, input_scale=1 / 64)
    for stage in (config.face_net.train, config.finetune, config.stage1, config.stage2, config.scratch):
        stage.epochs = 0.5
    config.update({'steps_per_dispatch': 2, 'compilation_cache': str(cache / 'xla')})
    config.data.update(manual_dir=str(download), data_dir=str(cache / case.config / 'data'), identities='synthetic')
    config.data.synthetic.update(identity_persons=3, identity_images=4)
    config.data.num_folds = max(2, min(case.folds, config.data.num_folds))
    return config


@pytest.mark.parametrize('case', CASES, ids=str)
def test_scratch_from_the_download_to_the_table(case, tmp_path, cache):
    case.write(tmp_path / 'download', **case.knobs)
    config = reduced(case, 'scratch', tmp_path / 'download', cache)
    config.data.data_dir = str(tmp_path / 'data')
    config.fold = 'test' if case.folds == 1 else '1'
    found = experiment.run(config, str(tmp_path / 'run'))
    assert len(found['class_names']) == case.classes
    folds = json.loads((tmp_path / 'run' / 'folds.json').read_text())['folds']
    assert len(folds) == case.folds
    scratch = found['methods']['scratch']
    assert scratch['num_examples'] == len(next(f for f in folds if f['name'] in scratch['folds'])['test_files'])
    assert ('sequence_accuracy' in scratch) == case.sequences
    title, rows = literature.beside_published(*report_table.joined([tmp_path / 'run']))
    assert f'{case.classes} classes' in title
    assert rows[0][1]
    curves = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    keys = {key for row in curves for key in row if key.endswith('_accuracy')}
    assert keys == ({'validation_accuracy'} if case.validation else {'test_accuracy'})
    assert ('validation' in scratch) == case.validation
    if case.validation:
        assert scratch['validation']['accuracy'] == pytest.approx(curves[-1]['validation_accuracy'])
    page = (tmp_path / 'run' / 'report.html').read_text()
    assert 'What was found in the download' in page
    assert ('Whole sequences' in page) == case.sequences
    assert ('The same nets on the validation images' in page) == case.validation


def test_a_fold_per_workdir_merged_is_all_folds_in_one(tmp_path, cache):
    """To the last bit: figures, confusion matrices, votes of sequences, folds, and the printed table."""
    case = Case('ckplus', ',classes=6', ckplus.write, {'subjects': 2, 'last': 4}, 6, 2)
    case.write(tmp_path / 'download', **case.knobs)
    for fold in ('all', '0', '1'):
        config = reduced(case, 'scratch', tmp_path / 'download', cache)
        config.data.data_dir = str(tmp_path / 'data')
        config.fold = fold
        config.report.evals_per_stage = 0
        experiment.run(config, str(tmp_path / fold))
    command = [sys.executable, '-m', 'fn2en_jax.report_table', '--format=csv']
    whole, merged = [
        subprocess.run([*command, *arguments], cwd=CONFIGS.parent, capture_output=True, text=True, timeout=120)
        for arguments in ([f'{tmp_path}/all'], [f'{tmp_path}/1', f'{tmp_path}/0', f'--merge={tmp_path}/merged'])
    ]
    assert (whole.returncode, whole.stderr) == (merged.returncode, merged.stderr) == (0, '')
    assert whole.stdout == merged.stdout
    assert '98.6' in whole.stdout  # of the paper
    one, other = (json.loads((tmp_path / name / 'results.json').read_text()) for name in ('all', 'merged'))
    assert one['methods'] == other['methods']
    assert set(one['methods']['scratch']['folds']) == {'fold0', 'fold1'}
    assert 'sequence_accuracy' in one['methods']['scratch']['mean']
    assert one['class_names'] == other['class_names']
    assert one['seconds'].keys() == other['seconds'].keys()
    for name in ('folds.json', 'results.txt', 'confusion_scratch.png'):
        assert (tmp_path / 'all' / name).read_bytes() == (tmp_path / 'merged' / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES, ids=str)
def test_fn2en_from_the_download_to_the_table(case, tmp_path, cache):
    case.write(tmp_path / 'download', **case.knobs)
    config = reduced(case, 'fn2en', tmp_path / 'download', cache)
    config.data.data_dir = str(tmp_path / 'data')
    config.fold = 'test' if case.folds == 1 else '1'
    found = experiment.run(config, str(tmp_path / 'run'))
    assert set(found['methods']) == {'fn2en', 'finetune'}


def test_sfew_with_fer2013(tmp_path, cache):
    sfew.write(tmp_path / 'sfew')
    fer2013.write(tmp_path / 'fer')
    config = reduced(Case('sfew', ',extra=fer2013', sfew.write, {}, 7, 1), 'scratch', tmp_path / 'sfew', cache)
    config.data.update(data_dir=str(tmp_path / 'data'), extra_manual_dir=str(tmp_path / 'fer'))
    experiment.run(config, str(tmp_path / 'run'), mode='plan')
    (fold,) = json.loads((tmp_path / 'run' / 'folds.json').read_text())['folds']
    assert set(fold['train_counts'].values()) == {2 + 3 * 2}  # two aligned faces, two of each part of FER2013
    assert not any(file.startswith('fer2013/') for file in fold['test_files'])


def test_an_extra_set_that_does_not_exist_is_refused(tmp_path):
    sfew.write(tmp_path / 'download')
    config = load(f'--config={CONFIGS}/sfew.py:scratch')
    config.data.update(manual_dir=str(tmp_path / 'download'), data_dir=str(tmp_path / 'data'), extra='fer2014')
    with pytest.raises(experiment.UserError, match="unknown data set 'fer2014'"):
        experiment.open_sets(config)


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('ckplus.py:fn2en,clases=6', "unknown option 'clases' after the colon; there are classes"),
        ('ckplus.py:fn2en,classes=5', 'classes=5 after the colon; use 8 or 7 or 6'),
        ('sfew.py:fn2en,extra=fer2014', 'extra=fer2014 after the colon; use fer2013 or ferplus'),
        ('sfew.py:fn2en,faces=crop', 'faces=crop after the colon; use aligned or frames'),
        ('fer2013.py:fn2en,labels=x', 'labels=x after the colon; use fer2013 or ferplus'),
        ('jaffe.py:fn3en', 'unknown method fn3en'),
        ('ckplus.py:fn2en,scratch', 'two methods after the colon, fn2en and scratch'),
    ],
)
def test_a_misspelt_option_is_one_line(argument, message, tmp_path):
    command = [sys.executable, 'launch.py', f'--config=configs/{argument}', f'--workdir={tmp_path}']
    done = subprocess.run(command, cwd=CONFIGS.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert message in done.stderr
