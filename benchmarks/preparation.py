"""Times the preparation of a published set against the decoder alone, and the loading of the prepared set.

Command:  python benchmarks/preparation.py [--images=1308] [--json=FILE]

Writes a CK+ of rendered faces, 640 x 490 grey PNG as in the original, into a temporary folder. `decoder` reads and
decodes every file, on as many processes as the preparation uses. `as it is` is the whole preparation of images that are
stored as they come, `aligned` with faces detected and aligned. Then the prepared set is loaded onto the device at the
training size. Each is timed alternately, the median is reported; share_of_decoder is the decoder's time over ours.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from PIL import Image

from fn2en_jax.data import images, published, store, synthetic, synthetic_persons
from fn2en_jax.data.datasets import DATASETS

WIDTH, HEIGHT, FACE = 640, 490, 320  # pixels; the face's side
CKPLUS = DATASETS['ckplus']
CODES = {
    'anger': 1,
    'contempt': 2,
    'disgust': 3,
    'fear': 4,
    'happiness': 5,
    'sadness': 6,
    'surprise': 7,
}


def frame(number: int) -> bytes:
    """One frame as a PNG: a rendered face before a dim, slightly noisy wall."""
    draw = np.random.default_rng(number)
    wall = draw.normal(90, 4, (HEIGHT, WIDTH)).clip(0, 255).astype(np.uint8)
    expression = synthetic_persons.EXPRESSIONS[number % len(synthetic_persons.EXPRESSIONS)]
    face = synthetic.render(0, number % 40, number, expression, size=FACE // 2, channels=1)[..., 0]
    top, left = (HEIGHT - FACE) // 2, (WIDTH - FACE) // 2
    wall[top : top + FACE, left : left + FACE] = np.asarray(Image.fromarray(face).resize((FACE, FACE)))
    return images.encode_png(wall[..., None])


def write(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """A CK+ of `count` frames, four to a sequence of its own."""
    files = []
    with multiprocessing.get_context('spawn').Pool() as pool:
        for number, png in enumerate(pool.imap(frame, range(count), chunksize=8)):
            sequence, place = divmod(number, 4)
            name = f'S{sequence // 3:03d}/{sequence % 3 + 1:03d}'
            stem = f'{name.replace("/", "_")}_{place + 1:08d}'
            files.append(folder / 'cohn-kanade-images' / name / f'{stem}.png')
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_bytes(png)
            if place == 3:
                label = folder / 'Emotion' / name / f'{stem}_emotion.txt'
                label.parent.mkdir(parents=True)
                label.write_text(f'   {list(CODES.values())[sequence % 7]}.0000000e+00\n')
    return files


def decode(path: pathlib.Path) -> int:
    return images.decode(path.read_bytes(), 1).size


def decoder(files: list[pathlib.Path]) -> None:
    with multiprocessing.get_context('spawn').Pool() as pool:
        pool.map(decode, files, chunksize=64)


def preparation(source: pathlib.Path, data: str, mode: str) -> Any:
    place = published.Place(str(source), data)
    return published.prepare(CKPLUS, place, published.Faces(mode))


def load(builder: Any) -> None:
    examples = store.load(builder, size=256, channels=1)
    jax.block_until_ready(jax.device_put(examples.images))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(source: pathlib.Path, files: list[pathlib.Path], repeats: int) -> dict[str, float]:
    """Medians in seconds."""
    times: dict[str, list[float]] = {'decoder': [], 'as it is': [], 'aligned': [], 'loading': []}
    for _ in range(repeats):
        times['decoder'].append(seconds(lambda: decoder(files)))
        with tempfile.TemporaryDirectory() as data:
            times['as it is'].append(seconds(lambda data=data: preparation(source, data, 'none')))
            times['aligned'].append(seconds(lambda data=data: preparation(source, data, 'align')))
            builder = preparation(source, data, 'align')
            times['loading'].append(seconds(lambda builder=builder: load(builder)))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=1308)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--json')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / 'CK+'
        files = write(source, args.images // 4 * 4)
        medians = measure(source, files, args.repeats)
    print(f'{len(files)} frames of {WIDTH}x{HEIGHT}, {os.cpu_count()} cores')
    print(f'{"":12}{"seconds":>9}{"images/s":>10}{"share_of_decoder":>18}')
    rows = {}
    for name, value in medians.items():
        rows[name] = {'seconds': value, 'images_per_second': len(files) / value, 'share': medians['decoder'] / value}
        share = '' if name == 'loading' else f'{rows[name]["share"]:.2f}'
        print(f'{name:12}{value:9.2f}{rows[name]["images_per_second"]:10.0f}{share:>18}')
    if args.json:
        facts = {'cores': os.cpu_count(), 'images': len(files), **rows}
        pathlib.Path(args.json).write_text(json.dumps(facts, indent=1))


if __name__ == '__main__':
    main()
