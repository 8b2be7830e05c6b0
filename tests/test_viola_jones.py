import math
import threading

import cv2
import numpy as np
import pytest

from fn2en_jax.data import viola_jones
from fn2en_jax.data.viola_jones import Detection, detect, largest
from tests.scenes import SEEN, face, scene


def off(found: Detection, eyes: np.ndarray) -> float:
    """Of the worse eye, in distances between the eyes."""
    assert found.eyes is not None
    return np.linalg.norm(np.array(found.eyes) - eyes, axis=1).max() / math.dist(*eyes)


@pytest.mark.parametrize('index', SEEN)
@pytest.mark.parametrize('channels', [1, 3])
def test_a_face_and_its_eyes_are_found(index, channels):
    picture, [eyes] = scene((face(index, 128, channels=channels), (100, 60)))
    found = largest(picture)
    x, y, width, height = found.box
    assert width == height
    assert x < eyes[0, 0] < eyes[1, 0] < x + width
    assert y < eyes[0, 1] < y + height / 2
    assert off(found, eyes) < 0.12


@pytest.mark.parametrize('degrees', [-30, -22, -12, 12, 22, 30])
def test_turned_faces_are_found(degrees):
    for index in SEEN[:4]:
        picture, [eyes] = scene((face(index, 128, degrees=degrees), (100, 60)))
        found = largest(picture)
        assert off(found, eyes) < 0.12
        assert found.roll == pytest.approx(degrees, abs=6)


def test_faces_come_by_size():
    large, middle, small = face(3, 150), face(4, 100), face(9, 70)
    picture, eyes = scene((small, (5, 160)), (large, (80, 5)), (middle, (230, 130)), shape=(240, 360))
    found = detect(picture)
    assert len(found) == 3
    assert [each.box[2] for each in found] == sorted((each.box[2] for each in found), reverse=True)
    for each, place in zip(found, (eyes[1], eyes[2], eyes[0]), strict=True):
        assert off(each, place) < 0.12
    assert largest(picture) == found[0]


def test_a_large_picture_is_searched_in_steps_and_answered_in_its_own_pixels():
    picture, [eyes] = scene((face(3, 128), (100, 60)))
    double = cv2.resize(picture, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    found = largest(double)
    assert off(found, 5 * eyes) < 0.2


def test_a_small_face_in_a_large_picture_is_found():
    picture, [eyes] = scene((face(3, 64), (500, 300)), shape=(480, 640))
    found = largest(picture)
    assert off(found, eyes) < 0.12
    assert detect(picture) == [found]


@pytest.mark.parametrize(('height', 'width'), [(8, 8), (8, 300), (300, 8), (1, 1), (23, 23), (120, 160)])
@pytest.mark.parametrize('channels', [1, 3])
def test_nothing_is_found_in_nothing(height, width, channels):
    assert detect(np.full((height, width, channels), 128, np.uint8)) == []
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    assert detect(noise) == []
    assert largest(noise) is None


def test_the_number_of_threads_changes_nothing():
    picture, _ = scene((face(3, 110, degrees=15), (100, 60)))
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 4, 4, 4):
            cv2.setNumThreads(threads)
            results.append(detect(picture))
    finally:
        cv2.setNumThreads(before)
    assert results[0]
    assert all(result == results[0] for result in results)


def test_threads_do_not_share_cascades():
    pictures = [scene((face(index, 110), (100, 60)))[0] for index in SEEN[:4]]
    alone = [largest(picture) for picture in pictures]
    together, cascades = {}, []

    def work(number: int) -> None:
        together[number] = largest(pictures[number])
        cascades.append(viola_jones._cascade('eye'))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(4)] == alone
    assert len({id(each) for each in cascades}) == 4
    assert viola_jones._cascade('eye') is viola_jones._cascade('eye')


PAIR = np.array([[0.31, 0.39], [0.69, 0.39]])


@pytest.mark.parametrize(
    ('eyes', 'plausible'),
    [
        (PAIR, True),
        (PAIR[::-1], False),
        (PAIR + np.array([0, 0.15]), False),
        (PAIR - np.array([0, 0.12]), False),
        (PAIR + np.array([0.12, 0]), False),
        (PAIR - np.array([0.12, 0]), False),
        ([[0.37, 0.39], [0.63, 0.39]], False),  # too near
        ([[0.20, 0.39], [0.80, 0.39]], False),  # too far
        ([[0.34, 0.32], [0.66, 0.46]], True),  # 24 degrees
        ([[0.34, 0.31], [0.66, 0.47]], False),  # 27 degrees
        ([[0.5, 0.25], [0.5, 0.55]], False),
    ],
)
def test_plausible_pairs(eyes, plausible):
    assert viola_jones._plausible(np.array(eyes)) is plausible


def test_without_a_plausible_pair_only_the_box_is_told(monkeypatch):
    picture, _ = scene((face(3, 128), (100, 60)))
    with_eyes = largest(picture)
    monkeypatch.setattr(viola_jones, '_plausible', lambda eyes: False)
    without = largest(picture)
    assert with_eyes.eyes is not None
    assert without.eyes is None
    assert without.box == with_eyes.box


def test_weak_evidence_is_no_face(monkeypatch):
    picture, _ = scene((face(3, 128), (100, 60)))
    monkeypatch.setattr(viola_jones, '_CONVINCING', 1000)
    assert largest(picture) is None


def test_of_turned_copies_that_agree_the_one_with_most_evidence_tells(monkeypatch):
    evidence = {-24.0: 11.0, 24.0: 30.0}
    monkeypatch.setattr(
        viola_jones,
        '_candidates',
        lambda *search: [(Detection((5, 5, 40, 40), None, search[-1]), 3)] * bool(search[-1]),
    )
    monkeypatch.setattr(viola_jones, '_judged', lambda picture, face, windows: (face, evidence[face.roll]))
    assert largest(np.zeros((60, 60, 1), np.uint8)).roll == 24


def test_votes_gather_where_they_are_densest():
    far = [(60.0, 20.0, 1.0)]
    near = [(20.0, 30.0, 1.0), (22.0, 30.0, 1.0), (21.0, 31.0, 0.5)]
    (x, y), weight = viola_jones._peak(np.array(far + near))
    assert (x, y) == pytest.approx((21.0, 30.2), abs=0.05)
    assert 2 < weight < 2.5
    assert viola_jones._peak(np.zeros((0, 3))) == ((0.0, 0.0), 0.0)


def test_of_overlapping_faces_the_first_is_kept():
    one, same, other = (Detection((x, 0, side, side), None) for x, side in ((0, 40), (10, 44), (40, 60)))
    assert viola_jones._without_overlaps([one, same, other]) == [other, one]
