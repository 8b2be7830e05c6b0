"""AffectNet as npy files: every way in which a label may be stored, and what none of them may do."""

import shutil

import numpy as np
import pytest

from fn2en_jax.data.datasets import affectnet_npy
from fn2en_jax.data.datasets.affectnet_npy import AFFECTNET_NPY
from fn2en_jax.data.records import EXPRESSIONS, Tree
from fn2en_jax.errors import UserError
from tests.trees import affectnet_npy as trees


def find(root):
    return AFFECTNET_NPY.find(Tree(root))


@pytest.mark.parametrize('validation', ['val_set', 'valid_set'])
@pytest.mark.parametrize('outer', ['', 'AffectNet/2021'])
def test_every_picture(tmp_path, validation, outer):
    made = trees.write(tmp_path / outer, validation=validation, size=16)
    found = find(tmp_path)
    assert found.missing == found.skipped == ()
    assert found.edition == 'npy files, 16 + 16'
    expected = [(name, number, code) for name, codes in made.items() for number, code in codes.items()]
    assert [record.file for record in found.records] == [f'{name}/images/{number}.jpg' for name, number, _ in expected]
    assert [record.label for record in found.records] == [trees.LABELS[code] for *_, code in expected]
    assert [record.split for record in found.records] == ['train'] * 16 + ['validation'] * 16
    assert all(record.image == tmp_path / outer / record.file for record in found.records)


def test_five_points(tmp_path):
    trees.write(tmp_path, size=16)
    for record in find(tmp_path).records:
        points = trees.points(int(record.image.stem))
        eyes = points[36:42].mean(0), points[42:48].mean(0)
        np.testing.assert_allclose(record.points, [*eyes, points[30], points[48], points[54]])


@pytest.mark.parametrize(
    'landmarks',
    [
        trees.points(2).astype('U6').ravel(),
        trees.points(2).astype(np.float32),
        trees.points(2).ravel().astype('>f8'),
    ],
)
def test_landmarks_of_other_types(tmp_path, landmarks):
    trees.write(tmp_path, size=16)
    np.save(tmp_path / 'train_set' / 'annotations' / '2_lnd.npy', landmarks)
    np.testing.assert_allclose(find(tmp_path).records[0].points[2], trees.points(2)[30])


@pytest.mark.parametrize(
    'landmarks',
    [np.zeros(135), np.full(136, 300.0), np.full(136, -1.0), np.full(136, np.nan), np.full(136, 'x'), np.zeros(0)],
)
def test_landmarks_that_are_none(tmp_path, landmarks):
    trees.write(tmp_path, size=16)
    np.save(tmp_path / 'train_set' / 'annotations' / '2_lnd.npy', landmarks)
    found = find(tmp_path)
    assert found.records[0].points is None
    note = '1 files without 68 landmarks inside the picture: train_set/annotations/2_lnd.npy'
    assert found.skipped == (note,)


def test_no_landmarks(tmp_path):
    trees.write(tmp_path, size=16)
    (tmp_path / 'train_set' / 'annotations' / '2_lnd.npy').unlink()
    assert find(tmp_path).records[0].points is None


@pytest.mark.parametrize(
    'label',
    [
        np.array('5'),
        np.array(b'5'),
        np.array(' 5 '),
        np.array('5.0'),
        np.array(5),
        np.array(5, np.uint8),
        np.array(5, '>i4'),
        np.array(5.0, np.float32),
        np.array(['5']),
        np.array([[5]]),
        np.array('5', 'U100'),
    ],
    ids=repr,
)
def test_labels_of_any_type(tmp_path, label):
    trees.write_one(tmp_path / 'train_set', 17, label, size=16)
    (record,) = find(tmp_path).records
    assert record.label == 'disgust'


@pytest.mark.parametrize(
    'label',
    [np.array('joy'), np.array(-1), np.array(11), np.array(5.5), np.array(np.nan), np.array([5, 5]), np.array(''),
     np.zeros(0), np.array(5j), np.array(True), np.array(5, 'M8[s]'), np.array((5,), [('a', 'i4')])],
    ids=repr,
)  # fmt: skip
def test_labels_that_are_none(tmp_path, label):
    trees.write(tmp_path, size=16)
    np.save(tmp_path / 'train_set' / 'annotations' / '2_exp.npy', label)
    found = find(tmp_path)
    assert len(found.records) == 31
    (line,) = found.skipped
    assert line.startswith('train_set/images/2.jpg: its label ')


