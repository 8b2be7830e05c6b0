"""Finds faces and their eyes with the boosted cascades of Viola and Jones that OpenCV brings along.

The face cascade knows upright faces only, within some 10 degrees. Where it finds nothing convincing, turned copies of
the picture are searched, which covers a roll of 30 degrees and a little more. What convinces is the number of windows
that agree on a face, and of windows for eyes in it.

Results depend on nothing but the pixels: not on the number of OpenCV's threads, and not on earlier calls. Cascades are
not to be shared between threads, so every thread loads its own on first use. OpenCV starts threads of its own; a
process that is one of many should call `cv2.setNumThreads(1)` first.
"""

import dataclasses
import functools
import itertools
import math
import threading
from collections.abc import Iterator

import cv2
import cv2.data
import numpy as np

from fn2en_jax.data import warping
from fn2en_jax.data.records import Box

# Longer sides of the shrunk copies that are searched, in pixels. The first holds all faces down to _SMALLEST, each
# further one those that were too small in the one before.
_SIDES = (160, 320, 640)
_SMALLEST = 24  # pixels of a shrunk copy; the cascade's own window has 20
_TURNS = ((0.0,), (-24.0, 24.0), (-12.0, 12.0))  # degrees; searched in turn until one of a group convinces
_TURNED_SIDES = _SIDES[:2]  # turned copies of the last would take longer than all the rest
_STEP = 1.1  # from one window size to the next
_NEIGHBOURS = 3  # windows that must agree for a candidate
# Evidence for a face: windows that agree on it, and votes for its eyes. False alarms mostly have half of this, faces
# several times as much.
_CONVINCING = 10
_APART = 0.5  # shares of the larger side between the middles of two faces

# Where eyes stand in the face cascade's window, in shares of its side, as a mean over photographs.
EYES = ((0.31, 0.39), (0.69, 0.39))

_PATCH = 96  # side in pixels to which a face window is brought for the eyes
_EYE_REGION = (0.06, 0.12, 0.54, 0.62)  # of the left eye: left, top, right, bottom in shares of the window
_EYE_WINDOW = (0.18, 0.42)  # least and greatest side, in shares of the face window
_SPREAD = 0.05  # of the vote of one eye window, in shares of the face window
_VOTES = 0.4  # the weaker eye needs at least this: one window
_ENOUGH = 5.0  # votes for one eye that count as evidence for a face: no single eye convinces
_EYE_DISTANCE = (0.28, 0.54)  # the limits of a plausible pair, in shares of the window
_EYE_MIDDLE = ((0.40, 0.30), (0.60, 0.48))
_EYE_SLOPE = 25.0  # degrees
_LEVEL = 5.0  # degrees of slope above which the eyes are looked for once more with the slope removed
_RETRIES = (0.0, -15.0, 15.0)  # degrees by which a window without eyes is turned

