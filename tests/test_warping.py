import numpy as np
import pytest

from fn2en_jax.data import warping

HALF_TURN = np.array([[0.0, -2.0, 5.0], [2.0, 0.0, 7.0]])  # twice the size, a quarter turn clockwise, shifted


def test_two_points_fix_a_similarity_exactly():
    source = np.array([[1.0, 2.0], [4.0, -1.0]])
    found = warping.through_points(source, warping.move(HALF_TURN, source))
    np.testing.assert_allclose(found, HALF_TURN, atol=1e-12)


def test_more_points_are_fitted_by_least_squares():
    source = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    stretched = source * (1, 3)  # no similarity: of 1 and 3 the mean, 2, is the best
    found = warping.through_points(source, stretched)
    np.testing.assert_allclose(found, [[2, 0, -1], [0, 2, 1]], atol=1e-12)


def test_a_square_about_a_box_has_its_longer_side():
    transform = warping.of_square((10, 20, 40, 20), 80)
    np.testing.assert_allclose(warping.move(transform, np.array([[10, 10], [50, 50]])), [[0, 0], [80, 80]], atol=1e-9)


def test_roll_is_undone():
    transform = warping.of_square((0, 0, 100, 100), 100, roll=90)
    # Where a head leans clockwise by 90 degrees its crown is on the right: it comes to the top.
    np.testing.assert_allclose(warping.move(transform, np.array([100, 50])), [50, 0], atol=1e-9)


def test_inverse_and_scale():
    points = np.array([[3.0, 4.0], [-1.0, 2.0]])
    np.testing.assert_allclose(warping.move(warping.inverse(HALF_TURN), warping.move(HALF_TURN, points)), points)
    assert warping.scale_of(HALF_TURN) == 2
    assert warping.scale_of(warping.inverse(HALF_TURN)) == 0.5


@pytest.mark.parametrize('shape', [(9, 7), (9, 7, 1), (9, 7, 3)])
def test_whole_pixels_are_copied(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    shift = np.array([[1.0, 0.0, -2.0], [0.0, 1.0, -3.0]])
    np.testing.assert_array_equal(warping.warp(image, shift, (4, 5)), image[3:8, 2:6])


def test_a_quarter_turn_copies_pixels():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    turn = warping.of_square((0, 0, 6, 6), 6, roll=90)
    np.testing.assert_array_equal(warping.warp(image, turn, (6, 6)), np.rot90(image))


def test_shrinking_averages():
    stripes = np.zeros((160, 160, 1), np.uint8)
    stripes[:, ::2] = 200
    small = warping.warp(stripes, warping.of_square((0, 0, 160, 160), 20), (20, 20))
    np.testing.assert_allclose(small.astype(int), 100, atol=1)
    turned = warping.warp(stripes, warping.of_square((40, 40, 80, 80), 10, roll=30), (10, 10))
    np.testing.assert_allclose(turned.astype(int), 100, atol=3)


def test_shrinking_keeps_places():
    across = np.broadcast_to(np.arange(240, dtype=np.uint8)[None, :, None], (240, 240, 1))
    small = warping.warp(np.ascontiguousarray(across), warping.of_square((60, 60, 120, 120), 40), (40, 40))
    np.testing.assert_allclose(small[20, :, 0], 61 - 0.5 - 0.5 + 1 + 3 * np.arange(40), atol=1)


def test_beyond_the_edge_the_edge_is_repeated():
    image = np.full((8, 8, 1), 50, np.uint8)
    image[:, -1] = 90
    wide = warping.warp(image, np.array([[1.0, 0.0, 4.0], [0.0, 1.0, 4.0]]), (16, 16))
    assert (wide[:, 11:] == 90).all()
    assert (wide[:, :10] == 50).all()
    outside = warping.warp(image, np.array([[1.0, 0.0, 100.0], [0.0, 1.0, 0.0]]), (4, 4))
    assert (outside == 50).all()


def test_far_away_pixels_of_a_large_picture_change_nothing():
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    transform = warping.of_square((100, 80, 60, 60), 30, roll=20)
    before = warping.warp(image, transform, (30, 30))
    image[:20], image[-60:], image[:, :20], image[:, -100:] = 0, 255, 255, 0
    np.testing.assert_array_equal(warping.warp(image, transform, (30, 30)), before)
