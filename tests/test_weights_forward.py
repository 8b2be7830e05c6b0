"""The imported net computes what the file's own program would: a plain NumPy net in the convention of each format.

The image is not square and its colours differ, so exchanged axes, colours or means show.
"""

import functools

import h5py
import jax
import numpy as np
import pytest
import scipy.io
import torch

from fn2en_jax.models.vgg_face import VGGFace
from fn2en_jax.weights import files
from fn2en_jax.weights.canonical import Wish
from tests import weight_files as writers

SIZE = (64, 96)
MADE = writers.net(seed=5, side=(2, 3))
RGB_MEAN = np.array(writers.MEAN, np.float32)


def picture():
    """[H,W,3] RGB of 0..255: reddish at the top left, bluish at the bottom right, with noise."""
    draw = np.random.default_rng(1)
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    red, green, blue = 220 - 2 * rows, 60 + columns, 20 + rows + columns
    return np.clip(np.stack([red, green, blue], -1) + draw.normal(size=(*SIZE, 3)) * 20, 0, 255).astype(np.float32)


IMAGE = picture()


# ----------------------------------------------------------------------------------- NumPy nets, float64, one image


def windows(x, height, width):
    """[..., H-h+1, W-w+1, h, w] of the first two axes of x [H,W,C] -> [H',W',C,h,w]."""
    return np.lib.stride_tricks.sliding_window_view(x, (height, width), (0, 1))


