"""`python -m fn2en_jax.convert WORKDIR FILE --to=pytorch` on the nets of real, tiny runs."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from safetensors import safe_open
from torch import nn

from fn2en_jax import convert, trained
from fn2en_jax.errors import UserError
from fn2en_jax.weights import files
from tests import faces
from tests.test_state_dict import Expression, Face, logits

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
    """Workdirs of two finished runs, by method."""
    folder = tmp_path_factory.mktemp('runs')
    env = {name: value for name, value in os.environ.items() if name not in ('XLA_FLAGS', 'PYTHONWARNINGS')}
    for method in ('finetune', 'scratch'):
        command = [
            sys.executable,
            'launch.py',
            f'--config=tests/tiny_config.py:{method}',
            f'--workdir={folder / method}',
            f'--config.data.data_dir={folder / "data"}',
            f'--config.compilation_cache={folder / "xla"}',
            '--config.scratch.epochs=1',
            '--config.finetune.epochs=1',
            '--config.face_net.train.epochs=1',
        ]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def exported(workdir, path, **values):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(to='pytorch', **values):
        convert.main([str(workdir), str(path)])


def pictures(net):
    return dataclasses.replace(faces.make(6, classes=7), class_names=net.class_names)


def compared(net, module, path):
    """Our logits and PyTorch's for the same pictures, which are read at 36 pixels and cut to the central 32."""
    examples = pictures(net)
    expected = net.logits(examples)
    found = logits(module, path, examples.images[:, 2:34, 2:34].astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_the_fine_tuned_face_net(workdirs, tmp_path):
    path = tmp_path / 'a.safetensors'
    exported(workdirs / 'finetune', path, method='finetune')
    compared(trained.find(str(workdirs / 'finetune')), Face(32, True, (2, 4, 8, 16, 16), 8, 7), path)


def test_the_expression_net(workdirs, tmp_path):
    path = tmp_path / 'a.safetensors'
    exported(workdirs / 'scratch', path)
    net = trained.find(str(workdirs / 'scratch'))
    compared(net, Expression(3, nn.Conv2d(4, 16, 1), None, 16, True, (4, 4, 4, 4, 4), 7), path)
    with safe_open(path, 'np') as file:
        told = file.metadata()
    assert (told['net'], told['layout'], told['flatten']) == ('expression net', 'OIHW', 'CHW')
    assert json.loads(told['class_names']) == list(net.class_names)
    assert json.loads(told['image_size']) == [32, 32]
    with pytest.raises(UserError, match='a face net is needed'):
        files.read(str(path))


def test_the_net_that_learned_persons(workdirs, tmp_path):
    path = tmp_path / 'a.safetensors'
    exported(workdirs / 'finetune', path, method='face_net')
    with safe_open(path, 'np') as file:
        assert file.get_tensor('fc8.weight').shape == (3, 8)
    with pytest.raises(UserError, match=r'holds no net of the stage .face_net'):
        exported(workdirs / 'scratch', path, method='face_net')
    with pytest.raises(UserError, match=r'holds no net of the method .fn2en'):
        exported(workdirs / 'scratch', path, method='fn2en')
    with pytest.raises(UserError, match='choose one with --fold=NAME'):
        exported(workdirs / 'scratch', path, fold='fold9')
