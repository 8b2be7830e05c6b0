"""`python -m fn2en_jax.export`: each form written under four devices, opened in a fresh process with one."""

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from fn2en_jax import checkpoint, commands, export, onnx_graph, portable, stablehlo, trained, trial_faces, workdir
from fn2en_jax.errors import UserError
from tests import trained_nets

ROOT = Path(__file__).parents[1]
QUICK = '--xla_backend_optimization_level=0'  # compiling is most of the time
FORMS = ('.safetensors', '.stablehlo', '.onnx')


def write_run(root, net, *, step=7, last_step=7):
    """The workdir that a run would have left: config, results, and the checkpoint of the net's stage."""
    stage = net._stage(net._one_image())
    state = stage.method.init({'params': net.variables()['params'], 'batch_stats': net.variables()['batch_stats']})
    preprocessing = {'faces': net.faces, 'stored_size': 36, 'crop_size': 32, 'channels': 3, 'no_face': 'keep'}
    facts = {'class_names': list(net.class_names), 'preprocessing': preprocessing, 'last_step': last_step}
    checkpoints = checkpoint.Checkpoints(root / net.fold / stage.name)
    checkpoints.save(step, jax.device_get(state), {**facts, 'seconds': 1.0})
    checkpoints.close()
    config = json.loads(net.config.to_json())
    config['data_fingerprint'] = {'expressions': 'synthetic/1', 'identities': '', 'face_net_weights': ''}
    workdir.write_json(root / 'config.json', config)
    figures = {'accuracy': 0.75, 'num_examples': 8, 'confusion_matrix': [[8]], 'folds': {'fold0': {'accuracy': 0.7}}}
    workdir.write_json(root / 'results.json', {'methods': {net.method: figures}, 'versions': {'jax': '0'}})
    return root


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A workdir, its net, faces, and the probabilities of these."""
    net = trained_nets.make('scratch', loss__flip_test=True, expression_net__features=(4,))
    folder = write_run(tmp_path_factory.mktemp('run') / 'work', net)
    faces = trained_nets.faces(net, 6)
    return folder, net, faces, trained_nets.probabilities(net, faces)


def exported(out, **values):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**values):
        export.main([str(out)])


@pytest.fixture(scope='module')
def written(run, tmp_path_factory):
    """The three files."""
    folder = tmp_path_factory.mktemp('written')
    for form in FORMS:
        exported(folder / f'net{form}', workdir=str(run[0]))
    assert sorted(path.name for path in folder.iterdir()) == ['net.onnx', 'net.safetensors', 'net.stablehlo']
    return folder


@pytest.fixture
def photos(tmp_path):
    """A folder of three pictures."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(image).save(folder / f'{number}.png')
    return folder


