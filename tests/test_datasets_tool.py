"""`python -m fn2en_jax.datasets` as a user calls it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fn2en_jax.data.datasets import DATASETS
from tests.trees import ckplus as tree

ROOT = Path(__file__).parents[1]


def tool(*flags):
    command = [sys.executable, '-m', 'fn2en_jax.datasets', *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_it_lists_every_set_and_what_is_there(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    done = tool(f'--data_dir={tmp_path / "data"}', f'--manual_dir={tmp_path / "download"}')
    assert done.returncode == 0, done.stderr
    paragraphs = done.stdout.strip().split('\n\n')
    assert [paragraph.split(':')[0] for paragraph in paragraphs] == list(DATASETS)
    for paragraph, dataset in zip(paragraphs, DATASETS.values(), strict=True):
        assert dataset.access in paragraph
        assert 'not prepared' in paragraph
        assert ('found (28 images)' if dataset.name == 'ckplus' else 'not found') in paragraph


def test_it_prepares_and_shows(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    places = (f'--data_dir={tmp_path / "data"}', '--faces=none')
    done = tool('--prepare=ckplus', f'--manual_dir={tmp_path / "download"}', *places)
    assert done.returncode == 0, done.stderr
    assert 'images of ckplus: 28/28' in done.stderr
    assert [line.split()[1:3] for line in done.stdout.split('\n') if line.startswith('  fear')] == [['75', '3']]
    assert 'prepared (faces: none)' in tool(*places).stdout
    done = tool('--show=ckplus', f'--output={tmp_path / "sheets"}', *places)
    sheets = sorted(path.name for path in (tmp_path / 'sheets').iterdir())
    assert len(sheets) == 8
    assert sheets[0] == 'ckplus_anger.png'
    with Image.open(tmp_path / 'sheets' / 'ckplus_neutral.png') as sheet:
        assert sheet.width > 96


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--prepare=ck',), "unknown data set 'ck'; there are ckplus, "),
        (('--prepare=ckplus',), 'is not prepared in'),
        (('--prepare=ckplus', '--manual_dir=/nowhere'), '/nowhere: no such folder'),
        (('--faces=sideways',), '--faces'),
    ],
)
def test_bad_input_is_one_line(flags, message, tmp_path):
    done = tool(*flags, f'--data_dir={tmp_path}')
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr
