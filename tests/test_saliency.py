"""Grad-CAM against PyTorch in double precision, and by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fn2en_jax import saliency
from fn2en_jax.models.expression_net import ExpressionNet
from fn2en_jax.models.vgg_face import MEAN_RGB, VGGFace
from tests import faces
from tests.nets import filled


class PooledHead(nn.Module):
    """A map that is the image itself, its mean over space, and a linear classifier: alpha is known by hand."""

    @nn.compact
    def __call__(self, image, *, offsets=None):
        maps = image + (offsets or {}).get('maps', 0.0)
        return {'maps': maps, 'logits': nn.Dense(2, name='fc')(maps.mean((1, 2)))}


def test_a_linear_head_over_pooled_maps_by_hand():
    """The gradient of a mean over h w places is w_f / (h w) everywhere, and so is alpha."""
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 4)), jnp.float32)
    kernel = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    variables = {'params': {'fc': {'kernel': jnp.asarray(kernel), 'bias': jnp.zeros(2)}}}
    classes = jnp.asarray([1, 0])
    found = saliency.grad_cam(PooledHead(), variables, image, classes, layer='maps', output='logits')
    expected = np.maximum(np.einsum('bhwf,fb->bhw', image, kernel[:, [1, 0]]), 0) / 15
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (np.asarray(found) == 0).any()


def test_evidence_of_the_mirror_image_is_turned_back():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)), jnp.float32)
    variables = PooledHead().init(jax.random.PRNGKey(0), image)
    options = {'layer': 'maps', 'output': 'logits'}
    one = saliency.grad_cam(PooledHead(), variables, image, jnp.asarray([1]), **options)
    both = saliency.grad_cam(PooledHead(), variables, image, jnp.asarray([1]), mirror=True, **options)
    np.testing.assert_allclose(both, one, rtol=1e-5)  # this net does not care which side is left


def _torch_cam(params, image, label, blocks):
    """Grad-CAM at the last pool of an expression net without batch norm, and the gradient by autograd."""
    tensor = lambda x: torch.tensor(np.asarray(x, np.float64))  # noqa: E731
    x = tensor(image).permute(0, 3, 1, 2) - tensor(MEAN_RGB).reshape(1, 3, 1, 1)
    features, head = params['features'], params['head']
    for index in range(1, blocks + 1):
        layer = features[f'conv{index}']
        x = nn_conv(x, tensor(layer['kernel']), tensor(layer['bias']))
        x = torch.nn.functional.max_pool2d(torch.relu(x), 2)
    maps = x.requires_grad_()
    bridge = nn_conv(maps, tensor(features['bridge']['kernel']), tensor(features['bridge']['bias']))
    hidden = torch.relu(
        bridge.permute(0, 2, 3, 1).flatten(1) @ tensor(head['fc1']['kernel']) + tensor(head['fc1']['bias'])
    )
    logits = hidden @ tensor(head['fc2']['kernel']) + tensor(head['fc2']['bias'])
    (gradient,) = torch.autograd.grad(logits[0, label], maps)
    return torch.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1)).detach().numpy()


def nn_conv(x, kernel, bias):
    return torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding='same')


def test_it_agrees_with_pytorch_in_double_precision():
    net = ExpressionNet(3, features=(4, 6), target_shape=(8, 8, 5), hidden=7)
    images = jnp.asarray(faces.make(2, size=32).images, jnp.float32)
    variables = filled(net, images)
    strongest = 0.0
    for label in range(3):
        classes = jnp.asarray([label, 2 - label])
        found = saliency.grad_cam(net, variables, images, classes, layer='pool2', output='logits')
        for i, one in enumerate(classes.tolist()):
            expected = _torch_cam(variables['params'], images[i : i + 1], one, 2)[0]
            strongest = max(strongest, expected.max())
            np.testing.assert_allclose(found[i], expected, rtol=1e-3, atol=1e-4 * max(strongest, 1e-3))
    assert strongest > 0


def test_offsets_reach_the_map_they_name():
    """A derivative by an offset is a derivative by the map: adding to a map adds what its gradient foretells."""
    net, images = VGGFace(3, width=1 / 16, fc_features=64), jnp.asarray(faces.make(1, size=32).images, jnp.float32)
    variables = filled(net, images)
    clean = net.apply(variables, images)
    moved = net.apply(variables, images, offsets={'conv5_3': jnp.ones_like(clean['conv5_3'])})
    np.testing.assert_array_equal(moved['conv5_3'], clean['conv5_3'] + 1)
    np.testing.assert_allclose(moved['pool5'], clean['pool5'] + 1, rtol=1e-5)
    np.testing.assert_array_equal(moved['pool4'], clean['pool4'])


def test_an_overlay_is_enlarged_and_its_maximum_is_one():
    found = saliency.over(jnp.asarray([[[0.0, 2.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]), 8)
    np.testing.assert_allclose(found[0].max(), 1.0)
    assert (np.diff(np.asarray(found[0]), axis=1) >= 0).all()
    np.testing.assert_array_equal(found[1], 0.0)


def test_the_deepest_map_that_is_large_enough():
    shapes = {'conv1': (1, 8, 8, 3), 'pool1': (1, 4, 6, 3), 'conv2': (1, 4, 4, 3), 'pool2': (1, 2, 2, 3), 'fc': (1, 9)}
    assert saliency.deepest_map(shapes, 4) == 'conv2'
    assert saliency.deepest_map(shapes, 2) == 'pool2'
    assert saliency.deepest_map(shapes, 99) == 'conv1'
    with pytest.raises(ValueError, match='is a map'):
        saliency.deepest_map({'fc': (1, 9)}, 1)


def test_images_that_tell_nets_apart():
    #                 both       first only  second only  none
    right = np.array([[1, 1, 1,  1,          0,           0], [1, 1, 1, 0, 1, 0]], bool)  # fmt: skip
    sure = np.array([0.5, 0.9, 0.8, 0.7, 0.7, 0.7])
    labels = np.array([0, 1, 1, 0, 0, 0])
    assert saliency.telling(right, sure, labels, 4).tolist() == [1, 3, 4, 5]
    assert saliency.telling(right, sure, labels, 5).tolist() == [1, 0, 3, 4, 5]  # class 0 before a second of class 1
    assert saliency.telling(right, sure, labels, 99).tolist() == [1, 0, 2, 3, 4, 5]