def fresh(folder, code, *paths):
    """Runs a program in a process with one device that starts in another folder."""
    env = {**os.environ, 'XLA_FLAGS': QUICK, 'PYTHONPATH': os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What the README shows, between reading the faces and writing the answer.
START = "import numpy as np\nfaces = np.load('faces.npy')\n"
END = "\nnp.save('found.npy', probabilities)\nprint(json.dumps(names))\n"
SAFETENSORS = """
import json
import jax
from fn2en_jax import portable
assert jax.local_device_count() == 1
net = portable.read('net.safetensors')
names = net.class_names
probabilities = jax.jit(net.probabilities())(net.variables(), faces)
"""
STABLEHLO = """
import json, sys, zipfile
import jax
from jax import export
with zipfile.ZipFile('net.stablehlo') as file:
    net = json.loads(file.read('net.json'))
    program = export.deserialize(bytearray(file.read('model.stablehlo')))
probabilities = jax.jit(program.call)(faces)
names = net['class_names']
assert not any(name.startswith(('fn2en', 'flax')) for name in sys.modules)
"""
ONNX = """
import json, sys
import onnxruntime
session = onnxruntime.InferenceSession('net.onnx')
names = json.loads(session.get_modelmeta().custom_metadata_map['class_names'])
probabilities = session.run(['probabilities'], {'faces': faces})[0]
assert not any(name.startswith(('fn2en', 'jax')) for name in sys.modules)
"""


@pytest.mark.parametrize(('code', 'needs'), [(SAFETENSORS, ROOT), (STABLEHLO, ''), (ONNX, '')], ids=FORMS)
def test_a_fresh_process_with_one_device_computes_the_same(run, written, code, needs):
    _, net, faces, expected = run
    assert jax.local_device_count() == 4
    np.save(written / 'faces.npy', faces)
    names = json.loads(fresh(written, START + code + END, needs))
    assert names == list(net.class_names)
    np.testing.assert_allclose(np.load(written / 'found.npy'), expected, rtol=0, atol=2e-6)
    (written / 'found.npy').unlink()


def test_every_form_brings_the_whole_card(run, written):
    folder, net, *_ = run
    card = portable.card(trained.find(str(folder)))
    assert card['class_names'] == list(net.class_names)
    assert card['preprocessing']['flip_average'] is True
    assert card['provenance']['results_of_fold'] == {'accuracy': 0.7}
    assert card['provenance']['results_of_all_folds'] == {'accuracy': 0.75, 'num_examples': 8}
    assert card['provenance']['data_fingerprint']['expressions'] == 'synthetic/1'
    assert card['provenance']['settings']['scratch.epochs'] == 4.0
    assert not [key for key in card['provenance']['settings'] if key in portable._PATHS]
    assert portable.card(portable.read(written / 'net.safetensors')) == card
    told = stablehlo.read(written / 'net.stablehlo').card
    assert {key: told[key] for key in card} == card
    assert told['input'] == {'dtype': 'uint8', 'shape': ['batch', 36, 36, 3]}
    properties = {entry.key: entry.value for entry in onnx.load(written / 'net.onnx').metadata_props}
    texts = portable.texts(trained.find(str(folder)))
    assert {key: properties[key] for key in texts} == texts


def test_a_file_becomes_the_other_forms_and_itself(written, photos, tmp_path, capsys):
    exported(tmp_path / 'net.onnx', net=str(written / 'net.safetensors'), faces=str(photos))
    assert 'largest difference of a probability on 3 real faces: ' in capsys.readouterr().out
    net = portable.read(written / 'net.safetensors')
    portable.write(net, tmp_path / 'net.safetensors')
    stablehlo.write(net, tmp_path / 'net.stablehlo')
    for form in FORMS:
        assert (tmp_path / f'net{form}').read_bytes() == (written / f'net{form}').read_bytes()


def test_a_bfloat16_net_computes_in_float32_where_the_form_says_so(run, tmp_path, capsys):
    _, net, faces, expected = run
    config = net.config.copy_and_resolve_references()
    config.dtype = 'bfloat16'
    coarse = dataclasses.replace(net, config=config)
    exact = export._in_float32(coarse)
    assert 'trained in bfloat16; this form computes in float32' in capsys.readouterr().out
    assert (coarse.config.dtype, coarse.classifier.model.dtype) == ('bfloat16', 'bfloat16')
    stablehlo.write(exact, tmp_path / 'net.stablehlo')
    np.testing.assert_allclose(stablehlo.read(tmp_path / 'net.stablehlo').probabilities(faces), expected, atol=2e-6)
    assert np.abs(trained_nets.probabilities(coarse, faces) - expected).max() > 1e-4


def test_a_file_that_computes_something_else_is_not_kept(written, tmp_path, monkeypatch):
    (tmp_path / 'net.onnx').write_bytes(b'the file that was there')
    monkeypatch.setattr(onnx_graph, '_EPSILON', 0.1)
    with pytest.raises(UserError, match='computes other probabilities than the net'):
        exported(tmp_path / 'net.onnx', net=str(written / 'net.safetensors'))
    assert [path.name for path in tmp_path.iterdir()] == ['net.onnx']
    assert (tmp_path / 'net.onnx').read_bytes() == b'the file that was there'


def test_a_net_that_says_the_same_of_all_faces_is_told_of(capsys):
    faces = {'random': np.array([[0.3, 0.7], [0.3, 0.7]])}
    export._compare((lambda x: x, lambda x: x), faces)
    assert 'comparing on them shows little' in capsys.readouterr().err
    export._compare((lambda x: x, lambda x: x), {'random': faces['random'] + [[0.1, -0.1], [0, 0]]})
    assert not capsys.readouterr().err


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match='nan apart'):
        export._compare((lambda x: x, lambda x: x * np.nan), {'random': np.ones((3, 2))})


