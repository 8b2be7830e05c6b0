"""TFD: labelled rows out of a MATLAB file, with their five official folds."""

import contextlib
import dataclasses

import numpy as np
import pytest

from fn2en_jax.data.datasets import tfd as tfd_module
from fn2en_jax.data.datasets.tfd import TFD
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from fn2en_jax.weights import matlab
from tests.trees import tfd

LABELS = {code: label for label, code in tfd.CODES.items()}


def find(root):
    return TFD.find(Tree(root))


def refusal(root):
    with pytest.raises(UserError) as caught:
        find(root)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    """Writes the file with some variables changed, or left out where None."""

    def write(**changed):
        variables = {name: value for name, value in (tfd.content() | changed).items() if value is not None}
        tfd.write_file(tmp_path / 'TFD_48x48.mat', variables)
        return tmp_path

    return write


def check(found, variables):
    rows = np.flatnonzero(variables['labs_ex'].ravel() > 0)
    assert len(found.records) == len(rows)
    for record, row in zip(found.records, rows, strict=True):
        assert record.file == f'row {row}'
        assert record.label == LABELS[int(variables['labs_ex'].ravel()[row])]
        assert record.folds == ''.join('?tve'[code] for code in variables['folds'][row].astype(int))
        identity = int(variables['labs_id'].ravel()[row])
        assert record.subject == ('' if identity == -1 else f'id {identity}')
        assert record.image.dtype == np.uint8
        np.testing.assert_array_equal(record.image, variables['images'][row])


@pytest.mark.parametrize('name', ['TFD_48x48.mat', 'TFD_96x96.mat', 'TFD_ranzato_48x48.mat', 'tfd_48X48.MAT'])
def test_labelled_rows(tmp_path, name):
    variables = tfd.write(tmp_path, name)
    found = find(tmp_path)
    check(found, variables)
    assert found.edition == f'{name}, 70 faces with an expression, named by their rows'
    assert found.expected == {}
    assert found.missing == ('labelled: 4,108 of 4,178 images', 'unlabelled: 98,049 of 98,058 images')
    assert found.surplus == ()
    assert found.skipped == ()


def test_persons_and_folds_of_the_tree(tmp_path):
    tfd.write(tmp_path)
    records = find(tmp_path).records
    assert {record.folds for record in records} == {'evttt', 'tevtt', 'ttevt', 'tttev', 'vttte'}
    assert len({record.subject for record in records}) == 10
    assert sum(not record.subject for record in records) == 7


