"""`python -m fn2en_jax.evaluate` on the net of a real, tiny run."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fn2en_jax import metrics, prediction_table, trained
from fn2en_jax.data import synthetic, synthetic_persons
from fn2en_jax.data.sources import open_csv
from fn2en_jax.errors import UserError

ROOT = Path(__file__).parents[1]


def run(*command: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in ('XLA_FLAGS', 'PYTHONWARNINGS')}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope='module')
def workdir(tmp_path_factory) -> Path:
    """The workdir of a finished scratch run."""
    folder = tmp_path_factory.mktemp('run')
    done = run(
        'launch.py',
        '--config=tests/tiny_config.py:scratch',
        f'--workdir={folder / "work"}',
        f'--config.data.data_dir={folder / "data"}',
        f'--config.compilation_cache={folder / "xla"}',
        '--config.scratch.epochs=1',
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if 'report.html' in line]
    assert line == f'Report: {folder / "work/report.html"}'
    return folder / 'work'


def test_a_run_leaves_its_predictions_and_a_page_that_can_be_made_again(workdir, tmp_path):
    found = json.loads((workdir / 'results.json').read_text())
    names, own = found['class_names'], found['methods']['scratch']['folds']['test']
    kept = prediction_table.read(workdir / 'test/predictions_scratch.csv', names)
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, (kept.labels, kept.predicted), 1)
    assert matrix.tolist() == own['confusion_matrix']
    tested = json.loads((workdir / 'folds.json').read_text())['folds'][0]['test_files']
    assert list(kept.files) == tested
    page = (workdir / 'report.html').read_text()
    mistakes = min(24, int((kept.labels != kept.predicted).sum()))
    assert mistakes
    assert page.count('src="data:image/jpeg;base64,') == mistakes
    assert found['commands'][0].startswith('python launch.py --config=tests/tiny_config.py:scratch')
    done = run('-m', 'fn2en_jax.report_page', f'--workdir={workdir}', f'--output={tmp_path / "again.html"}')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'again.html').read_text() == page
    done = run(
        '-m', 'fn2en_jax.report_page', f'--workdir={workdir}', '--no_faces', f'--output={tmp_path / "public.html"}'
    )
    assert done.returncode == 0, done.stderr
    assert 'data:image' not in (tmp_path / 'public.html').read_text()
    done = run('-m', 'fn2en_jax.report_page', f'--workdir={workdir}', f'--output={tmp_path / "no/where.html"}')
    assert done.returncode == 2
    assert done.stderr.startswith('error: cannot write')


@pytest.fixture
def table(tmp_path) -> Path:
    """Faces of a person the net has not seen, without the class 'surprise'."""
    rows = ['file,expression']
    for number, name in enumerate(synthetic_persons.EXPRESSIONS[:-1]):
        picture = synthetic.render(0, 300_000, number, name, size=40)
        Image.fromarray(picture).save(tmp_path / f'{name}.png')
        rows.append(f'{name}.png,{name}')
    (tmp_path / 'other.csv').write_text('\n'.join(rows) + '\n')
    return tmp_path / 'other.csv'


def test_figures_are_json_on_the_last_line_and_predictions_agree_with_them(workdir, table, tmp_path):
    output = tmp_path / 'predictions.csv'
    done = run('-m', 'fn2en_jax.evaluate', f'--workdir={workdir}', f'--data={table}', f'--output={output}')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    trained_on = json.loads((workdir / 'results.json').read_text())
    assert set(metrics.classification(np.eye(2), np.arange(2), 'ab')) <= set(found)
    assert found['class_names'] == trained_on['class_names']
    assert found['num_examples'] == 6
    assert found['per_class_accuracy']['surprise'] is None
    rows = list(csv.DictReader(output.read_text().splitlines()))
    right = sum(row['expression'] == row['prediction'] for row in rows)
    assert right == round(found['accuracy'] * 6)
    for row in rows:
        probabilities = {name: float(row[name]) for name in found['class_names']}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        assert max(probabilities, key=probabilities.__getitem__) == row['prediction']


def test_the_table_is_not_overwritten(table):
    before = table.read_bytes()
    done = run('-m', 'fn2en_jax.evaluate', '--workdir=w', f'--data={table}', f'--output={table}')
    assert done.returncode == 2
    assert 'choose another file' in done.stderr
    assert table.read_bytes() == before


def test_an_unknown_class_and_a_workdir_without_net_are_refused_in_a_line(workdir, table, tmp_path):
    net = trained.find(str(workdir))
    table.write_text(table.read_text() + 'fear.png,boredom\n')
    with pytest.raises(UserError, match='boredom'):
        open_csv(str(table), net.class_names, net.reading)
    done = run('-m', 'fn2en_jax.evaluate', f'--workdir={tmp_path}', f'--data={table}')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert 'error: ' in done.stderr


def test_method_and_fold_must_be_there(workdir):
    net = trained.find(str(workdir), method='scratch', fold='test')
    assert (net.method, net.fold) == ('scratch', 'test')
    with pytest.raises(UserError, match='it holds scratch'):
        trained.find(str(workdir), method='fn2en')
    with pytest.raises(UserError, match='folds test'):
        trained.find(str(workdir), fold='fold3')


def test_a_net_in_the_middle_of_its_training_is_refused(workdir, monkeypatch):
    facts = trained._facts(workdir / 'test/scratch')
    monkeypatch.setattr(trained, '_facts', lambda place: facts | {'last_step': facts['last_step'] + 1})
    with pytest.raises(UserError, match=r'finish it with launch\.py first'):
        trained.find(str(workdir))


@pytest.mark.parametrize('names', [['a', 'b\x1b[2J'], ['a', 'a'], ['a', ''], ['a\nb', 'c'], [], 'ab', ['a', 3]])
def test_class_names_that_would_steer_a_terminal_are_refused(workdir, monkeypatch, names):
    facts = trained._facts(workdir / 'test/scratch')
    monkeypatch.setattr(trained, '_facts', lambda place: facts | {'class_names': names})
    with pytest.raises(UserError, match='has no sound class names') as refused:
        trained.find(str(workdir))
    assert str(refused.value).isprintable()
