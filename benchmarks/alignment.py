"""Measures face detection and alignment on photographs that are shrunk, turned and pasted on larger backgrounds.

Command:  python benchmarks/alignment.py --faces=FOLDER_OR_CSV [--output=FOLDER] [--eyes=CSV] [--count=200]

Every chosen photograph, which should show one face that nearly fills it, is pasted once per band of rotation: upright,
and turned by up to 10, 10 to 20 and 20 to 30 degrees to either side; shrunk to between 0.4 and 1 of its size, anywhere
on a 480 x 360 background of noise, of shapes, or of shuffled pieces of other photographs. The same command makes the
same pictures. A face counts as found when the box lies where the photograph was pasted and has about its size, and as
wrong when it lies elsewhere; backgrounds without a face show the false alarms.

Errors are those of the worse eye, in distances between the eyes. Two references:
* --eyes=CSV: eyes marked by hand (columns file, left_x, left_y, right_x, right_y; pixels, the corner of the first pixel
  is 0, 0). Whoever marked 128-pixel photographs was sure to within one or two pixels, 0.02 to 0.04 eye distances.
* else the eyes that the program itself finds in the photograph as it is, where it finds the same, within 0.1 eye
  distances, in its mirror image. This shows what turning, shrinking and the background do; it says nothing of errors
  that the program makes everywhere, and leaves out the faces that are difficult from the start.
Both turn as the photograph was turned: 0 degrees is how the photographer held the camera, and heads lean by some more.

Time is the processor's on one thread, decoding excluded. Sheets in --output show every picture with box and eyes, and
the face that was cut out of it; `misses.png` those that went wrong by any of the figures.
"""

import argparse
import csv
import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np

from fn2en_jax.data import contact_sheet, images, warping
from fn2en_jax.data.alignment import Face, FaceStep, cut

WIDTH, HEIGHT = 480, 360  # of a background
SHRUNK = (0.4, 1.0)  # scale of the pasted photographs
BANDS = ((0.0, 0.0), (0.0, 10.0), (10.0, 20.0), (20.0, 30.0))  # degrees
PLACE = 0.25  # sides of the photograph by which the middle of a box may be off
SIZE = (0.5, 1.5)  # sides of the photograph that a box may measure
SAME = 0.1  # eye distances between the reference and its mirror image
FAR = 0.25  # eye distances: a wrong eye
STEP = FaceStep('align', no_face='drop')
SHOWN = 120  # height of the pictures on the sheets


@dataclasses.dataclass(frozen=True)
class Trial:
    """One picture and what became of it; times in ms."""

    name: str
    band: tuple[float, float]
    picture: np.ndarray
    face: Face | None
    found: bool
    error: float | None  # of the worse eye, in eye distances; None without reference or without eyes
    milliseconds: float

    @property
    def missed(self) -> bool:
        return not self.found or (self.error is not None and self.error > FAR)


