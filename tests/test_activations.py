"""Activations by name, averaged over regions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fn2en_jax.activations import WHOLE, Activations, Pixels, flat, regional_means
from fn2en_jax.models.vgg_face import VGGFace
from tests import faces
from tests.nets import filled


@pytest.mark.parametrize(('height', 'width', 'grid'), [(7, 7, 3), (6, 12, 3), (10, 5, 4), (24, 17, 5)])
def test_regions_are_those_of_adaptive_pooling(height, width, grid):
    maps = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(maps).permute(0, 3, 1, 2), grid)
    found = regional_means(jnp.asarray(maps), grid)
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), atol=1e-6)


def test_small_maps_and_units_stay_as_they_are():
    maps, units = jnp.arange(8.0).reshape(1, 2, 2, 2), jnp.arange(3.0).reshape(1, 3)
    np.testing.assert_array_equal(regional_means(maps, 3), maps)
    np.testing.assert_array_equal(regional_means(units, 3), units)
    np.testing.assert_array_equal(regional_means(maps, WHOLE), maps)


def test_an_evaluator_returns_what_it_is_asked_for_in_that_order():
    net, images = VGGFace(3, width=1 / 32, fc_features=64), jnp.asarray(faces.make(2, size=32).images, jnp.float32)
    variables = filled(net, images)
    names = ('pool2', 'fc7', 'conv1_2')
    found = jax.jit(Activations(net, names, grid=2).eval_step)(None, variables, {'image': images})
    whole = net.apply(variables, images)
    np.testing.assert_allclose(found['fc7'], whole['fc7'], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found['pool2'][:, 0, 1], whole['pool2'][:, :4, 4:].mean((1, 2)), rtol=1e-5, atol=1e-6)
    rows = flat(jax.device_get(found), names)
    assert {name: row.shape for name, row in rows.items()} == {'pool2': (2, 16), 'fc7': (2, 2), 'conv1_2': (2, 8)}
    assert tuple(rows) == names
    pixels = Pixels(4).eval_step(None, None, {'image': images})['pixels']
    np.testing.assert_allclose(pixels[1, 3, 0], images[1, 24:, :8].mean((0, 1)), rtol=1e-5)
