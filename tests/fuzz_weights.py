"""Reads many damaged copies of weight files: a process of its own, so that a crash, a hang or a flood of memory shows.

    python -m tests.fuzz_weights FOLDER FIRST COUNT

Every file in FOLDER is an original; copy number i is made from one of them with the seed i. The last line is JSON.
"""

import faulthandler
import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.weights import files
from fn2en_jax.weights.canonical import Wish

SECONDS = 5
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


def main(folder: Path, first: int, count: int) -> None:
    originals = [path.read_bytes() for path in sorted(folder.iterdir())]
    limit = most_memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    faulthandler.enable()
    path, slowest, taken, messages = folder.parent / f'{folder.name}.fuzz', 0.0, 0, set()
    for seed in range(first, first + count):
        path.write_bytes(mutated(originals[seed % len(originals)], seed))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        begin = time.monotonic()
        try:
            with np.errstate(all='ignore'):
                files.load(str(path), Wish(colour_order='rgb', theano_flipped=True))
            taken += 1
        except UserError as error:
            message = str(error)
            if not message.isprintable() or len(message) > 3000:
                raise ValueError(f'not one clear line: {message!r}') from error
            messages.add(re.sub(r'\d+', '#', message.removeprefix(str(path)))[:100])
        except BaseException:
            print(f'seed {seed} of {folder}', file=sys.stderr, flush=True)
            raise
        slowest = max(slowest, time.monotonic() - begin)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({'taken': taken, 'kinds': len(messages), 'slowest': slowest, 'memory': most_memory()}))


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
