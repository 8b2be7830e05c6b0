"""Augmentation against NumPy, and what each change may do to an image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fn2en_jax import rng
from fn2en_jax.data.augmentation import Augmentation, augment, centre_crop
from tests import faces

COUNT, SIZE, CROP = 40, 12, 9
IMAGES = faces.make(COUNT, size=SIZE).images
KEYS = rng.per_example(rng.stream(0, 'augment'), jnp.arange(COUNT))
PLAIN = Augmentation(crop=CROP, flip=False)
run = jax.jit(augment, static_argnums=2)


def crops(image: np.ndarray) -> dict[tuple[int, int, bool], np.ndarray]:
    """Every crop of an image, mirrored and not."""
    places = range(SIZE - CROP + 1)
    cut = {(top, left): image[top : top + CROP, left : left + CROP] for top in places for left in places}
    return {(*place, mirrored): c[:, ::-1] if mirrored else c for place, c in cut.items() for mirrored in (False, True)}


def found_crops(augmented: np.ndarray) -> list[tuple[int, int, bool]]:
    """Which crop of its image each augmented image is; fails where it is none."""
    names = []
    for image, result in zip(IMAGES, augmented, strict=True):
        (name,) = (name for name, crop in crops(image).items() if np.array_equal(crop, result))
        names.append(name)
    return names


def test_centre_crop_cuts_the_middle_exactly():
    found = centre_crop(jnp.asarray(IMAGES), CROP)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, IMAGES[:, 1:10, 1:10])
    np.testing.assert_array_equal(centre_crop(jnp.asarray(IMAGES), SIZE), IMAGES)


def test_the_default_is_a_random_crop_mirrored_for_half_of_the_images():
    found = run(IMAGES, KEYS, Augmentation(crop=CROP))
    assert found.dtype == jnp.float32
    names = found_crops(np.asarray(found))
    tops, lefts, mirrored = zip(*names, strict=True)
    places = set(range(SIZE - CROP + 1))
    assert set(tops) == places  # both ends are reached
    assert set(lefts) == places
    assert {(top, left) for top, left, _ in names} - {(top, top) for top in places}  # drawn apart
    assert 10 <= sum(mirrored) <= 30


def test_without_flip_nothing_is_mirrored():
    assert not any(mirrored for *_, mirrored in found_crops(np.asarray(run(IMAGES, KEYS, PLAIN))))


def test_an_image_depends_on_its_own_key_only():
    spec = Augmentation(crop=CROP, rotate=10.0, zoom=0.1, brightness=0.2, contrast=0.2, erase=0.4)
    whole = run(IMAGES, KEYS, spec)
    np.testing.assert_array_equal(run(IMAGES[20:], KEYS[20:], spec), whole[20:])
    changed = run(np.flip(IMAGES, 0)[:20], KEYS[:20], spec)  # the same keys, other images
    assert not np.array_equal(changed, whole[:20])
    same_image = run(np.repeat(IMAGES[:1], COUNT, 0), KEYS, spec)
    assert len(np.unique(same_image, axis=0)) == COUNT  # every key draws differently


def test_a_warp_that_does_nothing_is_the_centre_crop():
    """Rotation by at most a billionth of a degree, and no margin to shift by."""
    spec = Augmentation(crop=SIZE, flip=False, rotate=1e-9)
    np.testing.assert_allclose(run(IMAGES, KEYS, spec), IMAGES, atol=0.02)
    mirrored = np.asarray(run(IMAGES, KEYS, dataclasses.replace(spec, flip=True)))
    for image, result in zip(IMAGES, mirrored, strict=True):
        distances = [np.abs(result - candidate.astype(np.float32)).max() for candidate in (image, image[:, ::-1])]
        assert min(distances) < 0.02


def smooth_image() -> np.ndarray:
    rows, columns = np.mgrid[:33, :33]
    return np.stack([120 + 50 * np.sin(rows / 7), 120 + 50 * np.cos(columns / 5), 3 * columns + rows], -1).astype(
        np.uint8
    )


@pytest.mark.parametrize(('rotate', 'zoom'), [(15.0, 0.0), (0.0, 0.2), (15.0, 0.2)])
def test_rotation_and_zoom_agree_with_scipy(rotate, zoom):
    """For each key, some angle and scale within the limits make scipy give the same image."""
    image = smooth_image()
    spec = Augmentation(crop=33, flip=False, rotate=rotate, zoom=zoom)
    found = np.asarray(run(np.repeat(image[None], 4, 0), KEYS[:4], spec))

    def warped(angle: float, scale: float) -> np.ndarray:
        cos, sin = np.cos(np.deg2rad(angle)) / scale, np.sin(np.deg2rad(angle)) / scale
        matrix = np.array([[cos, -sin], [sin, cos]])
        offset = 16 - matrix @ np.array([16, 16])
        return np.stack(
            [
                ndimage.affine_transform(image[..., c].astype(float), matrix, offset, order=1, mode='nearest')
                for c in range(3)
            ],
            -1,
        )

    angles = np.linspace(-rotate, rotate, 31) if rotate else [0.0]
    scales = np.linspace(1 - zoom, 1 + zoom, 21) if zoom else [1.0]
    candidates = [warped(angle, scale) for angle in angles for scale in scales]
    best = [min(np.abs(candidate - result).mean() for candidate in candidates) for result in found]
    assert max(best) < 1.0  # grey values; the grid of candidates is that coarse
    assert np.abs(found - image).mean() > 2.0  # and something did happen


def test_brightness_shifts_all_grey_values_alike_within_its_bound():
    flat = np.full((COUNT, CROP, CROP, 3), 128, np.uint8)
    found = np.asarray(run(flat, KEYS, dataclasses.replace(PLAIN, brightness=0.2)))
    shift = found[:, 0, 0, 0] - 128
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1, :1], found.shape))
    assert np.abs(shift).max() <= 0.2 * 255
    assert shift.min() < -20
    assert shift.max() > 20
    bright = np.asarray(run(np.full_like(flat, 250), KEYS, dataclasses.replace(PLAIN, brightness=0.2)))
    assert bright.max() == 255.0


def test_contrast_scales_about_the_mean_within_its_bound():
    half = np.zeros((COUNT, CROP + 1, CROP + 1, 1), np.uint8)
    half[:, :, :5], half[:, :, 5:] = 100, 140
    spec = Augmentation(crop=CROP + 1, flip=False, contrast=0.3)
    found = np.asarray(run(half, KEYS, spec))
    gains = (found[:, 0, -1, 0] - found[:, 0, 0, 0]) / 40
    np.testing.assert_allclose(found.mean((1, 2, 3)), 120, rtol=1e-5)
    assert 0.7 <= gains.min() < 0.85
    assert 1.15 < gains.max() <= 1.3


def test_erasing_paints_one_rectangle_no_larger_than_told():
    spec = Augmentation(crop=SIZE, flip=False, erase=0.5)
    found, before = np.asarray(run(IMAGES, KEYS, spec)), IMAGES.astype(np.float32)
    sides = []
    for image, result in zip(before, found, strict=True):
        changed = (image != result).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if not len(rows):
            continue
        filled = np.zeros_like(changed)
        filled[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        np.testing.assert_array_equal(changed, filled)
        np.testing.assert_allclose(result[changed], image.mean(), rtol=1e-5)
        sides += [len(rows), len(columns)]
    assert max(sides) <= 0.5 * SIZE
    assert max(sides) >= 4
    assert len(sides) >= COUNT  # most images lose something
