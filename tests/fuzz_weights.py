"""Reads many damaged copies of weight files: a process of its own, so that a crash, a hang or a flood of memory shows.

    python -m tests.fuzz_weights FOLDER FIRST COUNT

Every file in FOLDER, which is named after their form, is an original; copy number i is made from one of them with the
seed i, and read as this program reads one or as `convert` describes one. The last line is JSON.
"""

import contextlib
import faulthandler
import io
import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
from absl import flags

from fn2en_jax import convert
from fn2en_jax.errors import UserError
from fn2en_jax.weights import files
from fn2en_jax.weights.canonical import Wish
from tests import fuzz_structures

SECONDS = 5  # of the processor
PATIENCE = 6  # times as many by the clock, on a machine that does other things too
STRUCTURED, DESCRIBED = 0.5, 0.2  # shares of the copies
MEMORY = 2 << 30  # bytes
SIZES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def mutated(original: bytes, seed: int) -> bytes:
    """A damaged copy: bytes and numbers changed, pieces cut out, doubled or moved, the end missing."""
    draw = np.random.default_rng(seed)
    data = bytearray(original)

    def place():
        # Half of the changes hit the beginning or the end, where most of the structure is.
        span = len(data) if draw.random() < 0.5 else min(len(data), 2048)
        at = int(draw.integers(0, max(1, span)))
        return at if draw.random() < 0.7 else max(0, len(data) - 1 - at)

    for _ in range(int(draw.choice([1, 1, 1, 2, 4, 16]))):
        kind, at = int(draw.integers(0, 8)), place()
        if kind <= 2:
            data[at : at + 1] = bytes([int(draw.integers(0, 256))])
        elif kind <= 4:
            width = int(draw.choice([1, 2, 4, 8]))
            number = int(draw.choice(np.array(SIZES, object))) & (1 << 8 * width) - 1
            data[at : at + width] = number.to_bytes(width, str(draw.choice(['little', 'big'])))
        elif kind == 5:
            data[at : at + int(draw.integers(1, 64))] = b''
        elif kind == 6:
            data[at:at] = data[at : at + int(draw.integers(1, 64))]
        elif draw.random() < 0.5:
            other = place()
            data[at : at + 16] = data[other : other + 16]
        else:
            data = data[:at]
    return bytes(data)


def most_memory() -> int:
    """The most that this process has used, in bytes. (getrusage also counts the process that started it.)"""
    found = re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())
    assert found
    return int(found[1]) * 1024


def copy(form: str, original: bytes, seed: int) -> bytes:
    """Copy number `seed`: of some forms, half are damaged in their structure, and some of those in their bytes too."""
    draw = np.random.default_rng([seed, 1])
    if form not in fuzz_structures.FORMS or draw.random() >= STRUCTURED:
        return mutated(original, seed)
    changed = fuzz_structures.FORMS[form](original, draw)
    return mutated(changed, seed) if draw.random() < 0.1 else changed


def wish(seed: int) -> Wish:
    """What a user may say of a file, and mostly says."""
    draw = np.random.default_rng([seed, 2])

    def one(usual, *others):
        return usual if draw.random() < 0.8 else others[int(draw.integers(0, len(others)))]

    return Wish(
        colour_order=one('rgb', 'bgr', '', 'grb'),
        layers=one('all', 'convolutions'),
        image_size=one(None, (32, 32), (64, 96), (10_000, 1)),
        mean_rgb=one(None, (1.0, 2.0, 3.0)),
        theano_flipped=one(True, False),
    )


def read(path: Path, seed: int) -> None:
    """Reads the file with the user's words, or describes it with the same ones as flags. Raises what they raise."""
    said = wish(seed)
    if np.random.default_rng([seed, 3]).random() >= DESCRIBED:
        files.load(str(path), said)
        return
    values = {
        'colour_order': said.colour_order,
        'layers': said.layers,
        'image_size': 'x'.join(map(str, said.image_size or ())),
        'mean': ','.join(map(str, said.mean_rgb or ())),
        'theano_flipped': said.theano_flipped,
    }
    for name, value in values.items():
        flags.FLAGS[name].value = value
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        convert.main([str(path)])


def main(folder: Path, first: int, count: int) -> None:
    flags.FLAGS([sys.argv[0]])
    originals = [path.read_bytes() for path in sorted(folder.iterdir())]
    limit = most_memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    faulthandler.enable()
    path, slowest, taken, messages = folder.parent / f'{folder.name}.fuzz', 0.0, 0, set()
    for seed in range(first, first + count):
        path.write_bytes(copy(folder.name, originals[seed % len(originals)], seed))
        faulthandler.dump_traceback_later(SECONDS * PATIENCE, exit=True)
        begin = time.process_time()
        try:
            with np.errstate(all='ignore'):
                read(path, seed)
            taken += 1
        except UserError as error:
            message = str(error)
            if not message.isprintable() or len(message) > 3000:
                raise ValueError(f'not one clear line: {message!r}') from error
            messages.add(re.sub(r'\d+', '#', message.removeprefix(str(path)))[:100])
        except BaseException:
            print(f'seed {seed} of {folder}', file=sys.stderr, flush=True)
            raise
        slowest = max(slowest, time.process_time() - begin)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({'taken': taken, 'kinds': len(messages), 'slowest': slowest, 'memory': most_memory()}))


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
