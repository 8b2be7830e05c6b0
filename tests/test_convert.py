"""`python -m fn2en_jax.convert`: describing, converting, comparing, probing."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from fn2en_jax import convert
from fn2en_jax.errors import UserError
from fn2en_jax.weights import files, own, tensors
from fn2en_jax.weights.canonical import Wish
from tests import test_weights_forward as forward
from tests import weight_files as writers

ROOT = Path(__file__).parents[1]
MADE = writers.net(seed=2, side=(1, 1))
NAMES = ['Zoe', 'Adam', 'Mia', 'Ben', 'Ida']


@pytest.fixture(autouse=True)
def _parsed():
    flags.FLAGS.mark_as_parsed()


def run(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'fn2en_jax.convert', *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def with_flags(*paths, **values):
    with flagsaver.flagsaver(**values):
        convert.main([str(path) for path in paths])


def test_a_file_is_described_and_converted(tmp_path):
    source, out = tmp_path / 'a.mat', tmp_path / 'a.safetensors'
    writers.matconvnet(source, MADE, names=NAMES)
    done = run(source, out)
    assert (done.returncode, done.stderr) == (0, '')
    values = sum(kernel.size + bias.size for kernel, bias in MADE.values())
    for line in (
        'format      MatConvNet (simplenn)',
        'colours     RGB',
        'mean        R 129.1863, G 104.7624, B 93.5940',
        'image size  32x32',
        'layers      16 (all)',
        f'parameters  {values:,}',
        'identities  5, named in the file',
        f'SHA-256     {hashlib.sha256(source.read_bytes()).hexdigest()}',
        'The weights published by Oxford are for non-commercial research only',
    ):
        assert line in done.stdout
    kernel = MADE['conv1_1'][0]
    [row] = [line for line in done.stdout.splitlines() if line.startswith('params/conv1_1/kernel')]
    assert row.split()[-2:] == [f'{kernel.min():.5g}', f'{kernel.max():.5g}']
    arrays = load_file(out)
    assert len(arrays) == 32
    for layer, parts in writers.canonical(MADE).items():
        for part, array in parts.items():
            np.testing.assert_array_equal(arrays[f'params/{layer}/{part}'], array)
    with safe_open(out, 'numpy') as file:
        metadata = file.metadata()
    assert {key: metadata[key] for key in ('layout', 'flatten', 'colour_order', 'source_format')} == {
        'layout': 'HWIO',
        'flatten': 'HWC',
        'colour_order': 'rgb',
        'source_format': 'MatConvNet (simplenn)',
    }
    assert json.loads(metadata['mean_rgb']) == pytest.approx(writers.MEAN, abs=1e-5)
    assert json.loads(metadata['class_names']) == NAMES


def test_a_converted_file_says_all_that_the_original_did(tmp_path):
    source, out = tmp_path / 'a.mat', tmp_path / 'a.safetensors'
    writers.matconvnet(source, MADE, names=NAMES)
    with_flags(source, out)
    before, after = files.read(str(source)), files.read(str(out))
    assert (after.mean_rgb, after.image_size, after.class_names) == (before.mean_rgb, (32, 32), tuple(NAMES))
    assert (after.layers, after.input_scale, after.format) == ('all', 1.0, 'converted from MatConvNet (simplenn)')
    for name, array in before.tensors().items():
        np.testing.assert_array_equal(after.tensors()[name], array)
    with pytest.raises(UserError, match='our own form, which is RGB'):
        files.read(str(out), Wish(colour_order='bgr'))
    with_flags(out, tmp_path / 'again.safetensors')
    assert files.read(str(tmp_path / 'again.safetensors')).format == after.format
    only = files.read(str(out), Wish(layers='convolutions'))
    assert list(only.variables['params']) == writers.CONVOLUTIONS


def test_convolutions_alone_stay_alone(tmp_path):
    writers.keras(tmp_path / 'a', MADE, kind='notop')
    with_flags(tmp_path / 'a', tmp_path / 'b.safetensors', layers='convolutions')
    with pytest.raises(UserError, match=r'holds convolutions alone.*--layers=convolutions'):
        files.read(str(tmp_path / 'b.safetensors'))
    net = files.read(str(tmp_path / 'b.safetensors'), Wish(layers='convolutions'))
    assert (net.layers, net.image_size) == ('convolutions', None)


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'version': '2'}, 'version'),
        ({'layout': 'OIHW'}, 'layout'),
        ({'colour_order': 'bgr'}, 'colour_order'),
        ({'mean_rgb': '[1, 2]'}, 'mean_rgb'),
        ({'mean_rgb': '[' * 5000}, 'mean_rgb'),
        ({'layers': 'some'}, 'layers'),
        ({'class_names': '[1]'}, 'class_names'),
        ({'image_size': '[0, 0]'}, 'image_size'),
        ({'image_size': '[-32, -32]'}, 'image_size'),
        ({'image_size': '[32.5, 32]'}, 'image_size'),
        ({'image_size': '[900000, 900000]'}, 'image_size'),
        ({'input_scale': '0'}, 'input_scale'),
    ],
)
def test_metadata_that_contradict_the_form_are_refused(changes, match, tmp_path):
    writers.matconvnet(tmp_path / 'a.mat', MADE)
    net = files.read(str(tmp_path / 'a.mat'))
    tensors.write(tmp_path / 'a.safetensors', net.tensors(), own.metadata(net, '') | changes)
    with pytest.raises(UserError, match=f'the metadata give .*{match}'):
        files.read(str(tmp_path / 'a.safetensors'))


def test_the_image_size_of_the_metadata_must_fit_fc6(tmp_path):
    writers.matconvnet(tmp_path / 'a.mat', MADE)
    net = files.read(str(tmp_path / 'a.mat'))
    tensors.write(tmp_path / 'a.safetensors', net.tensors(), own.metadata(net, '') | {'image_size': '[9984, 9984]'})
    with pytest.raises(UserError, match='of another shape: params/fc6/kernel'):
        files.read(str(tmp_path / 'a.safetensors'))


def test_two_processes_do_not_write_through_each_other(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, 'replace', lambda old, new: seen.append(old.name))
    tensors.write(tmp_path / 'a.safetensors', {'a': np.ones(1, np.float32)}, {})
    assert seen == [f'a.safetensors.{os.getpid()}.tmp']
    with pytest.raises(UserError, match='more than the 1048576 of a file'):
        tensors.write(tmp_path / 'a.safetensors', {}, {'class_names': 'x' * (1 << 20)})


def test_zeros_are_warned_of_and_nothing_broken_is_written(tmp_path):
    zeros = MADE | {'fc7': (MADE['fc7'][0] * 0, MADE['fc7'][1])}
    writers.caffe(tmp_path / 'zeros', zeros)
    done = run(tmp_path / 'zeros')
    assert done.returncode == 0
    assert done.stderr == 'warning: params/fc7/kernel: all values are zero\n'
    bias = MADE['fc7'][1].copy()
    bias[:3] = np.nan
    writers.caffe(tmp_path / 'nan', MADE | {'fc7': (MADE['fc7'][0], bias)})
    done = run(tmp_path / 'nan', tmp_path / 'out.safetensors')
    assert done.returncode == 2
    warning, error = done.stderr.splitlines()
    assert warning == 'warning: params/fc7/bias: 3 of 24 values are not finite'
    assert error.startswith('error: ')
    assert not (tmp_path / 'out.safetensors').exists()


def test_an_ambiguous_file_needs_its_colours(tmp_path):
    writers.pytorch(tmp_path / 'a.pth', writers.state(MADE, 'dag'))
    done = run(tmp_path / 'a.pth')
    assert (done.returncode, done.stdout) == (2, '')
    assert len(done.stderr.splitlines()) == 1
    assert '--colour_order=rgb or --colour_order=bgr' in done.stderr
    assert run(tmp_path / 'a.pth', '--colour_order=RGB').returncode == 0


def test_two_files_of_one_net_agree(tmp_path, capsys):
    writers.matconvnet(tmp_path / 'a.mat', MADE)
    writers.caffe(tmp_path / 'b', MADE)
    with_flags(check=f'{tmp_path / "a.mat"},{tmp_path / "b"}')
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 34
    assert lines[-1] == 'the same net, up to rounding'
    writers.pytorch(tmp_path / 'c', writers.state(MADE, 'dag'))
    with_flags(check=f'{tmp_path / "c"},{tmp_path / "b"}', colour_order='rgb,')  # the second needs none
    with pytest.raises(UserError, match=r'red and blue, which are exchanged in conv1_1.*--colour_order'):
        with_flags(check=f'{tmp_path / "c"},{tmp_path / "b"}', colour_order='bgr')
    kernel, bias = MADE['fc7']
    writers.caffe(tmp_path / 'd', MADE | {'fc7': (kernel, bias + 1), 'conv2_1': MADE['conv2_1']})
    with pytest.raises(UserError, match=r'differ in 1 of 32 tensors; the first is params/fc7/bias'):
        with_flags(check=f'{tmp_path / "a.mat"},{tmp_path / "d"}')
    writers.matconvnet(tmp_path / 'e.mat', MADE, image=np.full((1, 1, 3), 100, np.float32))
    with pytest.raises(UserError, match='the same net for different means'):
        with_flags(check=f'{tmp_path / "a.mat"},{tmp_path / "e.mat"}')
    net = files.read(str(tmp_path / 'a.mat'))
    tensors.write(tmp_path / 'f', net.tensors(), own.metadata(net, '') | {'input_scale': '0.015625'})
    with pytest.raises(UserError, match=r'different scales of the input: 1, and 0\.015625'):
        with_flags(check=f'{tmp_path / "a.mat"},{tmp_path / "f"}')


def test_nets_of_other_values_or_shapes_are_compared_without_a_traceback(tmp_path):
    writers.matconvnet(tmp_path / 'a.mat', MADE)
    wide = writers.net(seed=2, side=(1, 1), channels=(7, 14, 28, 56, 56))
    writers.matconvnet(tmp_path / 'wide', wide)
    with pytest.raises(UserError, match='differ in 32 of 32 tensors'):
        with_flags(check=f'{tmp_path / "a.mat"},{tmp_path / "wide"}')
    writers.caffe(tmp_path / 'inf', MADE | {'fc7': (MADE['fc7'][0], MADE['fc7'][1] + np.float32(np.inf))})
    with pytest.raises(UserError, match='fc7/bias holds values that are not finite'):
        with_flags(check=f'{tmp_path / "inf"},{tmp_path / "inf"}')


@pytest.fixture
def photo(tmp_path):
    """A 48x40 picture whose colours differ, stored without loss."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 255, (40, 48, 3), np.uint8) // 2
    pixels[..., 0] += 120
    Image.fromarray(pixels).save(tmp_path / 'photo.png')
    return tmp_path / 'photo.png'


