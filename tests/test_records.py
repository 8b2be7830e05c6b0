"""A folder as it is listed: archives by their names, copies, links that are not followed, folders named too deep."""

import io
import shutil
import zipfile
from pathlib import Path

import pytest

from fn2en_jax.data import archives, published
from fn2en_jax.data.datasets import DATASETS
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import ckplus, jaffe, mmi, oulu_casia, rafdb, sfew


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'in').mkdir()
    return tmp_path / 'in'


def zipped(members) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, zipped(content) if isinstance(content, dict) else content)
    return data.getvalue()


def write(root, contents):
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(zipped(content) if isinstance(content, dict) else content)


def contents(root) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def unpacked(folder):
    return Tree(folder, archives.unpack(folder, folder.parent / 'unpacked'))


def pictures(tree):
    return {name: path.read_bytes() for name, path in tree.files.items() if name.endswith('.png')}


def read(name, folder):
    dataset = DATASETS[name]
    return dataset.read(
        Tree(folder, archives.unpack(folder, folder.absolute().parent / 'unpacked', None, dataset.wants))
    )


def refusal(name, folder):
    with pytest.raises(UserError) as caught:
        read(name, folder)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------- archives by their names


def test_members_of_the_same_path_stay_apart(folder):
    write(folder, {'b.ZIP': {'set/1.png': b'b'}, 'x/a.zip': {'set/1.png': b'a'}, 'set/1.png': b'mine'})
    tree = unpacked(folder)
    assert pictures(tree) == {'set/1.png': b'mine', 'b/set/1.png': b'b', 'x/a/set/1.png': b'a'}
    assert list(pictures(tree)) == ['set/1.png', 'b/set/1.png', 'x/a/set/1.png']
    assert tree.notes() == []


def test_of_files_with_one_path_the_first_is_used_and_the_others_are_named(folder):
    inner = {'1.png': b'nested', '3.png': b'nested'}
    write(folder, {'a.zip': {'1.png': b'zip', '2.png': b'zip'}, 'a/1.png': b'mine'})
    write(folder, {'o.zip': {'set/i.zip': inner, 'set/i/1.png': b'beside'}})
    tree = unpacked(folder)
    assert pictures(tree) == {
        'a/1.png': b'mine',
        'a/2.png': b'zip',
        'o/set/i/1.png': b'nested',
        'o/set/i/3.png': b'nested',
    }
    assert tree.notes() == [
        'a.zip/1.png: a/1.png is used instead',
        'o.zip/set/i/1.png: o/set/i/1.png is used instead',
    ]


SET = {'set/1.png': b'1', 'set/2.png': b'22', 'list.csv': b''}


@pytest.mark.parametrize('place', ['', 'a/'])
@pytest.mark.parametrize('archive', ['a.zip', 'x/a.zip'])
def test_an_archive_that_lies_unpacked_beside_it_is_left_out_and_said_once(folder, archive, place):
    beside = (folder / archive).parent / place
    write(folder, {archive: SET})
    write(beside, {**SET, 'set/other.png': b'other'})
    tree = unpacked(folder)
    assert {folder / name for name in pictures(tree)} == {beside / f'set/{name}.png' for name in ('1', '2', 'other')}
    assert tree.notes() == [f'{archive}: not used, since all of it lies unpacked beside it']


@pytest.mark.parametrize('other', [{'set/1.png': b'changed'}, {'set/3.png': b'missing beside'}])
def test_an_archive_that_lies_unpacked_in_part_fills_the_gaps(folder, other):
    write(folder, {'a.zip': {**SET, **other}, **SET})
    tree = unpacked(folder)
    assert set(pictures(tree)) == {
        'set/1.png',
        'set/2.png',
        *(f'a/{name}' for name in {**SET, **other} if 'png' in name),
    }
    assert tree.notes() == []


def test_empty_archives_lie_nowhere_and_many_are_counted(folder):
    write(folder, {'a.zip': {}})
    assert unpacked(folder).notes() == []
    write(folder, {**{f'{n}.zip': SET for n in range(5)}, **SET})
    assert unpacked(folder).notes() == [
        '0.zip, 1.zip, 2.zip and 2 more: not used, since all of it lies unpacked beside it'
    ]


ALIGNED = ('Train_Aligned_Faces', 'Val_Aligned_Faces_new')


