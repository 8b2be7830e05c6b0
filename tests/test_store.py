"""Writing a set once and reading it back, and what happens when disk or data are bad."""

import dataclasses
import functools
import hashlib
import os
import resource
from pathlib import Path

import msgpack
import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.core import file_adapters

from fn2en_jax.data import images, store, tables
from fn2en_jax.data.builders import table_faces
from fn2en_jax.data.examples import Images
from fn2en_jax.errors import UserError

NUM = 70  # more than one thread's chunk
SUBJECTS = ('ann', 'bob', 'cem', 'dan', 'eve')


def picture(k: int) -> np.ndarray:
    """Image k of the set, grey [16, 16]: a square of its own brightness in a corner of its own."""
    image = np.full((16, 16), 3 * k, np.uint8)
    image[8 * (k % 2) : 8 * (k % 2) + 8, :8] = 255 - k
    return image


@pytest.fixture(scope='module')
def table(tmp_path_factory) -> tables.Table:
    """File names count downwards, so that the order of the table is not that of the names."""
    folder = tmp_path_factory.mktemp('faces')
    lines = ['file,expression,subject,fold']
    for k in range(NUM):
        Image.fromarray(picture(k)).save(folder / f'{99 - k}.png')
        subject = SUBJECTS[k % 5]
        lines.append(f'{99 - k}.png,{("joy", "anger", "fear")[k % 3]},{subject},{k % 5 % 2}')
    (folder / 'faces.csv').write_text('\n'.join(lines))
    return tables.read_expressions(folder / 'faces.csv')


def maker(table: tables.Table):
    return functools.partial(table_faces.TableFaces, config=table_faces.table_config(table))


@pytest.fixture(scope='module')
def builder(table, tmp_path_factory):
    return store.prepare(maker(table), tmp_path_factory.mktemp('stored'))


@pytest.fixture
def own_builder(table, tmp_path):
    """A stored set that a test may damage."""
    return store.prepare(maker(table), tmp_path / 'stored')


def root_of(builder) -> Path:
    return Path(builder.data_dir_root)


def record_file(builder):
    (path,) = Path(builder.data_dir).glob('*.array_record*')
    return path


def test_everything_comes_back_in_the_order_of_the_names(builder):
    examples = store.load(builder, size=16, channels=1)
    assert examples.files == tuple(f'{99 - k}.png' for k in reversed(range(NUM)))
    np.testing.assert_array_equal(examples.images[..., 0], [picture(k) for k in reversed(range(NUM))])
    assert examples.class_names == ('anger', 'fear', 'joy')
    assert examples.labels.dtype == np.int32
    assert examples.labels.tolist() == [(2, 0, 1)[k % 3] for k in reversed(range(NUM))]
    assert examples.subjects == tuple(SUBJECTS[k % 5] for k in reversed(range(NUM)))
    assert examples.folds.tolist() == [k % 5 % 2 for k in reversed(range(NUM))]
    assert examples.splits is None


def test_images_are_not_compressed_a_second_time(builder):
    reader = array_record_module.ArrayRecordReader(str(record_file(builder)))
    assert 'uncompressed' in reader.writer_options_string()
    reader.close()


def adapter():
    return file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]


def test_sets_of_others_are_written_as_ever(own_builder):
    assert adapter() is file_adapters.ArrayRecordFileAdapter


def test_of_several_writers_the_last_one_puts_the_adapter_back():
    first, second = store._uncompressed(), store._uncompressed()
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    assert adapter() is store._Uncompressed
    second.__exit__(None, None, None)
    assert adapter() is file_adapters.ArrayRecordFileAdapter


def test_size_and_channels(builder):
    examples = store.load(builder, size=8, channels=3)
    expected = [images.fit(np.repeat(picture(k)[..., None], 3, -1), 8) for k in reversed(range(NUM))]
    np.testing.assert_array_equal(examples.images, expected)


def test_a_set_above_the_limit_stays_on_disk_and_looks_the_same(builder):
    within = store.load(builder, size=8, channels=1, in_memory_bytes=NUM * 64)
    above = store.load(builder, size=8, channels=1, in_memory_bytes=NUM * 64 - 1)
    assert within.in_memory
    assert not above.in_memory
    assert isinstance(above.images, Images)
    assert above.images.shape == within.images.shape
    ids = np.random.RandomState(0).randint(0, NUM, 150)  # three chunks, with repetitions
    np.testing.assert_array_equal(above.images.gather(ids), within.images[ids])
    np.testing.assert_array_equal(above.take(ids[:9]).take([4, 2]).gather([1]), within.images[ids[[2]]])
    assert above.gather(np.arange(0)).shape == (0, 8, 8, 1)
    assert dataclasses.replace(above, images=within.images).files == within.files


