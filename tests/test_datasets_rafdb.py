"""RAF-DB: which pictures are taken, what is known of them, and that the compound subset stays out."""

import collections
import shutil

import numpy as np
import pytest

from fn2en_jax.data.datasets import rafdb
from fn2en_jax.data.datasets.rafdb import RAFDB
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import rafdb as trees


def find(root):
    return RAFDB.find(Tree(root))


def gone(found):
    """Pictures of the list that are missing; most of the published list is, in a small tree."""
    return tuple(name for name in found.missing if 'not in the list' not in name)


@pytest.mark.parametrize('outer', ['basic', 'raf-basic', 'RAF-DB/basic', '.'])
@pytest.mark.parametrize('editions', [('aligned',), ('aligned', 'original')])
def test_aligned_faces(tmp_path, outer, editions):
    content = trees.write(tmp_path, outer=outer, editions=editions)
    found = find(tmp_path)
    assert gone(found) == found.skipped == ()
    assert (found.edition, found.faces) == ('aligned faces', '')
    assert RAFDB.faces == 'none'
    assert {record.file: record.label for record in found.records} == {
        name: trees.LABELS[code - 1] for name, code in content.items()
    }
    for record in found.records:
        assert record.split == record.file.split('_')[0]
        stem = record.file.removesuffix('.jpg')
        assert record.image == tmp_path / outer / 'Image' / 'aligned' / f'{stem}_aligned.jpg'
        assert record.points is None


def test_pictures_that_lie_twice_are_noted(tmp_path):
    trees.write(tmp_path, editions=('aligned',))
    shutil.copytree(tmp_path / 'basic/Image/aligned', tmp_path / 'basic/Image/copy/aligned')
    found = find(tmp_path)
    assert {record.image.parent for record in found.records} == {tmp_path / 'basic/Image/aligned'}
    (note,) = found.skipped
    assert f'{len(found.records)} files lie twice; the first of each is used: basic/Image/aligned/test_0001' in note


def test_original_pictures_come_with_points(tmp_path):
    content = trees.write(tmp_path, editions=('original',))
    found = find(tmp_path)
    assert (found.edition, found.faces) == ('original pictures', 'align')
    assert [record.file for record in found.records] == list(content)
    for record in found.records:
        assert record.image == tmp_path / 'basic' / 'Image' / 'original' / record.file
        np.testing.assert_array_equal(record.points, trees.points(record.file))


@pytest.mark.parametrize('text', ['', '1 2\n', '1 2 3\n' * 5, 'a b\n' * 5, 'nan 1\n' * 5, '1\n' * 9, '1 2\n' * 9999])
def test_points_that_are_none(tmp_path, text):
    trees.write(tmp_path, editions=('original',))
    (tmp_path / 'basic' / 'Annotation' / 'manual' / 'train_00001_manu_attri.txt').write_text(text)
    found = find(tmp_path)
    assert found.records[0].points is None
    assert found.records[1].points is not None
    assert found.skipped == ('1 files without five points: train_00001_manu_attri.txt',)


def test_of_many_files_without_points_the_first_are_named(tmp_path):
    trees.write(tmp_path, editions=('original',))
    for path in (tmp_path / 'basic' / 'Annotation' / 'manual').iterdir():
        path.write_text('lost')
    (note,) = find(tmp_path).skipped
    assert note.startswith('28 files without five points: train_00001_manu_attri.txt, train_00002_manu_attri.txt, ')
    assert note.endswith('train_00005_manu_attri.txt ...')


def test_no_attribute_files(tmp_path):
    trees.write(tmp_path, editions=('original',))
    (tmp_path / 'basic' / 'Annotation' / 'manual' / 'test_0001_manu_attri.txt').unlink()
    assert [record.file for record in find(tmp_path).records if not record.points] == ['test_0001.jpg']


def published():
    """The names of the published list, in its order."""
    return [f'train_{n:05}.jpg' for n in range(1, 12_272)] + [f'test_{n:04}.jpg' for n in range(1, 3_069)]


def test_a_picture_that_the_list_lacks_is_named(tmp_path):
    """The names are numbered without gaps, so a list that was cut short tells by itself what it lacks."""
    names = published()
    lost = {'train_00003.jpg', 'train_12271.jpg', 'test_0001.jpg', 'test_0002.jpg', *names[-1000:]}
    trees.write_picture(tmp_path / 'aligned' / 'train_00001_aligned.jpg', 10)
    trees.write_list(tmp_path, {name: 7 for name in names if name not in lost})
    assert set(find(tmp_path).missing) - set(names) == {
        'train_00003.jpg: not in the list',
        'train_12271.jpg: not in the list',
        'test_0001.jpg to test_0002.jpg: 2 pictures, not in the list',
        'test_2069.jpg to test_3068.jpg: 1,000 pictures, not in the list',
    }
    trees.write_list(tmp_path, dict.fromkeys(names, 7))
    assert set(find(tmp_path).missing) == set(names[1:])


