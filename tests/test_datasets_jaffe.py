"""JAFFE: stills told apart by their names."""

import collections
import shutil

import pytest

from fn2en_jax.data.datasets.jaffe import JAFFE
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import jaffe


def find(root):
    return JAFFE.find(Tree(root))


def counts(found):
    return collections.Counter(record.label for record in found.records)


@pytest.mark.parametrize('folder', ['jaffe', 'jaffedbase', 'jaffedbase/jaffe', '.'])
def test_the_published_set_is_complete(tmp_path, folder):
    jaffe.write(tmp_path, folder=folder, draw=None)
    found = find(tmp_path)
    assert counts(found) == found.expected
    assert sum(found.expected.values()) == len(found.records) == 213
    assert (found.missing, found.skipped, found.faces) == ((), (), '')
    assert found.edition == '213 images of 10 persons'
    assert len({record.file for record in found.records}) == 213


def test_a_record_is_read_off_the_name(tmp_path):
    (tmp_path / 'KA.HA2.30.TIFF').touch()
    (record,) = find(tmp_path).records
    assert (record.file, record.label, record.subject) == ('KA.HA2.30.tiff', 'happiness', 'KA')
    assert (record.sequence, record.frame, record.split) == ('', -1, '')
    assert record.image == tmp_path / 'KA.HA2.30.TIFF'


def test_every_code_is_its_own_class(tmp_path):
    jaffe.write(tmp_path, subjects=2, draw=None)
    for record in find(tmp_path).records:
        assert jaffe.CODES[record.label] == record.file[3:5]


def test_stray_images_are_named_and_other_files_passed_over(tmp_path):
    jaffe.write(tmp_path, subjects=1, draw=None)
    for name in ('KA.XX1.5.tiff', 'notes.tif', '._KA.AN1.39.tiff'):
        (tmp_path / name).touch()
    found = find(tmp_path)
    assert len(found.records) == 23
    assert [entry.split(':')[0] for entry in found.skipped] == ['KA.XX1.5.tiff', 'notes.tif']


def test_a_second_copy_is_named_and_not_counted(tmp_path):
    jaffe.write(tmp_path, folder='jaffe', subjects=1, draw=None)
    shutil.copytree(tmp_path / 'jaffe', tmp_path / 'jaffedbase')
    found = find(tmp_path)
    assert len(found.records) == 23
    (line,) = found.skipped
    assert line.startswith(
        '23 files lie twice; the first of each is used: jaffe/KA.AN1.1.tiff (not jaffedbase/KA.AN1.1.tiff), jaffe/'
    )
    assert line.count('(not ') == 3


def test_missing_images_are_counted_per_person(tmp_path):
    jaffe.write(tmp_path, draw=None)
    for path in [*tmp_path.rglob('KL.AN*'), *tmp_path.rglob('YM.*')]:
        path.unlink()
    assert find(tmp_path).missing == ('KL: 3 of 22 images', 'YM: 22 of 22 images')


def test_another_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / 'a.tiff').touch()
    with pytest.raises(UserError, match=r'not JAFFE: no KA\.AN1\.39\.tiff') as caught:
        find(tmp_path)
    assert '\n' not in str(caught.value)
    assert 'zenodo' in str(caught.value)
