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
    save_file({'conv1_1/bias': np.arange(3, dtype=np.float32)}, tmp_path / 'a.safetensors')
    loaded = files.load(str(tmp_path / 'a.safetensors'))
    np.testing.assert_array_equal(loaded['params']['conv1_1']['bias'], [0, 1, 2])


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
    save_file({'conv1_1/bias': np.array([1, np.nan], np.float32)}, path)
    with pytest.raises(UserError, match='conv1_1/bias holds values that are not finite'):
        files.load(str(path))


def test_tensors_inside_each_other_are_refused(tmp_path):
    for second in ('conv1_1/bias/x', 'params/conv1_1/bias'):
        path = tmp_path / 'a.safetensors'
        save_file({'conv1_1/bias': np.ones(2, np.float32), second: np.ones(2, np.float32)}, path)
        with pytest.raises(UserError, match='the file is no face net'):
            files.load(str(path))


def test_the_digest_of_a_file_changes_with_its_bytes(tmp_path):
    (tmp_path / 'a').write_bytes(b'1')
    (tmp_path / 'b').write_bytes(b'2')
    assert files.sha256(str(tmp_path / 'a')) == hashlib.sha256(b'1').hexdigest()
    assert files.sha256(str(tmp_path / 'b')) == hashlib.sha256(b'2').hexdigest()