def test_a_photo_is_named_as_the_files_own_program_would(photo, tmp_path, capsys):
    writers.matconvnet(tmp_path / 'a.mat', MADE, names=NAMES)
    with_flags(tmp_path / 'a.mat', probe=str(photo))
    *_, said, _, _, _, _, _ = lines = capsys.readouterr().out.splitlines()
    assert said == f'{photo}, resized as a whole to 32x32:'
    rows = [line.split() for line in lines[-5:]]
    image = np.asarray(Image.open(photo).resize((32, 32), Image.Resampling.BILINEAR))
    layers = [MADE[name] for name in writers.LAYERS]
    logits = forward.forward_channels_last(image - np.array(writers.MEAN), layers)
    expected = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-expected)
    assert [name for _, name in rows] == [NAMES[index] for index in order]
    np.testing.assert_allclose([float(p) for p, _ in rows], expected[order], atol=1e-4)


def test_names_come_from_a_list_or_are_indices(photo, tmp_path, capsys):
    writers.caffe(tmp_path / 'a', MADE)
    (tmp_path / 'names.txt').write_text('\n'.join(NAMES) + '\n')
    with_flags(tmp_path / 'a', probe=str(photo), names=str(tmp_path / 'names.txt'))
    listed = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[-5:]]
    with_flags(tmp_path / 'a', probe=str(photo))
    numbered = [int(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-5:]]
    assert listed == [NAMES[index] for index in numbered]
    for names in (np.array(NAMES), np.array(NAMES, 'S')):
        np.save(tmp_path / 'names.npy', names)
        with_flags(tmp_path / 'a', probe=str(photo), names=str(tmp_path / 'names.npy'))
        assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[-5:]] == listed
    np.save(tmp_path / 'names.npy', np.array(NAMES, object), allow_pickle=True)
    with pytest.raises(UserError, match='holds no plain texts'):
        with_flags(tmp_path / 'a', probe=str(photo), names=str(tmp_path / 'names.npy'))
    (tmp_path / 'names.txt').write_text('one\ntwo\n')
    with pytest.raises(UserError, match='there are 2 names, and the net tells 5'):
        with_flags(tmp_path / 'a', probe=str(photo), names=str(tmp_path / 'names.txt'))
    with pytest.raises(UserError, match='no classifier'):
        with_flags(tmp_path / 'a', probe=str(photo), layers='convolutions')
    with pytest.raises(UserError, match='cannot be read'):
        with_flags(tmp_path / 'a', probe=str(tmp_path / 'none.png'))


