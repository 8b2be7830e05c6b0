"""From a licensee's folder to the stored set: found against published, damage by name, archives, one clear refusal."""

import contextlib
import datetime
import json
import multiprocessing
import os
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fn2en_jax.data import archives, preparation, published, sources, store
from fn2en_jax.data.datasets import DATASETS
from fn2en_jax.data.protocols import Choice
from fn2en_jax.data.records import Tree
from fn2en_jax.errors import UserError
from tests.trees import ckplus as tree
from tests.trees import mmi as mmi_tree
from tests.trees import rafdb as rafdb_tree
from tests.trees import sfew as sfew_tree

CKPLUS = DATASETS['ckplus']
STEP = published.Faces('none')


def place(tmp_path, folder='download') -> published.Place:
    return published.Place(str(tmp_path / folder), str(tmp_path / 'data'))


def test_a_set_is_stored_with_everything_that_is_known(tmp_path):
    tree.write(tmp_path / 'download', subjects=2)
    done = []
    builder = published.prepare(
        CKPLUS, place(tmp_path), STEP, progress=lambda name, count, total: done.append((name, count, total))
    )
    examples = store.load(builder, size=32, channels=1)
    report = builder.info.metadata
    assert len(examples) == sum(report['stored'].values()) == 2 * 7 * 4
    assert done[-1] == ('preparing images of ckplus', 56, 56)
    assert set(examples.class_names) == set(report['expected'])
    assert len(set(examples.sequences)) == 14
    assert np.sum(examples.frames == 1) == 14
    assert len(set(examples.subjects)) == 2
    assert not list((tmp_path / 'data' / 'unfinished').glob('[!.]*'))
    # Stored once: the folder of the download is not needed any more.
    assert published.prepare(CKPLUS, published.Place('', str(tmp_path / 'data')), STEP).data_path == builder.data_path


