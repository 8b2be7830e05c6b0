"""Times the preparation of a published set against the decoder alone, and the loading of the prepared set.

Command:  python benchmarks/preparation.py [--images=1308] [--repeats=3] [--json=FILE]

Writes a CK+ of rendered faces, 640 x 490 grey PNG as in the original, into a temporary folder. There are as many
processes as cores, and the files are in the page cache. What is timed, in turn and several times:

decoder              reads every file and decodes it with Pillow into an array, in processes that are warm
decoder, no array    the same without handing out the pixels: less than anybody needs who wants to see them
as it is, steady     how much longer the command below takes for a set of three times as many images, halved: what it
                     needs per image, to the finished record, without its start
as it is, command    `python -m fn2en_jax.datasets --prepare=ckplus --faces=none` from its start to its end
aligned, command     the same with --faces=align: every face is detected and aligned
loading, grey, RGB   the prepared set onto the device, at the size in which it is stored, in one and three channels

Medians are reported; the shares are the time of each decoder over ours, of the same turn.
"""

import argparse
import io
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from fn2en_jax.data import images, preparation

# JAX and TFDS are imported where they are needed: the processes that draw and decode import this file.

ROOT = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, FACE = 640, 490, 320  # pixels; the face's side
SIZE = 256  # pixels, at which the set is loaded
DECODERS = ('decoder', 'decoder, no array')
TIMES = 3  # images of the large set for one of the small
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
    from fn2en_jax.data import synthetic, synthetic_persons

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
    with multiprocessing.get_context('spawn').Pool(preparation.cores()) as pool:
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


def multiply(folder: pathlib.Path, into: pathlib.Path) -> None:
    """The same CK+ several times under other subjects; its files are links."""
    subjects = len(list((folder / 'cohn-kanade-images').iterdir()))
    for path in [path for path in folder.rglob('*') if path.is_file()]:
        top, subject, *rest = path.relative_to(folder).parts
        for copy in range(TIMES):
            name = f'S{int(subject[1:]) + copy * subjects:03d}'
            link = into / top / name / '/'.join(rest).replace(subject, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)


def decode(path: pathlib.Path) -> None:
    np.asarray(Image.open(io.BytesIO(path.read_bytes()), formats=images.FORMATS))


def decode_in_place(path: pathlib.Path) -> None:
    Image.open(io.BytesIO(path.read_bytes()), formats=images.FORMATS).load()


def decoder(files: list[pathlib.Path], one: Callable[[pathlib.Path], None]) -> float:
    """Seconds for all files once the processes have decoded all of them before."""
    with multiprocessing.get_context('spawn').Pool(preparation.cores()) as pool:
        pool.map(one, files, chunksize=8)
        return seconds(lambda: pool.map(one, files * TIMES, chunksize=8)) / TIMES


def command(source: pathlib.Path, mode: str, data: str | None = None) -> float:
    """Seconds from start to end of the user's command, which stores into `data` or a folder that is removed."""
    with tempfile.TemporaryDirectory() as elsewhere:
        flags = [f'--faces={mode}', f'--manual_dir={source}', f'--data_dir={data or elsewhere}']
        words = [sys.executable, '-m', 'fn2en_jax.datasets', '--prepare=ckplus', *flags]
        return seconds(lambda: subprocess.run(words, cwd=ROOT, check=True, capture_output=True))


def loading(data: str, channels: int) -> float:
    """Seconds in which the aligned set in `data` comes onto the device."""
    import jax

    from fn2en_jax.data import published, store

    builder = published.prepare(published.find('ckplus'), published.Place('', data), published.Faces('align'))

    def load() -> Any:
        examples = store.load(builder, size=SIZE, channels=channels)
        return jax.block_until_ready(jax.device_put(examples.images))

    return seconds(load)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def turn(once: pathlib.Path, large: pathlib.Path, files: list[pathlib.Path]) -> dict[str, float]:
    """Everything one time, seconds for as many images as there are files."""
    with tempfile.TemporaryDirectory() as data:
        times = {DECODERS[0]: decoder(files, decode), DECODERS[1]: decoder(files, decode_in_place)}
        times['as it is, command'] = command(once, 'none')
        times['as it is, steady'] = (command(large, 'none') - times['as it is, command']) / (TIMES - 1)
        times['aligned, command'] = command(once, 'align', data)
        return times | {f'loading, {name}': loading(data, channels) for name, channels in (('grey', 1), ('RGB', 3))}


def summary(turns: list[dict[str, float]], count: int) -> dict[str, dict[str, float]]:
    """Medians by what was timed."""
    rows = {}
    for name in turns[0]:
        median = statistics.median(times[name] for times in turns)
        rows[name] = {'seconds': median, 'images_per_second': count / median}
        if not name.startswith('loading'):
            for one in DECODERS:
                rows[name][f'share of {one}'] = statistics.median(times[one] / times[name] for times in turns)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=1308)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--json')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        once, large = pathlib.Path(folder) / 'CK+', pathlib.Path(folder) / 'large'
        files = write(once, args.images // 4 * 4)
        multiply(once, large)
        facts = {'cores': preparation.cores(), 'load_before': os.getloadavg()[0], 'images': len(files)}
        turns = [turn(once, large, files) for _ in range(args.repeats)]
    rows = summary(turns, len(files))
    print(f'{len(files)} frames of {WIDTH}x{HEIGHT}, {facts["cores"]} cores')
    print(f'{"":22}{"seconds":>9}{"images/s":>10}' + ''.join(f'{f"of {one}":>22}' for one in DECODERS))
    for name, row in rows.items():
        shares = ''.join(f'{row[f"share of {one}"]:22.2f}' for one in DECODERS if f'share of {one}' in row)
        print(f'{name:22}{row["seconds"]:9.2f}{row["images_per_second"]:10.0f}{shares}')
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({**facts, **rows, 'turns': turns}, indent=1) + '\n')


if __name__ == '__main__':
    main()
