"""A file of the published size in every form: what reading it takes. Writing them takes longer and much more memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fn2en_jax.weights import own
from fn2en_jax.weights.canonical import LAYERS, Net
from tests import weight_files as writers

ROOT = Path(__file__).parents[1]
CHANNELS = (64, 128, 256, 512, 512)
VALUES = 145_002_878
READ = r"""
import json, re, sys, time
from pathlib import Path
from fn2en_jax.weights import files
from fn2en_jax.weights.canonical import Wish
begin = time.monotonic()
net = files.sound(sys.argv[1], Wish(colour_order=sys.argv[2]))
seconds = time.monotonic() - begin
memory = int(re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024
arrays = net.tensors()
print(json.dumps({
    'seconds': seconds, 'memory': memory, 'values': sum(array.size for array in arrays.values()),
    'last': float(arrays['params/fc6/kernel'][-1, -1]),
}))
"""


def full():
    """As `writers.net`, but a ramp instead of draws, which would take minutes."""
    made, into = {}, 3
    for name in LAYERS:
        height, width, out = (3, 3, CHANNELS[int(name[4]) - 1]) if name.startswith('conv') else (1, 1, 4096)
        height, width = (7, 7) if name == 'fc6' else (height, width)
        out = 2622 if name == 'fc8' else out
        kernel = np.arange(height * width * into * out, dtype=np.float32).reshape(height, width, into, out)
        made[name], into = (kernel, np.ones(out, np.float32)), out
    return made


FORMS = {
    'safetensors': (lambda path, made: own.write(path, Net({'params': writers.canonical(made)}, 'made up'), ''), ''),
    'matconvnet': (lambda path, made: writers.matconvnet(path, made, momentum=False, compressed=False), ''),
    'matconvnet-compressed': (lambda path, made: writers.matconvnet(path, made, momentum=False), ''),
    'caffe': (lambda path, made: writers.caffe(path, made), ''),
    'torch7': (lambda path, made: writers.torch7(path, made, gradients=False), ''),
    'pytorch-zip': (lambda path, made: writers.pytorch(path, writers.state(made, 'dag')), 'rgb'),
    'pytorch-stream': (lambda path, made: writers.pytorch(path, writers.state(made, 'dag'), zipped=False), 'rgb'),
    'keras': (lambda path, made: writers.keras(path, made), ''),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize('form', FORMS)
def test_reading_a_file_of_full_size(form, tmp_path):
    path, made = tmp_path / 'weights', full()
    write, colours = FORMS[form]
    write(path, made)
    last = float(made['fc6'][0][-1, -1, -1, -1])
    del made
    env = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-c', READ, str(path), colours]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    size = path.stat().st_size
    path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    print(form, size, found)
    assert (found['values'], found['last']) == (VALUES, last)
    converted = form == 'safetensors'
    assert found['seconds'] < (5 if converted else 30)
    assert found['memory'] < (2 if converted else 3) * VALUES * 4
