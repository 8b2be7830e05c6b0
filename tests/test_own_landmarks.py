"""A list of landmarks of the user's own beside a published set: whose points, by which names, and what is told."""

import pytest
import tensorflow_datasets as tfds

from fn2en_jax.data import published, tables
from fn2en_jax.data.datasets import DATASETS, LISTS, own_landmarks
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import affectnet, ckplus, jaffe, mmi, oulu_casia, rafdb, sfew

HEADER = f'file,{",".join(tables.POINTS)}'
POINTS = ((24.0, 18.0), (40.0, 18.0), (32.0, 26.0), (26.0, 35.0), (38.0, 35.0))
CELLS = ','.join(f'{value:g}' for point in POINTS for value in point)


def write(path, *files, cells=CELLS):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join([HEADER, *(f'{file},{cells}' for file in files), '']))


def put(name, root, mode='align'):
    tree = Tree(root)
    return own_landmarks.put(DATASETS[name].find(tree), tree, mode)


def having(found):
    """The images that have the points of the list."""
    return [record.file for record in found.records if record.points == POINTS]


SETS = {
    'ckplus': (lambda root: ckplus.write(root, subjects=1, labels=['fear'], draw=None), 'cohn-kanade-images/'),
    'oulu_casia': (lambda root: oulu_casia.write(root, subjects=1, draw=None), f'{oulu_casia.ORIGINAL}/Strong/'),
    'jaffe': (lambda root: jaffe.write(root, subjects=1, draw=None), 'jaffedbase/jaffe/'),
    'sfew_frames': (lambda root: sfew.write(root, aligned=False, per_class=1), ''),
    'mmi': (lambda root: mmi.write(root, subjects=1, labels=['fear'], frames=5), f'{mmi.OUTER}/Sessions/'),
    'affectnet': (lambda root: affectnet.write(root, per_class=1), 'Manually_Annotated_Images/'),
    'rafdb': (lambda root: rafdb.write(root, per_class=1, editions=['original']), 'basic/Image/original/'),
}


@pytest.mark.parametrize('name', SETS)
def test_the_points_of_the_list_are_taken(tmp_path, name):
    """Images are called as in every report, or by their paths; the others keep what they have."""
    make, folder = SETS[name]
    make(tmp_path)
    before = DATASETS[name].find(Tree(tmp_path))
    files = [record.file for record in before.records]
    write(tmp_path / 'landmarks.csv', files[0], f'{folder}{files[1]}', f'./{folder}{files[-1]}'.replace('/', '\\'))
    found = put(name, tmp_path)
    assert having(found) == [files[0], files[1], files[-1]]
    assert [record.points for record in found.records[2:-1]] == [record.points for record in before.records[2:-1]]
    assert found.edition == f'{before.edition}, landmarks of 3 files from landmarks.csv'
    assert (found.missing, found.skipped) == (before.missing, before.skipped)
    assert own_landmarks.LIST in LISTS[name]


def test_paths_may_be_those_below_the_list(tmp_path):
    jaffe.write(tmp_path / 'JAFFE', subjects=1, folder='faces', draw=None)
    write(tmp_path / 'JAFFE' / 'landmarks.csv', 'faces/KA.AN1.1.tiff')
    write(tmp_path / 'other' / 'landmarks.csv', 'x.tiff')
    found = put('jaffe', tmp_path)
    assert having(found) == ['KA.AN1.1.tiff']
    assert 'other/landmarks.csv: JAFFE/landmarks.csv is used instead' in found.skipped


def test_empty_cells_stand_for_detection(tmp_path):
    """Even where points came with the set."""
    ckplus.write(tmp_path, subjects=1, labels=['fear'], draw=None)
    files = [record.file for record in put('ckplus', tmp_path).records]
    write(tmp_path / 'landmarks.csv', files[1], cells=',' * 9)
    found = put('ckplus', tmp_path)
    assert [bool(record.points) for record in found.records] == [True, False, True, True]
    assert found.edition.endswith('landmarks of 0 files from landmarks.csv')


