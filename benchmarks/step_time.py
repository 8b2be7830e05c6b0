"""Times training steps against the same steps in PyTorch, alternating in one process.

Command:  python benchmarks/step_time.py [--sizes=224,64] [--dtypes=float32,bfloat16] [--json=FILE]

Ours is the real thing: `train_step` of the project's methods inside the compiled loop of `parallel.train_dispatch`,
with the choice of the batch, random crop and mirror. PyTorch's side is handed one float batch that already lies on the
device, in channels-last layout, so what differs in work is to our disadvantage. In bfloat16 PyTorch runs under
autocast; on a GPU it is also timed with `torch.compile`, and the fastest of its variants counts.

FLOPs are counted from the shapes, two per multiply-add of convolutions and fully-connected layers and nothing else:
a trained net costs three forward passes, less the input gradient of its first convolution; a frozen one costs one.

speedup_vs_pytorch is the median, over the repeats, of PyTorch's time over ours in the same repeat.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # leave PyTorch some of a GPU's memory
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import compiled_loop
from benchmarks.compiled_loop import Runner, measure
from fn2en_jax.data.augmentation import Augmentation
from fn2en_jax.methods.classifier import Classifier
from fn2en_jax.methods.fn2en import FeatureRegression
from fn2en_jax.models.expression_net import FEATURES, ExpressionFeatures, ExpressionNet
from fn2en_jax.models.vgg_face import BLOCKS, VGGFace
from fn2en_jax.optim import Optimiser

try:
    import torch
except ModuleNotFoundError:
    sys.exit('error: PyTorch is not installed; install it (requirements-dev.txt) to compare with it')

STAGES = ('finetune', 'stage1', 'stage2')
NUM_CLASSES = 7
HIDDEN = 256
RATE = 1e-9  # so small that random inputs do not make the nets diverge; the work is the same


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table."""

    stage: str
    size: int
    dtype: str
    batch: int
    width: float

    def channels(self, count: int) -> int:
        return max(1, round(count * self.width))

    @property
    def pool5(self) -> tuple[int, int, int]:
        side = self.size // 2 ** len(BLOCKS)
        return side, side, self.channels(BLOCKS[-1][0])


# Ours


