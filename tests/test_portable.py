"""A trained net in one file: bit for bit the same, and no file that is not sound gets through."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from fn2en_jax import portable, trained
from fn2en_jax.errors import UserError
from fn2en_jax.weights import files
from tests import trained_nets

NETS = {
    'fn2en': {},
    'finetune': {'data__channels': 1, 'face_net__image_size': 40, 'face_net__batch_norm': False},
    'scratch': {'stage1__layer': 'fc6', 'dtype': 'bfloat16', 'loss__flip_test': True},
    'face_net': {'names': ('Ann', 'Bob', 'Éve'), 'loss__flip_test': True},
}


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """A small net, its file, and the template of its state."""
    net = trained_nets.make(expression_net__features=(2, 2, 2), expression_net__hidden=2, stage1__layer='fc8')
    path = tmp_path_factory.mktemp('portable') / 'net.safetensors'
    portable.write(net, path)
    template = portable.read(path)._stage(net._one_image()).template()
    return net, path, template


def equal(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize('method', NETS)
def test_a_net_comes_back_bit_for_bit(method, tmp_path):
    net = trained_nets.make(method, **NETS[method])
    portable.write(net, tmp_path / 'net.safetensors')
    found = portable.read(tmp_path / 'net.safetensors')
    assert (found.method, found.fold, found.class_names, found.faces) == (method, 'fold0', net.class_names, 'align')
    assert found.provenance == trained_nets.PROVENANCE
    assert found.image_shape == net.image_shape
    assert found.reading.faces == 'align'
    assert equal(found.variables(), net.variables())
    assert found.classifier.model == net.classifier.model.clone(dropout_rate=0.0)  # which is of training
    assert found.classifier.output == net.classifier.output
    assert found.classifier.flip_test == net.classifier.flip_test == (method == 'scratch')


def test_a_net_from_a_file_computes_what_it_computed(written):
    net, path, _ = written
    images = trained_nets.faces(net)
    expected = trained_nets.probabilities(net, images)
    np.testing.assert_array_equal(trained_nets.probabilities(portable.read(path), images), expected)
    np.testing.assert_allclose(expected.sum(1), 1, atol=1e-6)


def test_the_metadata_tell_a_person_what_goes_in(written):
    net, path, _ = written
    told = json.loads(metadata_of(path)['preprocessing'])
    assert (told['stored_size'], told['crop_size'], told['channels']) == (36, 32, 3)
    assert told['faces'] == 'align'
    assert told['eyes'] == [[0.31, 0.39], [0.69, 0.39]]
    assert told['mean'] == [129.1863, 104.7624, 93.5940]
    assert told['input_scale'] == 1 / 64
    assert json.loads(metadata_of(path)['class_names']) == list(net.class_names)


def metadata_of(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])['__metadata__']


def signed(path, into, changes):
    """The file with other metadata and a right checksum over them."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8 : 8 + length])
    metadata = header['__metadata__']
    for key, value in changes.items():
        if value is None:
            del metadata[key]
        else:
            metadata[key] = value if isinstance(value, str) else json.dumps(value)
    metadata['metadata_sha256'] = portable._metadata_sha256(metadata)
    text = json.dumps(header).encode()
    into.write_bytes(len(text).to_bytes(8, 'little') + text + data[8 + length :])
    return into


BAD = {
    'dtype': 'float64',
    'data.stored_size': 10**9,
    'data.crop_size': 37,
    'data.channels': 2,
    'data.no_face': True,
    'loss.flip_test': 1,
    'face_net.width': float('nan'),
    'face_net.fc_features': 2**40,
    'face_net.batch_norm': 'yes',
    'face_net.input_scale': 0,
    'face_net.mean_rgb': [1, 2],
    'face_net.image_size': 31,
    'expression_net.features': [10**9],
    'expression_net.hidden': 0,
    'expression_net.batch_norm': None,
    'expression_net.input_scale': [1],
    'stage1.layer': 'fc9',
}


def test_a_setting_that_no_net_has_is_refused_by_name(written, tmp_path):
    _, path, _ = written
    settings = json.loads(metadata_of(path)['config'])
    assert set(BAD) == set(settings)
    for key, value in BAD.items():
        with pytest.raises(UserError, match=f'config.{key} '):
            portable.read(signed(path, tmp_path / 'a.safetensors', {'config': settings | {key: value}}))
    with pytest.raises(UserError, match=r'too many convolutions for images of 32x32'):
        portable.read(
            signed(path, tmp_path / 'a.safetensors', {'config': settings | {'expression_net.features': [2] * 6}})
        )
    for odd in (settings | {'data.data_dir': '/'}, {k: v for k, v in settings.items() if k != 'dtype'}):
        with pytest.raises(UserError, match=r'do not have the settings of a net: (data\.data_dir|dtype)'):
            portable.read(signed(path, tmp_path / 'a.safetensors', {'config': odd}))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'class_names': list(trained_nets.NAMES[:-1])}, r'6 class names.*outputs \(7,\)'),
        ({'class_names': [*trained_nets.NAMES[:-1], 'anger']}, 'no sound class_names'),
        ({'class_names': [*trained_nets.NAMES[:-1], 7]}, 'no sound class_names'),
        ({'class_names': []}, 'no sound class_names'),
        ({'class_names': {}}, 'no JSON list'),
        ({'class_names': [*trained_nets.NAMES[:-1], 'clear \x1b[2J']}, 'no sound class_names'),
        ({'class_names': [*trained_nets.NAMES[:-1], '\ud800']}, 'no sound class_names'),
        ({'fold': 'a\nb'}, 'no sound fold or licence'),
        ({'provenance': {}}, 'no sound fold or licence'),
        ({'provenance': {'licence': 'two\nlines'}}, 'no sound fold or licence'),
        ({'config': '[[[['}, 'its config is not JSON'),
        ({'config': '[' * 100_000}, 'its config is not JSON'),
        ({'method': 'finetune'}, 'the classifier params/fc8/bias has the outputs none'),
        ({'method': 'magic'}, "the method 'magic'"),
        ({'fold': None}, 'lack fold'),
        ({'preprocessing': {'faces': 'round'}}, "cut out by 'round'"),
        ({'preprocessing': {'faces': 'align'}}, 'not what this program does'),
        ({'format': 'other'}, 'no net written by'),
        ({'version': '2'}, "version '2'"),
    ],
)
def test_metadata_that_contradict_each_other_are_refused(written, tmp_path, changes, message):
    _, path, _ = written
    with pytest.raises(UserError, match=message) as caught:
        portable.read(signed(path, tmp_path / 'a.safetensors', changes))
    assert '\n' not in str(caught.value)


