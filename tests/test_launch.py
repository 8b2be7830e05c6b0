"""launch.py as a user meets it: real processes, bad input, one clear line, exit code 2, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
CLASSES = ('happy', 'sad')


def launch(*flags: str, limit_kib: int | None = None) -> subprocess.CompletedProcess:
    """Runs launch.py; `limit_kib` makes every larger write fail, as on a full disk."""
    limited = ['bash', '-c', f'ulimit -f {limit_kib}; exec "$@"', 'bash'] if limit_kib else []
    env = {name: value for name, value in os.environ.items() if name not in ('XLA_FLAGS', 'PYTHONWARNINGS')}
    return subprocess.run(
        [*limited, sys.executable, 'launch.py', *flags],
        cwd=ROOT,
        env={**env, 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A CSV of eight good photographs of four persons in two folds."""
    rng = np.random.default_rng(0)
    rows = ['file,expression,subject,fold']
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)).save(tmp_path / f'{number}.png')
        rows.append(f'{number}.png,{CLASSES[number % 2]},person{number // 2},{number // 4}')
    table = tmp_path / 'faces.csv'
    table.write_text('\n'.join(rows) + '\n')
    return table


def flags(faces: Path, *more: str) -> list[str]:
    """Plans a scratch run over the CSV: everything is checked and nothing is trained."""
    folder = faces.parent
    return [
        '--config=configs/demo.py:scratch',
        f'--workdir={folder / "work"}',
        '--config.data.source=csv',
        f'--config.data.expressions={faces}',
        f'--config.data.data_dir={folder / "data"}',
        f'--config.compilation_cache={folder / "xla"}',
        '--mode=plan',
        *more,
    ]


def rejected(done: subprocess.CompletedProcess, *words: str) -> None:
    """Asserts a clean refusal that holds all the words."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert 'Traceback' not in done.stderr
    assert sum(line.startswith('error: ') for line in done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def test_a_good_table_is_planned_and_folds_are_written(faces: Path):
    done = launch(*flags(faces))
    assert done.returncode == 0, done.stderr
    work = faces.parent / 'work'
    assert 'fold0' in done.stdout
    assert 'scratch' in done.stdout
    assert '"4.png"' in (work / 'folds.json').read_text()
    assert not list(work.glob('*/scratch'))  # nothing was trained


def test_results_of_earlier_runs_are_kept_with_their_folds(faces: Path):
    """`fold=none` tests nothing, so it must not replace the folds that the results there are of."""
    work = faces.parent / 'work'
    assert launch(*flags(faces)).returncode == 0
    listed = (work / 'folds.json').read_bytes()
    (work / 'results.json').write_text(json.dumps({'class_names': sorted(CLASSES), 'methods': {}}))
    assert launch(*flags(faces, '--config.fold=none')).returncode == 0
    assert (work / 'folds.json').read_bytes() == listed
    (work / 'results.json').write_text(json.dumps({'class_names': ['awe', 'boredom'], 'methods': {}}))
    rejected(launch(*flags(faces)), 'results.json is not of this run: its classes are others')


def test_help_explains_itself():
    done = launch('--help')
    assert done.returncode == 0
    for word in ('--config', '--workdir', '--mode', 'fn2en, finetune, scratch', 'configs/base.py'):
        assert word in done.stdout, word


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (('--config=configs/nowhere.py', '--workdir=w'), ('configs/nowhere.py',)),
        (('--config=configs/demo.py:magic', '--workdir=w'), ('magic', 'fn2en, finetune, scratch')),
        (('--config=configs/demo.py', '--workdir=w', '--config.stage1.speed=3'), ('unknown config key', 'speed')),
        (('--config=configs/demo.py', '--workdir=w', '--config.seed=abc'), ('config.seed', 'abc')),
        (('--config=configs/demo.py', '--workdir=w', '--config.stage1.epochs=-1'), ('config.stage1.epochs', '-1')),
        (('--config=configs/demo.py', '--workdir=w', '--config.stage1.layer=pool9'), ('pool9', 'pool5')),
        (('--config=configs/demo.py',), ('--workdir',)),
        (('--config=configs/demo.py', '--workdir=w', '--mode=fly'), ('mode', 'fly')),
        (('--config=configs/demo.py', '--workdir=w', 'stray'), ('stray',)),
        (('--config=configs/demo.py', '--workdir=/proc/w', '--mode=plan'), ('/proc/w',)),
    ],
)
def test_bad_flags(given: tuple[str, ...], words: tuple[str, ...], tmp_path: Path):
    small = [f'--config.data.synthetic.{key}=7' for key in ('identity_persons', 'train_persons', 'test_persons')]
    reaches_data = any(word in ' '.join(given) for word in ('/proc/w', 'pool9'))
    more = [*small, f'--config.data.data_dir={tmp_path}'] if reaches_data else []
    rejected(launch(*given, *more), *words)
    assert not (ROOT / 'w').exists()


def test_a_missing_table(faces: Path):
    faces.rename(faces.with_name('elsewhere.csv'))
    rejected(launch(*flags(faces)), 'faces.csv', 'no such file')
    assert not (faces.parent / 'work').exists()


def test_all_faults_of_a_table_are_listed_with_their_lines(faces: Path):
    text = faces.read_text() + '\n'.join(
        ['missing.png,happy,person9,0', '../escape.png,happy,person9,0', '1.png,sad,person0,0', '7.png,,person3,1', '']
    )
    faces.write_text(text)
    done = launch(*flags(faces))
    rejected(done, 'line 10', 'missing.png', 'line 11', '../escape.png', 'line 12', '1.png', 'line 13', 'expression')
    assert not (faces.parent / 'work').exists()


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (b'image,emotion\n0.png,happy\n', ('file', 'expression', 'emotion')),
        (b'file,expression\n0.png,happy\n1.png,happy\n', ('one class', 'happy')),
        (b'file,expression\n0.png,\xe9tonn\xe9\n', ('UTF-8',)),
        (b'', ('faces.csv',)),
    ],
    ids=['columns', 'one class', 'encoding', 'empty'],
)
def test_tables_that_cannot_be(faces: Path, text: bytes, words: tuple[str, ...]):
    faces.write_bytes(text)
    rejected(launch(*flags(faces)), *words)


def test_bad_images_are_all_named_and_nothing_is_stored(faces: Path):
    folder = faces.parent
    whole = (folder / '0.png').read_bytes()
    (folder / '0.png').write_bytes(whole[: len(whole) // 2])
    (folder / '1.png').write_bytes(b'')
    (folder / '2.png').write_text('no picture')
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(folder / '3.png')
    done = launch(*flags(faces))
    rejected(done, '0.png', '1.png', '2.png', '3.png')
    assert not (folder / 'work').exists()
    assert not list((folder / 'data').rglob('*.array_record*'))


def test_a_fold_without_test_image(faces: Path):
    faces.write_text(faces.read_text().replace(',1\n', ',2\n'))
    rejected(launch(*flags(faces)), 'fold')


def test_an_unknown_fold(faces: Path):
    rejected(launch(*flags(faces, '--config.fold=7')), 'config.fold', '7', 'fold0')


def test_no_space_for_the_data(faces: Path):
    rejected(launch(*flags(faces), limit_kib=2), str(faces.parent))
