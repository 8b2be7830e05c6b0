"""The five points that align a face, out of richer annotations."""

import numpy as np

from fn2en_jax.data.records import Point

FivePoints = tuple[Point, Point, Point, Point, Point]

_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)  # six points around each
_NOSE_TIP, _LEFT_CORNER, _RIGHT_CORNER = 30, 48, 54


def five_of_68(points: np.ndarray) -> FivePoints:
    """The five points of a `Record` from the usual 68.

    The order counted from 0, left and right as seen in the image: 0-16 jaw, 17-26 brows, 27-30 bridge of the nose
    down to its tip, 31-35 nostrils, 36-41 left eye, 42-47 right eye, 48-59 outer lip from its left corner (54 is the
    right one), 60-67 inner lip. This is the markup of Multi-PIE, which 300-W (iBUG) and dlib took over, and in which
    the active appearance models of CK+ are written.

    Args:
        points: [68, 2], x and y in pixels.

    Returns:
        Centres of the left and the right eye (means of their six points), tip of the nose, left and right corner of
        the mouth.

    Raises:
        ValueError: `points` has another shape.
    """
    if points.shape != (68, 2):
        raise ValueError(f'points must be [68, 2], not {list(points.shape)}')
    left, right = points[_LEFT_EYE].mean(0), points[_RIGHT_EYE].mean(0)
    nose, left_corner, right_corner = points[_NOSE_TIP], points[_LEFT_CORNER], points[_RIGHT_CORNER]
    return _point(left), _point(right), _point(nose), _point(left_corner), _point(right_corner)


def _point(xy: np.ndarray) -> Point:
    return float(xy[0]), float(xy[1])
