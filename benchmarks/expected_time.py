"""How long the published configs train: from what this device manages, or from what a GPU is published to manage.

Command:  python benchmarks/expected_time.py [--configs=ckplus,tfd] [--repeats=3] [--json=FILE]
          python benchmarks/expected_time.py --published

The time of a stage is its floating-point operations (those of `--mode=plan`) over the operations a second of its steps.
The steps of every stage are timed as they are: full-size nets, the config's batch size, the compiled loop with crops
and flips, on images of noise; stages of equal nets and images are timed once. Compilation (a minute or two) and the
evaluations that draw the learning curves (about a hundredth) come on top.

With --published nothing is timed: every stage is taken to make as many operations a second as the training of VGG-16,
which is the fine-tune stage, in TensorFlow's published benchmark.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import compiled_loop
from fn2en_jax import config_checks, machine, plan
from fn2en_jax.data import protocols
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.methods.fn2en import FeatureRegression
from fn2en_jax.stages import Stage, Stages, augmentation

TRAINED = ('finetune', 'stage1', 'stage2', 'scratch')
FN2EN = ('finetune', 'stage1', 'stage2')  # what the command in a config's header trains


@dataclasses.dataclass(frozen=True)
class Size:
    """Training images of a fold (a tenth of the set left out, of TFD 30 %), and how many folds there are."""

    images: int
    folds: int = 1


SIZES = {
    'affectnet': Size(287_651),
    'ckplus': Size(1_176, 10),
    'fer2013': Size(28_709),
    'jaffe': Size(190, 10),
    'mmi': Size(576, 10),
    'oulu_casia': Size(1_296, 10),
    'rafdb': Size(12_271),
    'sfew': Size(891),
    'tfd': Size(2_925, 5),
}


@dataclasses.dataclass(frozen=True)
class Published:
    """A measurement by others of training VGG-16 on 224x224 images, one device, batch 64, SGD, float32."""

    device: str
    images_per_s: float
    source: str


# The table "Training synthetic data" of the NVIDIA DGX-1, one GPU; with real data it is the same figure.
P100 = Published('NVIDIA Tesla P100', 154, 'https://www.tensorflow.org/performance/benchmarks (May 2017)')


@dataclasses.dataclass(frozen=True)
class Unseen:
    """`Images` that only have a shape."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def gather(self, ids: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def load(name: str) -> ml_collections.ConfigDict:
    """A published config with all methods, and with a weight file, so that the face net is not trained."""
    config = importlib.import_module(f'configs.{name}').get_config('all')
    config.face_net.weights = 'vgg_face.safetensors'
    return config


def build(config: ml_collections.ConfigDict, count: int) -> Stages:
    """The stages of a fold that trains on `count` images."""
    data = config.data
    num_classes = data.classes or next(iter(protocols.PROTOCOLS[data.source].classes))
    images = Unseen((count, data.stored_size, data.stored_size, data.channels))
    labels = np.arange(count, dtype=np.int32) % num_classes
    examples = Examples(images, labels, tuple(map(str, range(num_classes))), None, ('',) * count)
    return Stages(config, Data(examples, None, {}), Fold('fold', np.arange(count), np.arange(0)))


# Floating-point operations a second


def published_rate(published: Published = P100) -> float:
    """Those of an image in the fine-tune stage at full size, times the published images a second."""
    stages = build(load('sfew'), 64)
    stage = stages.build('finetune')
    images = stage.batch_size * stage.last_step
    return plan.estimate(stage, stages.image_shape).flops / images * published.images_per_s


def measured_rate(config: ml_collections.ConfigDict, stages: Stages, name: str, repeats: int) -> float:
    """Those of the steps of a stage on this device."""
    stage, data = stages.build(name), config.data
    examples = compiled_loop.random_examples(data.stored_size, data.channels, len(stage.train.class_names))
    variables, frozen = _random_nets(stage, stages.image_shape)
    crops = augmentation(config)
    run = compiled_loop.runner(stage.method, variables, frozen, examples, stage.batch_size, crops)
    seconds = compiled_loop.measure({name: run}, repeats)[name]
    return plan.estimate(stage, stages.image_shape).flops / stage.last_step / float(np.median(seconds))