@pytest.mark.parametrize(
    ('more', 'missing', 'surplus'),
    [
        (0, (), ()),
        (7, (), ('labelled: 4,185 images, 7 more than 4,178', 'unlabelled: 98,059 images, 1 more than 98,058')),
        (-7, ('labelled: 7 of 4,178 images', 'unlabelled: 1 of 98,058 images'), ()),
    ],
)
def test_the_published_numbers(tmp_path, monkeypatch, more, missing, surplus):
    variables = tfd.content(subjects=597 + more // 7, unlabelled=100 + (more > 0) - (more < 0))
    variables['labs_ex'][np.flatnonzero(variables['labs_ex'].ravel() > 0)[:1]] = -1
    variables['folds'][variables['labs_ex'].ravel() == -1] = 0
    # Unlabelled images are quick to count and slow to write: most of those are told, not made.
    labelled = tfd_module._labelled

    def many(*arguments):
        rows = labelled(*arguments)
        return dataclasses.replace(rows, unlabelled=rows.unlabelled + 98_058 - 101)

    monkeypatch.setattr(tfd_module, '_labelled', many)
    tfd.write_file(tmp_path / 'TFD_48x48.mat', variables)
    found = find(tmp_path)
    assert found.edition == f'TFD_48x48.mat, {4178 + more} faces with an expression, named by their rows'
    assert (found.missing, found.surplus) == (missing, surplus)
    assert found.skipped == ()


def test_original_file_names_of_the_file_beside(tmp_path):
    variables = tfd.write(tmp_path)
    names = [f'dfat/S{i // 3:03}.png' for i in range(79)]  # three rows each, which are three images
    tfd.write_names(tmp_path / 'A' / 'TFD_info.mat', ['other'] * 79)  # of another copy, and first by its path
    tfd.write_names(tmp_path / 'TFD' / 'TFD_info.mat', names)
    found = find(tmp_path)
    rows = np.flatnonzero(variables['labs_ex'].ravel() > 0)
    assert [record.file for record in found.records] == [f'row {row} {names[row]}' for row in rows]
    assert found.edition == 'TFD_48x48.mat, 70 faces with an expression, with the file names of TFD_info.mat'
    assert found.skipped == ()


def test_names_are_harmless_text(tmp_path):
    variables = tfd.write(tmp_path)
    first = int(np.flatnonzero(variables['labs_ex'].ravel() > 0)[0])
    told = {
        'C:\\faces\\a b.png ': 'C:/faces/a b.png',
        'a\nb\x1b[2J\u202e.png': 'a\\nb\\x1b[2J\\u202e.png',
        'caf\xe9.png': 'caf\xe9.png',
        'x' * 999: 'x' * 200,
        '': '',
    }
    for name, expected in told.items():
        names = ['?'] * 79
        names[first] = name
        tfd.write_names(tmp_path / 'TFD' / 'TFD_info.mat', names)
        assert find(tmp_path).records[0].file == f'row {first} {expected}'.strip()


@pytest.mark.parametrize(
    ('write_info', 'reason'),
    [
        (lambda path: tfd.write_names(path, ['a.png'] * 78), 'names 78 images, not 79'),
        (lambda path: tfd.write_names(path, []), 'names 0 images, not 79'),
        (lambda path: tfd.write_file(path, {'tfd_info': {'other': 1}}), 'holds no list tfd_info.imfiles'),
        (lambda path: tfd.write_file(path, {'tfd_info': 3.0}), 'holds no list tfd_info.imfiles'),
        (lambda path: tfd.write_file(path, {'tfd_info': {'imfiles': np.eye(3)}}), 'holds no list tfd_info.imfiles'),
        (lambda path: path.write_bytes(b'MATLAB 7.3'.ljust(512)), 'the MATLAB file is of an unknown version'),
        (lambda path: path.write_bytes(b''), 'the file is truncated or damaged'),
    ],
)
def test_names_that_cannot_be_used_are_told(tmp_path, write_info, reason):
    variables = tfd.write(tmp_path)
    write_info(tmp_path / 'TFD' / 'TFD_info.mat')
    found = find(tmp_path)
    check(found, variables)
    assert found.edition.endswith(', named by their rows')
    (note,) = found.skipped
    assert note.startswith(f'TFD/TFD_info.mat: {reason}')


def test_a_file_of_names_of_absurd_size_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr('fn2en_jax.data.datasets.tfd_names._LIMITS', matlab.Limits('a list', 50, 1 << 20, 1 << 20))
    tfd.write(tmp_path)
    tfd.write_names(tmp_path / 'TFD' / 'TFD_info.mat', ['a.png'] * 79)
    (note,) = find(tmp_path).skipped
    assert 'the file holds more than 50 values' in note


def test_damaged_names_leave_the_set_usable(tmp_path):
    variables = tfd.write(tmp_path, subjects=2, unlabelled=0)
    path = tmp_path / 'TFD' / 'TFD_info.mat'
    tfd.write_names(path, [f'dfat/{i}.png' for i in range(14)])
    whole = path.read_bytes()
    random = np.random.RandomState(0)
    for trial in range(120):
        hurt = bytearray(whole)
        for place in random.randint(0, len(whole), 3):
            hurt[place] = random.randint(256)
        path.write_bytes(bytes(hurt[: random.randint(len(whole))] if trial % 3 == 0 else hurt))
        found = find(tmp_path)
        assert [record.label for record in found.records] == [LABELS[i % 7 + 1] for i in range(14)]
        assert all(record.file.isprintable() for record in found.records)
    assert len(variables['images']) == 14


def test_of_several_files_the_small_original_is_taken(tmp_path):
    tfd.write(tmp_path, 'TFD_96x96.mat')
    assert find(tmp_path).records[0].image.shape == (96, 96)
    tfd.write(tmp_path, 'TFD_ranzato_48x48.mat')
    assert find(tmp_path).records[0].image.shape == (48, 48)
    tfd.write(tmp_path, 'TFD_48x48.mat', subjects=5)
    assert len(find(tmp_path).records) == 35


@pytest.mark.parametrize('dtype', [np.float64, np.float32, np.int16, np.uint16, np.int64])
def test_pixels_of_any_numeric_type(write, dtype):
    variables = tfd.content()
    check(find(write(images=variables['images'].astype(dtype))), variables)


def test_pixels_between_whole_numbers_are_rounded(write):
    variables = tfd.content()
    found = find(write(images=np.clip(variables['images'] - 0.4, 0, None)))
    check(found, variables)


def test_labels_as_matlab_likes_them(write):
    """Doubles, and rows for columns."""
    variables = tfd.content()
    found = find(
        write(
            labs_ex=variables['labs_ex'].T.astype(float),
            labs_id=variables['labs_id'].astype(float),
            folds=variables['folds'].astype(float),
        )
    )
    check(found, variables)


def test_a_person_on_both_sides_of_a_fold_is_reported(write):
    variables = tfd.content()
    identities = variables['labs_id'].copy()
    identities[identities == 105] = 100  # tested in fold 0 like 100: not reported
    identities[identities == 106] = (
        102  # tested in fold 1, where 102 is trained on; validates fold 2, where 102 is tested
    )
    assert find(write(labs_id=identities)).skipped == ('fold 1: 1 persons are both trained on and tested (id 102)',)


def test_persons_without_a_number_are_not_one_person(write):
    found = find(write(labs_id=np.full((79, 1), -1)))
    assert {record.subject for record in found.records} == {''}
    assert found.skipped == ()


def test_odd_rows_are_reported(write):
    variables = tfd.content()
    labels, folds = variables['labs_ex'].copy(), variables['folds'].copy()
    labelled, unlabelled = (np.flatnonzero(condition) for condition in (labels.ravel() > 0, labels.ravel() < 0))
    folds[labelled[3], 2] = 0
    folds[unlabelled[:2]] = 1
    labels[unlabelled[4:7], 0] = (0, 0, 8)
    found = find(write(labs_ex=labels, folds=folds))
    assert len(found.records) == 69
    assert found.skipped == (
        '2 rows: labs_ex is 0, neither -1 nor 1 ... 7',
        '1 rows: labs_ex is 8, neither -1 nor 1 ... 7',
        f'row {labelled[3]}: an expression, but no part in some of the five folds',
        '2 rows: a part in the folds, but no expression',
    )


IMAGES = tfd.content()['images']


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'folds': None}, 'holds no variable folds; found images, labs_ex, labs_id'),
        ({'images': IMAGES.reshape(-1, 2304)}, 'images have the shape (79, 2304), not (N, 48, 48) or (N, 96, 96)'),
        ({'images': IMAGES.transpose(1, 2, 0)}, 'images have the shape (48, 48, 79)'),
        ({'images': IMAGES[1:]}, 'folds have the shape (79, 5), not (78, 5)'),
        ({'images': IMAGES[:0]}, 'images have the shape (0, 48, 48)'),
        ({'labs_ex': np.ones((78, 1))}, 'labs_ex has the shape (78, 1), not (79, 1)'),
        ({'labs_id': np.ones((79, 2))}, 'labs_id has the shape (79, 2), not (79, 1)'),
        ({'labs_id': np.array(['x'] * 79)}, 'the variable labs_id is of type char, not numbers'),
        ({'images': IMAGES * 1j}, 'the variable images does not hold the real numbers'),
        ({'labs_ex': np.full((79, 1), 1.5)}, 'labs_ex holds values that are no whole numbers'),
        ({'labs_ex': np.full((79, 1), np.nan)}, 'labs_ex holds values that are no whole numbers'),
        ({'folds': np.full((79, 5), 4)}, 'folds hold 4 ... 4, not 0 ... 3'),
        ({'images': IMAGES / 255}, 'images have values 0 ... 1; 0 ... 255 are expected'),
        ({'images': IMAGES.astype(int) - 128}, 'images have values -128 ... 127;'),
        ({'images': IMAGES.astype(int) * 2}, 'images have values 0 ... 510;'),
        ({'images': np.where(IMAGES > 5, IMAGES, np.nan)}, 'images have values nan ... nan;'),
        ({'labs_ex': np.full((79, 1), -1)}, 'no row with an expression and folds in TFD_48x48.mat'),
    ],
)
def test_variables_that_do_not_fit_are_refused(write, changed, message):
    root = write(**changed)
    assert message in refusal(root)


