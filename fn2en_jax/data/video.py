"""Single frames out of video clips, and all of them in order."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fn2en_jax.data import images
from fn2en_jax.errors import UserError

KINDS = ('AVI', 'MP4', 'Matroska')  # MP4 is QuickTime as well, Matroska WebM
SUFFIXES = ('.avi', '.mp4', '.m4v', '.mov', '.mkv', '.webm')

_SHORT = 0.05  # share of the frames that a header may promise too much without anyone being told


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
        """Decodes it, uint8 [h,w,3] RGB; raises UserError for a clip that cannot be read so far.

        All frames before it are decoded, too: OpenCV goes to a frame by time stamps, which are not one per frame in
        MPEG-1 AVIs, and there it ends up one frame early.
        """
        clip = _opened(self.path, ('AVI',))
        try:
            passed = all(clip.grab() for _ in range(self.index))
            found, frame = clip.read()
        finally:
            clip.release()
        if not (passed and found):
            raise UserError(f'{self.path.name}: frame {self.index} cannot be read')
        upright = np.rot90(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), -self.quarter_turns)
        first, last = (round(share * upright.shape[1]) for share in self.columns)
        return np.ascontiguousarray(upright[:, first:last])


def count_frames(path: Path, kinds: tuple[str, ...] = ('AVI',)) -> int:
    """Number of frames of a clip as its header says, 0 where it says none.

    Raises:
        UserError: where it is no clip of these kinds (some of KINDS).
    """
    clip = _opened(path, kinds)
    try:
        return max(0, int(clip.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        clip.release()


def is_clip(path: Path) -> bool:
    """Whether a file begins as a clip of one of KINDS does."""
    try:
        with path.open('rb') as file:
            return bool(_kind(file.read(12)))
    except OSError:
        return False


def frames(path: Path, every: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """Decodes a clip from its beginning to its end, upright, one frame at a time.

    Args:
        path: a clip of one of KINDS.
        every: frames from one that is wanted to the next.

    Yields:
        (number counted from 0, uint8 [h,w,3] RGB).

    Raises:
        UserError: for a file that is no clip, frames of absurd dimensions, and where the clip ends too early (after
            the frames that could be read).
    """
    clip = _opened(path, KINDS)
    try:
        promised = clip.get(cv2.CAP_PROP_FRAME_COUNT)
        if clip.isOpened():
            images.check_dimensions(int(clip.get(cv2.CAP_PROP_FRAME_WIDTH)), int(clip.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        count = 0
        while clip.grab():
            if count % every == 0:
                found, frame = clip.retrieve()
                if not found:
                    raise UserError(f'{path.name}: frame {count} cannot be read')
                yield count, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            count += 1
    finally:
        clip.release()
    if not count:
        raise UserError(f'{path.name}: holds no frame that can be read')
    if count < promised * (1 - _SHORT) - 1:
        raise UserError(f'{path.name}: ends after {count} frames; its header says {promised:.0f}')


def _kind(head: bytes) -> str:
    """What kind of clip begins with these 12 bytes, '' for none."""
    if head[:4] == b'RIFF' and head[8:] == b'AVI ':
        return 'AVI'
    if head[4:8] == b'ftyp':
        return 'MP4'
    return 'Matroska' if head[:4] == b'\x1a\x45\xdf\xa3' else ''


def _opened(path: Path, kinds: tuple[str, ...]) -> cv2.VideoCapture:
    """Opens a clip; OpenCV goes by content, and a playlist or a script would name files elsewhere."""
    try:
        with path.open('rb') as file:
            head = file.read(12)
        str(path).encode()
    except OSError as error:
        raise UserError(f'{path.name}: cannot be read ({error.strerror})') from error
    except UnicodeEncodeError as error:
        raise UserError(f'{path.name}: its path is no UTF-8; rename it') from error  # OpenCV would crash
    if _kind(head) not in kinds:
        raise UserError(f'{path.name}: cannot be opened as a clip: it is no {" or ".join(kinds)} file')
    return cv2.VideoCapture(str(path))