def _random_nets(stage: Stage, image_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Variables of the net to train, and what the step reads beside it."""
    key = jax.random.PRNGKey(0)
    variables = compiled_loop.random_variables(jax.eval_shape(stage.variables, key))
    if not isinstance(stage.method, FeatureRegression):
        return variables, stage.frozen(lambda name: None)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    teacher = compiled_loop.random_variables(jax.eval_shape(stage.method.teacher.init, key, image))
    ones = np.ones(stage.method.student.target_shape[-1], np.float32)
    return variables, {'teacher': teacher, 'mean': ones, 'scale': ones}


def _speed_key(config: ml_collections.ConfigDict, name: str) -> str:
    """Equal where the steps of a stage cost the same; the number of classes does next to nothing."""
    plain, data = config_checks.plain(config), config.data
    facts = [name, data.stored_size, data.crop_size, data.channels, config.stage1.layer, config.dtype]
    return json.dumps([*facts, plain[name]['batch_size'], plain['face_net'], plain['expression_net'], plain['augment']])


# Work and output


@dataclasses.dataclass(frozen=True)
class Row:
    """What is expected of one config; lists by stage are of one fold."""

    config: str
    images: int
    folds: int
    operations: dict[str, float]
    seconds: dict[str, float]

    @property
    def fn2en_seconds(self) -> float:
        """Of the command in the config's header: FN2EN in all folds."""
        return self.folds * sum(self.seconds[name] for name in FN2EN)


def expect(names: Sequence[str], rate: Callable[[ml_collections.ConfigDict, Stages, str], float]) -> Iterator[Row]:
    """rate: operations a second of a stage; asked once for stages that cost the same."""
    rates: dict[str, float] = {}
    for config_name in names:
        config, size = load(config_name), SIZES[config_name]
        stages = build(config, size.images)
        work = {name: plan.estimate(stages.build(name), stages.image_shape).flops for name in TRAINED}
        seconds = {}
        for name in TRAINED:
            key = _speed_key(config, name)
            if key not in rates:
                rates[key] = rate(config, stages, name)
            seconds[name] = work[name] / rates[key]
        yield Row(config_name, size.images, size.folds, work, seconds)


def about(seconds: float) -> str:
    """Two digits: '40 s', '5.3 min', '21 min', '4.9 h', '12 days'."""
    for unit, length, most in (('s', 1, 90), ('min', 60, 90), ('h', 3600, 72), ('days', 86400, math.inf)):
        if (count := seconds / length) < most:
            return f'{count:.2g} {unit}' if count < 10 else f'{count:.0f} {unit}'
    raise ValueError(f'{seconds} seconds')


def line(cells: Sequence[Any]) -> str:
    """A line of the table: config, images, folds, stages, total."""
    config, images, folds, *times = cells
    return f'{config:12}{images:>9}{folds:>6}' + ''.join(f'{time:>19}' for time in times)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--configs', default=','.join(SIZES), help=f'of {", ".join(SIZES)}')
    parser.add_argument('--published', action='store_true', help=f'of the {P100.device}, without timing anything')
    parser.add_argument('--repeats', type=int, default=3, help='measurements of each stage')
    parser.add_argument('--json', type=pathlib.Path, help='file to write the results to')
    flags = parser.parse_args()
    flags.configs = flags.configs.split(',')
    if unknown := set(flags.configs) - set(SIZES):
        parser.error(f'unknown config {", ".join(sorted(unknown))}; choose from {", ".join(SIZES)}')
    if flags.repeats < 1:
        parser.error('--repeats must be at least 1')
    return flags


def main() -> None:
    flags = arguments()
    if flags.published:
        made_with: dict[str, Any] = dataclasses.asdict(P100)
        throughput = published_rate()
        rows = expect(flags.configs, lambda config, stages, name: throughput)
    else:
        made_with = machine.versions()
        rows = expect(flags.configs, functools.partial(measured_rate, repeats=flags.repeats))
    print(made_with, '\noperations and time of one fold; at the end the time of FN2EN in all folds')
    print(line(['config', 'images', 'folds', *TRAINED, 'FN2EN']))
    finished = []
    for row in rows:
        finished.append(row)
        cells = [f'{row.operations[name]:.1e} {about(row.seconds[name])}' for name in TRAINED]
        print(line([row.config, f'{row.images:,}', row.folds, *cells, about(row.fn2en_seconds)]), flush=True)
    if flags.json:
        result = {'made_with': made_with, 'rows': [dataclasses.asdict(row) for row in finished]}
        flags.json.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