def with_column(kept: bytes, name: str, value) -> bytes:
    """The file of columns with another one of them, as if it had been written like that."""
    found = msgpack.unpackb(kept)
    packed = msgpack.packb({**msgpack.unpackb(found['columns']), name: value})
    return msgpack.packb({**found, 'digest': hashlib.sha256(packed).digest(), 'columns': packed})


def test_columns_of_a_set_on_disk_are_read_once(own_builder, monkeypatch):
    first = store.load(own_builder, size=8, channels=1, in_memory_bytes=0)
    kept = Path(own_builder.data_dir) / store.COLUMNS_FILE
    good = kept.read_bytes()
    calls = []
    columns = store._Source.columns
    monkeypatch.setattr(store._Source, 'columns', lambda self: calls.append(self) or columns(self))

    def same() -> bool:
        again = store.load(own_builder, size=8, channels=1, in_memory_bytes=0)
        np.testing.assert_array_equal(again.labels, first.labels)
        np.testing.assert_array_equal(again.images.gather(np.arange(NUM)), first.images.gather(np.arange(NUM)))
        return (again.files, again.subjects, again.class_names) == (first.files, first.subjects, first.class_names)

    assert same()
    assert not calls
    labels = columns(store._Source(own_builder))['label']
    damaged = [b'', b'no', good[:-9], msgpack.packb([]), msgpack.packb({'state': 1})]
    damaged += [with_column(good, 'label', value) for value in (labels[:-1], 5, [5] * NUM, [*labels[:-1], 5], None)]
    damaged += [with_column(good, 'fold', labels), good.replace(b'joy', b'fun', 1)]
    for number, data in enumerate(damaged, 1):
        kept.write_bytes(data)
        assert same()
        assert len(calls) == number
        assert kept.read_bytes() == good
    os.utime(record_file(own_builder), (1, 1))  # other shards
    assert same()
    assert len(calls) == len(damaged) + 1
    store.load(own_builder, size=8, channels=1)  # in memory: everything is read anyway
    assert len(calls) == len(damaged) + 2


