"""Similarity transforms between pictures, and cutting a square out of a picture along one.

Coordinates are continuous, x to the right and y down, and pixel (column i, row j) covers [i, i+1) x [j, j+1); a box
(x, y, width, height) therefore holds whole pixels when its four numbers are whole.
"""

import math

import cv2
import numpy as np

# What a cut shows beyond the edge of the picture repeats the edge: black would draw a straight contour across the face,
# and a mirror image would draw a second mouth or eye.
_BEYOND = cv2.BORDER_REPLICATE


def through_points(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity that takes points to points, exactly for two of them, else by least squares.

    Args:
      source: [N, 2], N of at least 2, not all the same.
      target: [N, 2].

    Returns:
      [2, 3] float64: scale and rotation, and the shift. There is no mirroring.
    """
    from_middle, to_middle = source.mean(0), target.mean(0)
    p, q = source - from_middle, target - to_middle
    cosine, sine = (p * q).sum(), (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()
    return _around(from_middle, to_middle, *(np.array([cosine, sine]) / (p * p).sum()))


def of_square(box: tuple[float, float, float, float], size: float, roll: float = 0.0) -> np.ndarray:
    """The similarity that takes the square around a box, turned about its middle, to a square of side `size`.

    Args:
      box: x, y, width, height; the square has its longer side and its middle.
      size: side of the target.
      roll: degrees by which the content is turned clockwise, which the transform undoes.

    Returns:
      [2, 3] float64.
    """
    x, y, width, height = box
    scale, angle = size / max(width, height), math.radians(-roll)
    middle = np.array([x + width / 2, y + height / 2])
    return _around(middle, np.array([size / 2, size / 2]), scale * math.cos(angle), scale * math.sin(angle))


def move(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where points [..., 2] end up."""
    return points @ transform[:, :2].T + transform[:, 2]


def inverse(transform: np.ndarray) -> np.ndarray:
    """The way back, [2, 3]."""
    back = np.linalg.inv(transform[:, :2])
    return np.column_stack([back, -back @ transform[:, 2]])


def scale_of(transform: np.ndarray) -> float:
    """Target pixels per source pixel."""
    return math.hypot(*transform[:, 0])


def warp(image: np.ndarray, transform: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The part of a picture that a similarity takes to the target's pixels.

    Where the picture shrinks, it is averaged over areas down to the target's scale first, so that nothing aliases;
    turning and enlarging interpolate by cubics. Beyond the picture's edge the edge is repeated.

    Args:
      image: uint8 [h, w, C] or [h, w].
      transform: [2, 3], from the picture to the target.
      size: width and height of the target in pixels.

    Returns:
      uint8 [height, width, C] or [height, width].
    """
    part, corner = _needed(image, transform, size)
    shift = np.array([[1.0, 0.0, corner[0]], [0.0, 1.0, corner[1]], [0.0, 0.0, 1.0]])
    transform = transform @ shift
    scale = scale_of(transform)
    if scale < 1:
        height, width = part.shape[:2]
        shrunk = max(1, round(width * scale)), max(1, round(height * scale))
        part = cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA)
        transform = transform @ np.diag([width / shrunk[0], height / shrunk[1], 1.0])
    transform = transform.copy()
    transform[:, 2] += transform[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the middle of the first pixel
    result = cv2.warpAffine(part, transform, size, flags=cv2.INTER_CUBIC, borderMode=_BEYOND)
    return result.reshape(*result.shape[:2], *image.shape[2:])


def _around(source: np.ndarray, target: np.ndarray, cosine: float, sine: float) -> np.ndarray:
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, target - turn @ source])


def _needed(image: np.ndarray, transform: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of the picture that the target sees, with room for the filters, and its upper left corner (x, y)."""
    width, height = size
    corners = move(inverse(transform), np.array([[0, 0], [width, 0], [0, height], [width, height]], float))
    room = 3 / min(1.0, scale_of(transform)) + 1
    limits = np.array([image.shape[1], image.shape[0]])
    first = np.clip(np.floor(corners.min(0) - room), 0, limits - 1).astype(int)
    last = np.clip(np.ceil(corners.max(0) + room), first + 1, limits).astype(int)
    return image[first[1] : last[1], first[0] : last[0]], (int(first[0]), int(first[1]))
