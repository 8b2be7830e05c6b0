"""Preparing records: every kind of image, in parallel as alone, and nothing twice after a kill."""

import dataclasses
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fn2en_jax.data import images, preparation
from fn2en_jax.data.alignment import FaceStep
from fn2en_jax.data.records import Record
from fn2en_jax.errors import UserError

ROOT = Path(__file__).parents[1]
AS_IT_IS = FaceStep('none')
POINTS = ((20.0, 24.0), (40.0, 24.0), (30.0, 36.0), (23.0, 46.0), (37.0, 46.0))


def picture(seed: int, size=(64, 60)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def records(tmp_path):
    """150 records in three chunks: files, arrays, and two that cannot be read."""
    found = []
    for k in range(150):
        image = tmp_path / f'{k}.png'
        if k % 3:
            image.write_bytes(images.encode_png(picture(k)))
        elif k == 33:
            image.write_bytes(b'not an image')
        else:
            image = picture(k)[..., 0]
        found.append(Record(image, f'{k}.png', 'anger', points=POINTS))
    found[40] = dataclasses.replace(found[40], image=tmp_path / 'gone.png')
    found[33] = dataclasses.replace(found[33], image=tmp_path / '33.png')
    (tmp_path / '33.png').write_bytes(b'not an image')
    return found


def prepared(records, step, workshop, processes=1):
    return [face for _, face in preparation.prepare(records, step, workshop, processes=processes)]


def test_files_stay_as_they_are_and_arrays_become_png(records, tmp_path):
    faces = prepared(records, AS_IT_IS, tmp_path / 'workshop')
    assert faces[1].encoded == (tmp_path / '1.png').read_bytes()
    np.testing.assert_array_equal(images.decode(faces[3].encoded, 1)[..., 0], picture(3)[..., 0])
    assert [k for k, face in enumerate(faces) if face.fault] == [33, 40]
    assert 'no readable image' in faces[33].fault
    assert 'No such file' in faces[40].fault
    assert not any(face.no_face for face in faces)


def test_landmarks_of_a_record_place_its_face(records, tmp_path):
    face = prepared(records[:3], FaceStep('align', 128), tmp_path / 'workshop')[1]
    assert face.face == 'points'
    assert images.decode(face.encoded, 3).shape == (128, 128, 3)
    np.testing.assert_allclose(face.eyes, np.ravel(POINTS[:2]))


def test_the_number_of_processes_changes_nothing(records, tmp_path):
    alone = prepared(records, FaceStep('align', 48), tmp_path / 'one', 1)
    assert prepared(records, FaceStep('align', 48), tmp_path / 'two', 2) == alone


def test_finished_chunks_are_not_made_again(records, tmp_path, monkeypatch):
    first = prepared(records, AS_IT_IS, tmp_path / 'workshop')
    made = []
    one = preparation.prepare_one
    monkeypatch.setattr(preparation, 'prepare_one', lambda *args: made.append(args) or one(*args))
    assert prepared(records, AS_IT_IS, tmp_path / 'workshop') == first
    assert not made
    os.utime(tmp_path / '70.png', (1, 1))  # a file that changed: its chunk, the second of 64, is made again
    assert prepared(records, AS_IT_IS, tmp_path / 'workshop') == first
    assert len(made) == preparation.CHUNK
    prepared(records, FaceStep('align', 48), tmp_path / 'workshop')
    assert len(made) == preparation.CHUNK + 150


def test_bytes_that_are_stored_unchanged_do_not_lie_in_the_workshop(records, tmp_path):
    files = [record for k, record in enumerate(records) if k % 3 and k != 40]
    faces = prepared(files, AS_IT_IS, tmp_path / 'workshop')
    assert [face.encoded for face in faces] == [record.image.read_bytes() for record in files]
    kept = sum(path.stat().st_size for path in (tmp_path / 'workshop').iterdir())
    assert kept < 0.05 * sum(len(face.encoded) for face in faces)


def test_files_that_change_before_they_are_stored_are_looked_at_again(records, tmp_path):
    files = [record for k, record in enumerate(records) if k % 3 and k != 40]
    faces = preparation.prepare(files, AS_IT_IS, tmp_path / 'workshop', processes=1)
    next(faces)  # the chunk of the first 64 is finished
    files[1].image.unlink()
    files[2].image.write_bytes(b'not an image')
    files[3].image.write_bytes(files[0].image.read_bytes())
    files[4].image.write_bytes(bytes(files[4].image.stat().st_size))
    found = [face for _, face in faces]
    assert 'No such file' in found[0].fault
    assert 'no readable image' in found[1].fault
    assert found[2].encoded == files[0].image.read_bytes()
    assert [k for k, face in enumerate(found) if face.fault or not face.encoded] == [0, 1, 3]


def test_a_workshop_is_used_by_one_at_a_time(tmp_path, caplog):
    order = []

    def second() -> None:
        with preparation.alone(tmp_path / 'unfinished' / 'workshop', 'JAFFE'):
            order.append('second')

    with preparation.alone(tmp_path / 'unfinished' / 'workshop', 'JAFFE'):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert [record.getMessage() for record in caplog.records] == ['another process prepares JAFFE; waiting for it']
        order.append('first')
    thread.join()
    assert order == ['first', 'second']


def _slowly(records, workshop):
    one = preparation.prepare_one
    preparation.prepare_one = lambda *args: time.sleep(0.02) or one(*args)
    list(preparation.prepare(records, AS_IT_IS, workshop, processes=1))


def test_a_killed_preparation_goes_on(records, tmp_path):
    workshop = tmp_path / 'workshop'
    process = multiprocessing.get_context('spawn').Process(target=_slowly, args=(records, workshop))
    process.start()
    while not list(workshop.glob('*.msgpack')):
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = {path: path.stat().st_mtime_ns for path in workshop.glob('*.msgpack')}
    assert 1 <= len(done) <= 2
    again = prepared(records, AS_IT_IS, workshop)
    assert again == prepared(records, AS_IT_IS, tmp_path / 'other')
    assert {path: path.stat().st_mtime_ns for path in done} == done


def many(tmp_path, count=10 * preparation.CHUNK) -> list[Record]:
    """Records whose preparation takes some time."""
    (tmp_path / 'large.png').write_bytes(images.encode_png(picture(0, (600, 600))))
    return [Record(tmp_path / 'large.png', f'{k}.png', 'anger') for k in range(count)]


def test_only_the_cores_that_may_be_used_get_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {1}, raising=False)
    monkeypatch.setattr(preparation, 'PARALLEL_FROM', 1)
    before = set(multiprocessing.active_children())
    faces = preparation.prepare(many(tmp_path, 2), AS_IT_IS, tmp_path / 'workshop')
    next(faces)
    assert set(multiprocessing.active_children()) <= before
    faces.close()


