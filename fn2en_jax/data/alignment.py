"""From a photograph to the square face that the nets see: aligned by the eyes, cut by a box, or as it is.

`cut` serves the preparation of data sets and `cut_all` prediction, by the same steps. Their geometry: the eyes of an
aligned face stand at EYES, which is where they stand on average in the window of the face cascade. So a face that is
aligned and one that is only cut along its box show the same part of the head at about the same size, and fall-backs mix
well with the rest. The eyes are 0.38 of the side apart. A chin, 1.2 eye distances below the eyes, comes to 0.85 of the
height, and with the jaw dropped, at 1.6, it is just inside; the central 224 pixels of 256 that are tested keep chin and
brows.

Only the eyes fix the face, even where five points are known: nose and mouth move with the expression, and fitting them
would take away part of what is to be recognised. Heads turned to the side are the exception, see `_from_points`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fn2en_jax.data import images, viola_jones, warping
from fn2en_jax.data.records import Box
from fn2en_jax.data.viola_jones import EYES, Detection, Eyes, detect

__all__ = ['EYES', 'Detection', 'Face', 'FaceStep', 'cut', 'cut_all', 'detect']

Points = Sequence[tuple[float, float]]

# Tip of the nose and corners of the mouth of a frontal face, in shares of the side, when the eyes stand at EYES.
_NOSE_AND_MOUTH = ((0.50, 0.61), (0.345, 0.82), (0.655, 0.82))
_TURNED_AWAY = 0.65  # eye distance over the distance from eyes to mouth; about 0.9 in frontal faces
_CLOSEST = 2.0  # pixels between two eyes of which a face can be made
_FARTHEST = 3.0  # longer sides of the picture by which points may lie outside of it
_WIDEST = 4.0  # side of a face over the longer side of its picture; eyes at opposite edges make 2.6

_AROUND = 0.4  # shares of a given box that are added on every side for the detector
_LIKE_BOX = (0.4, 1.6)  # side of a detection over the longer side of the given box that it must belong to


@dataclasses.dataclass(frozen=True)
class FaceStep:
    """How faces are cut out.

    Attributes:
        mode: 'align' by the eyes, 'box': the square around the face, not turned; 'none': the central square.
        size: side of the result in pixels.
        no_face: what becomes of a picture without a face: 'keep' its central square, or 'drop' it.
    """

    mode: str
    size: int = 256
    no_face: str = 'keep'

    def __post_init__(self) -> None:
        if self.mode not in ('align', 'box', 'none'):
            raise ValueError(f"mode must be 'align', 'box' or 'none', not {self.mode!r}")
        if self.no_face not in ('keep', 'drop'):
            raise ValueError(f"no_face must be 'keep' or 'drop', not {self.no_face!r}")
        if self.size < images.MIN_SIDE:
            raise ValueError(f'size must be at least {images.MIN_SIDE}, not {self.size}')


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face cut out of a picture.

    Attributes:
        image: uint8 [S, S, C].
        how: what it was cut by: 'points', 'eyes', 'box', 'centre' (no face was found), 'as it is' (mode 'none').
        box: the given box, or the one that was found, in pixels of the picture: x, y, width, height.
        eyes: left and right eye (left and right of the image) in pixels of the picture, where they are known.
    """

    image: np.ndarray
    how: Literal['points', 'eyes', 'box', 'centre', 'as it is']
    box: Box | None = None
    eyes: Eyes | None = None


def cut(image: np.ndarray, step: FaceStep, *, box: Box | None = None, points: Points | None = None) -> Face | None:
    """Cuts the largest plausible face out of a picture.

    What a data set or the user knows goes before what is detected: points before a box, a box before the whole picture.
    In mode 'align' a given box says where to look for the eyes. Where no plausible eyes are found, the face is cut by
    its box. Points that cannot be a face (eyes that coincide, far outside the picture, numbers that are not finite) and
    boxes that cannot (without an area, outside the picture, many times its size) are passed over.

    Args:
      image: uint8 [h, w, C], C 1 or 3 (RGB), any size.
      step: what to do.
      box: x, y, width, height of the face in pixels.
      points: five points (x, y) in pixels: both eyes, tip of the nose, both corners of the mouth. Of each pair the left
        one in the image may come first or second.

    Returns:
      The face; None for a picture without a face when these are to be dropped.

    Raises:
      ValueError: the image has another shape or type, or the points are not five.
    """
    _check(image)
    if step.mode == 'none':
        return Face(images.fit(image, step.size), 'as it is')
    known = _sound_points(points, image)
    box = _sound_box(box, image)
    if step.mode == 'box' and (given := box or _box_of(known)):
        return _by_box(image, step, given)
    if step.mode == 'align' and known is not None:
        return _by_points(image, step, known, box)
    return _by_detection(image, step, viola_jones.largest(image) if box is None else _within(image, box))


