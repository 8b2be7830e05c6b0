"""Face nets from safetensors files."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from fn2en_jax import trees
from fn2en_jax.errors import UserError
from fn2en_jax.methods.finetune import from_face_net
from fn2en_jax.models.vgg_face import VGGFace
from fn2en_jax.weights import files
from fn2en_jax.weights.canonical import Wish


def shapes(classes: int) -> dict:
    model = VGGFace(num_classes=classes, width=1 / 64, fc_features=128, batch_norm=True)
    return jax.eval_shape(model.init, jax.random.PRNGKey(0), jnp.zeros((1, 32, 32, 3)))


def filled(classes: int, seed: int) -> dict:
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape, np.float32), shapes(classes))


def flat(variables: dict) -> dict[str, np.ndarray]:
    return dict(trees.paths(variables))


def test_a_written_net_comes_back_and_everything_but_the_classifier_is_taken(tmp_path):
    face = filled(5, seed=1)
    save_file(flat(face), tmp_path / 'face.safetensors')
    loaded = files.load(str(tmp_path / 'face.safetensors'))
    jax.tree.map(np.testing.assert_array_equal, loaded, dict(face))
    own = filled(7, seed=2)
    taken = from_face_net(own, loaded)
    assert set(taken) == {'params', 'batch_stats'}
    for name, leaf in flat(taken).items():
        source = own if '/fc8/' in name else face
        np.testing.assert_array_equal(leaf, flat(source)[name])


def test_names_without_a_collection_are_parameters(tmp_path):
    face = filled(5, seed=1)
    short = {name.removeprefix('params/'): leaf for name, leaf in flat(face).items()}
    save_file(short, tmp_path / 'a.safetensors')
    jax.tree.map(np.testing.assert_array_equal, files.load(str(tmp_path / 'a.safetensors')), dict(face))


def test_a_net_of_another_shape_is_refused_by_name(tmp_path):
    face = flat(filled(5, seed=1))
    face['params/conv2_1/kernel'] = face['params/conv2_1/kernel'][..., :-1]
    del face['params/fc7/bias']
    save_file({name: np.ascontiguousarray(leaf) for name, leaf in face.items()}, tmp_path / 'a.safetensors')
    with pytest.raises(UserError, match=r'missing: fc7/bias.*conv2_1/kernel'):
        from_face_net(filled(7, seed=2), files.load(str(tmp_path / 'a.safetensors')))


def test_missing_truncated_and_spoilt_files_are_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    with pytest.raises(UserError, match='there is no file'):
        files.load(str(path))
    save_file({'conv1_1/bias': np.arange(300, dtype=np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match='not a readable safetensors file'):
        files.load(str(path))
    face = flat(filled(5, seed=1))
    face['params/conv1_1/bias'] = face['params/conv1_1/bias'] * np.nan
    save_file(face, path)
    with pytest.raises(UserError, match='conv1_1/bias holds values that are not finite'):
        files.load(str(path))


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'params/conv1_1/bias/x': (2,)}, 'surplus: params/conv1_1/bias/x$'),
        ({'conv1_1/bias': (1,)}, r'bias of conv1_1 is there twice'),
        ({'params/fc8': (3,)}, 'surplus: params/fc8$'),
        ({'params/fc6/foo': (3,)}, 'surplus: params/fc6/foo$'),
        ({'params/conv1_1_bn/mean': (1,)}, 'surplus: params/conv1_1_bn/mean$'),
        ({'params/fc8_bn/scale': (5,)}, 'surplus: params/fc8_bn/scale$'),
        ({'params/a\n\x1b[31mred': (1,)}, r'surplus: params/a.n.x1b\[31mred$'),
        ({'batch_stats/fc7_bn/var': (9,)}, r'of another shape: batch_stats/fc7_bn/var \(9,\) where 2 values'),
        ({'params/conv5_3/kernel': None}, 'missing: conv5_3/kernel$'),
        ({'batch_stats/fc7_bn/var': None}, 'missing: fc7_bn/var$'),
        (
            {'params/conv1_1/kernel': (3, 3, 3, 7)},
            r'of another shape: params/conv1_2/kernel \(3, 3, 1, 1\) where .* \(3, 3, 7, 7\)',
        ),
    ],
)
def test_every_tensor_of_our_own_form_is_accounted_for(changes, match, tmp_path):
    face = flat(filled(5, seed=1)) | {name: np.ones(shape or 1, np.float32) for name, shape in changes.items()}
    save_file({name: leaf for name, leaf in face.items() if changes.get(name, ()) is not None}, tmp_path / 'a')
    with pytest.raises(UserError, match=match) as caught:
        files.load(str(tmp_path / 'a'))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize('names', [(), ('a', 'b/c'), ('batch_stats/x',), ('params/fc8',)])
def test_a_foreign_or_empty_file_is_no_face_net(names, tmp_path):
    save_file({name: np.ones(3, np.float32) for name in names}, tmp_path / 'a')
    with pytest.raises(UserError, match='this is not a VGG-16 face net; missing: conv1_1/kernel'):
        files.load(str(tmp_path / 'a'))


@pytest.mark.parametrize('dtype', [np.float16, np.float64])
def test_our_own_form_in_other_precision_becomes_float32(dtype, tmp_path):
    face = flat(filled(5, seed=1))
    save_file({name: leaf.astype(dtype) for name, leaf in face.items()}, tmp_path / 'a')
    for name, array in files.read(str(tmp_path / 'a')).tensors().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, face[name].astype(dtype).astype(np.float32))


def test_what_a_file_without_metadata_is_taken_for_is_said(tmp_path):
    save_file(flat(filled(5, seed=1)), tmp_path / 'a')
    net = files.read(str(tmp_path / 'a'))
    assert net.mean_rgb is None
    assert 'h,w,in,out for RGB' in net.notes[0]
    assert '--mean=R,G,B' in net.notes[1]
    assert len(files.read(str(tmp_path / 'a'), Wish(mean_rgb=(1.0, 2.0, 3.0))).notes) == 1


def test_convolutions_of_a_batch_norm_net_come_with_theirs(tmp_path):
    face = filled(5, seed=1)
    save_file(flat(face), tmp_path / 'a')
    net = files.read(str(tmp_path / 'a'), Wish(layers='convolutions'))
    expected = {name for name in flat(face) if '/fc' not in name}
    assert set(net.tensors()) == expected


def test_a_net_of_odd_width_comes_back(tmp_path):
    model = VGGFace(num_classes=3, width=0.1, fc_features=40)
    face = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, np.float32),
        jax.eval_shape(model.init, jax.random.PRNGKey(0), jnp.zeros((1, 32, 32, 3))),
    )
    save_file(flat(face), tmp_path / 'a')
    jax.tree.map(np.testing.assert_array_equal, files.load(str(tmp_path / 'a')), dict(face))


def test_the_digest_of_a_file_changes_with_its_bytes(tmp_path):
    (tmp_path / 'a').write_bytes(b'1')
    (tmp_path / 'b').write_bytes(b'2')
    assert files.sha256(str(tmp_path / 'a')) == hashlib.sha256(b'1').hexdigest()
    assert files.sha256(str(tmp_path / 'b')) == hashlib.sha256(b'2').hexdigest()