class Bomb:
    def __reduce__(self):
        return pytest.fail, ('a pickle was opened',)


def test_pickles_are_not_opened(tmp_path):
    trees.write(tmp_path, size=16)
    np.save(tmp_path / 'train_set' / 'annotations' / '2_exp.npy', np.array([Bomb()], object), allow_pickle=True)
    (line,) = find(tmp_path).skipped
    assert 'no plain numbers' in line


def header(text: bytes) -> bytes:
    return b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'<html>',
        b'\x93NUMPY',
        b'\x93NUMPY\x02\x00' + bytes(8),
        header(b'')[:9],
        header(b'{}'),
        header(b'__import__("os").abort()'),
        header(b"{'descr': '<i3', 'fortran_order': False, 'shape': (), }\n") + bytes(8),
        header(b'(' * 9000),
        header(b"{'descr': '<i8', 'fortran_order': False, 'shape': (9999999999, 9999999999), }\n") + bytes(8),
        header(b"{'descr': '<i8', 'fortran_order': False, 'shape': (-1, -1), }\n") + bytes(8),
        header(b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n") + bytes(7),
        header(b"{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999,), }\n"),
        header(b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n") + bytes(1 << 17),
    ],
)
def test_hostile_and_damaged_files(tmp_path, data):
    trees.write(tmp_path, size=16)
    (tmp_path / 'train_set' / 'annotations' / '2_exp.npy').write_bytes(data)
    found = find(tmp_path)
    assert len(found.records) == 31
    assert len(found.skipped) == 1


def test_codes_without_an_expression_are_counted(tmp_path):
    trees.write(tmp_path, codes=range(11), size=16)
    found = find(tmp_path)
    assert len(found.records) == 32
    assert found.skipped == ()
    assert found.edition == 'npy files, 16 + 16 (left out: 4 non-face, 4 none, 4 uncertain)'


def test_files_that_stand_alone(tmp_path):
    trees.write(tmp_path, size=16)
    (tmp_path / 'train_set' / 'images' / '2.jpg').unlink()
    (tmp_path / 'val_set' / 'annotations' / '9_exp.npy').unlink()
    found = find(tmp_path)
    assert len(found.records) == 30
    assert found.missing == ('the picture of train_set/annotations/2_exp.npy',)
    assert found.skipped == ('val_set/images/9.jpg: has no label file',)


def test_a_second_copy_is_not_read(tmp_path):
    trees.write(tmp_path / 'a', size=16)
    shutil.copytree(tmp_path / 'a' / 'val_set', tmp_path / 'b' / 'valid_set')
    found = find(tmp_path)
    assert len(found.records) == 32
    assert len(found.skipped) == 2
    assert all('files lie twice' in line and 'not b/valid_set/' in line for line in found.skipped)


def test_pictures_in_other_formats(tmp_path):
    trees.write(tmp_path, size=16)
    folder = tmp_path / 'train_set' / 'images'
    (folder / '2.jpg').rename(folder / '2.PNG')
    assert find(tmp_path).records[0].file == 'train_set/images/2.PNG'


@pytest.mark.parametrize('part', ['images', 'annotations'])
def test_another_set(tmp_path, part):
    trees.write(tmp_path, size=16)
    for name in ('train_set', 'val_set'):
        shutil.rmtree(tmp_path / name / part)
    with pytest.raises(UserError, match=rf'not AffectNet \(npy edition\): no train_set/{part}'):
        find(tmp_path)


def test_published_counts():
    expected = affectnet_npy._EXPECTED
    assert {name.split('/')[1] for name in expected} == set(EXPRESSIONS)
    assert sum(count for name, count in expected.items() if name.startswith('train/')) == 287_651
    assert sum(count for name, count in expected.items() if name.startswith('validation/')) == 3_999
    assert expected['validation/contempt'] == 499
