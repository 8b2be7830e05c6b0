"""Damaged files end in success or in one clear error: no crash, no hang beyond 5 seconds, no memory beyond 2 GB."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from fn2en_jax.weights import own
from fn2en_jax.weights.canonical import Net
from tests import fuzz_structures, fuzz_weights
from tests import weight_files as writers

ROOT = Path(__file__).parents[1]
MADE = writers.net(side=(1, 1), channels=(1, 2, 4, 8, 8), features=3, classes=2)
NAMES = ['Ann', 'Bob']


def flat_hdf5(path):
    import h5py

    with h5py.File(path, 'w') as file:
        for name, array in writers.state(MADE, 'caffe').items():
            file[name] = array


ORIGINALS = {
    'matconvnet': [
        lambda path: writers.matconvnet(path, MADE, names=NAMES),
        lambda path: writers.matconvnet(path, MADE, names=NAMES, compressed=False),
        lambda path: writers.matconvnet(path, MADE, form='dag', compressed=False),
    ],
    'caffe': [
        lambda path: writers.caffe(path, MADE),
        lambda path: writers.caffe(path, MADE, form='new', legacy=False),
        lambda path: writers.caffe(path, MADE, packed=False),
    ],
    'torch7': [
        lambda path: writers.torch7(path, MADE),
        lambda path: writers.torch7(path, MADE, double=True, flat=False, nested=True),
    ],
    'pytorch-zip': [
        lambda path: writers.pytorch(path, writers.state(MADE, 'fer')),
        lambda path: writers.pytorch(path, writers.state(MADE, 'torchvision')),
    ],
    'pytorch-stream': [
        lambda path: writers.pytorch(path, writers.state(MADE, 'fer'), zipped=False),
        lambda path: writers.pytorch(path, writers.state(MADE, 'pyvggface'), zipped=False),
    ],
    'keras': [
        lambda path: writers.keras(path, MADE),
        lambda path: writers.keras(path, MADE, kind='deepface', automatic=True, full=True, version=3),
        lambda path: writers.keras(path, MADE, kind='theano', version=1),
        lambda path: writers.keras_3(path, MADE, nested=True),
        lambda path: writers.keras_archive(path, MADE, kind='deepface', named=None),
        flat_hdf5,
    ],
    'safetensors': [
        lambda path: own.write(path, Net({'params': writers.canonical(MADE)}, 'made up', class_names=('a',)), '0'),
    ],
}


def survive(form, folder, first, count):
    originals = folder / form
    originals.mkdir()
    for index, write in enumerate(ORIGINALS[form]):
        write(originals / f'{index}')
    env = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-m', 'tests.fuzz_weights', str(originals), str(first), str(count)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['slowest'] < fuzz_weights.SECONDS
    assert found['memory'] < fuzz_weights.MEMORY
    # The damage is real and of many kinds, and not everything is refused.
    assert count // 100 < found['taken'] < count * 0.9
    assert found['kinds'] > 5
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize('form', ORIGINALS)
def test_damaged_files_end_well(form, tmp_path):
    survive(form, tmp_path, 0, 2000)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize('form', ORIGINALS)
def test_many_damaged_files_end_well(form, tmp_path):
    print(form, survive(form, tmp_path, 2000, 4000))


def test_what_is_taken_apart_is_put_together_the_same(tmp_path):
    """So damage is where it was meant to be, not in the lengths around it."""
    writers.matconvnet(tmp_path / 'a', MADE, names=NAMES, compressed=False)
    body = fuzz_structures.elements((tmp_path / 'a').read_bytes()[128:])
    assert fuzz_structures.elements(fuzz_structures.joined(body)) == body
    writers.caffe(tmp_path / 'b', MADE)
    model = (tmp_path / 'b').read_bytes()
    assert fuzz_structures.message(fuzz_structures.fields(model)) == model
    text = pickle.dumps({'a': [1, 2.5, None]}, 2)
    assert b''.join(fuzz_structures.operations(text)) == text
