"""Exported state dicts give a plain PyTorch module of the same shape the same logits."""

import json

import jax
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from fn2en_jax import convert
from fn2en_jax.errors import UserError
from fn2en_jax.models.expression_net import MEAN_GREY, ExpressionNet
from fn2en_jax.models.vgg_face import MEAN_RGB, VGGFace
from fn2en_jax.weights import files, own, state_dict, tensors
from fn2en_jax.weights.canonical import Net
from tests import nets

FACE = {'num_classes': 6, 'width': 1 / 16, 'fc_features': 256, 'input_scale': 1 / 64}
WIDTHS = (4, 6, 8, 10, 12)


def image(size, channels):
    return np.random.default_rng(4).uniform(0, 255, (3, size, size, channels)).astype(np.float32)


class Face(nn.Module):
    """VGG-16 as anyone would write it in PyTorch."""

    def __init__(self, size, batch_norm, channels=(4, 8, 16, 32, 32), features=16, classes=6):
        super().__init__()
        into, self.batch_norm = 3, batch_norm
        for block, (out, depth) in enumerate(zip(channels, (2, 2, 3, 3, 3), strict=True), 1):
            for index in range(1, depth + 1):
                self.add(f'conv{block}_{index}', nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d)
                into = out
        self.add('fc6', nn.Linear((size // 32) ** 2 * into, features), nn.BatchNorm1d)
        self.add('fc7', nn.Linear(features, features), nn.BatchNorm1d)
        self.fc8 = nn.Linear(features, classes)

    def add(self, name, layer, norm):
        setattr(self, name, layer)
        if self.batch_norm:
            setattr(self, f'{name}_bn', norm(layer.weight.shape[0]))

    def step(self, name, x):
        x = getattr(self, name)(x)
        return torch.relu(getattr(self, f'{name}_bn')(x) if self.batch_norm else x)

    def forward(self, x):
        for block, depth in enumerate((2, 2, 3, 3, 3), 1):
            for index in range(1, depth + 1):
                x = self.step(f'conv{block}_{index}', x)
            x = nn.functional.max_pool2d(x, 2)
        return self.fc8(self.step('fc7', self.step('fc6', torch.flatten(x, 1))))


class Expression(nn.Module):
    """The expression net in PyTorch. bridge, adapter: layers, or None."""

    def __init__(self, channels, bridge, adapter, into, batch_norm, widths=WIDTHS, classes=6):
        super().__init__()
        sizes = (channels, *widths)
        self.features, self.head = nn.Module(), nn.Module()
        for index in range(1, len(sizes)):
            setattr(self.features, f'conv{index}', nn.Conv2d(sizes[index - 1], sizes[index], 3, padding=1))
            if batch_norm:
                setattr(self.features, f'conv{index}_bn', nn.BatchNorm2d(sizes[index]))
        self.features.bridge, self.head.fc1, self.head.fc2 = bridge, nn.Linear(into, 8), nn.Linear(8, classes)
        self.batch_norm = batch_norm
        if batch_norm:
            self.head.fc1_bn = nn.BatchNorm1d(8)
        if adapter:
            self.features.adapter = adapter

    def forward(self, x):
        for index in range(1, len(WIDTHS) + 1):
            x = getattr(self.features, f'conv{index}')(x)
            x = getattr(self.features, f'conv{index}_bn')(x) if self.batch_norm else x
            x = nn.functional.max_pool2d(torch.relu(x), 2)
        x = self.features.bridge(x.flatten(1) if isinstance(self.features.bridge, nn.Linear) else x)
        x = self.features.adapter(x) if hasattr(self.features, 'adapter') else x
        x = self.head.fc1(x.flatten(1))
        return self.head.fc2(torch.relu(self.head.fc1_bn(x) if self.batch_norm else x))


def logits(module, path, x):
    """As a user would: weights and preprocessing from the file, nothing else."""
    module.load_state_dict(load_file(path))
    with safe_open(path, 'pt') as file:
        told = file.metadata()
    mean = torch.tensor(json.loads(told[f'mean_{told["colour_order"]}']))
    x = (torch.tensor(x.transpose(0, 3, 1, 2)) - mean.reshape(1, -1, 1, 1)) * json.loads(told['input_scale'])
    with torch.no_grad():
        return module.eval()(x).numpy()


def written(path, kind, state, mean, size):
    state_dict.write(path, kind, state, mean=mean, input_scale=1 / 64, image_size=(size, size), class_names=['a', 'b'])


@pytest.mark.parametrize(('size', 'batch_norm'), [(64, False), (96, True)])
def test_the_face_net_gives_the_same_logits(size, batch_norm, tmp_path):
    net, x = VGGFace(batch_norm=batch_norm, **FACE), image(size, 3)
    variables = nets.filled(net, x)
    expected = nets.compiled(net)(variables, x)['fc8']
    written(tmp_path / 'a', 'face net', state_dict.face_net(variables, (size, size)), MEAN_RGB, size)
    found = logits(Face(size, batch_norm), tmp_path / 'a', x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


# name: size, channels, target of stage 1, batch norm, bridge, adapter, inputs of the head
NETS = {
    'bridge': (64, 1, (2, 2, 7), True, lambda: nn.Conv2d(12, 7, 1), None, 28),
    'larger': (64, 3, (4, 4, 7), False, lambda: nn.Conv2d(12, 7, 1), lambda: nn.ConvTranspose2d(7, 7, 4, 2, 1), 112),
    'smaller': (64, 3, (1, 1, 7), False, lambda: nn.Conv2d(12, 7, 1), lambda: nn.Conv2d(7, 7, 2, 2), 7),
    'vector': (96, 1, (9,), True, lambda: nn.Linear(108, 9), None, 9),
}


@pytest.mark.parametrize('name', NETS)
def test_the_expression_net_gives_the_same_logits(name, tmp_path):
    size, channels, target, batch_norm, bridge, adapter, into = NETS[name]
    net = ExpressionNet(6, WIDTHS, target, hidden=8, batch_norm=batch_norm, input_scale=1 / 64)
    x = image(size, channels)
    variables = nets.filled(net, x)
    expected = nets.compiled(net)(variables, x)['logits']
    mean = MEAN_RGB if channels == 3 else (MEAN_GREY,)
    written(tmp_path / 'a', 'expression net', state_dict.expression_net(variables, (size, size)), mean, size)
    module = Expression(channels, bridge(), adapter() if adapter else None, into, batch_norm)
    found = logits(module, tmp_path / 'a', x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_an_exported_face_net_comes_back(tmp_path):
    net, x = VGGFace(**FACE), image(64, 3)
    variables = nets.filled(net, x)
    written(tmp_path / 'a.safetensors', 'face net', state_dict.face_net(variables, (64, 64)), (1.0, 2.0, 3.0), 64)
    back = files.read(str(tmp_path / 'a.safetensors'))
    assert (back.mean_rgb, back.image_size, back.colour_order) == ((1, 2, 3), (64, 64), 'rgb')
    for name, array in back.tensors().items():
        layer, part = name.split('/')[1:]
        np.testing.assert_array_equal(array, variables['params'][layer][part])
    assert back.input_scale == 1 / 64


def test_an_exported_batch_norm_net_comes_back(tmp_path):
    net, x = VGGFace(batch_norm=True, **FACE), image(64, 3)
    variables = nets.filled(net, x)
    written(tmp_path / 'a.safetensors', 'face net', state_dict.face_net(variables, (64, 64)), MEAN_RGB, 64)
    back = files.load(str(tmp_path / 'a.safetensors'))
    assert set(back) == {'params', 'batch_stats'}
    jax.tree.map(np.testing.assert_array_equal, back, dict(variables))


def test_a_state_dict_of_ours_must_state_its_mean(tmp_path):
    net, x = VGGFace(**FACE), image(64, 3)
    state = state_dict.face_net(nets.filled(net, x), (64, 64))
    told = {'format': own.STATE_DICT, 'version': '1', 'net': 'face net', 'colour_order': 'rgb'}
    tensors.write(tmp_path / 'a', state, told)
    with pytest.raises(UserError, match='the metadata give no mean_rgb'):
        files.read(str(tmp_path / 'a'))


def test_the_tool_exports_a_converted_file(tmp_path, monkeypatch):
    from absl import flags
    from absl.testing import flagsaver

    flags.FLAGS.mark_as_parsed()
    net, x = VGGFace(**FACE), image(64, 3)
    variables = nets.filled(net, x)
    source, out = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
    own.write(source, Net({**variables}, 'ours', input_scale=1 / 64, image_size=(64, 64), class_names=('a',) * 6), '')
    with flagsaver.flagsaver(to='pytorch'):
        convert.main([str(source), str(out)])
    found = logits(Face(64, False), out, x)
    np.testing.assert_allclose(found, nets.compiled(net)(variables, x)['fc8'], rtol=1e-5, atol=1e-4)
    own.write(source, Net({**variables}, 'ours', image_size=(96, 96)), '')
    with flagsaver.flagsaver(to='pytorch'), pytest.raises(UserError, match='of another shape: params/fc6/kernel'):
        convert.main([str(source), str(out)])