@pytest.mark.parametrize('limit', [0, 500], ids=['no room', 'too little'])
def test_columns_that_cannot_be_kept_are_read_all_the_same(own_builder, limit):
    before = {path.name for path in Path(own_builder.data_dir).iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # as on a full disk
    try:
        examples = store.load(own_builder, size=8, channels=1, in_memory_bytes=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(examples) == NUM
    assert {path.name for path in Path(own_builder.data_dir).iterdir()} == before


def test_a_folder_in_the_place_of_the_columns(own_builder):
    (Path(own_builder.data_dir) / store.COLUMNS_FILE).mkdir()
    assert len(store.load(own_builder, size=8, channels=1, in_memory_bytes=0)) == NUM
    assert not list(Path(own_builder.data_dir).glob('*.tmp'))


def test_columns_and_a_folder_of_somebody_else(own_builder, monkeypatch):
    """What the system says to others than root, who may do everything."""
    kept = Path(own_builder.data_dir) / store.COLUMNS_FILE
    kept.write_bytes(b'')

    def refuse(path, *_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'read_bytes', refuse)
    monkeypatch.setattr(Path, 'write_bytes', refuse)
    assert len(store.load(own_builder, size=8, channels=1, in_memory_bytes=0)) == NUM
    assert kept.stat().st_size == 0


def test_labels_from_subjects(builder):
    examples = store.load(builder, size=8, channels=1, labels='subject')
    assert examples.class_names == SUBJECTS
    assert [examples.class_names[k] for k in examples.labels] == list(examples.subjects)


def test_given_class_names_fix_the_numbers(builder):
    names = ('joy', 'neutral', 'fear', 'anger')
    examples = store.load(builder, size=8, channels=1, class_names=names)
    assert examples.class_names == names
    assert examples.labels[-1] == 0  # image 0, joy


def test_a_label_outside_the_given_names(builder):
    with pytest.raises(UserError, match=r"30\.png: unknown class 'joy'; the classes are anger, fear"):
        store.load(builder, size=8, channels=1, class_names=('anger', 'fear'))


def test_what_is_stored_is_not_written_again(builder, table):
    before = record_file(builder).stat().st_mtime_ns
    again = store.prepare(maker(table), root_of(builder))
    assert again.data_dir == builder.data_dir
    assert record_file(again).stat().st_mtime_ns == before


def test_nothing_but_the_set_is_left_behind(own_builder, capfd):
    root = root_of(own_builder)
    assert {path.name for path in root.iterdir()} == {'table_faces'}
    assert not list(root.rglob('*incomplete*'))
    assert capfd.readouterr().out == ''


# ------------------------------------------------------------------- bad disks


@pytest.mark.parametrize('folder', ['file/stored', 'file'])
def test_a_folder_that_cannot_be_made(table, tmp_path, folder):
    (tmp_path / 'file').write_text('')
    with pytest.raises(
        UserError, match=rf'^{tmp_path}/{folder}: cannot store data here \((Not a directory|File exists)\)$'
    ):
        store.prepare(maker(table), tmp_path / folder)


def test_a_read_only_folder(table):
    with pytest.raises(UserError, match=r'^/proc/stored: cannot store data here \('):
        store.prepare(maker(table), '/proc/stored')


def test_a_full_disk_leaves_nothing(table, tmp_path):
    """The system refuses to let any file grow: what ArrayRecord sees is the same as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    make_builder = maker(table)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(UserError) as caught:
            store.prepare(make_builder, tmp_path / 'stored')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f'{tmp_path}/stored: cannot store data here (File too large)'
    assert list((tmp_path / 'stored').iterdir()) == []


def test_a_failure_does_not_touch_other_sets(own_builder, table, monkeypatch):
    def full_disk(data):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(images, 'storable', full_disk)
    other = dataclasses.replace(table, labels=table.labels[::-1])
    with pytest.raises(UserError, match=r'\(No space left on device\)$'):
        store.prepare(maker(other), root_of(own_builder))
    assert len(store.load(own_builder, size=8, channels=1)) == NUM
    assert not list(root_of(own_builder).rglob('*incomplete*'))


def test_other_errors_are_not_blamed_on_the_disk(table, tmp_path, monkeypatch):
    def defect(data):
        raise RuntimeError('a defect of ours')

    monkeypatch.setattr(images, 'storable', defect)
    with pytest.raises(RuntimeError, match='a defect of ours'):
        store.prepare(maker(table), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_prepare_the_same_set(table, tmp_path, monkeypatch):
    """The other one finishes while this one is at its first image."""
    others = []

    def storable(data):
        if not others:
            others.append(None)
            others[0] = store.prepare(maker(table), tmp_path)
        return data

    monkeypatch.setattr(images, 'storable', storable)
    builder = store.prepare(maker(table), tmp_path)
    assert builder.data_dir == others[0].data_dir
    assert len(store.load(builder, size=8, channels=1)) == NUM
    assert not list(tmp_path.rglob('*incomplete*'))


# ------------------------------------------------------------------- damaged sets


@pytest.mark.parametrize(
    'damage',
    [
        lambda data: b'',
        lambda data: data[: len(data) // 4],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-100],
        lambda data: data[:100] + b'\xff' * 200 + data[300:],
    ],
    ids=['empty', 'quarter', 'half', 'cut', 'overwritten'],
)
def test_damaged_records(own_builder, damage):
    path = record_file(own_builder)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        store.load(own_builder, size=8, channels=1)
    message = str(caught.value)
    assert message.startswith(f'the stored set in {own_builder.data_dir} is damaged: ')
    assert message.endswith('delete that folder, it will be made again')


def test_records_that_vanish_after_opening(own_builder):
    record_file(own_builder).unlink()
    with pytest.raises(UserError, match='No such file'):
        store.load(own_builder, size=8, channels=1)


def test_pixels_never_come_under_another_name(builder, table):
    order = np.arange(NUM)
    stored = store.StoredImages(store._Source(builder), order, (table.files[1], table.files[0], *table.files[2:]), 8, 1)
    np.testing.assert_array_equal(stored.gather([2])[0], images.fit(picture(2)[..., None], 8))
    with pytest.raises(UserError, match=r'99\.png stands where 98\.png was'):
        stored.gather([0])


@pytest.mark.parametrize('text', ['{"name', ''])
def test_damaged_description(own_builder, table, text):
    path = Path(own_builder.data_dir) / 'dataset_info.json'
    path.unlink()
    path.write_text(text)
    with pytest.raises(UserError, match='description of a stored set is damaged'):
        store.prepare(maker(table), root_of(own_builder))


def test_lost_description(own_builder, table):
    (Path(own_builder.data_dir) / 'dataset_info.json').unlink()
    with pytest.raises(UserError, match='is damaged: it lacks its description'):
        store.prepare(maker(table), root_of(own_builder))


def test_a_damaged_image_is_named(table, tmp_path, monkeypatch):
    sound = images.storable
    spoilt = table.paths[60].read_bytes()
    monkeypatch.setattr(images, 'storable', lambda data: data[:-30] if data == spoilt else sound(data))
    builder = store.prepare(maker(table), tmp_path)
    with pytest.raises(UserError, match=r'39\.png: the image is truncated'):
        store.load(builder, size=8, channels=1)
    lazy = store.load(builder, size=8, channels=1, in_memory_bytes=0)
    bad = lazy.files.index('39.png')
    assert lazy.gather([bad - 1, bad + 1]).shape == (2, 8, 8, 1)  # its neighbours are fine
    with pytest.raises(UserError, match=r'39\.png: the image is truncated'):
        lazy.gather([bad])
