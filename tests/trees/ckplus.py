"""Writes folders laid out like CK+."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests import ckplus_folds
from tests.trees.sequences import Draw, noise, save, write_junk, write_text

CODES = {'anger': 1, 'contempt': 2, 'disgust': 3, 'fear': 4, 'happiness': 5, 'sadness': 6, 'surprise': 7}
SUBJECTS = tuple(f'S{number:03}' for number in (5, 10, 11, 14, 22, 26, 28, 29, 32, 34, 35, 37, 42, 501, 502, 895, 999))
UNLABELLED = 'unlabelled'  # its label folder is empty
NO_FOLDER = 'no folder'  # it has no label folder


def write(
    root: Path,
    *,
    subjects: int = 3,
    labels: Sequence[str] = tuple(CODES),
    last: int = 6,
    image_root: str = 'cohn-kanade-images',
    label_root: str = 'Emotion',
    landmarks: bool = True,
    draw: Draw | None = noise,
) -> None:
    """Writes one sequence per label for each of some persons, and two without a label for the first of them."""
    sequences = {
        (subject, f'{number:03}'): label for subject in SUBJECTS[:subjects] for number, label in enumerate(labels, 1)
    }
    sequences |= {(SUBJECTS[0], '011'): UNLABELLED, (SUBJECTS[0], '012'): NO_FOLDER}
    write_sequences(
        root,
        sequences,
        last=last,
        image_root=image_root,
        label_root=label_root,
        landmarks=landmarks,
        draw=draw,
    )


def write_sequences(
    root: Path,
    sequences: Mapping[tuple[str, str], str],
    *,
    last: int = 6,
    image_root: str = 'cohn-kanade-images',
    label_root: str = 'Emotion',
    landmarks: bool = True,
    draw: Draw | None = noise,
) -> None:
    """Writes sequences (subject and number) with a label each; `draw=None` leaves the images empty."""
    for (subject, number), label in sequences.items():
        folder = f'{subject}/{number}'
        write_junk(root / image_root / folder)
        for frame in range(1, last + 1):
            name = f'{subject}_{number}_{frame:08}'
            image = draw(subject, 'neutral' if frame == 1 else label, frame) if draw else None
            save(root / image_root / folder / f'{name}.png', image)
            if landmarks:
                shape = (48, 64) if image is None else image.shape[:2]
                write_text(root / 'Landmarks' / folder / f'{name}_landmarks.txt', landmark_text(*shape))
        if label != NO_FOLDER:
            write_junk(root / label_root / folder)
        if label in CODES:
            path = root / label_root / folder / f'{subject}_{number}_{last:08}_emotion.txt'
            write_text(path, f'   {CODES[label]:.7e}\n')


def landmark_points(height: int, width: int) -> np.ndarray:
    """68 points [68, 2] of which only those of eyes, nose and mouth are in their places."""
    points = np.full((68, 2), 0.5)
    around = 0.03 * np.array([[-2, 0], [-1, -1], [1, -1], [2, 0], [1, 1], [-1, 1]])
    points[36:42] = around + np.array([0.35, 0.4])
    points[42:48] = around + np.array([0.65, 0.4])
    points[30], points[48], points[54] = (0.5, 0.55), (0.4, 0.75), (0.6, 0.75)
    return points * (width, height)


def landmark_text(height: int, width: int) -> str:
    """A landmark file as it is published: two numbers in scientific notation a line."""
    return ''.join(f'   {x:.7e}   {y:.7e}\n' for x, y in landmark_points(height, width))


def published() -> dict[tuple[str, str], str]:
    """593 sequences of 123 persons, with the published labels of each person.

    Where it is published which sequence or person lacks what, it is so here; the numbers of most sequences, and whose
    the others without a label are, is made up.
    """
    nothing = [103, 104, 118, 120, 121]
    no_folder = {84: [4], 100: [1], 126: [1, 2], 128: [1, 3, 5], 129: [1, 3, 4, 5]}
    sequences = {(f'S{s:03}', f'{n:03}'): NO_FOLDER for s, numbers in no_folder.items() for n in numbers}
    sequences |= {(f'S{subject:03}', '010'): UNLABELLED for subject in nothing}
    labelled = sorted((person, label) for person, label, _ in ckplus_folds.sequences())
    for person, label in labelled:
        sequences[person, f'{11 + list(CODES).index(label):03}'] = label
    persons = sorted({person for person, _ in labelled})
    for position in range(593 - len(sequences)):
        turn, person = divmod(position, len(persons))
        sequences[persons[person], f'{30 + turn:03}'] = UNLABELLED
    return sequences