def test_names_of_no_image_in_use_are_told(tmp_path):
    ckplus.write(tmp_path, subjects=1, labels=['fear'], draw=None)
    names = [f'S005/001/S005_001_{frame:08}.png' for frame in (2, 3, 6)]  # the second and the third are no peaks
    write(tmp_path / 'landmarks.csv', *names, 'S005/001/S005_001_00000099.png', '../../etc/passwd')
    found = put('ckplus', tmp_path)
    assert having(found) == names[2:]
    assert found.skipped == (f'2 files in landmarks.csv of which no image is used: {names[0]}, {names[1]}',)
    assert found.missing[-1] == (
        '2 files that landmarks.csv names and are not there: ../../etc/passwd, S005/001/S005_001_00000099.png'
    )


def test_frames_of_clips_that_are_not_used_are_there(tmp_path):
    mmi.write(tmp_path, subjects=1, labels=['fear'], frames=12)
    write(tmp_path / 'landmarks.csv', '101/S001-001.avi/000', '101/S001-001.avi/001', '101/S001-009.avi/001')
    found = put('mmi', tmp_path)
    assert having(found) == ['101/S001-001.avi/000']
    assert found.skipped[-1].endswith('no image is used: 101/S001-001.avi/001')
    assert found.missing == ('1 files that landmarks.csv names and are not there: 101/S001-009.avi/001',)


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('a.tiff,1,2,3', 'line 3: 4 cells, but the first line names 11 columns'),
        (f'a.tiff,{CELLS.replace("24", "left")}', "line 3: left_eye_x 'left' is not a number of pixels"),
        (f'a.tiff,{CELLS.replace("24", "inf")}', "line 3: left_eye_x 'inf' is not a number of pixels"),
        (f'a.tiff,{CELLS.replace("24", "")}', 'line 3: left_eye_x is empty'),
        (f',{CELLS}', 'line 3: file is empty'),
        (f'a.tiff,{CELLS}\n./a.tiff,{CELLS}', "line 4: './a.tiff': the same file as in line 3"),
    ],
)
def test_lines_that_cannot_be_read_are_refused(tmp_path, text, problem):
    jaffe.write(tmp_path, subjects=1, draw=None)
    path = tmp_path / 'landmarks.csv'
    path.write_text(f'{HEADER}\nb.tiff,{CELLS}\n{text}\n')
    with pytest.raises(UserError) as caught:
        put('jaffe', tmp_path)
    assert str(caught.value) == f'{path}: {problem}'


def test_other_lists_are_refused(tmp_path, monkeypatch):
    jaffe.write(tmp_path, subjects=1, draw=None)
    path = tmp_path / 'landmarks.csv'
    path.write_text('file,left_eye_x\na,1\n')
    with pytest.raises(UserError, match='line 1: no columns left_eye_y, '):
        put('jaffe', tmp_path)
    monkeypatch.setattr(own_landmarks, '_LARGEST', 10)
    with pytest.raises(UserError, match='no list of landmarks'):
        put('jaffe', tmp_path)


def test_a_list_that_is_not_used_is_told(tmp_path):
    jaffe.write(tmp_path, subjects=1, draw=None)
    write(tmp_path / 'landmarks.csv', 'KA.AN1.1.tiff')
    found = put('jaffe', tmp_path, mode='none')
    assert not having(found)
    assert found.skipped == ('landmarks.csv: no faces are cut, it is not used',)


def test_preparing_cuts_by_the_list_and_tells_of_changes(tmp_path, caplog):
    jaffe.write(tmp_path / 'in', subjects=1)
    files = [record.file for record in put('jaffe', tmp_path / 'in').records]
    path = tmp_path / 'in' / 'landmarks.csv'
    good = '\n'.join(f'{file},{CELLS}' for file in files[1:])
    path.write_text(f'{HEADER}\n{good}\n{files[0]},{",".join(["900"] * 10)}\n')
    place = published.Place(str(tmp_path / 'in'), str(tmp_path / 'data'))
    builder = published.prepare(DATASETS['jaffe'], place, published.Faces())
    stored = list(builder.as_data_source('examples', decoders={'image': tfds.decode.SkipDecoding()}))
    assert {one['face'].decode() for one in stored[1:]} == {'points'}
    assert stored[0]['face'].decode() != 'points'
    assert list(stored[1]['eyes']) == pytest.approx([24, 18, 40, 18])
    assert builder.info.metadata['skipped'] == [f'1 images whose landmarks can be no face in them: {files[0]}']
    published.prepare(DATASETS['jaffe'], place, published.Faces())
    assert 'another' not in caplog.text
    write(path, files[0])
    published.prepare(DATASETS['jaffe'], place, published.Faces())
    assert 'landmarks.csv has been changed in' in caplog.text