# Real faces.


def test_faces_of_the_users_folder_must_be_faces(written, photos, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'words').mkdir()
    (tmp_path / 'words' / '1.png').write_bytes(b'no picture')
    for folder, message in (
        (tmp_path / 'words', r'none of the 1 photographs.*1\.png: '),
        (tmp_path / 'none', 'no folder'),
        (tmp_path / 'empty', 'no files'),
    ):
        with pytest.raises(UserError, match=message):
            exported(tmp_path / 'b.onnx', net=str(written / 'net.safetensors'), faces=str(folder))
    assert not (tmp_path / 'b.onnx').exists()


def test_photographs_that_cannot_be_read_are_left_out_and_counted(tmp_path, capsys):
    for number in range(20):
        Image.fromarray(np.full((40, 40, 3), 10 * number, np.uint8)).save(tmp_path / f'{number:02}.png')
    for number in (0, 4, 6):
        (tmp_path / f'{number:02}.png').write_bytes(b'no picture')
    found = trial_faces.real(trained_nets.make(faces='none'), str(tmp_path))
    assert found[:, 0, 0, 0].tolist() == [20, 80, 100, 120, 140, 10, 30, 50]
    assert '3 photographs cannot be read and are left out; the first: ' in capsys.readouterr().out


def test_faces_of_the_runs_own_data_are_taken_where_they_can_be_opened(tmp_path, capsys):
    for number in range(20):
        Image.fromarray(np.full((40, 40, 3), 10 * number, np.uint8)).save(tmp_path / f'{number:02}.png')
    rows = [f'{number:02}.png,{trained_nets.NAMES[number % 7]}' for number in range(20)]
    (tmp_path / 'set.csv').write_text('\n'.join(['file,expression', *rows]) + '\n')
    table = str(tmp_path / 'set.csv')
    net = trained_nets.make(faces='none', data__source='csv', data__expressions=table)
    assert trial_faces.real(net)[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80, 100, 120, 140]
    with pytest.raises(UserError, match=r'missing\.csv'):
        trial_faces.real(trained_nets.make(data__source='csv', data__expressions=str(tmp_path / 'missing.csv')))
    with pytest.raises(UserError, match='rendered faces'):
        trial_faces.real(trained_nets.make())
    assert set(export._faces(net, '')) == {'random', 'rendered', 'real'}
    assert set(export._faces(trained_nets.make(), '')) == {'random', 'rendered'}
    assert 'not compared on real faces: it was trained on rendered faces' in capsys.readouterr().out


# Programs.


