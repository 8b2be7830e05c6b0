import math

import numpy as np
import pytest

from fn2en_jax.data import alignment, images, viola_jones
from fn2en_jax.data.alignment import EYES, Detection, FaceStep, cut
from tests.scenes import SEEN, face, scene

ALIGN = FaceStep('align', 128)
BOX = FaceStep('box', 128)

FRONTAL = ((60.0, 50.0), (100.0, 50.0), (80.0, 72.0), (64.0, 95.0), (96.0, 95.0))


@pytest.fixture
def _no_detector(monkeypatch):
    """Detection is an error."""

    def refuse(image):
        raise AssertionError('the detector was asked')

    monkeypatch.setattr(viola_jones, 'largest', refuse)


@pytest.fixture
def detector(monkeypatch):
    """A detector that answers as told and notes the shapes that it was asked about."""
    state = {'answer': None, 'shapes': []}

    def answer(image):
        state['shapes'].append(image.shape)
        return state['answer']

    monkeypatch.setattr(viola_jones, 'largest', answer)
    return state


def dotted(points, shape=(150, 200), channels=3) -> np.ndarray:
    """Grey, with a bright disc at every point."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    image = np.full((*shape, channels), 40, np.uint8)
    for x, y in points:
        image[np.hypot(columns - x, rows - y) < 4] = 240
    return image


def discs(image: np.ndarray) -> np.ndarray:
    """Middles [2, 2] of the bright pixels in the left and in the right half."""
    rows, columns = np.nonzero(image[..., 0] > 140)
    left = columns < image.shape[1] / 2
    return np.array([(columns[part].mean() + 0.5, rows[part].mean() + 0.5) for part in (left, ~left)])


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('degrees', [0, 25])
def test_eyes_are_found_and_used(channels, degrees):
    for index in SEEN[:4]:
        picture, [eyes] = scene((face(index, 128, degrees=degrees, channels=channels), (100, 60)))
        result = cut(picture, ALIGN)
        assert result.how == 'eyes'
        assert result.image.shape == (128, 128, channels)
        assert result.image.dtype == np.uint8
        assert np.linalg.norm(np.array(result.eyes) - eyes, axis=1).max() < 0.12 * math.dist(*eyes)


def test_found_eyes_come_to_their_canonical_places(detector):
    eyes = ((52.0, 60.0), (98.0, 84.0))
    detector['answer'] = Detection((40, 20, 80, 80), eyes, roll=27.5)
    result = cut(dotted(eyes), ALIGN)
    np.testing.assert_allclose(discs(result.image), np.array(EYES) * 128, atol=1)


def test_a_shrunk_and_a_turned_copy_give_the_same_face():
    upright, _ = scene((face(3, 160), (80, 40)))
    turned, _ = scene((face(3, 100, degrees=20), (60, 90)))
    one, other = (
        cut(picture, FaceStep('align', 64)).image.astype(float)[16:56, 12:52] for picture in (upright, turned)
    )
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size', [32, 128, 256])
@pytest.mark.usefixtures('_no_detector')
def test_given_points_are_used_instead_of_detection(channels, size):
    left, right = (52.0, 60.0), (98.0, 84.0)
    points = (left, right, (70.0, 95.0), (48.0, 105.0), (82.0, 120.0))
    result = cut(dotted((left, right), channels=channels), FaceStep('align', size), points=points)
    assert (result.how, result.eyes) == ('points', (left, right))
    np.testing.assert_allclose(discs(result.image), np.array(EYES) * size, atol=0.01 * size + 0.3)


@pytest.mark.usefixtures('_no_detector')
def test_left_and_right_may_be_the_persons():
    image = dotted(FRONTAL[:2])
    swapped = (FRONTAL[1], FRONTAL[0], FRONTAL[2], FRONTAL[4], FRONTAL[3])
    one, other = cut(image, ALIGN, points=FRONTAL), cut(image, ALIGN, points=swapped)
    np.testing.assert_array_equal(one.image, other.image)
    assert one.eyes == other.eyes == FRONTAL[:2]


@pytest.mark.usefixtures('_no_detector')
def test_a_head_turned_to_the_side_is_not_magnified():
    profile = ((70.0, 50.0), (82.0, 50.0), (86.0, 72.0), (72.0, 95.0), (80.0, 95.0))
    frontal, side = (cut(dotted(()), ALIGN, points=points) for points in (FRONTAL, profile))
    assert side.box[2] == pytest.approx(frontal.box[2], rel=0.25)
    middle = side.box[0] + side.box[2] / 2
    assert 70 < middle < 86


@pytest.mark.usefixtures('_no_detector')
def test_the_box_of_points_is_what_alignment_shows():
    result = cut(dotted(()), ALIGN, points=FRONTAL)
    side = 40 / (EYES[1][0] - EYES[0][0])
    assert result.box == pytest.approx((80 - side / 2, 50 - EYES[0][1] * side, side, side))
    assert cut(dotted(()), BOX, points=FRONTAL).box == pytest.approx(result.box)


BAD_POINTS = [
    ((60.0, 50.0),) * 5,
    (*FRONTAL[:4], (math.nan, 5.0)),
    ((math.inf, 1.0), *FRONTAL[1:]),
    ((1e200, 1.0), *FRONTAL[1:]),
    ((-900.0, 50.0), *FRONTAL[1:]),  # eyes much farther apart than the picture is wide
    tuple((x + 5000, y) for x, y in FRONTAL),
    ((79.0, 50.0), (81.0, 50.0), (80.0, 900.0), (60.0, -900.0), (100.0, -900.0)),  # upside down: the fit is singular
]


@pytest.mark.parametrize('points', BAD_POINTS)
def test_points_of_no_face_are_passed_over(detector, points):
    detector['answer'] = Detection((40, 20, 80, 80), FRONTAL[:2])
    assert cut(dotted(()), ALIGN, points=points).how == 'eyes'
    assert cut(dotted(()), ALIGN, points=points, box=(40, 20, 80, 80)).how == 'eyes'


def test_eyes_that_are_not_plausible_leave_the_box(detector):
    detector['answer'] = Detection((40, 20, 80, 80), None)
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    result = cut(image, FaceStep('align', 80))
    assert (result.how, result.box, result.eyes) == ('box', (40, 20, 80, 80), None)
    np.testing.assert_array_equal(result.image, image[20:100, 40:120])


def test_a_turned_box_is_turned_back_by_alignment_alone(detector):
    detector['answer'] = Detection((40, 20, 80, 80), None, roll=90)
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    np.testing.assert_array_equal(cut(image, FaceStep('align', 80)).image, np.rot90(image[20:100, 40:120]))
    np.testing.assert_array_equal(cut(image, FaceStep('box', 80)).image, image[20:100, 40:120])


@pytest.mark.usefixtures('_no_detector')
def test_a_given_box_is_cut_as_its_square():
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 1), np.uint8)
    result = cut(image, FaceStep('box', 60), box=(70, 50, 40, 60))
    assert (result.how, result.box) == ('box', (70, 50, 40, 60))
    np.testing.assert_array_equal(result.image, image[50:110, 60:120])


def test_a_given_box_says_where_to_look_for_eyes():
    first, second = face(3, 150), face(4, 110)
    picture, eyes = scene((first, (5, 40)), (second, (190, 60)), shape=(240, 320))
    assert np.abs(np.array(cut(picture, ALIGN).eyes) - eyes[0]).max() < 10
    result = cut(picture, ALIGN, box=(195.0, 65.0, 100.0, 100.0))
    assert (result.how, result.box) == ('eyes', (195, 65, 100, 100))
    assert np.abs(np.array(result.eyes) - eyes[1]).max() < 8


def test_eyes_outside_a_given_box_are_not_its_eyes(detector):
    image, box = dotted(()), (60.0, 40.0, 50.0, 50.0)
    detector['answer'] = Detection((15, 15, 50, 50), ((30.0, 35.0), (50.0, 35.0)))  # relative to the part looked at
    inside = cut(image, ALIGN, box=box)
    assert detector['shapes'] == [(90, 90, 3)]
    assert (inside.how, inside.eyes) == ('eyes', ((70.0, 55.0), (90.0, 55.0)))
    detector['answer'] = Detection((0, 0, 50, 50), ((10.0, 15.0), (50.0, 15.0)))
    assert cut(image, ALIGN, box=box).how == 'box'
    detector['answer'] = Detection((30, 30, 15, 15), ((33.0, 35.0), (40.0, 35.0)))
    assert cut(image, ALIGN, box=box).how == 'box'


@pytest.mark.parametrize(
    'box', [(0, 0, 0, 10), (300, 0, 50, 50), (-60, 0, 50, 50), (math.nan, 0, 50, 50), (5, 5, -9, 9)]
)
def test_boxes_without_area_are_passed_over(detector, box):
    assert cut(dotted(()), ALIGN, box=box).how == 'centre'
    assert cut(dotted(()), BOX, box=box).how == 'centre'
    assert detector['shapes'] == [(150, 200, 3)] * 2


@pytest.mark.parametrize('mode', ['align', 'box'])
def test_pictures_without_a_face_are_kept_or_dropped(mode):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    kept = cut(noise, FaceStep(mode, 64))
    assert (kept.how, kept.box, kept.eyes) == ('centre', None, None)
    np.testing.assert_array_equal(kept.image, images.fit(noise, 64))
    assert cut(noise, FaceStep(mode, 64, no_face='drop')) is None


@pytest.mark.usefixtures('_no_detector')
def test_none_leaves_the_picture_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8)
    result = cut(noise, FaceStep('none', 64, no_face='drop'), box=(1, 1, 9, 9), points=FRONTAL)
    assert (result.how, result.box, result.eyes) == ('as it is', None, None)
    np.testing.assert_array_equal(result.image, noise)


@pytest.mark.parametrize('shape', [(8, 8, 1), (8, 8, 3), (8, 400, 3), (1, 1, 3)])
@pytest.mark.parametrize('mode', ['align', 'box', 'none'])
def test_tiny_pictures(shape, mode):
    result = cut(np.full(shape, 9, np.uint8), FaceStep(mode, 32))
    assert result.image.shape == (32, 32, shape[2])
    assert (result.image == 9).all()


def test_a_large_picture_and_its_small_copy_give_the_same_face():
    picture, _ = scene((face(3, 128), (100, 60)))
    large = np.repeat(np.repeat(picture, 8, 0), 8, 1)
    one, other = (cut(each, FaceStep('align', 64)).image.astype(int) for each in (picture, large))
    assert np.abs(one - other).mean() < 8


def test_the_same_picture_gives_the_same_bytes():
    picture, _ = scene((face(3, 128, degrees=10), (100, 60)))
    assert cut(picture, ALIGN).image.tobytes() == cut(picture, ALIGN).image.tobytes()


def test_prediction_finds_several_faces():
    picture, _ = scene((face(3, 140), (5, 40)), (face(4, 110), (190, 60)))
    found = alignment.detect(picture)
    assert len(found) == 2
    assert cut(picture, BOX).box == found[0].box


@pytest.mark.parametrize(
    'image',
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8), np.zeros((0, 9, 3), np.uint8)],
)
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match='image must be uint8'):
        cut(image, ALIGN)


def test_other_steps_are_refused():
    with pytest.raises(ValueError, match='mode must be'):
        FaceStep('crop')
    with pytest.raises(ValueError, match='no_face must be'):
        FaceStep('align', no_face='skip')
    with pytest.raises(ValueError, match='size must be'):
        FaceStep('align', 4)
    with pytest.raises(ValueError, match='five'):
        cut(dotted(()), ALIGN, points=FRONTAL[:2])


ABSURD = (-1e308, -1e200, -1e9, -600.0, -1.0, 0.0, 1e-308, 0.5, 1.0, 2.01, 50.0, 99.0, 400.0, 1e9, 1e200, 1e308)
ABSURD += (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize('mode', ['align', 'box'])
@pytest.mark.filterwarnings('error')
def test_absurd_points_and_boxes_never_raise(mode, detector):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (80, 100, 3), np.uint8)
    tame = [value for value in ABSURD if abs(value) < 1000]  # the others rarely come in fives that are not passed over
    for _ in range(1500):
        detector['answer'] = Detection((4, 2, 8, 8), ((5.0, 5.0), (9.0, 5.0))) if random.random() < 0.5 else None
        points = random.choice(tame if random.random() < 0.7 else ABSURD, (5, 2)).tolist()
        box = tuple(random.choice(tame if random.random() < 0.7 else ABSURD, 4).tolist())
        for known in ({'points': points}, {'box': box}, {'points': points, 'box': box}):
            result = cut(image, FaceStep(mode, 32), **known)
            assert result.image.shape == (32, 32, 3)
            assert np.isfinite((*(result.box or ()), *np.ravel(result.eyes or ()))).all()


def test_given_boxes_of_any_size_are_searched():
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    for box in ((99.5, 79.5, 1, 1), (-399, -319, 400, 320), (0, 0, 1, 300), (-1e308, 0, 1e308, 50)):
        assert cut(image, FaceStep('align', 32), box=box).image.shape == (32, 32, 3)