@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('outer', [False, True])
@pytest.mark.parametrize(('name', 'stems'), [('sfew', ALIGNED), ('sfew_frames', ('Train', 'Val'))])
def test_archives_of_sfew_need_no_folder_of_their_name(tmp_path, folder, name, stems, outer, inside):
    sfew.write(tmp_path / 'tree', aligned=name == 'sfew', tests=0)
    made = {}
    for stem, split in zip(stems, ('Train', 'Val'), strict=True):
        found = contents(tmp_path / 'tree' / split / (f'{split}_Aligned_Faces' if name == 'sfew' else ''))
        made[f'{stem}.zip'] = zipped({f'{stem}/{file}' if outer else file: data for file, data in found.items()})
    write(folder, {'SFEW_2.0.zip': made} if inside else made)
    found = read(name, folder)
    assert len(found.records) == 28
    assert found.skipped == ()


@pytest.mark.parametrize('archive', ['VL.zip', 'VL/Strong.zip', 'OriginalImg/VL_Acropped.zip', 'Oulu.zip'])
def test_archives_of_oulu_casia_by_their_names(tmp_path, folder, archive):
    oulu_casia.write(tmp_path / 'tree', subjects=2, place='VL', draw=None)
    images = contents(tmp_path / 'tree' / 'VL' / ('Strong' if 'Strong' in archive else ''))
    dark = {file.replace('Strong', 'Dark'): data for file, data in images.items()}
    write(folder, {archive: {'VL.zip': zipped(images)} if archive == 'Oulu.zip' else images, 'NI.zip': images})
    write(folder, {'VL/Dark.zip': dark})
    found = read('oulu_casia', folder)
    assert len(found.records) == 2 * 6 * 4
    assert found.skipped == ()


def test_clips_of_mmi_and_what_is_known_of_them_may_come_from_two_archives(tmp_path, folder):
    mmi.write(tmp_path / 'tree', subjects=1, labels=['fear'], coded=True)
    found = contents(tmp_path / 'tree')
    for name, suffixes in (('clips', ('.avi',)), ('data', ('.xml',))):
        write(folder, {f'{name}.zip': {file: data for file, data in found.items() if file.endswith(suffixes)}})
    assert [record.frame for record in read('mmi', folder).records] == [0, 4, 5, 6]  # coded


def test_a_folder_named_by_an_inner_archive_tells_the_edition_of_rafdb(tmp_path, folder):
    rafdb.write(tmp_path / 'tree', compound=False, editions=['aligned'])
    pictures = contents(tmp_path / 'tree/basic/Image/aligned')
    plain = zipped({name.replace('_aligned', ''): data for name, data in pictures.items()})
    label_list = (tmp_path / 'tree/basic/EmoLabel/list_patition_label.txt').read_bytes()
    write(folder, {'basic.zip': {'EmoLabel/list_patition_label.txt': label_list, 'Image/aligned.zip': plain}})
    assert read('rafdb', folder).edition == 'aligned faces'


def test_what_was_passed_over_while_listing_is_stored_with_the_set(tmp_path, folder):
    sfew.write(tmp_path / 'tree', tests=0)
    for part in ('Train', 'Val'):
        write(folder, {f'{part}.zip': contents(tmp_path / 'tree' / part)})
    shutil.copytree(tmp_path / 'tree' / 'Train', folder / 'Train')
    (folder / 'Val').mkdir()
    (folder / 'Val' / 'Val_Aligned_Faces').symlink_to(tmp_path / 'tree' / 'Val' / 'Val_Aligned_Faces')
    place = published.Place(str(folder), str(tmp_path / 'data'))
    report = published.prepare(DATASETS['sfew'], place, published.Faces(), processes=1).info.metadata
    assert sum(report['stored'].values()) == 28
    assert report['skipped'] == [
        f"links not followed: 'Val/Val_Aligned_Faces' (those directly in {folder} are, if they lead anywhere)",
        'Train.zip: not used, since all of it lies unpacked beside it',
    ]


# ------------------------------------------------------------------- links


def test_links_that_are_not_followed_are_told_where_the_set_is_not_found(tmp_path, folder):
    ckplus.write(tmp_path / 'elsewhere', subjects=1, draw=None)
    (folder / 'CK').mkdir()
    for name in ('cohn-kanade-images', 'Emotion'):
        (folder / 'CK' / name).symlink_to(tmp_path / 'elsewhere' / name)
    told = f"links not followed: 2, such as 'CK/Emotion' (those directly in {folder} are, if they lead anywhere)"
    assert f'/S005_001_00000001.png; {told}; expected there: ' in refusal('ckplus', folder)


