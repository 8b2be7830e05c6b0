"""`python -m fn2en_jax.visualize` on the nets of real, tiny runs."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from absl import flags
from PIL import Image

from fn2en_jax import commands, embedded, exhibits, experiment, finished, probing, visualize
from fn2en_jax.errors import UserError
from tests import faces, tiny_config

ROOT = Path(__file__).parents[1]
QUICK = ('--config.visualize.ascent.steps=3', '--config.visualize.probe.repeats=1')


def call(monkeypatch, *arguments: str) -> int:
    """The tool in this process, as `python -m` would call it: what is compiled once serves all tests."""
    argv = ['visualize', *arguments]
    monkeypatch.setattr(sys, 'argv', argv)
    try:
        return commands.run(visualize.main, argv, '')
    finally:
        for name in ('workdir', 'output', 'fold', 'no_faces', 'neurons', 'trust_data'):
            flags.FLAGS[name].unparse()


def run(*command: str) -> None:
    """A command in a process of its own."""
    env = {name: value for name, value in os.environ.items() if name not in ('XLA_FLAGS', 'PYTHONWARNINGS')}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def scratch(tmp_path_factory) -> Path:
    """The workdir of a run of one epoch."""
    folder = tmp_path_factory.mktemp('scratch')
    config = tiny_config.get_config('scratch')
    config.scratch.epochs, config.compilation_cache, config.data.data_dir = 1.0, 'none', str(folder / 'data')
    config.visualize.ascent.steps, config.visualize.probe.repeats = 3, 1
    experiment.run(config, str(folder / 'work'))
    return folder / 'work'


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path).convert('RGB')) for path in sorted(folder.glob('*.png'))}


def check_index(folder: Path) -> list[dict]:
    """What index.json says is there, and nothing else."""
    index = json.loads((folder / 'index.json').read_text())
    listed = {picture['file'] for picture in index}
    assert listed | {*visualize.TABLES, 'index.json', 'facts.json'} == {path.name for path in folder.iterdir()}
    shown, left_out = embedded.pictures(folder, faces=True)  # what the page makes of it
    assert len(shown) == len(index)
    assert not left_out
    for picture in index:
        assert all(picture[key] for key in ('title', 'caption', 'alt'))
        path = folder / picture['file']
        assert path.stat().st_size < 500_000
        assert np.asarray(Image.open(path).convert('L')).std() > 5
    return index


def test_pictures_are_listed_repeat_exactly_and_go_without_faces(scratch, monkeypatch, capsys):
    """One run with faces, then one without, which removes what must not be published."""
    assert call(monkeypatch, f'--workdir={scratch}') == 0, capsys.readouterr().err
    folder = scratch / 'visualize'
    index, before = check_index(folder), pixels(folder)
    assert {picture['file'] for picture in index if picture['shows_data']} == {'neurons.png', 'gradcam.png'}
    probes = json.loads((folder / 'probe.json').read_text())
    assert set(probes['accuracy']) == {'expression', 'identity'}
    layers = ['pool1', 'pool2', 'pool3', 'pool4', 'pool5', 'features', 'hidden']
    assert list(probes['accuracy']['identity']['scratch']) == layers
    assert probes['tasks']['identity'] == {'classes': 2, 'images': 14, 'chance': 0.5, 'persons': 2}
    assert (folder / 'probe.csv').read_text().splitlines()[
        0
    ] == 'net,layer,expression %,expression ±,identity %,identity ±'
    assert 'linear probes: ' in capsys.readouterr().out

    assert call(monkeypatch, f'--workdir={scratch}', '--no_faces') == 0, capsys.readouterr().err
    index, after = check_index(folder), pixels(folder)
    assert set(before) - set(after) == {'neurons.png', 'gradcam.png'}
    assert not any(picture['shows_data'] for picture in index)
    for name, picture in after.items():
        np.testing.assert_array_equal(picture, before[name], err_msg=name)


def test_other_data_and_keys_of_the_training_are_refused(scratch):
    with pytest.raises(UserError, match=r'config\.data\.stored_size is of the training'):
        finished.reopen(str(scratch), changes={'data.stored_size': 40})
    with pytest.raises(UserError, match=r'steps is 0; it must be at least 1'):
        finished.reopen(str(scratch), changes={'visualize.ascent.steps': 0})
    path = scratch / 'config.json'
    text = path.read_text()
    try:
        path.write_text(text.replace('"test_images": 7', '"test_images": 8'))
        with pytest.raises(UserError, match=r'not those that .* was trained on'):
            finished.reopen(str(scratch))
        with pytest.raises(UserError, match='which is not in the data'):  # its list of folds still guards it
            finished.reopen(str(scratch), trust_data=True)
    finally:
        path.write_text(text)


def test_a_workdir_older_than_the_keys_gets_their_defaults(scratch):
    path = scratch / 'config.json'
    text = path.read_text()
    content = json.loads(text)
    del content['visualize'], content['data']['manual_dir'], content['data']['no_face']
    try:
        path.write_text(json.dumps(content))
        run = finished.reopen(str(scratch))
    finally:
        path.write_text(text)
    assert (run.config.visualize.ascent.steps, run.config.data.manual_dir) == (150, '')
    assert run.fold.name == 'test'
    assert len(run.test) == 14


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), '--workdir=FOLDER is needed'),
        (('--workdir={there}', '--neurons=hidden'), 'is not LAYER:INDEX'),
        (('--workdir={there}', '--neurons=fc9:1'), 'names the layer fc9; there are hidden, logits'),
        (('--workdir={there}', '--neurons=hidden:8'), 'has the neurons 0 to 7'),
        (('--workdir={there}', '--neurons=pool1:0'), 'which is a map'),
        (('--workdir={there}', '--output={file}'), 'is a file'),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_left(scratch, tmp_path, arguments, message, monkeypatch, capsys):
    file = tmp_path / 'file'
    file.write_text('mine')
    given = [argument.format(there=scratch, file=file) for argument in arguments]
    if not any('--output' in argument for argument in given):
        given.append(f'--output={tmp_path / "pictures"}')
    code = call(monkeypatch, *given)
    errors = capsys.readouterr().err.splitlines()
    assert code == 2
    assert message in errors[-1]
    assert [path.name for path in tmp_path.iterdir()] == ['file']
    assert file.read_text() == 'mine'


def test_an_index_that_is_not_ours_removes_nothing(tmp_path):
    for text in ('{', '[]', '{"a": 1}', '[1]', '[{"title": "a"}]'):
        (tmp_path / 'index.json').write_text(text)
        assert visualize._listed(tmp_path / 'index.json') == set()
    (tmp_path / 'index.json').write_text('[{"file": "../secret.png"}, {"file": "notes.txt"}, {"file": "a.png"}]')
    assert visualize._listed(tmp_path / 'index.json') == {'a.png', *visualize.TABLES}


def test_a_table_of_probes_has_a_row_per_net_and_layer():
    value = {'mean': 0.5, 'std': 0.01, 'repeats': [0.5]}
    found = {'tasks': {'expression': {'chance': 0.25}}, 'accuracy': {'expression': {'fn2en': {'pool1': value}}}}
    assert probing.rows(found) == [
        ['net', 'layer', 'expression %', 'expression ±'],
        ['fn2en', 'pool1', '50.0', '1.0'],
        ['chance', '', '25.0', ''],
    ]


@pytest.mark.slow
def test_the_face_net_and_fn2en_side_by_side(tmp_path):
    folder = tmp_path / 'work'
    run(
        'launch.py',
        '--config=tests/tiny_config.py:fn2en',
        f'--workdir={folder}',
        f'--config.data.data_dir={tmp_path / "data"}',
        f'--config.compilation_cache={tmp_path / "xla"}',
        '--config.stage1.layer=pool3',  # whose maps are large enough to be shown
        *(f'--config.{stage}.epochs=1' for stage in ('face_net.train', 'finetune', 'stage1', 'stage2')),
    )
    run('-m', 'fn2en_jax.visualize', f'--workdir={folder}', '--neurons=fc6:1,fc7:2,hidden:3', *QUICK)
    index = check_index(folder / 'visualize')
    assert [picture['file'] for picture in index] == [
        'neurons.png',
        'selectivity.png',
        'maximised.png',
        'gradcam.png',
        'gradcam_mean.png',
        'stage1.png',
        'stage1_maps.png',
        'probe.png',
    ]
    assert 'fc6 1' in index[0]['alt']
    probes = json.loads((folder / 'visualize/probe.json').read_text())
    assert list(probes['accuracy']['expression']) == ['pixels', 'face_net', 'finetune', 'fn2en']
    row = next(
        row
        for row in map(json.loads, reversed((folder / 'metrics.jsonl').read_text().splitlines()))
        if row['stage'] == 'stage1'
    )
    stage1 = next(picture for picture in index if picture['file'] == 'stage1.png')
    assert f'a constant answer: {100 * row["test_explained"]:.1f} %' in stage1['caption']


@pytest.mark.parametrize(
    ('subjects', 'shown'),
    [
        (('a', '', 'b', 'a', '', 'b'), [0, 2, 3, 5]),
        (('a', 'b', 'b', 'a', 'a', 'b'), [0, 1, 2, 3, 4, 5]),
        (('a', '', 'a', 'a', '', 'a'), None),  # one person
        (('a', '', 'b', 'c', '', 'd'), None),  # an image each
        (('',) * 6, None),
        (None, None),
    ],
)
def test_selectivity_is_of_images_whose_person_is_known(subjects, shown):
    examples = dataclasses.replace(faces.make(6), subjects=subjects)
    one = mock.Mock(_examples=examples, _with_faces=False, _nets={})
    pictures = list(exhibits.Exhibits.hidden_neurons(one))
    assert len(pictures) == (shown is not None)
    if shown:
        assert one._selectivity.call_args.args[0].files == examples.take(shown).files