def test_equal_nets_give_equal_programs_and_damaged_ones_are_refused(written, tmp_path):
    whole = (written / 'net.stablehlo').read_bytes()
    with zipfile.ZipFile(written / 'net.stablehlo') as file:
        assert file.namelist() == ['net.json', 'model.stablehlo']
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        model = file.read('model.stablehlo')
    assert str(ROOT).encode() not in whole
    assert b'site-packages' not in whole
    path, refused = tmp_path / 'a.stablehlo', 0
    for seed in range(150):
        draw = np.random.default_rng(seed)
        # Half of the changes hit the structure, at both ends of the file.
        at = int(draw.integers(len(whole)) if seed % 2 else draw.choice([draw.integers(100), -draw.integers(1, 250)]))
        path.write_bytes(whole[:at] + draw.bytes(1) + (whole[at:][1:] if seed % 3 else b''))
        try:
            facts, content = stablehlo._members(path)
        except UserError:
            refused += 1
            continue
        assert content == model
        assert facts['class_names'] == list(trained_nets.NAMES)
    assert refused > 75
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('net.json', ' ' * 10_000_000)
        file.writestr('model.stablehlo', b'')
    with pytest.raises(UserError, match=r'but none of python -m fn2en_jax\.export'):
        stablehlo.read(path)
    with pytest.raises(UserError, match='cannot be read: No such file'):
        stablehlo.read(tmp_path / 'missing.stablehlo')


# Bad input.


def called(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'fn2en_jax.export', *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': QUICK},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_a_user_can_mend_is_one_line(run, written, tmp_path):
    folder, net = str(run[0]), str(written / 'net.safetensors')
    (tmp_path / 'folder.onnx').mkdir()
    half = str(write_run(tmp_path / 'half', run[1], last_step=8))
    workdirs = {'workdir': folder}
    for out, values, message in (
        ('a.txt', workdirs, r'must end in \.safetensors, \.stablehlo, \.onnx'),
        ('gs://bucket/a.onnx', workdirs, 'only local files'),
        (tmp_path / 'folder.onnx', workdirs, 'is a folder; name a file'),
        (tmp_path / 'no/a.onnx', workdirs, 'there is no folder'),
        (tmp_path / 'a.onnx', {}, 'either --workdir=FOLDER or --net=FILE'),
        (tmp_path / 'a.onnx', workdirs | {'net': net}, 'either --workdir=FOLDER or --net=FILE'),
        (tmp_path / 'a.onnx', {'net': net, 'fold': 'fold0'}, 'a file holds one'),
        (tmp_path / 'a.onnx', {'workdir': net}, 'is a file; a workdir is the folder of a run'),
        (net, {'net': net}, 'is the file to read'),
        (tmp_path / 'a.onnx', {'workdir': half}, 'is trained up to step 7 of 8'),
        (tmp_path / 'a.onnx', workdirs | {'method': 'fn2en'}, 'it holds scratch'),
        ('/proc/a.safetensors', {'net': net}, r'cannot write /proc/a\.safetensors'),
        ('/proc/a.stablehlo', {'net': net}, r'cannot write /proc/a\.stablehlo'),
        ('/proc/a.onnx', {'net': net}, r'cannot write /proc/a\.onnx'),
    ):
        with pytest.raises(UserError, match=message) as caught:
            exported(out, **values)
        assert '\n' not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder.onnx', 'half']


def test_a_net_larger_than_files_may_be_is_refused_before_it_is_read():
    large = {'face_net__width': 1.4, 'face_net__fc_features': 4096, 'data__crop_size': 224, 'data__stored_size': 256}
    with pytest.raises(UserError, match=r'the net has \d{3},\d{3},\d{3} parameters'):
        export._check_size(trained_nets.make('finetune', **large))


def test_a_full_disk_is_a_line(written, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError('1000 requested and 0 written')  # how NumPy words it

    monkeypatch.setattr(portable, 'write', full)
    with pytest.raises(UserError, match=r'cannot write .*a\.safetensors: 1000 requested and 0 written'):
        exported(tmp_path / 'a.safetensors', net=str(written / 'net.safetensors'))


def test_the_command_line(written, tmp_path):
    done = called(f'--net={written / "missing.safetensors"}', tmp_path / 'b.stablehlo')
    assert done.returncode == commands.BAD_INPUT
    assert done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: ')
    help_text = called('--help').stdout
    assert all(form in help_text for form in (*FORMS, '--faces', '--fold'))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'needs the package onnx: pip install -r requirements-onnx\.txt'):
        export.onnx(None, Path('a.onnx'))