def test_another_folder_is_refused(tmp_path):
    (tmp_path / 'TFD_info.mat').touch()
    message = refusal(tmp_path)
    assert 'not TFD (Toronto Face Database): no TFD_48x48.mat or TFD_96x96.mat' in message
    assert 'To get it: ' in message


def test_matlab_7_3_is_refused(tmp_path):
    header = b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(124) + b'\x00\x02IM'
    (tmp_path / 'TFD_48x48.mat').write_bytes(header.ljust(512, b'\0') + b'\x89HDF\r\n\x1a\n')
    assert 'is of MATLAB 7.3, which cannot be read; save it again in MATLAB with -v7' in refusal(tmp_path)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    tfd.write(tmp_path, subjects=5, unlabelled=0)
    path = tmp_path / 'TFD' / 'TFD_48x48.mat'
    whole = path.read_bytes()
    for size in (0, 50, 128, 200, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:size])
        assert 'TFD_48x48.mat: ' in refusal(tmp_path)
    random = np.random.RandomState(0)
    for _ in range(40):
        hurt = bytearray(whole)
        for place in random.randint(0, len(whole), 3):
            hurt[place] = random.randint(256)
        path.write_bytes(bytes(hurt))
        with contextlib.suppress(UserError):  # and nothing else
            find(tmp_path)
