"""Single frames out of video clips."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from fn2en_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class VideoFrame:
    """A frame of a clip.

    Attributes:
        path: the clip.
        index: the frame, counted from 0.
        quarter_turns: clockwise turns by 90 degrees that make it upright.
        columns: the part of the upright frame that is wanted, as shares of its width from the left.
    """

    path: Path
    index: int
    quarter_turns: int = 0
    columns: tuple[float, float] = (0.0, 1.0)

    def read(self) -> np.ndarray:
        """Decodes it, uint8 [h,w,3] RGB; raises UserError for a clip that cannot be read so far."""
        clip = _opened(self.path)
        try:
            clip.set(cv2.CAP_PROP_POS_FRAMES, self.index)
            found, frame = clip.read()
        finally:
            clip.release()
        if not found:
            raise UserError(f'{self.path.name}: frame {self.index} cannot be read')
        upright = np.rot90(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), -self.quarter_turns)
        first, last = (round(share * upright.shape[1]) for share in self.columns)
        return np.ascontiguousarray(upright[:, first:last])


def count_frames(path: Path) -> int:
    """Number of frames of a clip as its header says, 0 where it says none; raises UserError where it is no clip."""
    clip = _opened(path)
    try:
        return max(0, int(clip.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        clip.release()


def _opened(path: Path) -> cv2.VideoCapture:
    """Opens an AVI clip; OpenCV goes by content, and a playlist or a script would name files elsewhere."""
    try:
        with path.open('rb') as file:
            head = file.read(12)
        str(path).encode()
    except OSError as error:
        raise UserError(f'{path.name}: cannot be read ({error.strerror})') from error
    except UnicodeEncodeError as error:
        raise UserError(f'{path.name}: its path is no UTF-8; rename it') from error  # OpenCV would crash
    if head[:4] != b'RIFF' or head[8:] != b'AVI ':
        raise UserError(f'{path.name}: cannot be opened as a clip: it is no AVI file')
    return cv2.VideoCapture(str(path))