def test_a_net_of_other_or_enormous_sizes_is_refused_without_being_made(written, tmp_path):
    _, path, _ = written
    settings = json.loads(metadata_of(path)['config'])
    enormous = {
        'expression_net.features': [1 << 13] * 11,
        'expression_net.hidden': 1 << 16,
        'data.crop_size': 2048,
        'data.stored_size': 2048,
        'face_net.width': 4,
        'face_net.fc_features': 1 << 16,
        'stage1.layer': 'fc6',
    }
    told = json.loads(metadata_of(path)['preprocessing'])
    preprocessing = told | {'crop_size': 2048, 'stored_size': 2048}
    for config, steps in (({'expression_net.hidden': 3}, told), (enormous, preprocessing)):
        changes = {'config': settings | config, 'preprocessing': steps}
        net = portable.read(signed(path, tmp_path / 'a.safetensors', changes))
        with pytest.raises(UserError, match='do not fit this net'):
            net.variables()


def test_every_byte_counts(written, tmp_path):
    """Mutated files are refused, or hold the same net: six hundred of them."""
    net, path, template = written
    whole, sound, other = path.read_bytes(), portable.read(path), tmp_path / 'mutated.safetensors'
    expected = sound.read(template)
    messages = []
    for seed in range(600):
        other.write_bytes(mutated(whole, np.random.default_rng(seed)))
        try:
            found = portable.read(other)
            state = found.read(template)
        except UserError as error:
            messages.append(str(error))
            continue
        assert equal(state, expected)
        assert found.class_names == net.class_names
        assert portable.preprocessing(found) == portable.preprocessing(net)
        assert found.config.to_json() == sound.config.to_json()
    assert len(messages) > 450
    assert not any('\n' in message for message in messages)


def mutated(data, draw):
    kind, at = draw.integers(6), int(draw.integers(len(data)))
    # Every second change goes into the header, where the structure is.
    at = at if draw.integers(2) else int(draw.integers(8 + int.from_bytes(data[:8], 'little')))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ (1 << int(draw.integers(8)))]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + draw.bytes(int(draw.integers(1, 9))) + data[at:]
    if kind == 3:
        return data[:at] + data[at + int(draw.integers(1, 9)) :]
    # The last keeps words words and numbers numbers.
    new = draw.bytes(4) if kind == 4 else bytes(draw.choice(list(b'0123456789abcdef'), 1).astype(np.uint8))
    return data[:at] + new + data[at + len(new) :]


def test_values_that_changed_after_opening_or_are_not_finite_are_refused(written, tmp_path):
    _, path, template = written
    other = tmp_path / 'a.safetensors'
    other.write_bytes(path.read_bytes())
    net = portable.read(other)
    other.write_bytes(path.read_bytes()[:-1] + b'\x00')
    with pytest.raises(UserError, match='do not match their checksum'):
        net.read(template)
    broken = trained_nets.make(expression_net__features=(2, 2, 2))
    state = broken.read(broken._stage(broken._one_image()).template())
    state.params['head']['fc2']['bias'][0] = np.nan
    portable.write(dataclasses.replace(broken, read=lambda _: state), other)
    with pytest.raises(UserError, match='not finite'):
        portable.read(other).variables()


def test_other_files_are_told_apart_in_a_line(written, tmp_path):
    _, path, _ = written
    with pytest.raises(UserError, match='cannot be read: No such file'):
        portable.read(tmp_path / 'missing.safetensors')
    with pytest.raises(UserError, match='cannot be read: Is a directory'):
        portable.read(tmp_path)
    with pytest.raises(UserError, match=r'is a file; a workdir is the folder of a run'):
        trained.find(str(path))
    with pytest.raises(UserError, match='this is a whole trained net'):
        files.read(str(path))


def test_a_net_too_large_for_the_form_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r'config\.face_net\.width'):
        portable.write(trained_nets.make(face_net__width=5.0), tmp_path / 'a.safetensors')
    assert not list(tmp_path.iterdir())


def test_a_net_with_a_class_that_cannot_be_printed_is_not_written(tmp_path):
    net = trained_nets.make('scratch', names=('an\x1b[31mger', 'fear', 'joy'))
    with pytest.raises(UserError, match=r'a class called "an\\x1b\[31mger"') as refused:
        portable.write(net, tmp_path / 'net.safetensors')
    assert str(refused.value).isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('name', 'content', 'form'),
    [
        ('net.onnx', b'\x08\x08\x12\x04' * 8, 'an ONNX model'),
        ('net.stablehlo', b'PK\x03\x04' * 8, 'a zip, as .stablehlo'),
    ],
)
def test_other_forms_are_told(tmp_path, name, content, form):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{form}.*opens .safetensors files'):
        portable.read(tmp_path / name)
