"""Writes folders laid out like MMI."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.trees.sequences import Draw, noise, save, write_junk, write_text

CODES = {'anger': 1, 'disgust': 2, 'fear': 3, 'happiness': 4, 'sadness': 5, 'surprise': 6}
OUTER = 'mmi-facial-expression-database_download_2020-01-01_00_00_00'


def write(
    root: Path,
    *,
    subjects: int = 3,
    labels: Sequence[str] = tuple(CODES),
    frames: int = 12,
    coded: bool = False,
    view: str = '0',
    stills: int = 0,
    draw: Draw = noise,
) -> None:
    """Writes a session per person and label, with coded action units (apex at frames 5 to 8) or without.

    Beside them lie a session without an emotion, one with an emotion that is not basic, and, if asked for, sessions of
    a still each.
    """
    session = 100
    for subject in (f'S{number:03}' for number in range(1, subjects + 1)):
        for number, label in enumerate(labels, 1):
            session += 1
            write_session(
                root,
                session,
                f'{subject}-{number:03}',
                CODES[label],
                frames=frames,
                coded=coded,
                view=view,
                draw=lambda frame, subject=subject, label=label: draw(
                    subject, 'neutral' if frame in (0, frames - 1) else label, frame
                ),
            )
    write_session(root, 2, 'S001-101', None, frames=4)
    write_session(root, 3, 'S001-102', 9, frames=4)
    for number in range(stills):
        write_session(root, 900 + number, f'S001-{200 + number}', 1, still=True)


def write_session(
    root: Path,
    session: int,
    name: str,
    emotion: int | None,
    *,
    frames: int = 12,
    coded: bool = False,
    view: str = '0',
    still: bool = False,
    draw=lambda frame: noise('', '', frame),
) -> Path:
    """Writes one session and returns its folder; `draw` makes a frame of it, upright."""
    folder = root / OUTER / 'Sessions' / str(session)
    write_junk(folder)
    medium = f'{name}.png' if still else f'{name}.avi'
    if still:
        save(folder / medium, draw(0))
    else:
        turns = 1 if view == '0' and not coded else 0  # what nobody coded is stored on its side
        write_clip(folder / medium, [np.rot90(draw(frame), turns) for frame in range(frames)])
    tag = '' if emotion is None else f'<Metatag Name="Emotion" Value="{emotion}"/>'
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    write_text(folder / f'{name}.xml', f'{head}<Metadata><Metatag Name="Glasses" Value="0"/>{tag}</Metadata>')
    note = f'<annotation filename="{name}-oao_aucs.xml"/>' if coded else ''
    track = f'<track filename="{medium}" view="{view}">{note}</track>'
    write_text(folder / 'session.xml', f'{head}<session sessionId="{session}"><subject id="1"/>{track}</session>')
    if coded:
        write_text(folder / f'{name}-oao_aucs.xml', phases({'12': [(1, 0), (3, 1), (5, 2), (9, 3), (11, 0)]}))
    return folder


def phases(units: dict[str, list[tuple[int, int]]]) -> str:
    """An onset-apex-offset file: for each action unit the frames (from 1) at which a phase begins."""
    body = ''.join(
        f'<ActionUnit Number="{unit}">'
        + ''.join(f'<Marker Frame="{frame}" Type="{phase}"/>' for frame, phase in markers)
        + '</ActionUnit>'
        for unit, markers in units.items()
    )
    return f'<?xml version="1.0"?>\n<ActionUnitCoding>{body}</ActionUnitCoding>'


def write_clip(path: Path, images: Sequence[np.ndarray]) -> None:
    """Writes uint8 [h, w] or [h, w, 3] (RGB) images as a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    clip = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 24, (width, height))
    assert clip.isOpened()
    for image in images:
        colour = cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR
        clip.write(cv2.cvtColor(np.ascontiguousarray(image), colour))
    clip.release()
