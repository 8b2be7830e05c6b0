"""Writes folders laid out like Oulu-CASIA NIR&VIS."""

from collections.abc import Collection
from pathlib import Path

from tests.trees.sequences import Draw, noise, save, write_junk

FOLDERS = ('Anger', 'Disgust', 'Fear', 'Happiness', 'Sadness', 'Surprise')
ORIGINAL = 'B_OriginalImg/OriginalImg/VL'
CROPPED = 'PreProcess_Img/VL_Acropped'


def write(
    root: Path,
    *,
    subjects: int = 3,
    frames: int = 12,
    place: str = ORIGINAL,
    name: str = '{:03}.jpeg',
    without: Collection[str] = (),
    draw: Draw | None = noise,
) -> None:
    """Writes the sequences of persons P001 on, except those in `without` ('P001/Anger'), whose folders stay empty.

    Beside them lie other lights and the infra-red part, with one image each. `draw=None` leaves images empty.
    """
    for subject in (f'P{number:03}' for number in range(1, subjects + 1)):
        for folder in FOLDERS:
            strong = root / place / 'Strong' / subject / folder
            strong.mkdir(parents=True, exist_ok=True)
            write_junk(strong)
            if f'{subject}/{folder}' not in without:
                for frame in range(frames):
                    label = folder.lower() if frame else 'neutral'
                    save(strong / name.format(frame), draw(subject, label, frame) if draw else None)
    for other in ('VL/Weak', 'VL/Dark', 'NI/Strong'):
        save(root / 'OriginalImg' / other / 'P001' / 'Anger' / '000.jpeg', None)
