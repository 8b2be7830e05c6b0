"""The TFDS builder over a user's table: what is stored, and under which name."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from fn2en_jax.data import images, store, tables
from fn2en_jax.data.alignment import FaceStep
from fn2en_jax.data.builders import schema, table_faces
from fn2en_jax.errors import UserError

TEXT = 'file,expression,subject,split\nb.jpg,joy,ann,train\na.png,anger,bob,test\n'


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / 'faces'
    folder.mkdir()
    noise = np.random.RandomState(0).randint(0, 256, (2, 16, 16)).astype(np.uint8)
    Image.fromarray(noise[0]).save(folder / 'b.jpg')
    Image.fromarray(noise[1]).save(folder / 'a.png')
    (folder / 'My Faces.csv').write_text(TEXT)
    return folder


def read(faces):
    return tables.read_expressions(faces / 'My Faces.csv')


def name(faces) -> str:
    return table_faces.table_config(read(faces)).name


def prepare(faces):
    make_builder = functools.partial(table_faces.TableFaces, config=table_faces.table_config(read(faces)))
    return store.prepare(make_builder, faces.parent / 'stored')


def records(builder) -> list[dict]:
    return list(builder.as_data_source(schema.SPLIT, decoders={'image': tfds.decode.SkipDecoding()}))


def test_records_hold_the_files_as_they_are_in_the_order_of_the_table(faces):
    first, second = records(prepare(faces))
    assert first['image'] == (faces / 'b.jpg').read_bytes()
    assert second['image'] == (faces / 'a.png').read_bytes()
    fields = ('file', 'label', 'subject', 'split', 'fold')
    assert [first[field] for field in fields] == [b'b.jpg', b'joy', b'ann', b'train', -1]
    assert [second[field] for field in fields] == [b'a.png', b'anger', b'bob', b'test', -1]


def test_unknown_columns_are_stored_as_unknown(faces):
    (faces / 'My Faces.csv').write_text('file,expression,fold\nb.jpg,joy,4\na.png,anger,5\n')
    first, second = records(prepare(faces))
    assert (first['subject'], first['split'], first['fold'], second['fold']) == (b'', b'', 4, 5)


def test_other_formats_are_stored_as_png(faces):
    Image.open(faces / 'a.png').save(faces / 'a.bmp')
    (faces / 'My Faces.csv').write_text(TEXT.replace('a.png', 'a.bmp'))
    stored = records(prepare(faces))[1]
    assert stored['image'].startswith(b'\x89PNG')
    assert stored['file'] == b'a.bmp'
    np.testing.assert_array_equal(images.decode(stored['image'], 1), images.decode((faces / 'a.png').read_bytes(), 1))


def test_the_name_is_readable_and_stable(faces):
    before = name(faces)
    assert before.startswith('my_faces-')
    os.utime(faces / 'a.png', (1, 1))  # touched, not changed
    (faces / 'My Faces.csv').write_text(TEXT.replace(',', ' , ') + '\n')  # laid out otherwise, saying the same
    assert name(faces) == before


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('joy', 'fear'),
        ('ann', 'eve'),
        ('ann,train', 'ann,test'),
        ('b.jpg,joy,ann,train\na.png,anger,bob,test', 'a.png,anger,bob,test\nb.jpg,joy,ann,train'),
    ],
)
def test_another_word_gives_another_name(faces, old, new):
    before = name(faces)
    text = TEXT.replace(old, new)
    assert text != TEXT
    (faces / 'My Faces.csv').write_text(text)
    table = tables.read_expressions(faces / 'My Faces.csv', complete=False)
    assert table_faces.table_config(table).name != before


def test_a_changed_image_is_never_served_stale(faces):
    old = prepare(faces)
    times = os.stat(faces / 'a.png')
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(faces / 'a.png')
    data = (faces / 'a.png').read_bytes()
    (faces / 'a.png').write_bytes(data)
    os.utime(faces / 'a.png', ns=(times.st_atime_ns, times.st_mtime_ns))
    new = prepare(faces)
    assert new.data_dir != old.data_dir
    assert records(new)[1]['image'] == data


def test_large_sets_go_by_size_and_time(faces, monkeypatch):
    monkeypatch.setattr(table_faces, 'HASHED_BYTES', 100)
    before = name(faces)
    assert name(faces) == before
    os.utime(faces / 'a.png', (1, 1))
    assert name(faces) != before


def test_bad_images_are_listed_before_anything_is_written(faces):
    (faces / 'a.png').write_bytes(b'')
    (faces / 'b.jpg').write_text('words')
    with pytest.raises(UserError) as caught:
        prepare(faces)
    assert [line[:16] for line in str(caught.value).splitlines()[1:]] == [
        "  line 2: 'b.jpg",
        "  line 3: 'a.png",
    ]
    assert list((faces.parent / 'stored').iterdir()) == []


def test_an_image_that_vanishes(faces):
    table = read(faces)
    (faces / 'a.png').unlink()
    with pytest.raises(UserError, match=r'a\.png: cannot be read \(No such file'):
        table_faces.table_config(table)


def test_tensorflow_is_never_imported(faces):
    """In a process of its own, where nothing else could have imported it, and with warnings as errors."""
    program = (
        'import functools, sys; from fn2en_jax.data import store, tables; '
        'from fn2en_jax.data.builders import table_faces as t; '
        f'config = t.table_config(tables.read_expressions({str(faces / "My Faces.csv")!r})); '
        'make = functools.partial(t.TableFaces, config=config); '
        f'b = store.prepare(make, {str(faces.parent / "stored")!r}); '
        'print(store.load(b, size=8, channels=1).images.shape, "tensorflow" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-W', 'error', '-c', program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '(2, 8, 8, 1) False\n'
    assert done.stderr == ''


@pytest.mark.parametrize('cut', [False, True], ids=['as it is', 'faces'])
@pytest.mark.parametrize('now', [None, b'not an image'], ids=['gone', 'spoilt'])
def test_an_image_that_changes_after_it_was_looked_at_is_named(faces, monkeypatch, cut, now):
    verify, victim = tables.verify, faces / 'a.png'

    def and_then(table):
        verify(table)
        victim.write_bytes(now) if now else victim.unlink()

    monkeypatch.setattr(tables, 'verify', and_then)
    table, stored = read(faces), faces.parent / 'stored'
    config = table_faces.table_config(table)
    if cut:
        config = table_faces.with_faces(config, table, FaceStep('align', 48), faces.parent / 'workshop', None)
    with pytest.raises(UserError, match=rf'^{victim}: '):
        store.prepare(functools.partial(table_faces.TableFaces, config=config), stored)
    assert not list(stored.rglob('*array_record*'))