def cut_all(image: np.ndarray, step: FaceStep) -> list[Face]:
    """Every face of a picture, the largest first, each cut as `cut` would cut it if it were the largest.

    Args:
      image: uint8 [h, w, C], C 1 or 3 (RGB), any size.
      step: what to do.

    Returns:
      One face at least, unless the picture shows none and such are to be dropped.

    Raises:
      ValueError: the image has another shape or type.
    """
    _check(image)
    if step.mode == 'none':
        return [Face(images.fit(image, step.size), 'as it is')]
    found = viola_jones.detect(image)
    faces = [_by_detection(image, step, each) for each in found] if found else [_by_detection(image, step, None)]
    return [face for face in faces if face is not None]


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise ValueError(f'image must be uint8 [h, w, 1 or 3], got {image.dtype} {image.shape}')


def _by_points(image: np.ndarray, step: FaceStep, points: np.ndarray, box: Box | None) -> Face:
    left, right = points[:2].tolist()
    result = warping.warp(image, _from_points(points, step.size), (step.size, step.size))
    return Face(result, 'points', box or _box_of(points), (tuple(left), tuple(right)))


def _by_box(image: np.ndarray, step: FaceStep, box: Box | None, roll: float = 0.0) -> Face | None:
    if box is None:
        return None if step.no_face == 'drop' else Face(images.fit(image, step.size), 'centre')
    transform = warping.of_square(box, step.size, roll)
    return Face(warping.warp(image, transform, (step.size, step.size)), 'box', box)


def _by_detection(image: np.ndarray, step: FaceStep, face: Detection | None) -> Face | None:
    if step.mode == 'box':
        return _by_box(image, step, face.box if face else None)
    if face is None or face.eyes is None:
        return _by_box(image, step, face.box if face else None, face.roll if face else 0.0)
    transform = warping.through_points(np.array(face.eyes), np.array(EYES) * step.size)
    return Face(warping.warp(image, transform, (step.size, step.size)), 'eyes', face.box, face.eyes)


def _from_points(points: np.ndarray, size: int) -> np.ndarray:
    """The transform for five points [5, 2].

    By the eyes alone, unless these are too close together for the height of the face: then the head is turned to the
    side, the eyes would magnify it, and all five points are fitted instead.
    """
    eyes, mouth = points[:2], points[3:]
    if math.dist(*eyes) > _TURNED_AWAY * math.dist(eyes.mean(0), mouth.mean(0)):
        return warping.through_points(eyes, np.array(EYES) * size)
    return warping.through_points(points, np.array(EYES + _NOSE_AND_MOUTH) * size)


def _box_of(points: np.ndarray | None) -> Box | None:
    """The upright square of the size and at the place of what alignment by the points would show."""
    if points is None:
        return None
    back = warping.inverse(_from_points(points, 1))
    middle, side = warping.move(back, np.array([0.5, 0.5])), warping.scale_of(back)
    return (float(middle[0]) - side / 2, float(middle[1]) - side / 2, side, side)


def _within(image: np.ndarray, box: Box) -> Detection:
    """The eyes of the face in a given box; the box without eyes where the detector does not confirm it."""
    x, y, width, height = box
    room = _AROUND * max(width, height)
    left, top = max(0, math.floor(x - room)), max(0, math.floor(y - room))
    right, bottom = math.ceil(x + width + room), math.ceil(y + height + room)
    face = viola_jones.largest(image[top:bottom, left:right])
    if face is None or face.eyes is None:
        return Detection(box, None)
    (left_x, left_y), (right_x, right_y) = face.eyes
    eyes = ((left_x + left, left_y + top), (right_x + left, right_y + top))
    inside = all(x <= across <= x + width and y <= down <= y + height for across, down in eyes)
    alike = _LIKE_BOX[0] <= face.box[2] / max(width, height) <= _LIKE_BOX[1]
    return Detection(box, eyes if inside and alike else None)


def _sound_points(points: Points | None, image: np.ndarray) -> np.ndarray | None:
    """Five points [5, 2] in order, or None where no face can be made of them."""
    if points is None:
        return None
    array = np.array(points, float)
    if array.shape != (5, 2):
        raise ValueError(f'points must be five (x, y), got an array of shape {array.shape}')
    longer = max(image.shape[:2])
    # Comparisons that hold for no NaN; numbers within these bounds cannot overflow below.
    near = (array >= -_FARTHEST * longer) & (array <= (1 + _FARTHEST) * longer)
    if not near.all() or math.dist(array[0], array[1]) < _CLOSEST:
        return None
    eyes, mouth = (pair[np.argsort(pair[:, 0], kind='stable')] for pair in (array[:2], array[3:]))
    array = np.concatenate([eyes, array[2:3], mouth])
    # A scale near zero is what points fit that have nothing in common with a face.
    return array if warping.scale_of(_from_points(array, 1)) * _WIDEST * longer >= 1 else None


def _sound_box(box: Box | None, image: np.ndarray) -> Box | None:
    if box is None or not all(map(math.isfinite, box)):
        return None
    x, y, width, height = map(float, box)
    outside = x >= image.shape[1] or y >= image.shape[0] or x + width <= 0 or y + height <= 0
    sound = min(width, height) >= 1 and max(width, height) <= _WIDEST * max(image.shape[:2])
    return (x, y, width, height) if sound and not outside else None
