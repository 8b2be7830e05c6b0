"""The comparison of supervising layers: shared stages are made once, the table has a row per layer."""

import csv
import io
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fn2en_jax import layer_sweep, plots, table_formats
from tests import tiny_config

ROOT = Path(__file__).parents[1]


def found(accuracies, teacher=0.5):
    folds = {f'fold{k}': {'accuracy': a, 'class_averaged_accuracy': a} for k, a in enumerate(accuracies)}
    mean = {'accuracy': float(np.mean(accuracies)), 'class_averaged_accuracy': float(np.mean(accuracies))}
    std = {'accuracy': 0.1, 'class_averaged_accuracy': 0.1}
    of_teacher = {'accuracy': teacher, 'class_averaged_accuracy': teacher}
    return {
        'methods': {
            'fn2en': {'folds': folds, 'mean': mean, 'std': std},
            'finetune': {'folds': dict.fromkeys(folds, of_teacher), 'mean': of_teacher, 'std': std},
        }
    }


def cells(runs, source='synthetic', classes=7):
    """The rows by their first cells."""
    config = {'data': {'source': source, 'extra': ''}}
    runs = {layer: {**run, 'class_names': ['a'] * classes} for layer, run in runs.items()}
    title, rows = layer_sweep.rows(config, runs)
    assert {len(row) for row in rows} == {len(layer_sweep.COLUMNS)}
    assert rows[0] == ('supervised by', 'ours', 'class-averaged', 'published', 'difference', 'folds')
    return title, {row[0]: row[1:] for row in rows[1:]}


def test_a_row_per_layer_and_one_for_the_teacher():
    title, rows = cells({'pool5': found([0.6, 0.8]), 'fc6': found([0.5])})
    assert title == 'synthetic, 7 classes'
    assert list(rows) == ['pool5', 'fc6', '(the fine-tuned face net)']
    assert rows['pool5'] == ('70.0 ± 10.0', '70.0 ± 10.0', '', '', '2')
    assert rows['fc6'] == ('50.0', '50.0', '', '', '1')
    assert rows['(the fine-tuned face net)'] == ('50.0 ± 10.0', '50.0 ± 10.0', '', '', '2')


def test_published_numbers_stand_beside_the_layers():
    """Those of the paper for CK+ with 8 classes: FN2EN 96.8, supervised by pool5; fine-tuned 89.9."""
    title, rows = cells({'pool5': found([0.6, 0.8]), 'fc6': found([0.5])}, 'ckplus', 8)
    assert title == 'ckplus, 8 classes; published: 1,308 images, 10-fold, person-independent'
    assert rows['pool5'][2:] == ('96.8', '-26.8', '2')
    assert rows['fc6'][2:] == ('', '-46.8', '1')  # nobody published one of this layer
    assert rows['(the fine-tuned face net)'][2:] == ('89.9', '-39.9', '2')
    _, rows = cells({'fc6': found([0.5])}, 'ckplus', 8)
    assert rows['pool5 (published)'] == ('', '', '96.8', '', '')
    _, rows = cells({'fc6': found([0.5])}, 'ckplus', 7)  # for which the paper has no FN2EN
    assert list(rows) == ['fc6', '(the fine-tuned face net)']


@pytest.mark.parametrize('name', table_formats.FORMATS)
def test_the_table_is_printed_in_every_format_and_kept_in_all(tmp_path, monkeypatch, capsys, name):
    runs = {layer: {**found([0.6, 0.8]), 'class_names': ['a'] * 7} for layer in ('pool5', 'fc6')}
    monkeypatch.setattr(layer_sweep, '_run', lambda root, layer: runs[layer])
    flags = {'CONFIG': tiny_config.get_config(), 'WORKDIR': tmp_path, 'FORMAT': name, 'LAYERS': list(runs)}
    for flag, value in flags.items():
        monkeypatch.setattr(layer_sweep, flag, types.SimpleNamespace(value=value))
    layer_sweep.main()
    kept = {path.suffix: path.read_text() for path in tmp_path.glob('layers.*') if path.suffix != '.png'}
    assert sorted(kept) == ['.csv', '.md', '.tex', '.txt']
    ending = {'text': '.txt', 'markdown': '.md', 'csv': '.csv', 'latex': '.tex'}[name]
    assert kept[ending] in capsys.readouterr().out
    assert (tmp_path / 'layers.png').exists()
    assert list(csv.reader(io.StringIO(kept['.csv'])))[1] == ['pool5', '70.0 ± 10.0', '70.0 ± 10.0', '', '', '2']
    assert r'pool5 & 70.0 $\pm$ 10.0 & 70.0 $\pm$ 10.0 &  &  & 2 \\' in kept['.tex']
    assert '| fc6 | 70.0 ± 10.0 | 70.0 ± 10.0 |  |  | 2 |' in kept['.md']


def test_the_plot_is_written(tmp_path):
    plots.layers({'pool5': np.array([0.5, 0.6]), 'fc8': np.array([0.4])}, 0.5, tmp_path / 'layers.png')
    assert (tmp_path / 'layers.png').read_bytes().startswith(b'\x89PNG')


def test_finished_shared_stages_are_linked_into_the_workdirs_of_other_layers(tmp_path):
    first, other = tmp_path / 'pool1', tmp_path / 'pool2'
    for stage in ('face_net', 'fold0/finetune', 'fold0/stage1'):
        (first / stage / '7').mkdir(parents=True)
        (first / stage / '7' / 'array').write_bytes(stage.encode())
    for _ in range(2):  # again after a stop
        layer_sweep._share(first, other)
        files = {str(path.relative_to(other)) for path in other.rglob('array')}
        assert files == {'face_net/7/array', 'fold0/finetune/7/array'}
    assert (other / 'face_net/7/array').stat().st_ino == (first / 'face_net/7/array').stat().st_ino


def test_shared_stages_are_copied_where_links_are_impossible(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(layer_sweep.os, 'link', refuse)
    (tmp_path / 'pool1/face_net/7').mkdir(parents=True)
    (tmp_path / 'pool1/face_net/7/array').write_bytes(b'net')
    layer_sweep._share(tmp_path / 'pool1', tmp_path / 'pool2')
    assert (tmp_path / 'pool2/face_net/7/array').read_bytes() == b'net'


def sweep(folder, *flags):
    command = [sys.executable, '-m', 'fn2en_jax.layer_sweep', '--config=tests/tiny_config.py', f'--workdir={folder}']
    return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_face_net_is_trained_once_for_all_layers(tmp_path):
    done = sweep(tmp_path / 'layers', '--sweep=pool4,fc7', f'--config.data.data_dir={tmp_path / "data"}')
    assert done.returncode == 0, done.stderr
    second = done.stdout.split('supervised by fc7')[1]
    assert second.count('finished earlier') == 2
    assert 'face_net: finished earlier' in second
    runs = [json.loads((tmp_path / 'layers' / layer / 'results.json').read_text()) for layer in ('pool4', 'fc7')]
    assert runs[0]['methods']['finetune'] == runs[1]['methods']['finetune']
    assert (tmp_path / 'layers' / 'layers.md').read_text().count('\n| ') == 5
    assert (tmp_path / 'layers' / 'layers.png').exists()


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--sweep=pool6',), 'unknown layer pool6'),
        (('--workdir=',), '--workdir=FOLDER'),
        (('--sweep=',), '--sweep names no layer'),
        (('--config.fold=none',), 'config.fold is none'),
    ],
)
def test_bad_input_is_one_line(tmp_path, flags, message):
    done = sweep(tmp_path, *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