def test_what_every_process_imports_is_light():
    """A process is started with this module and that of the command; JAX and TFDS would take it seconds."""
    code = 'import sys, launch, fn2en_jax.datasets, fn2en_jax.data.preparation; print(*sys.modules)'
    found = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {'jax', 'flax', 'tensorflow_datasets', 'scipy', 'matplotlib'} & set(found.stdout.split())


def give_up(number, frame):
    raise TimeoutError


def test_the_death_of_a_process_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, 'CHUNK', 8)
    before = set(multiprocessing.active_children())
    faces = preparation.prepare(many(tmp_path, 400), AS_IT_IS, tmp_path / 'workshop', processes=2)
    next(faces)
    victim = (set(multiprocessing.active_children()) - before).pop()
    os.kill(victim.pid, signal.SIGKILL)
    usual = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    try:
        with pytest.raises(UserError, match=r'was killed \(out of memory\?\), at \d+\.png or after it; finished work'):
            list(faces)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)
    assert set(multiprocessing.active_children()) <= before
    assert len(prepared(many(tmp_path, 400), AS_IT_IS, tmp_path / 'workshop')) == 400


def test_processes_end_with_what_they_work_for(tmp_path):
    before = set(multiprocessing.active_children())
    faces = preparation.prepare(many(tmp_path), AS_IT_IS, tmp_path / 'workshop', processes=2)
    next(faces)
    assert len(set(multiprocessing.active_children()) - before) == 2
    faces.close()
    assert set(multiprocessing.active_children()) <= before
    assert len(list((tmp_path / 'workshop').glob('*.msgpack'))) < 10  # what was begun was not waited for


IN_TWO = """
import sys
from pathlib import Path
from fn2en_jax.data import alignment, preparation
from fn2en_jax.data.records import Record

folder = Path(sys.argv[1])
records = [Record(folder / 'large.png', f'{k}.png', 'anger') for k in range(4000)]
for _ in preparation.prepare(records, alignment.FaceStep('none'), folder / 'workshop', processes=2):
    pass
"""


def test_the_processes_of_a_killed_one_end_without_a_word(tmp_path):
    many(tmp_path)
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, '-c', IN_TWO, tmp_path], cwd=ROOT, stderr=pipe, text=True)
    while not list((tmp_path / 'workshop').glob('*.msgpack')):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    killed = time.monotonic()
    errors = process.communicate(timeout=60)[1]  # to the end of the last one that could write
    assert time.monotonic() - killed < 5
    assert 'Traceback' not in errors


def test_turned_photographs_are_stored_upright(tmp_path):
    image = Image.fromarray(picture(0))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, 'PNG', exif=exif)
    (tmp_path / 'turned.png').write_bytes(stream.getvalue())
    record = Record(tmp_path / 'turned.png', 'turned.png', 'anger')
    (face,) = prepared([record], AS_IT_IS, tmp_path / 'workshop')
    assert not Image.open(io.BytesIO(face.encoded)).getexif()
    np.testing.assert_array_equal(images.decode(face.encoded, 3), np.rot90(picture(0), -1))