def test_list_and_pictures_from_different_archives(tmp_path):
    trees.write(tmp_path / 'all', compound=False)
    (tmp_path / 'all' / 'basic' / 'Image' / 'aligned').rename(tmp_path / 'aligned')
    found = RAFDB.find(Tree(tmp_path / 'all', {tmp_path / 'aligned': ''}))
    assert found.edition == 'aligned faces'
    assert len(found.records) == 28


def test_upper_case_and_folders_without_suffix(tmp_path):
    trees.write(tmp_path, editions=('aligned',))
    folder = tmp_path / 'basic' / 'Image' / 'aligned'
    (folder / 'train_00001_aligned.jpg').rename(folder / 'TRAIN_00001_Aligned.JPG')
    (folder / 'test_0001_aligned.jpg').rename(folder / 'test_0001.jpg')
    found = find(tmp_path)
    assert gone(found) == ()
    assert len(found.records) == 28


def test_pictures_and_lines_that_stand_alone(tmp_path):
    trees.write(tmp_path)
    folder = tmp_path / 'basic' / 'Image' / 'aligned'
    (folder / 'train_00003_aligned.jpg').unlink()
    trees.write_picture(folder / 'test_0099_aligned.jpg', 100)
    found = find(tmp_path)
    assert gone(found) == ('train_00003.jpg',)  # the original is there; editions are not mixed
    assert found.skipped == ('test_0099_aligned.jpg: not in the list',)
    assert len(found.records) == 27


def test_bad_lines_are_named(tmp_path):
    trees.write(tmp_path)
    path = tmp_path / 'basic' / 'EmoLabel' / 'list_patition_label.txt'
    path.write_bytes(
        path.read_bytes() + b'\r\ntrain_00001.jpg 2\n../x.jpg 3\ntrain_00077.jpg 0\n\ntrain_00078.jpg\n\xff'
    )
    found = find(tmp_path)
    assert found.records[0].label == 'surprise'
    assert len(found.records) == 28
    numbers = [int(line.partition('line ')[2].partition(':')[0]) for line in found.skipped]
    assert numbers == [29, 30, 31, 33, 34]
    assert 'listed before' in found.skipped[0]


def test_a_second_list_is_not_read(tmp_path):
    content = trees.write(tmp_path)
    trees.write_list(tmp_path / 'a_copy', dict.fromkeys(content, 7))
    found = find(tmp_path)
    assert collections.Counter(record.label for record in found.records)['neutral'] == 4
    assert found.skipped == (
        'a_copy/EmoLabel/list_patition_label.txt: basic/EmoLabel/list_patition_label.txt is read instead',
    )


def test_the_correct_spelling_is_read_too(tmp_path):
    trees.write(tmp_path)
    path = tmp_path / 'basic' / 'EmoLabel' / 'list_patition_label.txt'
    path.rename(path.with_name('list_partition_label.txt'))
    assert len(find(tmp_path).records) == 28


def test_the_compound_subset_is_another_set(tmp_path):
    trees.write_compound(tmp_path / 'compound')
    with pytest.raises(UserError, match='of the basic subset'):
        find(tmp_path)
    with pytest.raises(UserError, match='list of the basic subset'):
        find(tmp_path / 'compound')  # where no path says so, the codes do
    assert RAFDB.wants('basic/Image/aligned.zip')
    assert not RAFDB.wants('Compound/Image/aligned.zip')


@pytest.mark.parametrize('content', [{}, {'a.jpg': 1}])
def test_another_set(tmp_path, content):
    if content:
        trees.write_list(tmp_path, content)
    with pytest.raises(UserError) as caught:
        find(tmp_path)
    message = str(caught.value)
    assert 'not RAF-DB' in message
    assert 'whdeng.cn' in message
    assert '\n' not in message


def test_a_list_without_pictures(tmp_path):
    trees.write(tmp_path, editions=())
    with pytest.raises(UserError, match='no Image/aligned'):
        find(tmp_path)


def test_published_counts():
    counts = collections.Counter()
    for name, count in rafdb._EXPECTED.items():
        counts[name.split('/')[0]] += count
    assert counts == {'train': 12_271, 'test': 3_068}
    assert len(rafdb._EXPECTED) == 14