def test_a_damaged_image_is_skipped_by_name(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    victim = sorted((tmp_path / 'download').rglob('*.png'))[0]
    victim.write_bytes(b'')
    report = published.prepare(CKPLUS, place(tmp_path), STEP).info.metadata
    assert len(report['damaged']) == 1
    assert victim.name in report['damaged'][0]
    assert 'empty' in report['damaged'][0]
    text = '\n'.join(published.report_lines(CKPLUS, report))
    assert victim.name in text
    assert 'differs' in text


def test_archives_give_the_same_set_as_their_contents(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    (tmp_path / 'zipped').mkdir()
    for root in ('cohn-kanade-images', 'Emotion', 'Landmarks'):
        with zipfile.ZipFile(tmp_path / 'zipped' / f'{root}.zip', 'w') as archive:
            for path in (tmp_path / 'download' / root).rglob('*'):
                archive.write(path, path.relative_to(tmp_path / 'download'))
    plain = published.prepare(CKPLUS, place(tmp_path), STEP)
    zipped = published.prepare(CKPLUS, published.Place(str(tmp_path / 'zipped'), str(tmp_path / 'data2')), STEP)
    one, other = (store.load(builder, size=32, channels=1) for builder in (plain, zipped))
    assert one.files == other.files
    np.testing.assert_array_equal(one.images, other.images)
    assert not (tmp_path / 'data2' / 'unpacked' / 'ckplus').exists()


def test_a_run_reads_a_set_as_its_protocol_says(tmp_path, caplog):
    tree.write(tmp_path / 'download', subjects=3)
    wanted = sources.Wanted('ckplus', manual_dir=str(tmp_path / 'download'), choice=Choice(classes=6, num_folds=3))
    reading = sources.Reading(str(tmp_path / 'data'), 32, 1, 1 << 30, {}, faces='none')
    data = sources.open_data(wanted, reading, need_identities=False)
    assert data.expressions.class_counts() == dict.fromkeys(
        ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise'), 9
    )
    assert data.expressions.folds.tolist().count(0) == 18
    assert 'CK+ is not as published' in caplog.text  # 3 persons are not 118
    assert data.fingerprint['expressions'].startswith('published_faces/ckplus-none')


@pytest.mark.parametrize('name', DATASETS)
def test_another_folder_is_refused_in_one_line(name, tmp_path):
    (tmp_path / 'download').mkdir()
    (tmp_path / 'download' / 'holiday.jpg').write_bytes(b'')
    dataset = DATASETS[name]
    with pytest.raises(UserError) as caught:
        published.prepare(dataset, place(tmp_path), STEP)
    assert '\n' not in str(caught.value)
    assert dataset.access in str(caught.value)
    assert not (tmp_path / 'data' / 'published_faces').exists()


def test_names_that_are_no_utf_8_are_stored_spelled_out(tmp_path):
    sfew = DATASETS['sfew']
    sfew_tree.write(tmp_path / 'download')
    folder = next((tmp_path / 'download').rglob('Train_Aligned_Faces/Angry'))
    first, second = sorted(folder.glob('*.png'))
    odd = b'Am\xe9lie_000000000_00000001.png'
    os.rename(first, os.fsencode(folder) + b'/' + odd)
    os.rename(second, folder / r'Am\udce9lie_000000000_00000001.png')  # as the other is spelled out
    (folder / os.fsdecode(b'caf\xe9.png')).touch()
    (folder / os.fsdecode(b'\xe9_1_2.png')).touch()
    builder = published.prepare(sfew, place(tmp_path), published.Faces())
    examples = store.load(builder, size=32, channels=1)
    assert [file for file in examples.files if 'lie' in file] == [
        r'Train/Angry/Am\\udce9lie_000000000_00000001.png',
        r'Train/Angry/Am\udce9lie_000000000_00000001.png',
    ]
    text = '\n'.join(published.report_lines(sfew, builder.info.metadata))
    assert r'Train/Angry/caf\udce9.png: not named' in text
    assert r'Train/Angry/\udce9_1_2.png: the file is empty' in text


def test_stored_sets_may_lie_in_the_folder_of_the_download(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    shutil.move(shutil.make_archive(str(tmp_path / 'all'), 'zip', tmp_path / 'download'), tmp_path / 'download')
    for root in ('cohn-kanade-images', 'Emotion', 'Landmarks'):
        shutil.rmtree(tmp_path / 'download' / root)
    inside = published.Place(str(tmp_path / 'download'), str(tmp_path / 'download' / 'data'))
    report = published.prepare(CKPLUS, inside, STEP).info.metadata
    assert report['skipped'] == []
    assert sum(report['stored'].values()) == 28


def test_a_tree_leaves_out_what_was_unpacked_into_it_and_nothing_else(tmp_path):
    for name in ('root/a.png', 'root/own/one/b.png', 'root/own/two/c.png', 'root/own/.killed/d.png', 'beside/e.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root = tmp_path / 'root'
    assert list(Tree(root, {root / 'own/one': ''}).files) == ['a.png', 'b.png']
    assert list(Tree(root, {root / 'own/one': '', root / 'own/two': ''}).files) == ['a.png', 'b.png', 'c.png']
    assert list(Tree(root, {root / 'own': ''}).files) == ['a.png', 'one/b.png', 'two/c.png']
    assert list(Tree(root / 'own', {tmp_path / 'beside': ''}).files) == ['one/b.png', 'two/c.png', 'e.png']


def test_what_was_unpacked_is_left_out_behind_links_as_well(tmp_path):
    root, big = tmp_path / 'root', tmp_path / 'big'
    make_files(root, 'a.png')
    make_files(big, 'b.png', 'own/one/c.png', 'own/.killed/d.png')
    (root / 'big').symlink_to(big)
    (root / 'beside').symlink_to(tmp_path / 'big' / 'own' / 'one')
    assert list(Tree(root, {big / 'own/one': ''}).files) == ['a.png', 'big/b.png', 'c.png']


def make_files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_links_that_the_user_made_are_followed_and_no_others(tmp_path):
    root, kept = tmp_path / 'root', tmp_path / 'kept'
    make_files(root, 'a.png', 'sub/b.png', '.hidden/h.png')
    make_files(kept, 'images/c.png', 'images/sub/d.png', 'other/e.png', 'private/p.png', 'single.png')
    (root / 'images').symlink_to(kept / 'images')
    (root / 'one.png').symlink_to(kept / 'single.png')
    (kept / 'images' / 'out.png').symlink_to(kept / 'private/p.png')  # further down: may come from anybody
    (kept / 'images' / 'private').symlink_to(kept / 'private')
    (kept / 'images' / 'c2.png').symlink_to('c.png')
    (root / 'sub' / 'other').symlink_to(kept / 'other')
    (root / 'sub' / 'out.png').symlink_to(kept / 'private/p.png')
    (root / '.secret').symlink_to(kept / 'private')
    (root / 'dangling').symlink_to(tmp_path / 'nowhere')
    assert list(Tree(root).files) == [
        'a.png', 'images/c.png', 'images/c2.png', 'images/sub/d.png', 'one.png', 'sub/b.png'
    ]  # fmt: skip
    unpacked = Tree(tmp_path / 'kept/other', {root: ''}).files  # in what was extracted, none is
    assert list(unpacked) == ['e.png', 'a.png', 'sub/b.png']


def test_only_files_are_files(tmp_path):
    make_files(tmp_path, 'a.png')
    (tmp_path / 'b.png').symlink_to('nowhere.png')
    (tmp_path / 'c.png').symlink_to('c.png')
    os.mkfifo(tmp_path / 'd.png')
    (tmp_path / 'e.png').symlink_to('/dev/null')
    assert list(Tree(tmp_path).files) == ['a.png']


def test_links_in_circles_and_to_the_same_end(tmp_path):
    root, kept = tmp_path / 'root', tmp_path / 'kept'
    make_files(root, 'a.png', 'sub/b.png')
    make_files(kept, 'c.png', 'deeper/d.png')
    (root / 'again').symlink_to(root / 'sub')
    (root / 'self').symlink_to(root)
    (root / 'up').symlink_to(tmp_path)
    (root / 'kept').symlink_to(kept)
    (root / 'kept2').symlink_to(kept)
    (root / 'deeper').symlink_to(kept / 'deeper')
    (kept / 'back').symlink_to(root)
    assert list(Tree(root).files) == ['a.png', 'kept/c.png', 'kept/deeper/d.png', 'sub/b.png']
    assert list(Tree(root / 'self').files) == ['a.png', 'kept/c.png', 'kept/deeper/d.png', 'sub/b.png']


def test_a_set_behind_links_is_the_set(tmp_path):
    tree.write(tmp_path / 'elsewhere', subjects=1)
    (tmp_path / 'download').mkdir()
    for name in ('cohn-kanade-images', 'Emotion', 'Landmarks'):
        (tmp_path / 'download' / name).symlink_to(tmp_path / 'elsewhere' / name)
    linked, plain = (CKPLUS.find(Tree(tmp_path / name)) for name in ('download', 'elsewhere'))
    assert [record.file for record in linked.records] == [record.file for record in plain.records]
    assert linked.skipped == plain.skipped


def test_other_pixels_under_the_same_names_are_another_set(tmp_path):
    marks = []
    for name, draw in (('a', None), ('b', None), ('c', lambda *who: tree.noise(*who)[::2])):
        tree.write(tmp_path / name / 'download', subjects=2, **({'draw': draw} if draw else {}))
        wanted = sources.Wanted('ckplus', manual_dir=str(tmp_path / name / 'download'), choice=Choice(num_folds=2))
        reading = sources.Reading(str(tmp_path / name / 'data'), 32, 1, 1 << 30, {}, faces='none')
        data = sources.open_data(wanted, reading, need_identities=False)
        assert data.is_of(data.fingerprint)
        assert data.is_of({'expressions': data.fingerprint['expressions']})
        marks.append(data.fingerprint)
    assert marks[0] == marks[1] != marks[2]
    assert not data.is_of(marks[0])
    # Only the bytes differ, and they are apart: an encoder may do that, too.
    assert {**marks[0], 'stored_bytes': marks[2]['stored_bytes']} == marks[2]


def test_an_absent_folder_says_where_to_get_the_set(tmp_path):
    for manual_dir, words in (('', 'config.data.manual_dir'), (str(tmp_path / 'nowhere'), 'no such folder')):
        with pytest.raises(UserError, match=words):
            published.prepare(CKPLUS, published.Place(manual_dir, str(tmp_path)), STEP)
    with pytest.raises(UserError, match='unknown data set'):
        published.find('ck++')


def test_a_stored_set_tells_of_other_lists_than_its_own(tmp_path, caplog):
    download, other = tmp_path / 'download', tmp_path / 'other'
    mmi_tree.write(download, subjects=1, labels=['fear', 'anger'], frames=4)
    (download / 'clips.csv').write_text('S001-001\n')
    shutil.copytree(download, other)
    mmi = DATASETS['mmi']
    where = published.prepare(mmi, place(tmp_path), STEP).data_path

    def told(folder):
        caplog.clear()
        builder = published.prepare(mmi, place(tmp_path, folder), STEP)
        assert builder.info.metadata['stored']['fear'] == 3
        return caplog.text

    assert told('download') == told('other') == told('nowhere') == ''
    (other / 'peaks.csv').write_text('S001-001,2\n')
    assert f'MMI is stored already; peaks.csv has been added to {other} since, which is not used;' in told('other')
    (download / 'clips.csv').write_text('S001-002\n')
    assert 'clips.csv has been changed in' in told('download')
    assert f'delete {where} or name another data_dir' in caplog.text
    assert len(caplog.records) == 1
    (download / 'clips.csv').unlink()
    assert 'clips.csv has been removed from' in told('download')
    caplog.clear()
    published.prepare(mmi, published.Place('', str(tmp_path / 'data')), STEP)
    assert not caplog.text


def test_a_stored_set_tells_of_a_folder_that_has_changed(tmp_path, caplog):
    root, data = tmp_path / 'download', str(tmp_path / 'data')
    rafdb_tree.write(root, per_class=1, editions=('aligned',), compound=False)
    rafdb, picture = DATASETS['rafdb'], next(root.rglob('test_0001_aligned.jpg'))
    content = picture.read_bytes()
    picture.unlink()
    builder = published.prepare(rafdb, place(tmp_path), published.Faces())
    assert 'test_0001.jpg' in builder.info.metadata['missing']

    def told(folder='download'):
        caplog.clear()
        published.prepare(rafdb, place(tmp_path, folder), published.Faces())
        return caplog.text

    shutil.copytree(root, tmp_path / 'copy')
    (root / 'holiday.jpg').touch()  # is no part of the set
    (root / 'compound.zip').touch()
    tree.write(root / 'CK+', subjects=1, draw=None)
    assert told() == told('copy') == told('nowhere') == ''
    picture.write_bytes(content)
    assert 'RAF-DB (basic) is stored already;' in told()
    assert f'({14} files then, {15} now)' in caplog.text
    assert f'delete {builder.data_path} or name another data_dir' in caplog.text
    assert str(datetime.date.today()) in caplog.text
    assert caplog.text.count('\n') == 1
    picture.unlink()
    assert told() == ''
    (root / 'jaffe.zip').touch()  # archives beside the files of the set may be of other sets
    (root / 'landmarks.csv').touch()  # and no landmarks are needed for aligned faces
    (root / 'list_of_mine.csv').symlink_to(root / 'nowhere')
    assert told() == ''
    (tmp_path / 'above').mkdir()
    shutil.copytree(root, tmp_path / 'above' / 'rafdb', symlinks=True)
    assert told('above') == ''  # named one folder higher
    (tmp_path / 'jaffe').mkdir()
    (tmp_path / 'jaffe' / 'holiday.jpg').touch()
    assert 'RAF-DB (basic) is stored already, and is used; nothing of it is in' in told('jaffe')
    assert 'delete' not in caplog.text
    with pytest.raises(UserError, match='nothing of it is in'):
        published.prepare(rafdb, place(tmp_path, 'jaffe'), published.Faces(), on_change=_raise)
    assert not (tmp_path / 'data' / 'unpacked').exists() or not any((tmp_path / 'data' / 'unpacked').glob('*'))

    caplog.clear()
    published.prepare(rafdb, published.Place('', data), published.Faces())
    _without(builder, 'download')  # as older versions stored it
    picture.write_bytes(content)
    assert told() == caplog.text == ''


def test_a_set_of_clips_that_an_older_version_stored_is_told_of(tmp_path, caplog):
    mmi_tree.write(tmp_path / 'download', subjects=1, labels=['fear'], frames=4)
    builder = published.prepare(DATASETS['mmi'], place(tmp_path), STEP)
    _without(builder, 'download')
    published.prepare(DATASETS['mmi'], place(tmp_path), STEP)
    assert 'an older version stored it, which took frames of MPEG-1 clips one too early; delete' in caplog.text


def _raise(text):
    raise UserError(text)


def _without(builder, key):
    path = builder.data_path / 'metadata.json'
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))


def test_a_folder_that_is_prepared_anew_after_a_kill_is_not_called_changed(tmp_path, caplog):
    """Archives that were unpacked into the download, by a preparation that was killed, are gone at the end."""
    tree.write(tmp_path / 'download', subjects=1)
    inside = published.Place(str(tmp_path / 'download'), str(tmp_path / 'download'))
    tree.write(tmp_path / 'download' / 'unpacked' / 'ckplus' / 'left', subjects=1, draw=None)
    published.prepare(CKPLUS, inside, STEP)
    assert not (tmp_path / 'download' / 'unpacked' / 'ckplus').exists()
    published.prepare(CKPLUS, inside, STEP)
    assert not caplog.text


def test_what_is_stored_with_other_faces_is_named(tmp_path):
    rafdb_tree.write(tmp_path / 'download', per_class=1, editions=('aligned',))
    rafdb, bare = DATASETS['rafdb'], published.Place('', str(tmp_path / 'data'))
    published.prepare(rafdb, place(tmp_path), published.Faces('box'))
    assert published.all_stored(rafdb, bare) == [published.Faces('box')]
    with pytest.raises(UserError, match=r'with --faces=box, not with faces as needed: .*config\.data\.faces') as caught:
        published.prepare(rafdb, bare, published.Faces())
    assert '\n' not in str(caught.value)
    published.prepare(rafdb, place(tmp_path), published.Faces('none', 'drop'))
    assert published.all_stored(rafdb, bare) == [published.Faces('box'), published.Faces('none')]


def test_long_lists_are_cut(tmp_path):
    report = {'edition': 'x', 'expected': {}, 'stored': {'anger': 1}, 'missing': [f'm{k}' for k in range(25)]}
    lines = published.report_lines(CKPLUS, {**report, 'skipped': [], 'damaged': [], 'no_face': []})
    assert sum(line.strip().startswith('m') and line.strip()[1:].isdigit() for line in lines) == published.MAX_LISTED
    assert '... and 5 more' in lines[-1]


def test_a_report_is_complete_or_not():
    whole = {'expected': {'anger': 2}, 'stored': {'anger': 2}, 'missing': [], 'damaged': []}
    assert published.verdict(whole) == published.verdict({**whole, 'expected': {}}) == ''
    for key, value in (('stored', {'anger': 1}), ('missing', ['a.png']), ('damaged', ['a.png: empty'])):
        assert published.verdict({**whole, 'surplus': ['1 image'], key: value}) == 'not complete'
    for key, value in (('stored', {'anger': 3}), ('surplus', ['1 image'])):
        assert published.verdict({**whole, key: value}) == 'more than published'


def test_every_set_says_how_to_get_it():
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        for text in (dataset.title, dataset.access, dataset.layout):
            assert text
            assert '\n' not in text


def test_a_set_of_damaged_images_is_refused(tmp_path):
    tree.write(tmp_path / 'download', subjects=1, draw=None)
    with pytest.raises(UserError, match=r'no image can be used of 28; the first: S\d+/.*empty'):
        published.prepare(CKPLUS, place(tmp_path), STEP)
    assert not (tmp_path / 'data' / 'published_faces').exists()


def test_a_set_without_any_face_says_what_can_be_done(tmp_path):
    tree.write(tmp_path / 'download', subjects=1, last=4, landmarks=False)
    with pytest.raises(UserError) as caught:
        published.prepare(CKPLUS, place(tmp_path), published.Faces('align', 'drop'))
    assert 'no face was found in any of 28 images, the first: S005/001/S005_001_00000001.png;' in str(caught.value)
    for words in ('--no_face=keep', '--faces=none', '--config.data.no_face'):
        assert words in str(caught.value)
    assert '\n' not in str(caught.value)
    victim = sorted((tmp_path / 'download').rglob('*.png'))[0]
    victim.write_bytes(b'')
    with pytest.raises(UserError, match=r'of 28, 27 without a face were dropped; the first: .*the file is empty'):
        published.prepare(CKPLUS, place(tmp_path), published.Faces('align', 'drop'))


@pytest.mark.parametrize(
    ('editions', 'asked', 'cut', 'how'),
    [
        (('aligned',), '', 'none', ''),
        (('original',), '', 'align', 'points'),
        (('original',), 'none', 'none', ''),
    ],
)
def test_an_edition_is_cut_as_it_needs_unless_the_user_says_otherwise(tmp_path, editions, asked, cut, how):
    rafdb_tree.write(tmp_path / 'download', per_class=1, editions=editions)
    builder = published.prepare(DATASETS['rafdb'], place(tmp_path), published.Faces(asked))
    assert builder.info.metadata['faces'] == cut
    records = builder.as_data_source('examples', decoders={'image': tfds.decode.SkipDecoding()})
    assert {record['face'].decode() for record in records} == {how}
    data = sources.open_data(
        sources.Wanted('rafdb'),
        sources.Reading(str(tmp_path / 'data'), 32, 3, 1 << 30, {}, faces=asked),
        need_identities=False,
    )
    assert data.faces == cut


def test_what_is_no_part_of_a_set_is_told_and_not_warned_of(tmp_path, caplog):
    sfew_tree.write(tmp_path / 'download')
    builder = published.prepare(DATASETS['sfew'], place(tmp_path), published.Faces())
    report = {**builder.info.metadata, 'missing': []}
    assert report['skipped']
    published.warn(DATASETS['sfew'], report)
    assert not caplog.text
    published.warn(DATASETS['sfew'], {**report, 'damaged': ['a.png: broken']})
    assert 'a.png: broken' in caplog.text


@pytest.mark.parametrize(
    ('no_face', 'stored', 'told'), [('keep', 28, 'and kept the centre of 12'), ('drop', 16, 'and dropped 12')]
)
def test_what_became_of_images_without_a_face_is_told(tmp_path, no_face, stored, told, caplog):
    tree.write(tmp_path / 'download', subjects=1, last=4)
    for path in sorted((tmp_path / 'download').rglob('*_landmarks.txt'))[:12]:
        path.unlink()
    builder = published.prepare(CKPLUS, place(tmp_path), published.Faces('align', no_face))
    report = builder.info.metadata
    assert sum(report['stored'].values()) == stored
    text = '\n'.join(published.report_lines(CKPLUS, report))
    assert f'no face found in {told}:\n    S005/001/S005_001_00000001.png' in text
    published.warn(CKPLUS, {**report, 'missing': [], 'damaged': [], 'expected': {}})
    assert f'CK+:\n  no face found in {told}:' in caplog.text
    older = {key: value for key, value in report.items() if key != 'no_face_kept'}
    assert 'no face found in 12:' in '\n'.join(published.report_lines(CKPLUS, older))


def _prepare(folder, queue):
    builder = published.prepare(CKPLUS, published.Place(str(folder / 'download'), str(folder / 'data')), STEP)
    queue.put(sum(builder.info.metadata['stored'].values()))


def test_two_preparations_at_once_do_not_disturb_each_other(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    processes = [context.Process(target=_prepare, args=(tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=120) for _ in processes] == [28, 28]
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_what_a_killed_process_had_half_written_is_removed(tmp_path):
    tree.write(tmp_path / 'download', subjects=1)
    final = published._builder(CKPLUS, place(tmp_path), STEP).data_path
    half = final.parent / f'incomplete.ABCDEF_{final.name}'
    half.mkdir(parents=True)
    (half / 'shard-00000.unfinished').write_bytes(b'half')
    published.prepare(CKPLUS, place(tmp_path), STEP)
    assert [path.name for path in final.parent.iterdir()] == [final.name]


def test_what_another_process_stored_meanwhile_is_taken(tmp_path, monkeypatch):
    tree.write(tmp_path / 'download', subjects=1)
    alone = preparation.alone

    @contextlib.contextmanager
    def after_another(workshop, title):
        monkeypatch.undo()
        others.append(published.prepare(CKPLUS, place(tmp_path), STEP).data_path)
        monkeypatch.setattr(archives, 'unpack', lambda *_: pytest.fail('begun a second time'))
        with alone(workshop, title):
            yield

    others = []
    monkeypatch.setattr(preparation, 'alone', after_another)
    assert [published.prepare(CKPLUS, place(tmp_path), STEP).data_path] == others


@pytest.mark.parametrize('source', ['synthetic', 'csv'])
def test_keys_of_published_sets_are_refused_for_others(source, tmp_path):
    reading = sources.Reading(str(tmp_path), 32, 1, 1 << 30, {})
    for wanted, key in (
        (sources.Wanted(source, 'e.csv', extra='fer2013'), 'extra'),
        (sources.Wanted(source, 'e.csv', choice=Choice(classes=3)), 'classes'),
        (sources.Wanted(source, 'e.csv', choice=Choice(subjects='chosen')), 'fold_subjects'),
    ):
        with pytest.raises(UserError, match=f'config.data.{key} is for published sets'):
            sources.open_data(wanted, reading, need_identities=False)


def test_more_images_than_published_are_warned_of(caplog):
    more = 'train: 958 images, 67 more than 891'
    report = {'edition': 'x', 'expected': {}, 'stored': {'anger': 1}, 'missing': [], 'surplus': [more]}
    published.warn(DATASETS['sfew'], {**report, 'skipped': [], 'damaged': [], 'no_face': []})
    assert f'more than published 1:\n    {more}' in caplog.text