def forward_channels_last(image, layers, correlate=True):
    """image [H,W,3]; layers: (kernel [h,w,in,out] or matrix [in,out], bias) -> logits."""
    x = image.astype(np.float64)
    for index, (kernel, bias) in enumerate(layers):
        if index < 13:
            x = np.maximum(convolved_last(np.pad(x, ((1, 1), (1, 1), (0, 0))), kernel, correlate) + bias, 0)
            if index in (1, 3, 6, 9, 12):
                h, w, c = x.shape
                x = x.reshape(h // 2, 2, w // 2, 2, c).max((1, 3))
            continue
        x = (
            x.reshape(-1) @ kernel
            if kernel.ndim == 2
            else convolved_last(x.reshape((1, 1, -1) if x.ndim == 1 else x.shape), kernel, correlate)
        )
        x = (x.reshape(-1) + bias) if index == 15 else np.maximum(x.reshape(-1) + bias, 0)
    return x


def convolved_last(x, kernel, correlate):
    kernel = kernel if correlate else kernel[::-1, ::-1]
    return np.einsum('yxchw,hwco->yxo', windows(x, *kernel.shape[:2]), kernel.astype(np.float64), optimize=True)


def forward_channels_first(image, layers):
    """image [3,H,W]; layers: (kernel [out,in,h,w] or matrix [out,in], bias) -> logits."""
    x = image.astype(np.float64)
    for index, (kernel, bias) in enumerate(layers):
        kernel = kernel.astype(np.float64)
        if index < 13:
            view = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
            x = np.maximum(np.einsum('cyxhw,ochw->oyx', view, kernel, optimize=True) + bias[:, None, None], 0)
            if index in (1, 3, 6, 9, 12):
                c, h, w = x.shape
                x = x.reshape(c, h // 2, 2, w // 2, 2).max((2, 4))
            continue
        x = kernel.reshape(len(kernel), -1) @ x.reshape(-1) + bias
        x = x if index == 15 else np.maximum(x, 0)
    return x


# ------------------------------------- what the format's own program sees: its file, its colours, its mean, its layout


def rgb_last():
    return IMAGE - RGB_MEAN


def bgr_last():
    return IMAGE[:, :, ::-1] - RGB_MEAN[::-1]


def first(image):
    return image.transpose(2, 0, 1)


def matconvnet(path):
    writers.matconvnet(path, MADE)
    layers = scipy.io.loadmat(path)['net'][0, 0]['layers'][0]
    weights = [layer[0, 0]['weights'] for layer in layers if 'weights' in layer.dtype.names]
    return forward_channels_last(rgb_last(), [(pair[0, 0], pair[0, 1].reshape(-1)) for pair in weights])


def caffe(path):
    writers.caffe(path, MADE, form='new', legacy=False)
    bgr = writers.for_bgr(MADE)
    layers = [(writers.matrix(k) if name in writers.DENSE else writers.oihw(k), b) for name, (k, b) in bgr.items()]
    return forward_channels_first(first(bgr_last()), layers)


def torch7(path):
    writers.torch7(path, MADE)
    layers = []
    for _, fields in writers.torch7_modules(MADE):
        if b'weight' in fields:
            weight = fields[b'weight']
            layers.append((weight.reshape(len(weight), -1, 3, 3) if len(layers) < 13 else weight, fields[b'bias']))
    return forward_channels_first(first(bgr_last()), layers)


def dag(path):
    writers.pytorch(path, writers.state(MADE, 'dag'))
    return forward_channels_first(first(rgb_last()), from_torch(path))


def prlz77(path):
    writers.pytorch(path, writers.state(MADE, 'prlz77'), zipped=False)
    return forward_channels_first(first(bgr_last()), from_torch(path))


def torchvision(path):
    arrays = writers.state(MADE, 'torchvision')
    arrays['features.0.weight'] *= 60  # for input of about 1
    writers.pytorch(path, arrays)
    mean, std = (np.array(v, np.float64) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return forward_channels_first(first((IMAGE / 255.0 - mean) / std), from_torch(path))


def from_torch(path):
    arrays = [tensor.numpy() for tensor in torch.load(path, weights_only=True).values()]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def rcmalli(path):
    writers.keras(path, MADE)
    return forward_channels_last(bgr_last(), from_keras(path))


def deepface(path):
    writers.keras(path, MADE, kind='deepface')
    return forward_channels_last(rgb_last(), from_keras(path))


def theano(path):
    writers.keras(path, MADE, kind='theano', version=1)
    with h5py.File(path) as file:
        layers = [
            (file[name][f'{name}_W'][()].transpose(2, 3, 1, 0), file[name][f'{name}_b'][()]) for name in writers.LAYERS
        ]
    return forward_channels_last(rgb_last(), layers, correlate=False)


def from_keras(path):
    with h5py.File(path) as file:
        return [(file[name][name]['kernel:0'][()], file[name][name]['bias:0'][()]) for name in writers.LAYERS]


SOURCES = {
    'matconvnet': (matconvnet, {}),
    'caffe': (caffe, {}),
    'torch7': (torch7, {}),
    'dag': (dag, {'colour_order': 'rgb'}),
    'prlz77': (prlz77, {}),
    'torchvision': (torchvision, {}),
    'rcmalli': (rcmalli, {}),
    'deepface': (deepface, {}),
    'theano': (theano, {'colour_order': 'rgb', 'theano_flipped': True}),
}


@functools.cache
def ours(mean):
    net = VGGFace(writers.CLASSES, width=1 / 16, fc_features=16 * writers.FEATURES, dropout_rate=0.0, mean_rgb=mean)
    return jax.jit(lambda variables: net.apply(variables, IMAGE[None])['fc8'][0])


@pytest.mark.parametrize('source', SOURCES)
def test_the_imported_net_computes_what_the_source_does(source, tmp_path):
    forward, wish = SOURCES[source]
    expected = forward(tmp_path / 'weights')
    net = files.read(str(tmp_path / 'weights'), Wish(image_size=SIZE, **wish))
    found = np.asarray(ours(net.mean_rgb)(net.variables))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_comparison_notices_colours_and_axes(tmp_path):
    """What the test above would see if something were exchanged: far more than its tolerance."""
    expected = dag(tmp_path / 'weights')
    net = files.read(str(tmp_path / 'weights'), Wish(image_size=SIZE, colour_order='bgr'))
    exchanged = np.asarray(ours(net.mean_rgb)(net.variables))
    assert np.abs(exchanged - expected).max() > 0.05 * np.abs(expected).max()
    transposed = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1) if leaf.ndim == 4 else leaf, net.variables)
    assert np.abs(np.asarray(ours(net.mean_rgb)(transposed)) - expected).max() > 0.05 * np.abs(expected).max()
