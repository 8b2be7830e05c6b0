"""Names and sizes of what lies in a folder, and the names by which a set is known, held against `Dataset.read`."""

import dataclasses
import os
import subprocess

import numpy as np
import pytest

from fn2en_jax.data import listing, published, records
from fn2en_jax.data.datasets import DATASETS, LISTS
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import affectnet, affectnet_npy, ckplus, fer2013, ferplus, jaffe, mmi, oulu_casia, rafdb, sfew, tfd


def _mmi(root):
    mmi.write(root, subjects=1, coded=True, stills=1)
    (root / 'clips.csv').write_text('S001-001\nS001-200\n')


WRITERS = {
    'ckplus': lambda root: ckplus.write(root, subjects=1, draw=None),
    'oulu_casia': lambda root: oulu_casia.write(root, subjects=1, draw=None),
    'oulu_casia cropped': lambda root: oulu_casia.write(
        root, subjects=1, place='PreProcess Img/VL_Acropped', draw=None
    ),
    'tfd': tfd.write,
    'sfew': lambda root: sfew.write(root, per_class=1),
    'sfew list': sfew.write_list,
    'sfew_frames': lambda root: sfew.write(root, aligned=False, per_class=1),
    'fer2013': lambda root: fer2013.write(root, per_class=1),
    'fer2013 icml': lambda root: fer2013.write(root, 'icml_face_data.csv', per_class=1),
    'fer2013 folders': lambda root: fer2013.write(root, 'folders', per_class=1),
    'ferplus': lambda root: ferplus.write(root, per_class=1),
    'mmi': _mmi,
    'affectnet': lambda root: affectnet.write(root, per_class=1),
    'affectnet_npy': lambda root: affectnet_npy.write(root, per_class=1),
    'rafdb': lambda root: rafdb.write(root, per_class=1),
    'rafdb original': lambda root: rafdb.write(root, per_class=1, editions=('original',)),
    'jaffe': lambda root: jaffe.write(root, subjects=2, draw=None),
}


@pytest.fixture(scope='module', params=WRITERS)
def made(request, tmp_path_factory):
    """The name of a set and a folder with it."""
    root = tmp_path_factory.mktemp('download')
    WRITERS[request.param](root)
    return request.param.split()[0], root


def find(name, tree):
    try:
        return DATASETS[name].read(tree)
    except UserError:
        return None


def facts(found):
    """What is stored of a set, pixels aside."""
    fields = [field.name for field in dataclasses.fields(records.Record) if field.name not in ('image', 'points')]
    each = [[getattr(record, field) for field in fields] for record in found.records]
    return each, [None if one.points is None else np.ravel(one.points).tolist() for one in found.records]


def test_names_tell_what_find_finds(made):
    name, root = made
    names, tree = listing.sample(root), Tree(root)
    assert published.is_there(DATASETS[name], root, names)
    for other, dataset in DATASETS.items():
        assert published.is_there(dataset, root, names) == (find(other, tree) is not None), other


def test_all_that_find_reads_counts(made):
    """Nothing is missed where all other files are gone."""
    name, root = made
    part = published.part_of(DATASETS[name], root)
    lists = LISTS[name]
    tree = Tree(root)
    whole = facts(find(name, tree))
    tree.files = {file: path for file, path in tree.files.items() if part(file) or file.endswith(lists)}
    assert facts(find(name, tree)) == whole


def test_a_digest_changes_with_names_and_sizes(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub' / 'a.png').write_bytes(b'12')
    (tmp_path / 'b.png').write_bytes(b'1')

    def digest():
        return listing.digest(listing.files(tmp_path, [tmp_path / 'own']))

    first = digest()
    for name in ('.hidden.png', '__MACOSX/c.png', 'own/c.png', 'own/deep/d.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'1')
    assert digest() == first
    (tmp_path / 'b.png').write_bytes(b'21')
    assert digest() == first  # of pictures the names alone
    (tmp_path / 'b.png').rename(tmp_path / 'sub' / 'b.png')
    second = digest()
    assert second != first
    (tmp_path / 'list.csv').write_bytes(b'1')
    third = digest()
    (tmp_path / 'list.csv').write_bytes(b'12')
    assert len({first, second, third, digest()}) == 4


def test_loops_closed_folders_and_great_depth_end_no_listing(tmp_path):
    (tmp_path / 'a').symlink_to(tmp_path / 'b')
    (tmp_path / 'b').symlink_to(tmp_path / 'a')
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python may call
        os.mkdir('d', dir_fd=here)
        here, above = os.open('d', os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    try:
        assert sorted(name for name, _ in listing.files(tmp_path)) == ['a', 'b']
        assert list(Tree(tmp_path).files) == []
    finally:
        subprocess.run(['rm', '-r', tmp_path / 'd'], check=True)  # pytest's own cleaning would fail


def test_links_are_followed_as_a_tree_follows_them(tmp_path):
    root, kept = tmp_path / 'root', tmp_path / 'kept'
    for path in (root / 'a.png', kept / 'b.png', kept / 'deep' / 'c.png'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / 'kept').symlink_to(kept)
    (root / 'self').symlink_to(root)
    (root / 'up').symlink_to(tmp_path)
    (kept / 'again').symlink_to(kept / 'deep')
    assert sorted(name for name, _ in listing.files(root)) == list(Tree(root).files)
    assert sorted(name for name, _ in listing.files(root, [kept])) == ['a.png']
    assert list(listing.files(tmp_path / 'nowhere')) == []


def test_a_sample_has_some_of_every_suffix_of_a_folder(tmp_path):
    for number in range(listing.MOST + 9):
        (tmp_path / f'{number}.PNG').touch()
        (tmp_path / f'{number}.jpg').touch()
    (tmp_path / 'list.csv').touch()
    names = listing.sample(tmp_path)
    assert len(names) == 2 * listing.MOST + 1
    assert 'list.csv' in names


def test_a_folder_inside_of_a_set_is_known_by_those_above_it(tmp_path):
    oulu_casia.write(tmp_path, subjects=1, draw=None)
    (inside,) = tmp_path.rglob('VL/Strong')
    assert published.is_there(DATASETS['oulu_casia'], inside, listing.sample(inside))
    seen = ((inside, ''), (inside.parent, f'{inside.name}/'), (tmp_path, f'{inside.relative_to(tmp_path).as_posix()}/'))
    picture = 'P001/Anger/000.jpeg'
    called = {published.part_of(DATASETS['oulu_casia'], folder)(below + picture) for folder, below in seen}
    assert called == {'VL/Strong/P001/Anger/000.jpeg'}
    assert not published.is_there(DATASETS['oulu_casia'], inside / 'P001', listing.sample(inside / 'P001'))
