"""`python -m fn2en_jax.datasets` as a user calls it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fn2en_jax.data.datasets import DATASETS
from tests.trees import affectnet as affectnet_tree
from tests.trees import ckplus as tree
from tests.trees import rafdb as rafdb_tree

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
        assert ('found in' if dataset.name == 'ckplus' else 'not found') in paragraph


def test_archives_are_told_from_nothing(tmp_path):
    (tmp_path / 'download').mkdir()
    (tmp_path / 'download' / 'Automatically_annotated.zip').touch()
    done = tool(f'--data_dir={tmp_path / "data"}', f'--manual_dir={tmp_path / "download"}')
    assert done.returncode == 0, done.stderr
    last = {text.split(':')[0]: text.split('\n')[-1] for text in done.stdout.strip().split('\n\n')}
    assert f'archives there, not opened yet, in {tmp_path}' in last['ckplus']
    assert 'not found' in last['affectnet']  # which does not want this one


def test_it_prepares_and_shows(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    places = (f'--data_dir={tmp_path / "data"}', '--faces=none')
    done = tool('--prepare=ckplus', f'--manual_dir={tmp_path / "download"}', *places)
    assert done.returncode == 0, done.stderr
    assert 'images of ckplus: 28/28' in done.stderr
    assert [line.split()[1:3] for line in done.stdout.split('\n') if line.startswith('  fear')] == [['75', '3']]
    assert 'prepared (--faces=none)' in tool(*places).stdout
    done = tool('--show=ckplus', f'--output={tmp_path / "sheets"}', *places)
    sheets = sorted(path.name for path in (tmp_path / 'sheets').iterdir())
    assert len(sheets) == 8
    assert sheets[0] == 'ckplus_anger.png'
    with Image.open(tmp_path / 'sheets' / 'ckplus_neutral.png') as sheet:
        assert sheet.width > 96


def test_a_folder_that_has_changed_is_not_called_prepared(tmp_path):
    download = tmp_path / 'download'
    rafdb_tree.write(download, per_class=1, editions=('aligned',))
    picture = next(download.rglob('test_0001_aligned.jpg'))
    picture.rename(tmp_path / 'kept.jpg')
    command = ('--prepare=rafdb', f'--manual_dir={download}', f'--data_dir={tmp_path / "data"}')
    done = tool(*command)
    assert done.returncode == 0, done.stderr
    assert '\n    test_0001.jpg\n' in done.stdout
    lines = done.stdout.strip().split('\n')
    assert lines[-2].startswith('not complete')
    assert lines[-1].startswith('prepared in ')
    stored = Path(lines[-1].removeprefix('prepared in '))
    done = tool(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f'was prepared before in {stored}')
    (tmp_path / 'kept.jpg').rename(picture)
    done = tool(*command)
    assert done.returncode == 2
    assert done.stderr.startswith('error: nothing was prepared: RAF-DB (basic) is stored already;')
    assert f'delete {stored} or name another data_dir' in done.stderr
    assert done.stderr.count('\n') == 1
    assert not done.stdout


def test_showing_prepares_with_its_report(tmp_path):
    rafdb_tree.write(tmp_path / 'download', per_class=1, editions=('original',))
    victim = next((tmp_path / 'download').rglob('basic/*/original/test_0002.jpg'))
    victim.write_bytes(b'')
    command = ('--show=rafdb', f'--data_dir={tmp_path / "data"}', f'--output={tmp_path}')
    done = tool(*command, f'--manual_dir={tmp_path / "download"}', '--faces=align', '--no_face=drop')
    assert done.returncode == 0, done.stderr
    assert 'images of rafdb: 14/14' in done.stderr
    assert 'damaged 1:\n    test_0002.jpg: the file is empty' in done.stdout
    assert 'not complete' in done.stdout
    assert 'rafdb_anger.png' in done.stdout
    # Whatever it is prepared with is listed, and named to who asks for something else.
    assert 'prepared (--faces=align --no_face=drop)' in tool(f'--data_dir={tmp_path / "data"}').stdout
    done = tool(*command)
    assert done.returncode == 2
    assert 'with --faces=align --no_face=drop, not with faces as needed' in done.stderr
    assert done.stderr.count('\n') == 1


def test_whether_a_set_is_there_is_told_by_names(tmp_path):
    """Lists as large as AffectNet's would take a minute to read; these cannot be read at all."""
    affectnet_tree.write(tmp_path, per_class=1)
    for path in (tmp_path / 'Manually_Annotated_file_lists').glob('*.csv'):
        path.write_bytes(b'\0')
    done = tool(f'--manual_dir={tmp_path}', f'--data_dir={tmp_path / "data"}')
    last = {text.split(':')[0]: text.split('\n')[-1] for text in done.stdout.strip().split('\n\n')}
    assert last['affectnet'] == f'  not prepared, found in {tmp_path}'
    assert {name for name, text in last.items() if 'not found' not in text} == {'affectnet'}


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--prepare=ck',), "unknown data set 'ck'; there are ckplus, "),
        (('--prepare=ckplus',), 'is not prepared in'),
        (('--prepare=ckplus', '--manual_dir=/nowhere'), '/nowhere: no such folder'),
        (('--manual_dir=/nowhere',), '/nowhere: no such folder'),
        ((f'--data_dir={__file__}',), f'{__file__}: is a file, not a folder'),
        (('--faces=sideways',), '--faces'),
    ],
)
def test_bad_input_is_one_line(flags, message, tmp_path):
    done = tool(f'--data_dir={tmp_path}', *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith('error: ')
    assert done.stderr.count('\n') == 1
    assert 'Traceback' not in done.stderr
