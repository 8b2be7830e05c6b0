"""Gradient ascent on neurons whose best input is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fn2en_jax import ascent
from fn2en_jax.ascent import Ascent

PLAIN = Ascent(
    steps=40,
    step_size=2.0,
    last_step_size=2.0,
    copies=1,
    jitter=0.0,
    mirror=False,
    blur=0.0,
    last_blur=0.0,
    decay=0.1,
    chroma=1.0,
    noise=0.0,
)
GREY = jnp.full((1,), 100.0)
KEY = jax.random.PRNGKey(0)


@dataclasses.dataclass(frozen=True)
class Linear:
    """The k-th image's product with the k-th weights."""

    def __call__(self, variables, images):
        return (images * variables).sum((1, 2, 3))


def weights(count=3, side=6, channels=1):
    return np.random.default_rng(0).normal(size=(count, side, side, channels)).astype(np.float32)


def climb(spec, variables, colour=GREY):
    begin = ascent.start(spec, KEY, colour, len(variables), variables.shape[1])
    return np.asarray(ascent.maximise(spec, Linear(), variables, begin, colour, KEY))


def unit(w):
    return w / np.sqrt((w**2).mean((1, 2, 3), keepdims=True))


def test_a_linear_neuron_is_climbed_to_the_closed_form():
    """x_t - c = (1 - d) (x_(t-1) - c + s w), a geometric series with the limit s w (1 - d) / d."""
    w = weights()
    found = climb(PLAIN, w)
    expected = 100 + 2.0 * unit(w) * (0.9 * (1 - 0.9**40) / 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(climb(dataclasses.replace(PLAIN, steps=400), w), 100 + 18 * unit(w), rtol=1e-4)


def test_step_sizes_fall_linearly():
    w, x = weights().astype(np.float64), 0.0
    for size in np.linspace(2.0, 0.5, 7):
        x = 0.9 * (x + size * unit(w))
    found = climb(dataclasses.replace(PLAIN, steps=7, last_step_size=0.5), weights())
    np.testing.assert_allclose(found, 100 + x, rtol=1e-5)


def test_values_stay_in_the_range_of_images():
    w = np.sign(weights())
    found = climb(dataclasses.replace(PLAIN, step_size=90.0, last_step_size=90.0, decay=0.0), w)
    np.testing.assert_array_equal(found, np.where(w > 0, 255.0, 0.0))


def test_a_neuron_without_gradient_stays_where_it_is():
    np.testing.assert_array_equal(climb(PLAIN, np.zeros((2, 6, 6, 1), np.float32)), 100.0)


def test_mirrored_copies_make_a_symmetric_picture():
    w = weights()
    found = climb(dataclasses.replace(PLAIN, copies=2, mirror=True), w)
    np.testing.assert_allclose(found, found[:, :, ::-1], atol=1e-4)
    symmetric = unit((w + w[:, :, ::-1]) / 2)
    np.testing.assert_allclose(found, 100 + 2.0 * symmetric * (0.9 * (1 - 0.9**40) / 0.1), rtol=1e-4)


def test_jitter_moves_the_image_and_not_the_picture():
    """A neuron that looks at one pixel, shaken by one pixel: the picture is spread around it, and nowhere else."""
    w = np.zeros((1, 9, 9, 1), np.float32)
    w[0, 4, 4] = 1
    found = climb(dataclasses.replace(PLAIN, jitter=1 / 9, decay=0.01), w)[0, :, :, 0] - 100
    assert (found[3:6, 3:6] > 0).all()
    found[3:6, 3:6] = 0
    np.testing.assert_array_equal(found, 0)


def test_chroma_leaves_out_differences_of_colours():
    w = weights(channels=3)
    colour = jnp.asarray([90.0, 100.0, 110.0])
    found = climb(dataclasses.replace(PLAIN, chroma=0.0), w, colour) - np.asarray(colour)
    np.testing.assert_allclose(found, found[..., :1].repeat(3, 3), atol=1e-3)
    grey = unit(w.mean(3, keepdims=True))
    np.testing.assert_allclose(found[..., :1], 2.0 * grey * (0.9 * (1 - 0.9**40) / 0.1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('deviation', [0.0, 0.7, 1.5])
def test_blur_is_a_gaussian(deviation):
    images = np.random.default_rng(1).uniform(0, 255, (2, 21, 17, 2)).astype(np.float32)
    found = ascent.blurred(jnp.asarray(images), deviation)
    expected = ndimage.gaussian_filter(images, (0, deviation, deviation, 0), truncate=9)
    inside = np.s_[:, 8:-8, 8:-8]  # the border is treated in another way
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-4)
    np.testing.assert_allclose(ascent.blurred(jnp.full((1, 5, 5, 1), 7.0), deviation), 7.0, rtol=1e-5)


def test_the_same_key_gives_the_same_picture_and_another_key_another():
    spec = dataclasses.replace(PLAIN, noise=30.0, jitter=0.2, copies=2)
    np.testing.assert_array_equal(climb(spec, weights()), climb(spec, weights()))
    begin = ascent.start(spec, KEY, GREY, 3, 6)
    assert np.ptp(np.asarray(begin), axis=0).max() == 0  # all start from the same noise
    other = ascent.maximise(spec, Linear(), weights(), begin, GREY, jax.random.PRNGKey(1))
    assert np.abs(np.asarray(other) - climb(spec, weights())).max() > 1