def photographs(source: Path, count: int, seed: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Grey photographs [h, w, 1]: those of the names, or `count` drawn ones, by their paths below the folder."""
    folder, files = _listed(source)
    if names:
        chosen = [name for name in names if name in set(files)]
    else:
        order = np.random.default_rng(seed).permutation(len(files))[:count]
        chosen = [files[k] for k in sorted(order)]
    if not chosen:
        sys.exit(f'error: {source}: none of the photographs asked for')
    return {name: images.decode((folder / name).read_bytes(), 1) for name in chosen}


def _listed(source: Path) -> tuple[Path, list[str]]:
    if source.is_dir():
        files = sorted(path for path in source.rglob('*') if path.suffix.lower() in images.SUFFIXES)
        return source, [path.relative_to(source).as_posix() for path in files]
    with source.open(newline='') as table:
        return source.parent, [row['file'] for row in csv.DictReader(table)]


def background(draw: np.random.Generator, pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Grey texture float32 [HEIGHT, WIDTH]."""
    return (_noise, _shapes, _pieces)[draw.integers(3)](draw, pieces)


def _noise(draw: np.random.Generator, pieces: Sequence[np.ndarray]) -> np.ndarray:
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    for octave in range(2, 8):
        knots = draw.standard_normal((2**octave * HEIGHT // WIDTH, 2**octave)).astype(np.float32)
        total += cv2.resize(knots, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) * 0.66**octave
    return np.clip((total - total.mean()) / total.std() * 45 + draw.uniform(80, 170), 0, 255)


def _shapes(draw: np.random.Generator, pieces: Sequence[np.ndarray]) -> np.ndarray:
    canvas = np.full((HEIGHT, WIDTH), draw.uniform(40, 200), np.float32)
    for _ in range(60):
        x, y, to_x, to_y = (int(draw.integers(limit)) for limit in (WIDTH, HEIGHT, WIDTH, HEIGHT))
        if draw.random() < 0.5:
            axes = int(draw.integers(5, 60)), int(draw.integers(5, 60))
            cv2.ellipse(canvas, (x, y), axes, draw.uniform(0, 180), 0, 360, draw.uniform(0, 255), -1)
        else:
            cv2.line(canvas, (x, y), (to_x, to_y), draw.uniform(0, 255), int(draw.integers(1, 12)))
    return cv2.GaussianBlur(canvas, (0, 0), 1)


def _pieces(draw: np.random.Generator, pieces: Sequence[np.ndarray], side: int = 32) -> np.ndarray:
    canvas = np.zeros((-(-HEIGHT // side) * side, -(-WIDTH // side) * side), np.float32)
    for y in range(0, canvas.shape[0], side):
        for x in range(0, canvas.shape[1], side):
            other = pieces[draw.integers(len(pieces))]
            top, left = (int(draw.integers(0, max(1, length - side))) for length in other.shape[:2])
            piece = cv2.resize(other[top : top + side, left : left + side, 0], (side, side))
            canvas[y : y + side, x : x + side] = np.rot90(piece, int(draw.integers(4)))
    return canvas[:HEIGHT, :WIDTH]


def paste(
    draw: np.random.Generator, photograph: np.ndarray, pieces: Sequence[np.ndarray], degrees: float
) -> tuple[np.ndarray, np.ndarray]:
    """The picture uint8 [HEIGHT, WIDTH, 1], and the transform [2, 3] from the photograph's pixels to its own."""
    height, width = photograph.shape[:2]
    longer = max(height, width)
    scale = math.exp(draw.uniform(*np.log(SHRUNK))) * 128 / longer
    to_picture = warping.of_square((0, 0, width, height), scale * longer, degrees)
    reach = scale * longer / math.sqrt(2) + 2
    middle = np.array([draw.uniform(reach, WIDTH - reach), draw.uniform(reach, HEIGHT - reach)])
    to_picture[:, 2] += middle - scale * longer / 2
    inside = np.zeros((height, width), np.uint8)
    inside[4:-4, 4:-4] = 255
    cover = warping.warp(cv2.GaussianBlur(inside, (0, 0), 2), to_picture, (WIDTH, HEIGHT)).astype(np.float32) / 255
    pasted = warping.warp(photograph, to_picture, (WIDTH, HEIGHT))[..., 0]
    mixed = background(draw, pieces) * (1 - cover) + pasted * cover
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)[..., None], to_picture


def reference(photograph: np.ndarray) -> np.ndarray | None:
    """Eyes [2, 2] that are found in a photograph and in its mirror image alike, None where they are not.

    The photograph gets a border as wide as a quarter of it: the detector wants some room around a face.
    """
    room = photograph.shape[1] // 4
    wide = cv2.copyMakeBorder(photograph, room, room, room, room, cv2.BORDER_REPLICATE)[..., None]
    seen, mirrored = (cut(np.ascontiguousarray(each), STEP) for each in (wide, wide[:, ::-1]))
    if seen is None or mirrored is None or seen.eyes is None or mirrored.eyes is None:
        return None
    eyes = np.array(seen.eyes)
    back = np.array(mirrored.eyes)[::-1] * (-1, 1) + (wide.shape[1], 0)
    off = np.linalg.norm(eyes - back, axis=1).max() / math.dist(*eyes)
    return (eyes + back) / 2 - room if off <= SAME else None


def marked(path: Path) -> dict[str, np.ndarray]:
    """Eyes [2, 2] marked by hand, by file."""
    columns = ('left_x', 'left_y', 'right_x', 'right_y')
    with path.open(newline='') as table:
        return {
            row['file']: np.array([float(row[name]) for name in columns]).reshape(2, 2) for row in csv.DictReader(table)
        }


def attempt(
    name: str,
    band: tuple[float, float],
    picture: np.ndarray,
    to_picture: np.ndarray,
    side: int,
    eyes: np.ndarray | None,
) -> Trial:
    start = time.thread_time()
    face = cut(picture, STEP)
    elapsed = time.thread_time() - start
    found, error = False, None
    if face is not None and face.box is not None:
        x, y, across, _ = face.box
        pasted = side * warping.scale_of(to_picture)
        middle = warping.move(to_picture, np.array([side / 2, side / 2]))
        near = math.dist((x + across / 2, y + across / 2), middle) <= PLACE * pasted
        found = near and SIZE[0] <= across / pasted <= SIZE[1]
        if found and face.eyes is not None and eyes is not None:
            true = warping.move(to_picture, eyes)
            error = float(np.linalg.norm(np.array(face.eyes) - true, axis=1).max() / math.dist(*true))
    return Trial(name, band, picture, face, found, error, 1000 * elapsed)


def trials(photos: dict[str, np.ndarray], eyes: dict[str, np.ndarray | None], seed: int) -> list[Trial]:
    pieces = list(photos.values())
    results = []
    for number, (name, photograph) in enumerate(photos.items()):
        for index, band in enumerate(BANDS):
            draw = np.random.default_rng((seed, number, index))
            degrees = draw.uniform(*band) * draw.choice((-1, 1))
            picture, to_picture = paste(draw, photograph, pieces, degrees)
            side = max(photograph.shape)
            results.append(attempt(name, band, picture, to_picture, side, eyes[name]))
    return results


def false_alarms(photos: dict[str, np.ndarray], seed: int, count: int) -> dict[str, float]:
    pieces, found, elapsed = list(photos.values()), 0, 0.0
    for number in range(count):
        texture = background(np.random.default_rng((seed, number)), pieces)
        picture = np.round(texture).astype(np.uint8)[..., None]
        start = time.thread_time()
        found += cut(picture, STEP) is not None
        elapsed += time.thread_time() - start
    return {'pictures': count, 'faces': found, 'ms': 1000 * elapsed / count}


def row(name: str, part: Sequence[Trial]) -> dict[str, Any]:
    errors = [trial.error for trial in part if trial.error is not None]
    share = {f'within_{limit}': float(np.mean(np.array(errors) <= limit)) if errors else None for limit in (0.1, FAR)}
    return {
        'band': name,
        'pictures': len(part),
        'found': float(np.mean([trial.found for trial in part])),
        'wrong': float(np.mean([trial.face is not None and not trial.found for trial in part])),
        'eyes': float(np.mean([trial.found and trial.face is not None and trial.face.how == 'eyes' for trial in part])),
        'errors': len(errors),
        **{f'p{share}': float(np.percentile(errors, share)) if errors else None for share in (50, 90, 95)},
        **share,
        'ms': float(np.mean([trial.milliseconds for trial in part])),
    }


def report(results: Sequence[Trial]) -> list[dict[str, Any]]:
    rows = [
        row(
            f'{low:g} to {high:g} degrees' if high else 'upright',
            [each for each in results if each.band == (low, high)],
        )
        for low, high in BANDS
    ]
    rows.append(row('all', results))
    keys = [key for key in rows[0] if key != 'band']
    print(f'{"band":<16}' + ''.join(f'{key:>12}' for key in keys))
    for each in rows:
        print(f'{each["band"]:<16}' + ''.join(f'{_figure(each[key]):>12}' for key in keys))
    return rows


def _figure(value: float | None) -> str:
    if value is None:
        return '-'
    return str(value) if isinstance(value, int) else f'{value:.3f}' if value < 10 else f'{value:.0f}'


def tile(trial: Trial) -> np.ndarray:
    """The picture with box and eyes, and the face beside it: uint8 [SHOWN, W, 3]."""
    before = np.repeat(trial.picture, 3, axis=2)
    after = np.full((SHOWN, SHOWN, 3), 255, np.uint8)
    if trial.face is not None:
        after = np.repeat(images.fit(trial.face.image, SHOWN), 3, axis=2)
        x, y, width, height = (round(value) for value in trial.face.box or (0, 0, 0, 0))
        cv2.rectangle(before, (x, y), (x + width, y + height), (255, 220, 0), 2)
        for eye_x, eye_y in trial.face.eyes or ():
            cv2.drawMarker(before, (int(eye_x), int(eye_y)), (0, 255, 0), cv2.MARKER_CROSS, 14, 2)
    shown = cv2.resize(before, (SHOWN * WIDTH // HEIGHT, SHOWN), interpolation=cv2.INTER_AREA)
    return np.concatenate([shown, after], axis=1)


def sheets(results: Sequence[Trial], folder: Path, count: int = 40) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = {f'{low:g}_to_{high:g}': [each for each in results if each.band == (low, high)] for low, high in BANDS}
    parts['misses'] = [each for each in results if each.missed]
    parts['without_eyes'] = [each for each in results if each.found and each.face and each.face.eyes is None]
    for name, part in parts.items():
        if part:
            captions = [
                f'{each.face.how if each.face else "no face"} '
                f'{"" if each.error is None else f"{each.error:.2f}"} {Path(each.name).stem}'
                for each in part[:count]
            ]
            tiles = np.stack([tile(each) for each in part[:count]])
            contact_sheet.save(folder / f'{name}.png', tiles, captions, columns=5)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        '--faces', type=Path, required=True, help='a folder of photographs, or a CSV with a column file'
    )
    parser.add_argument('--output', type=Path, help='folder for the contact sheets and alignment.json')
    parser.add_argument('--eyes', type=Path, help='CSV of eyes marked by hand; only its photographs are used')
    parser.add_argument('--count', type=int, default=200, help='photographs, each used once per band')
    parser.add_argument('--seed', type=int, default=0)
    flags = parser.parse_args()
    for path in (flags.faces, flags.eyes):
        if path is not None and not path.exists():
            parser.error(f'{path}: no such file')
    return flags


def main() -> None:
    flags = arguments()
    cv2.setNumThreads(1)
    by_hand = marked(flags.eyes) if flags.eyes else {}
    photos = photographs(flags.faces, flags.count, flags.seed, tuple(by_hand))
    eyes = {name: by_hand[name] if by_hand else reference(photo) for name, photo in photos.items()}
    known = sum(each is not None for each in eyes.values())
    print(f'{len(photos)} photographs, eyes {"marked by hand" if by_hand else "consistent"} in {known}')
    results = trials(photos, eyes, flags.seed)
    rows = report(results)
    alarms = false_alarms(photos, flags.seed, len(photos))
    print(f'backgrounds alone: faces in {alarms["faces"]} of {alarms["pictures"]}, {alarms["ms"]:.0f} ms each')
    if flags.output:
        sheets(results, flags.output)
        record = {'reference': 'marked by hand' if by_hand else 'consistent', 'eyes_known': known}
        record |= {'rows': rows, 'backgrounds_alone': alarms}
        (flags.output / 'alignment.json').write_text(json.dumps(record, indent=2) + '\n')


if __name__ == '__main__':
    main()