Eyes = tuple[tuple[float, float], tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Detection:
    """A face that was found, in pixels of the picture.

    Attributes:
        box: x, y, width, height of the square about it; it may reach beyond the picture.
        eyes: the left and the right eye (left and right of the image), None where no plausible pair was seen.
        roll: degrees by which the face leans clockwise; known roughly where there are no eyes.
    """

    box: Box
    eyes: Eyes | None
    roll: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Voter:
    """A cascade for eyes; its windows vote for a point off their middle, by shares of the mean eye distance."""

    cascade: str
    weight: float
    outward: float
    down: float


# Offsets and weights from photographs with eyes marked by hand. Each is used as it is on the left eye and mirrored on
# the right one: 'righteye' is the right eye of the person, which stands left in the image.
_VOTERS = (
    _Voter('eye_tree_eyeglasses', 1.0, 0.0, 0.0),
    _Voter('eye', 0.5, 0.0, 0.0),
    _Voter('righteye_2splits', 0.5, 0.018, 0.1),
)

_loaded = threading.local()


def detect(image: np.ndarray) -> list[Detection]:
    """All faces of a picture, the largest first.

    Faces must measure at least 24 pixels and a 27th of the picture's longer side. Turned faces are found where there
    is no upright one of about their size.

    Args:
      image: uint8 [h, w, C], C 1 or 3 (RGB).

    Returns:
      Empty where no face is plausible.
    """
    return _without_overlaps(itertools.chain.from_iterable(_by_size(grey(image))))


def largest(image: np.ndarray) -> Detection | None:
    """The first of `detect(image)`, in less time; None where that is empty."""
    return next((faces[0] for faces in _by_size(grey(image)) if faces), None)


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 [h, w, C], C 1 or 3 (RGB), as brightness [h, w]."""
    return np.ascontiguousarray(image[..., 0]) if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _by_size(picture: np.ndarray) -> Iterator[list[Detection]]:
    """Faces in ranges of size, larger ones first, each range sorted."""
    longer = max(picture.shape)
    for number, side in enumerate(_SIDES):
        limit = None if number == 0 else math.ceil(_SMALLEST * side / _SIDES[number - 1] * _STEP)
        yield _search(picture, min(side, longer), limit, _TURNS if side in _TURNED_SIDES else _TURNS[:1])
        if longer <= side:
            return


def _search(picture: np.ndarray, side: int, limit: int | None, turns: tuple[tuple[float, ...], ...]) -> list[Detection]:
    """Convincing faces of one range of sizes; turned copies are searched only while there is none."""
    for group in turns:
        candidates = [each for turn in group for each in _candidates(picture, side, limit, turn)]
        judged = [_judged(picture, face, windows) for face, windows in candidates]
        convincing = [(face, evidence) for face, evidence in judged if evidence >= _CONVINCING]
        if convincing:
            convincing.sort(key=lambda each: (each[1], each[0].box), reverse=True)
            return _without_overlaps(face for face, _ in convincing)
    return []


def _without_overlaps(faces: Iterator[Detection] | list[Detection]) -> list[Detection]:
    """Of faces at one place the first, then all by size."""
    kept: list[Detection] = []
    for face in faces:
        if all(_distance(face.box, other.box) > _APART * max(face.box[2], other.box[2]) for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.box[2])


def _distance(one: Box, other: Box) -> float:
    return math.hypot(*(one[k] + one[k + 2] / 2 - other[k] - other[k + 2] / 2 for k in (0, 1)))


def _candidates(picture: np.ndarray, side: int, limit: int | None, turn: float) -> list[tuple[Detection, int]]:
    """Windows of the face cascade in a shrunk and turned copy, with the number of windows that agree."""
    to_copy, size = _turned(picture.shape, side / max(picture.shape), turn)
    copy = warping.warp(picture, to_copy, size)
    boxes, counts = _cascade('frontalface_alt2').detectMultiScale2(
        copy, scaleFactor=_STEP, minNeighbors=_NEIGHBOURS, minSize=(_SMALLEST,) * 2, maxSize=(limit or max(size),) * 2
    )
    back, scale = warping.inverse(to_copy), warping.scale_of(to_copy)
    found = []
    for (x, y, width, height), count in sorted(zip(map(tuple, boxes), counts, strict=True)):
        middle = warping.move(back, np.array([x + width / 2, y + height / 2]))
        across = float(width / scale)
        box = (float(middle[0]) - across / 2, float(middle[1]) - across / 2, across, across)
        found.append((Detection(box, None, turn), int(count)))
    return found


def _turned(shape: tuple[int, ...], scale: float, turn: float) -> tuple[np.ndarray, tuple[int, int]]:
    """The transform to a copy in which faces that lean clockwise by `turn` are upright, and the copy's size."""
    height, width = shape
    cosine, sine = abs(math.cos(math.radians(turn))), abs(math.sin(math.radians(turn)))
    size = (
        max(1, round(scale * (cosine * width + sine * height))),
        max(1, round(scale * (sine * width + cosine * height))),
    )
    transform = warping.of_square((0, 0, width, height), scale * max(width, height), turn)
    transform[:, 2] += (np.array(size) - scale * max(width, height)) / 2
    return transform, size


def _judged(picture: np.ndarray, face: Detection, windows: int) -> tuple[Detection, float]:
    """The face, with its eyes where a plausible pair is seen, and the evidence for it."""
    votes = 0.0
    for turn in _RETRIES if windows >= _CONVINCING else _RETRIES[:1]:
        eyes, weight = _pair(picture, face.box, face.roll + turn)
        votes = max(votes, weight)
        if eyes is not None:
            if abs(_slope(eyes) - face.roll - turn) > _LEVEL:
                again, _ = _pair(picture, face.box, _slope(eyes))
                eyes = eyes if again is None else again
            left, right = eyes.tolist()
            return Detection(face.box, (tuple(left), tuple(right)), _slope(eyes)), windows + votes
    return face, windows + votes


def _slope(eyes: np.ndarray) -> float:
    across, down = eyes[1] - eyes[0]
    return math.degrees(math.atan2(down, across))


def _pair(picture: np.ndarray, box: Box, roll: float) -> tuple[np.ndarray | None, float]:
    """The eyes [2, 2] (left and right, pixels of the picture) in a face window, and the evidence in their votes.

    None where one of them has next to no votes, or where they make no plausible pair.
    """
    to_patch = warping.of_square(box, _PATCH, roll)
    patch = warping.warp(picture, to_patch, (_PATCH, _PATCH))
    (left, left_votes), (right, right_votes) = _peak(_votes(patch)), _peak(_votes(patch[:, ::-1]))
    votes = min(left_votes, _ENOUGH) + min(right_votes, _ENOUGH)
    eyes = np.array([left, (_PATCH - right[0], right[1])])
    if min(left_votes, right_votes) < _VOTES or not _plausible(eyes / _PATCH):
        return None, votes
    return warping.move(warping.inverse(to_patch), eyes), votes


def _plausible(eyes: np.ndarray) -> bool:
    """Whether eyes [2, 2], in shares of the face window, can be the left and the right eye of its face."""
    across, down = eyes[1] - eyes[0]
    least, greatest = _EYE_DISTANCE
    return bool(
        across > 0
        and least <= math.hypot(across, down) <= greatest
        and abs(_slope(eyes)) <= _EYE_SLOPE
        and (np.array(_EYE_MIDDLE[0]) <= eyes.mean(0)).all()
        and (eyes.mean(0) <= np.array(_EYE_MIDDLE[1])).all()
    )


def _votes(patch: np.ndarray) -> np.ndarray:
    """Votes [N, 3] (x, y in pixels of the patch, weight) for the left eye."""
    left, top, right, bottom = (round(share * _PATCH) for share in _EYE_REGION)
    region = np.ascontiguousarray(patch[top:bottom, left:right])
    least, greatest = (round(share * _PATCH) for share in _EYE_WINDOW)
    unit = (EYES[1][0] - EYES[0][0]) * _PATCH
    votes = []
    for voter in _VOTERS:
        windows = _cascade(voter.cascade).detectMultiScale(
            region, scaleFactor=_STEP, minNeighbors=0, minSize=(least,) * 2, maxSize=(greatest,) * 2
        )
        off_x, off_y = left - voter.outward * unit, top + voter.down * unit
        for x, y, width, height in sorted(map(tuple, windows)):  # their order depends on threads
            votes.append((x + width / 2 + off_x, y + height / 2 + off_y, voter.weight))
    return np.array(votes).reshape(-1, 3)


def _peak(votes: np.ndarray) -> tuple[tuple[float, float], float]:
    """Where votes [N, 3] are densest, by mean shift, and the weight of those around; (0, 0) and 0 without votes."""
    if not len(votes):
        return (0.0, 0.0), 0.0
    points, weights, spread = votes[:, :2], votes[:, 2], _SPREAD * _PATCH

    def near(point: np.ndarray) -> np.ndarray:
        return weights * np.exp(-((points - point) ** 2).sum(1) / (2 * spread**2))

    peak = points[np.argmax([near(point).sum() for point in points])]
    for _ in range(8):
        share = near(peak)
        peak = (share[:, None] * points).sum(0) / share.sum()
    return (float(peak[0]), float(peak[1])), float(near(peak).sum())


def _cascade(name: str) -> cv2.CascadeClassifier:
    """This thread's own copy of a cascade of OpenCV."""
    if not hasattr(_loaded, 'cascade'):
        _loaded.cascade = functools.cache(_load)
    return _loaded.cascade(name)


def _load(name: str) -> cv2.CascadeClassifier:
    path = f'{cv2.data.haarcascades}haarcascade_{name}.xml'
    cascade = cv2.CascadeClassifier(path)
    if cascade.empty():
        raise RuntimeError(f'OpenCV {cv2.__version__} cannot read its cascade {path}')
    return cascade
