"""Times training batches against a PyTorch DataLoader that does the same work, alternating in one process.

Command:  python benchmarks/input_pipeline.py [--sizes=224,64] [--batch=64] [--json=FILE]

Both sides hold the set as uint8 images, and make shuffled batches of random crops, each mirrored with probability 1/2,
as float32. Ours are chosen and cut by the compiled `Reader.select`, on the device, as they are inside the training
loop; here the loop does nothing else but add up the pixels, so that no batch can be left out. PyTorch's come from a
Dataset that cuts one image at a time and a DataLoader, without worker processes and with two, that run on while the
other side is timed as little as its prefetching lets them. No optimisation of PyTorch's, such as pinned memory or
augmenting whole batches, is used.

speedup_vs_pytorch is the median, over the repeats, of PyTorch's time over ours, for the faster number of workers.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import rng
from fn2en_jax.data.augmentation import Augmentation
from fn2en_jax.data.batches import Resident
from fn2en_jax.data.examples import Examples

try:
    import torch
except ModuleNotFoundError:
    sys.exit('error: PyTorch is not installed; install it (requirements-dev.txt) to compare with it')

from benchmarks.step_time import PER_DISPATCH, machine

WORKERS = (0, 2)
Runner = Callable[[int], None]  # makes a number of batches


class Crops(torch.utils.data.Dataset):
    """Random crops and mirrors of uint8 images [N,S,S,C], as float32 tensors [C,crop,crop]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, crop: int):
        self.images, self.labels, self.crop = torch.from_numpy(images), torch.from_numpy(labels), crop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        top, left = torch.randint(0, self.images.shape[1] - self.crop + 1, (2,)).tolist()
        cut = self.images[index, top : top + self.crop, left : left + self.crop]
        if torch.rand(()) < 0.5:
            cut = cut.flip(1)
        return cut.permute(2, 0, 1).float(), self.labels[index]


def our_batches(examples: Examples, crop: int, batch: int) -> Runner:
    feed = Resident(examples, batch_size=batch, augmentation=Augmentation(crop=crop, flip=True), steps=PER_DISPATCH)
    arrays, key = jax.device_put((feed.arrays(0), rng.stream(0, 'benchmark')))

    @jax.jit
    def several(arrays: Any, first: jax.Array, count: jax.Array) -> jax.Array:
        arrays = feed.reader.prepare(arrays, key, first)

        def one(step: jax.Array, total: jax.Array) -> jax.Array:
            return total + feed.reader.select(arrays, key, step, jnp.arange(batch))['image'].sum()

        return jax.lax.fori_loop(first, first + count, one, jnp.float32(0))

    done = 0

    def run(count: int) -> None:
        nonlocal done
        for start in range(done, done + count, PER_DISPATCH):
            steps = min(PER_DISPATCH, done + count - start)
            several(arrays, jnp.int32(start), jnp.int32(steps)).block_until_ready()
        done += count

    return run


def torch_batches(examples: Examples, crop: int, batch: int, workers: int) -> Runner:
    loader = torch.utils.data.DataLoader(
        Crops(examples.images, examples.labels, crop),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Forking a process that runs JAX's threads can hang.
        multiprocessing_context='forkserver' if workers else None,
    )
    batches = _endless(loader)

    def run(count: int) -> None:
        for _ in range(count):
            next(batches)[0].sum()

    return run


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def compare(examples: Examples, crop: int, batch: int, repeats: int, count: int) -> dict[str, Any]:
    """One row: seconds per batch of ours and of every DataLoader."""
    runners = {'ours': our_batches(examples, crop, batch)}
    runners |= {f'{workers} workers': torch_batches(examples, crop, batch, workers) for workers in WORKERS}
    for run in runners.values():
        run(1 + len(examples) // batch)  # compiled, started, and no prefetched batch left over
    rounds = [{name: _timed(run, count) for name, run in runners.items()} for _ in range(repeats)]
    times = {name: np.asarray([each[name] for each in rounds]) for name in runners}
    ours = times.pop('ours')
    best = min(times, key=lambda name: float(np.median(times[name])))
    return {
        'size': crop,
        'batch': batch,
        'batches_per_s': 1 / float(np.median(ours)),
        'images_per_s': batch / float(np.median(ours)),
        'pytorch_batches_per_s': {name: 1 / float(np.median(each)) for name, each in times.items()},
        'pytorch_fastest': best,
        'speedup_vs_pytorch': float(np.median(times[best] / ours)),
    }


def _timed(run: Runner, count: int) -> float:
    start = time.perf_counter()
    run(count)
    return (time.perf_counter() - start) / count


def line(row: dict[str, Any]) -> str:
    theirs = ' '.join(f'{row["pytorch_batches_per_s"][f"{workers} workers"]:10.1f}' for workers in WORKERS)
    return f'{row["size"]:4d} {row["batch"]:5d} {row["batches_per_s"]:10.1f} {theirs} {row["speedup_vs_pytorch"]:8.2f}'


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--sizes', default='224,64', help='sides of the crops; images are an eighth larger')
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--examples', type=int, default=1024, help='images in the set')
    parser.add_argument('--count', type=int, default=64, help='batches in one measurement')
    parser.add_argument('--repeats', type=int, default=5, help='measurements of each contender')
    parser.add_argument('--json', type=pathlib.Path, help='file to write the results to')
    flags = parser.parse_args()
    if flags.examples < flags.batch:
        parser.error(f'--examples={flags.examples} do not fill one batch of {flags.batch}')
    return flags


def main() -> None:
    flags = arguments()
    torch.manual_seed(0)
    device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
    print(machine(device))
    print(f'{"size":>4} {"batch":>5} {"batches/s":>10} {"0 workers":>10} {"2 workers":>10} {"speedup":>8}')
    rows = []
    for crop in map(int, flags.sizes.split(',')):
        side = crop * 8 // 7
        shape = (flags.examples, side, side, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        names = tuple(str(index) for index in range(flags.examples))
        examples = Examples(images, np.zeros(flags.examples, np.int32), ('any',), None, names)
        rows.append(compare(examples, crop, flags.batch, flags.repeats, flags.count))
        print(line(rows[-1]), flush=True)
    if flags.json:
        flags.json.write_text(json.dumps({'machine': machine(device), 'rows': rows}, indent=2) + '\n')


if __name__ == '__main__':
    main()
