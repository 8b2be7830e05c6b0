"""`python -m fn2en_jax.datasets --prepare` killed and stopped as a user does it, and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
import tensorflow_datasets as tfds

from fn2en_jax.data import preparation, published
from fn2en_jax.data.datasets import DATASETS
from tests.trees import ckplus as tree
from tests.trees.sequences import noise

ROOT = Path(__file__).parents[1]
PATIENCE = 300  # seconds


def draw(subject: str, label: str, frame: int) -> np.ndarray:
    """Noise; from the second person on larger, so that the search for faces takes long enough to be stopped in."""
    times = 2 if subject >= tree.SUBJECTS[1] else 1
    return noise(subject, label, frame).repeat(times, 0).repeat(times, 1)


def start(download: Path, data: Path) -> subprocess.Popen:
    """In a process group of its own, to which Ctrl-C can be sent as a terminal does: to all processes."""
    return begin('-m', 'fn2en_jax.datasets', '--prepare=ckplus', f'--manual_dir={download}', f'--data_dir={data}')


def begin(*words: str) -> subprocess.Popen:
    command, pipe = [sys.executable, *words], subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def chunks(data: Path) -> set[Path]:
    """The finished chunks."""
    return set(data.glob('unfinished/*/*.msgpack'))


def mark(chunk: Path) -> bytes:
    """Writes into a finished chunk what no preparation would make, and returns its first picture."""
    fields = msgpack.unpackb(chunk.read_bytes())
    fields[0]['face'] = 'marked'
    chunk.write_bytes(msgpack.packb(fields))
    return fields[0]['encoded']


def stop_after_a_chunk(process: subprocess.Popen, data: Path, number: int, *, everyone: bool = False) -> int:
    """Sends a signal once there is one more chunk than at first; returns the exit code."""
    before = chunks(data)
    end = time.monotonic() + PATIENCE
    while chunks(data) <= before and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    assert process.poll() is None, 'it ended before it could be stopped'
    os.killpg(process.pid, number) if everyone else process.send_signal(number)
    return process.wait(PATIENCE)


def records(data: Path) -> list[dict]:
    """All that is stored, images as the bytes that they are."""
    builder = published.prepare(DATASETS['ckplus'], published.Place('', str(data)), published.Faces())
    return list(builder.as_data_source('examples', decoders={'image': tfds.decode.SkipDecoding()}))


def assert_gone_on_with(data: Path, download: Path, marked: set[bytes]) -> None:
    """No finished chunk was made again, nothing is left behind, and the records are those of one undisturbed go."""
    assert [path.name for path in (data / 'published_faces/ckplus-as_needed-256-keep-v1').iterdir()] == ['1.1.0']
    assert not [path for path in (data / 'unfinished').iterdir() if path.is_dir()]
    straight = data.with_name('straight')
    published.prepare(DATASETS['ckplus'], published.Place(str(download), str(straight)), published.Faces(), processes=1)
    seen = 0
    for one, other in zip(records(data), records(straight), strict=True):
        seen += one['face'] == b'marked' and one['image'] in marked
        one.pop('face'), other.pop('face')
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    assert seen == len(marked)


def test_after_ctrl_c_it_goes_on(tmp_path):
    """84 images, so one process, which is stopped in the second of three chunks."""
    download, data = tmp_path / 'download', tmp_path / 'data'
    tree.write(download, subjects=3, last=4, landmarks=False, draw=draw)
    process = start(download, data)
    assert stop_after_a_chunk(process, data, signal.SIGINT, everyone=True) == 143
    told = process.communicate()[1].splitlines()
    assert told[-1] == 'stopped: CK+ is prepared in part; run the same command to go on'
    assert all(line.startswith('preparing images') for line in told[:-1])
    (chunk,) = chunks(data)
    marked = {mark(chunk)}
    process = start(download, data)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert 'prepared in' in output
    assert_gone_on_with(data, download, marked)


def test_a_run_that_prepares_stops_in_the_same_way(tmp_path):
    download, data = tmp_path / 'download', tmp_path / 'data'
    tree.write(download, subjects=3, last=4, landmarks=False, draw=draw)
    flags = ['--config=configs/ckplus.py:scratch', f'--workdir={tmp_path / "run"}']
    places = [f'--config.data.manual_dir={download}', f'--config.data.data_dir={data}']
    process = begin('launch.py', *flags, *places)
    assert stop_after_a_chunk(process, data, signal.SIGINT, everyone=True) == 143
    told = process.communicate()[1].splitlines()
    assert told[-1] == 'stopped: CK+ is prepared in part; run the same command to go on'
    assert 'Traceback' not in told


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_who_waits_for_another_process_has_prepared_nothing(tmp_path, number):
    download, data = tmp_path / 'download', tmp_path / 'data'
    tree.write(download, subjects=1)
    with preparation.alone(data / 'unfinished/ckplus-as_needed-256-keep-v1', ''):
        process = start(download, data)
        assert process.stderr.readline().endswith('another process prepares CK+; waiting for it\n')
        process.send_signal(number)
        errors = process.communicate(timeout=PATIENCE)[1]
    says = 'stopped: another process prepares CK+, and this one was waiting for it; run the same command to go on\n'
    assert (process.returncode, errors) == (143, says)


@pytest.mark.slow
def test_killed_interrupted_and_terminated_with_several_processes(tmp_path):
    download, data = tmp_path / 'download', tmp_path / 'data'
    tree.write(download, subjects=12, last=4, landmarks=False, draw=draw)  # 336 images in eleven chunks
    marked = set()
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 143), (signal.SIGTERM, 143)):
        before = chunks(data)
        process = start(download, data)
        assert stop_after_a_chunk(process, data, number, everyone=number == signal.SIGINT) == code
        told = process.communicate()[1].splitlines()
        if code > 0:
            assert told[-1] == 'stopped: CK+ is prepared in part; run the same command to go on'
            assert all(line.startswith('preparing images') for line in told[:-1])
        marked |= {mark(chunk) for chunk in chunks(data) - before}
    process = start(download, data)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert len(marked) >= 3
    assert_gone_on_with(data, download, marked)
