"""Single frames of clips in the compressions that AVIs come with."""

import cv2
import numpy as np
import pytest

from fn2en_jax.data import video
from fn2en_jax.data.video import VideoFrame
from fn2en_jax.errors import UserError

FRAMES = 40
BITS = 6


def drawn(number: int) -> np.ndarray:
    """A picture of a number, as bars that are bright for its ones: uint8 [64,144,3]."""
    image = np.full((64, 24 * BITS, 3), 40, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            image[8:56, 24 * bit + 4 : 24 * bit + 20] = 220
    return image


def seen(image: np.ndarray) -> int:
    return sum(int(image[16:48, 24 * bit + 8 : 24 * bit + 16].mean() > 130) << bit for bit in range(BITS))


@pytest.mark.parametrize('form', ['MJPG', 'XVID', 'mpg1', 'mpg2', 'HFYU'])
def test_a_frame_is_the_one_of_its_number(form, tmp_path):
    """Those of MPEG-1 are not where OpenCV's seeking looks for them."""
    path = tmp_path / 'clip.avi'
    clip = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*form), 25, (24 * BITS, 64))
    assert clip.isOpened()
    for number in range(FRAMES):
        clip.write(drawn(number))
    clip.release()
    assert video.count_frames(path) == FRAMES
    asked = [0, 1, 2, 3, 12, 13, 25, FRAMES - 1]
    assert [seen(VideoFrame(path, number).read()) for number in asked] == asked
    with pytest.raises(UserError, match='frame 40 cannot be read'):
        VideoFrame(path, FRAMES).read()