def test_links_that_are_not_followed_are_told_where_a_part_of_the_set_is_found(tmp_path, folder):
    jaffe.write(tmp_path / 'elsewhere', folder='', draw=None)
    (folder / 'jaffe').mkdir()
    images = sorted((tmp_path / 'elsewhere').glob('*.tiff'))
    for number, path in enumerate(images):
        if number % 2:
            (folder / 'jaffe' / path.name).symlink_to(path)
        else:
            shutil.copy(path, folder / 'jaffe')
    found = read('jaffe', folder)
    assert len(found.records) == 107
    assert found.skipped[0].startswith("links not followed: 106, such as 'jaffe/KA.AN2.")


def test_links_that_lead_to_what_is_listed_anyway_are_no_news(tmp_path, folder):
    write(folder, {'a/1.png': b'', 'data/unfinished/2.png': b''})
    write(tmp_path / 'kept', {'b/3.png': b'', 'b/c/4.png': b''})
    (folder / 'kept').symlink_to(tmp_path / 'kept' / 'b')
    (folder / 'again').symlink_to(folder / 'a')
    for path, end in (
        ('a/same.png', '1.png'),
        ('a/up', folder),
        ('a/kept', tmp_path / 'kept' / 'b' / 'c'),
        ('kept/back', folder / 'a'),
        ('kept/3b.png', '3.png'),
        ('data/out.png', '/etc/hostname'),
    ):
        (folder / path).symlink_to(end)
    assert Tree(folder, {folder / 'data': ''}).links == []
    (folder / 'a' / 'lost.png').symlink_to('nowhere.png')
    (folder / 'gone').symlink_to(tmp_path / 'gone')
    (folder / 'kept' / 'out').symlink_to(tmp_path)
    tree = Tree(folder, {folder / 'data': ''})
    assert tree.links == ['a/lost.png', 'gone', 'kept/out']
    assert list(tree.files) == [
        'a/1.png',
        'a/same.png',
        'kept/3.png',
        'kept/3b.png',
        'kept/c/4.png',
        'unfinished/2.png',
    ]


# ------------------------------------------------------------------- folders named too deep


def test_a_folder_inside_a_whole_set_is_the_set(tmp_path, monkeypatch):
    monkeypatch.setattr('fn2en_jax.data.datasets.oulu_casia._SUBJECTS', 2)
    oulu_casia.write(tmp_path, subjects=2, frames=4, draw=None)
    folder = tmp_path / oulu_casia.ORIGINAL
    monkeypatch.chdir(folder)
    for deep in (folder, folder / 'Strong', Path('.'), Path('Strong/../Strong')):
        found = read('oulu_casia', deep)
        assert found.edition == 'original images, 12 sequences'
        assert len(found.records) == 48
        assert found.skipped == found.missing == ()


@pytest.mark.parametrize(('deep', 'above'), [('VL', ''), ('VL/Strong', ''), ('VL/Strong/P001', None)])
def test_a_folder_inside_a_part_of_a_set_is_not_taken_for_it(tmp_path, deep, above):
    oulu_casia.write(tmp_path, subjects=2, place='in/VL', draw=None)
    message = refusal('oulu_casia', tmp_path / 'in' / deep)
    if above is None:
        assert 'no VL/Strong/P001/Anger/000.jpeg; expected there' in message
    else:
        assert 'looks like a part of Oulu-CASIA' in message
        assert '(original images, 12 sequences)' in message
        assert message.endswith(f'such as {tmp_path / "in"}')


def test_half_of_sfew_is_not_taken_for_the_whole(tmp_path):
    sfew.write(tmp_path / 'SFEW', aligned=False)
    message = refusal('sfew_frames', tmp_path / 'SFEW' / 'Train')
    assert message == (
        f'{tmp_path}/SFEW/Train: looks like a part of SFEW 2.0 (full frames) (full frames, 14 train + 0 validation); '
        f'name the folder that holds all of it, such as {tmp_path}/SFEW'
    )


def test_only_the_named_folder_is_looked_into(tmp_path):
    oulu_casia.write(tmp_path, subjects=1, place='VL', draw=None)
    sfew.write(tmp_path / 'other')
    assert f'{tmp_path}/other: not Oulu-CASIA' in refusal('oulu_casia', tmp_path / 'other')