def test_names_out_of_a_file_cannot_move_the_cursor(photo, tmp_path, capsys):
    writers.matconvnet(tmp_path / 'a.mat', MADE, names=['Zoë', 'B\n\x1b[31mX', 'C', 'D', 'E'])
    with_flags(tmp_path / 'a.mat', probe=str(photo))
    names = {line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[-5:]}
    assert names == {'Zoë', r'B\n\x1b[31mX', 'C', 'D', 'E'}


def test_a_net_for_images_that_are_not_square_is_probed_too(photo, tmp_path):
    made = writers.net(side=(2, 3))
    writers.caffe(tmp_path / 'a', made)
    likeliest = convert.probe(files.read(str(tmp_path / 'a'), Wish(image_size=(64, 96))), str(photo))
    assert sum(probability for _, probability in likeliest) == pytest.approx(1)


@pytest.mark.parametrize(
    ('arguments', 'match'),
    [
        ((), 'name a weight file'),
        (('a', 'b.safetensors', 'c'), 'name a weight file'),
        (('a', 'b.mat'), 'must end in .safetensors'),
        (('a.safetensors', 'a.safetensors'), 'is the file to read'),
        (('a', 'no/b.safetensors'), 'there is no folder'),
        (('none.mat',), 'there is no file'),
        (('a', '--image_size=32'), '--image_size=32 is not 2 numbers'),
        (('a', '--mean=1,2,x'), '--mean=1,2,x is not 3 numbers'),
        (('--check=a',), 'does not name two things'),
        (('b', '--check=a,b'), 'leave the others out'),
        (('a', 'b.safetensors', '--to=caffe'), '--to=caffe is unknown'),
        (('a', '--to=pytorch'), '--to needs'),
        (('a', 'b.safetensors', '--to=pytorch', '--probe=c'), '--probe goes with neither'),
        (('--check=a,b', '--probe=c'), '--probe goes with neither'),
        (('a', 'gs://b/c.safetensors'), 'only local files are written'),
        (('a', '--image_size=0x0'), '--image_size=0x0 is not two whole numbers'),
        (('a', '--image_size=32.9x32'), 'is not two whole numbers'),
        (('a', '--image_size=32x20000'), 'is not two whole numbers'),
        (('a', '--layers=conv'), "the layers 'conv' are unknown"),
    ],
)
def test_bad_requests_are_one_line(arguments, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = dict(text.removeprefix('--').split('=', 1) for text in arguments if text.startswith('--'))
    with pytest.raises(UserError, match=match):
        with_flags(*(text for text in arguments if not text.startswith('--')), **values)


def test_what_the_tool_cannot_do_ends_with_code_2():
    done = run('no.mat')
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == 'error: there is no file no.mat to read weights from\n'
    assert 'python -m fn2en_jax.convert vgg_face.mat face.safetensors' in run('--help').stdout
