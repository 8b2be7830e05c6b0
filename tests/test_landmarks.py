"""Five points out of sixty-eight."""

import numpy as np
import pytest

from fn2en_jax.data.landmarks import five_of_68


def test_eyes_are_means_of_six_points_and_the_rest_is_picked():
    points = np.stack([np.arange(68.0), 100 + np.arange(68.0) ** 2], axis=1)
    left, right, nose, left_corner, right_corner = five_of_68(points)
    assert left == pytest.approx((38.5, 100 + sum(k * k for k in range(36, 42)) / 6))
    assert right == pytest.approx((44.5, 100 + sum(k * k for k in range(42, 48)) / 6))
    assert (nose, left_corner, right_corner) == ((30, 1000), (48, 2404), (54, 3016))


@pytest.mark.parametrize('shape', [(2, 68), (67, 2), (136,)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r'\[68, 2\]'):
        five_of_68(np.zeros(shape))