def our_steps(case: Case) -> Runner:
    """The project's own compiled loop, on random images with an eighth of margin to crop from."""
    method, variables, frozen = _method(case)
    examples = compiled_loop.random_examples(case.size * 8 // 7, 3, NUM_CLASSES)
    augmentation = Augmentation(crop=case.size, flip=True)
    return compiled_loop.runner(method, variables, frozen, examples, case.batch, augmentation)


def _method(case: Case) -> tuple[Any, Any, Any]:
    """The method, its variables and what is frozen."""
    dtype = jnp.dtype(case.dtype)
    optimiser = Optimiser('sgd', RATE, total_steps=1000, steps_per_epoch=100, schedule='constant')
    face = VGGFace(NUM_CLASSES, case.width, fc_features=4096, dtype=dtype)
    features = [case.channels(count) for count in FEATURES]
    weights = {'class_weights': jnp.ones(NUM_CLASSES)}
    if case.stage == 'finetune':
        return Classifier(face, 'fc8', optimiser), _init(face, case), weights
    if case.stage == 'stage2':
        net = ExpressionNet(NUM_CLASSES, tuple(features), case.pool5, HIDDEN, dtype=dtype)
        return Classifier(net, 'logits', optimiser), _init(net, case), weights
    student = ExpressionFeatures(tuple(features), case.pool5, dtype=dtype)
    moments = {name: jnp.ones(case.pool5[-1]) for name in ('mean', 'scale')}
    method = FeatureRegression(student, face, 'pool5', optimiser)
    return method, _init(student, case), {'teacher': _init(face, case), **moments}


def _init(model: Any, case: Case) -> Any:
    image = jax.ShapeDtypeStruct((1, case.size, case.size, 3), jnp.float32)
    return compiled_loop.random_variables(jax.eval_shape(model.init, jax.random.PRNGKey(0), image))


# PyTorch's


def torch_steps(case: Case, device: str, compiled: bool) -> Runner:
    """The same step written the usual way in PyTorch."""
    nn, to = torch.nn, {'device': device, 'memory_format': torch.channels_last}
    trained, teacher = (None if net is None else net.to(**to) for net in _torch_nets(case))
    optimiser = torch.optim.SGD(trained.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    shape = (case.batch, 3, case.size, case.size)
    image = torch.randint(0, 256, shape).float().to(**to) - 127.0
    label = (torch.arange(case.batch) % NUM_CLASSES).to(device)
    half = torch.autocast(device, torch.bfloat16, enabled=case.dtype == 'bfloat16')

    def loss() -> Any:
        with half:
            if teacher is None:
                return nn.functional.cross_entropy(trained(image), label)
            with torch.no_grad():
                target = teacher(image)
            return (trained(image).float() - target.float()).square().sum() / case.batch

    loss = torch.compile(loss) if compiled else loss

    def run(steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            loss().backward()
            optimiser.step()
        if device == 'cuda':
            torch.cuda.synchronize()

    return run


def _torch_nets(case: Case) -> tuple[Any, Any]:
    """The net to train and the teacher, or None."""
    nn = torch.nn
    face = nn.Sequential(*_torch_blocks(case, BLOCKS))
    inputs = int(np.prod(case.pool5))
    if case.stage == 'finetune':
        fc, dropout = case.channels(4096), nn.Dropout(0.5)
        sizes = ((inputs, fc), (fc, fc))
        layers = [layer for size in sizes for layer in (nn.Linear(*size), nn.ReLU(inplace=True), dropout)]
        return nn.Sequential(face, nn.Flatten(), *layers, nn.Linear(fc, NUM_CLASSES)), None
    blocks = _torch_blocks(case, [(count, 1) for count in FEATURES])
    student = nn.Sequential(*blocks, nn.Conv2d(case.pool5[-1], case.pool5[-1], 1))
    if case.stage == 'stage1':
        return student, face
    head = (nn.Linear(inputs, HIDDEN), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(HIDDEN, NUM_CLASSES))
    return nn.Sequential(student, nn.Flatten(), *head), None


def _torch_blocks(case: Case, blocks: Sequence[tuple[int, int]]) -> list[Any]:
    layers, channels = [], 3
    for count, depth in blocks:
        for _ in range(depth):
            conv = torch.nn.Conv2d(channels, case.channels(count), 3, padding=1)
            layers += [conv, torch.nn.ReLU(inplace=True)]
            channels = case.channels(count)
        layers.append(torch.nn.MaxPool2d(2))
    return layers


# Work


def flops(case: Case) -> float:
    """Of one step; see the head of this file."""
    teacher, teacher_first = _conv_flops(case, BLOCKS)
    student, student_first = _conv_flops(case, [(count, 1) for count in FEATURES])
    height, width, channels = case.pool5
    student += 2 * height * width * channels * channels
    inputs, fc = height * width * channels, case.channels(4096)
    step = {
        'finetune': 3 * (teacher + 2 * (inputs * fc + fc * fc + fc * NUM_CLASSES)) - teacher_first,
        'stage1': teacher + 3 * student - student_first,
        'stage2': 3 * (student + 2 * (inputs * HIDDEN + HIDDEN * NUM_CLASSES)) - student_first,
    }
    return float(case.batch * step[case.stage])


def _conv_flops(case: Case, blocks: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Forward FLOPs of one image in all 3x3 convolutions, and in the first."""
    each, channels, side = [], 3, case.size
    for count, depth in blocks:
        for _ in range(depth):
            each.append(2 * side * side * 9 * channels * case.channels(count))
            channels = case.channels(count)
        side //= 2
    return sum(each), each[0]


def matmul_rate(dtype: str, device: str, repeats: int) -> float:
    """FLOP/s of a large square matrix product, the better of both libraries."""
    side = 8192 if device == 'cuda' else 2048
    ours = jnp.ones((side, side), dtype)
    theirs = torch.ones((side, side), dtype=getattr(torch, dtype), device=device)
    product = jax.jit(jnp.matmul)

    def run_ours(steps: int) -> None:
        jax.block_until_ready([product(ours, ours) for _ in range(steps)])

    def run_theirs(steps: int) -> None:
        for _ in range(steps):
            theirs @ theirs
        if device == 'cuda':
            torch.cuda.synchronize()

    times = measure({'ours': run_ours, 'theirs': run_theirs}, repeats)
    return 2 * side**3 / min(float(np.median(each)) for each in times.values())


# Measurement


def compare(case: Case, device: str, rate: float, repeats: int) -> dict[str, Any]:
    """One row: our step and every variant of PyTorch's."""
    runners = {'ours': our_steps(case), 'eager': torch_steps(case, device, compiled=False)}
    if device == 'cuda':
        runners['compiled'] = torch_steps(case, device, compiled=True)
    times = measure(runners, repeats)
    ours = times.pop('ours')
    best = min(times, key=lambda name: float(np.median(times[name])))
    seconds = float(np.median(ours))
    work = flops(case)
    return {
        **dataclasses.asdict(case),
        'milliseconds': 1e3 * seconds,
        'images_per_s': case.batch / seconds,
        'gflops_per_step': work / 1e9,
        'flop_per_s': work / seconds,
        'fraction_of_matmul_rate': work / seconds / rate,
        'pytorch_milliseconds': {name: 1e3 * float(np.median(each)) for name, each in times.items()},
        'pytorch_fastest': best,
        'speedup_vs_pytorch': float(np.median(times[best] / ours)),
    }


def machine(device: str) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        'device': jax.devices()[0].device_kind if device == 'cuda' else _cpu_name(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
        'torch_threads': torch.get_num_threads(),
        'python': platform.python_version(),
        'jax': jax.__version__,
        'torch': torch.__version__,
    }


def _cpu_name() -> str:
    info = pathlib.Path('/proc/cpuinfo')
    names = [line for line in info.read_text().splitlines() if 'model name' in line] if info.exists() else []
    return names[0].split(':')[1].strip() if names else platform.processor()


# Output

COLUMNS = (
    f'{"stage":9} {"size":>4} {"dtype":9} {"batch":>5} {"width":>5} {"ms":>9} {"images/s":>9} {"GFLOP/s":>9} '
    f'{"of matmul":>9} {"PyTorch ms":>11} {"speedup":>8}'
)


def line(row: dict[str, Any]) -> str:
    theirs = row['pytorch_milliseconds'][row['pytorch_fastest']]
    return (
        f'{row["stage"]:9} {row["size"]:4d} {row["dtype"]:9} {row["batch"]:5d} {row["width"]:5g} '
        f'{row["milliseconds"]:9.2f} {row["images_per_s"]:9.1f} {row["flop_per_s"] / 1e9:9.1f} '
        f'{row["fraction_of_matmul_rate"]:9.2f} {theirs:11.2f} {row["speedup_vs_pytorch"]:8.2f}'
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--stages', default=','.join(STAGES), help=f'of {", ".join(STAGES)}')
    parser.add_argument('--sizes', default='224,64', help='sides of the images, at least 32')
    parser.add_argument('--dtypes', default='float32,bfloat16')
    parser.add_argument('--batch', type=int, default=0, help='default: 8 from 128x128 on, 64 below; on a GPU 64')
    parser.add_argument('--width', type=float, default=1.0, help='multiplies every channel count')
    parser.add_argument('--repeats', type=int, default=5, help='measurements of each contender')
    parser.add_argument('--json', type=pathlib.Path, help='file to write the results to')
    flags = parser.parse_args()
    if unknown := set(flags.stages.split(',')) - set(STAGES):
        parser.error(f'unknown stage {sorted(unknown)}; choose from {", ".join(STAGES)}')
    if unknown := set(flags.dtypes.split(',')) - {'float32', 'bfloat16'}:
        parser.error(f'unknown dtype {sorted(unknown)}; choose from float32, bfloat16')
    return flags


def main() -> None:
    flags = arguments()
    device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
    if jax.local_device_count() != 1:
        sys.exit('error: both sides are to use one device; set CUDA_VISIBLE_DEVICES=0')
    if device == 'cuda' and not torch.cuda.is_available():
        sys.exit('error: JAX has a GPU and this PyTorch does not; install a CUDA build of it')
    torch.set_float32_matmul_precision('high')  # TensorFloat-32 on a GPU, as JAX's default; no effect on a CPU
    rows = []
    dtypes = flags.dtypes.split(',')
    rates = {dtype: matmul_rate(dtype, device, flags.repeats) for dtype in dtypes}
    print(machine(device), {f'matmul {dtype}': f'{rate / 1e9:.0f} GFLOP/s' for dtype, rate in rates.items()})
    print(COLUMNS)
    for dtype in dtypes:
        for size in map(int, flags.sizes.split(',')):
            for stage in flags.stages.split(','):
                batch = flags.batch or (64 if device == 'cuda' or size < 128 else 8)
                case = Case(stage, size, dtype, batch, flags.width)
                rows.append(compare(case, device, rates[dtype], flags.repeats))
                print(line(rows[-1]), flush=True)
    if flags.json:
        result = {'machine': machine(device), 'matmul_flop_per_s': rates, 'rows': rows}
        flags.json.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
