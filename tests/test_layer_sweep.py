"""The comparison of supervising layers: shared stages are made once, the table has a row per layer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fn2en_jax import layer_sweep, plots

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


def test_a_row_per_layer_and_one_for_the_teacher():
    lines = layer_sweep.table({'pool5': found([0.6, 0.8]), 'fc6': found([0.5, 0.5])}).split('\n')
    assert lines[2:] == [
        '| pool5 | 70.0 ± 10.0 | 70.0 ± 10.0 |',
        '| fc6 | 50.0 ± 10.0 | 50.0 ± 10.0 |',
        '| (the fine-tuned face net itself) | 50.0 ± 10.0 | 50.0 ± 10.0 |',
    ]


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
    assert (tmp_path / 'layers' / 'layers.md').read_text().count('\n| ') == 3
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
