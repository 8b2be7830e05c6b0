"""What a run is going to do: stages, folds, steps, parameters, estimated cost."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax import parallel, trees
from fn2en_jax.data.batches import padded_length
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.folds import Fold
from fn2en_jax.methods.fn2en import FeatureRegression
from fn2en_jax.stages import Stage


@dataclasses.dataclass(frozen=True)
class Cost:
    """Estimates for one stage.

    Attributes:
        params: parameters under training.
        flops: floating-point operations of the whole stage: 3 times a forward pass per trained image (forward,
            input gradient, weight gradient), once for a teacher; convolutions and matrix products only.
        bytes: device memory: parameters, gradients, optimiser, teacher, activations of a batch, resident images.
    """

    params: int
    flops: float
    bytes: float


def estimate(stage: Stage, image_shape: tuple[int, int, int]) -> Cost:
    """Estimates a stage from shapes alone; nothing is computed."""
    state = stage.template()
    params = trees.num_params(state.params)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    regression = isinstance(stage.method, FeatureRegression)
    model = stage.method.student if regression else stage.method.model
    flops, activations = _forward(model, image)
    flops, teacher = 3 * flops, 0
    if regression:
        more, _ = _forward(stage.method.teacher, image)
        shapes = jax.eval_shape(stage.method.teacher.init, jax.random.PRNGKey(0), image)
        flops, teacher = flops + more, 4 * trees.num_params(shapes)
    share = parallel.per_device(stage.batch_size)
    stored = np.prod(stage.train.images.shape[1:]) * padded_length(len(stage.train))
    optimiser = 4 * trees.num_params(state.opt_state)
    memory = 8 * params + optimiser + teacher + 2 * activations * share + (stored if stage.train.in_memory else 0)
    return Cost(params, flops * stage.batch_size * stage.last_step, float(memory))


def _forward(model, image: jax.ShapeDtypeStruct) -> tuple[float, int]:
    """FLOPs of a forward pass and bytes of all its intermediate values, for one image."""
    variables = jax.eval_shape(model.init, jax.random.PRNGKey(0), image)
    jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, image)
    flops, size = 0.0, 0
    for equation in _equations(jaxpr.jaxpr):
        size += sum(v.aval.size * v.aval.dtype.itemsize for v in equation.outvars)
        flops += _flops(equation)
    return flops, size


def _equations(jaxpr):
    """All primitive applications, those inside calls and custom derivatives included; of a choice, the last branch.

    The choices are those of `models.conv` between platforms, where the last branch is the plain form.
    """
    for equation in jaxpr.eqns:
        inner = [p for value in equation.params.values() for p in _jaxprs(value)]
        if inner:
            yield from _equations(inner[-1])
        else:
            yield equation


def _jaxprs(value):
    if isinstance(value, tuple):
        return [jaxpr for each in value for jaxpr in _jaxprs(each)]
    if hasattr(value, 'eqns'):
        return [value]
    if hasattr(value, 'jaxpr'):
        return [value.jaxpr]
    return []


def _flops(equation) -> float:
    """Twice the number of multiplications of a convolution or a matrix product; 0 for the rest."""
    if equation.primitive.name == 'dot_general':
        (contract, _), _ = equation.params['dimension_numbers']
        shape = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * np.prod([shape[i] for i in contract])
    if equation.primitive.name == 'conv_general_dilated':
        kernel = equation.invars[1].aval
        out_features = kernel.shape[equation.params['dimension_numbers'].rhs_spec[0]]
        return 2.0 * equation.outvars[0].aval.size * kernel.size / out_features
    return 0.0


def describe(stages: Sequence[Stage], costs: Mapping[str, Cost], folds: Sequence[Fold], examples: Examples) -> str:
    """The text that `--mode=plan` prints, and every run begins with.

    Args:
        stages: of the first fold; the others have the same.
        costs: of these stages, by their names.
        folds: all that will run.
        examples: the labelled set.
    """
    names = examples.class_names
    width = max(9, *(len(name) + 2 for name in names))
    lines = [
        f'{len(examples)} labelled images, {len(names)} classes, {_subjects(examples)}; '
        f'{parallel.num_devices()} x {jax.local_devices()[0].device_kind}',
        '',
        f'{"fold":12}{"":11}{"images":>8}' + ''.join(f'{name:>{width}}' for name in names),
    ]
    for fold in folds:
        for part, ids in fold.parts.items():
            counts = examples.class_counts(np.asarray(ids, np.int64))
            lines.append(
                f'{fold.name if part == "train" else "":12}{part:11}{len(ids):>8}'
                + ''.join(f'{counts[name]:>{width}}' for name in names)
            )
    lines += ['', f'{"stage":12}{"images":>8}{"batch":>7}{"steps":>8}{"parameters":>13}{"FLOPs":>11}{"memory":>10}']
    for stage in stages:
        cost = costs[stage.name]
        lines.append(
            f'{stage.name:12}{len(stage.train):>8}{stage.batch_size:>7}{stage.last_step:>8}{cost.params:>13,}'
            f'{cost.flops:>11.2e}{cost.bytes / 2**20:>6.0f} MiB'
        )
    return '\n'.join(lines) + '\n'


def _subjects(examples: Examples) -> str:
    unknown = int((~examples.known_subjects).sum())
    if examples.subjects is None or unknown == len(examples):
        return 'persons unknown'
    return f'{len(set(examples.subjects) - {""})} persons' + (
        f' and {unknown} images of unknown ones' if unknown else ''
    )


def parameter_table(stage: Stage) -> str:
    """Name, shape and size of every parameter of a stage."""
    params = trees.paths(stage.template().params)
    rows = [f'{name:44}{"x".join(map(str, leaf.shape)):>20}{leaf.size:>14,}' for name, leaf in params.items()]
    return '\n'.join([*rows, f'{"total":44}{"":>20}{sum(leaf.size for leaf in params.values()):>14,}'])
