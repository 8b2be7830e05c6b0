"""Writes a trained net as one file to use elsewhere, with class names and preprocessing, and checks it.

    python -m fn2en_jax.export --workdir=runs/demo net.safetensors
    python -m fn2en_jax.export --workdir=runs/demo net.stablehlo --method=finetune
    python -m fn2en_jax.export --net=net.safetensors net.onnx --faces=photos

The name's end chooses the form:
  .safetensors  weights with everything that rebuilds the net; for fn2en_jax itself
  .stablehlo    a program for JAX alone, on CPU, NVIDIA GPU and TPU: a zip of model.stablehlo and net.json
  .onnx         for onnxruntime and others; needs pip install -r requirements-onnx.txt
Before a file gets its name, it is opened again and its probabilities are held against the net's, on noise, on rendered
and on real faces: those of the run's data where it can be opened, or of --faces. More than 1e-5 apart, it is refused.
Programs and ONNX compute in float32, also for a net that was trained in bfloat16.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from fn2en_jax import commands, workdir
from fn2en_jax.errors import UserError

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a finished run.')
NET = flags.DEFINE_string('net', None, 'Instead of a workdir: a .safetensors file of this tool.')
METHOD = flags.DEFINE_string(
    'method', '', 'fn2en, finetune, scratch or face_net; default: the first of these that is there.'
)
FOLD = flags.DEFINE_string('fold', '', "Which fold's net, where there are several.")
FACES = flags.DEFINE_string('faces', '', 'Folder of photographs, for the check on real faces.')

TOLERANCE = 1e-5  # on probabilities
TELLING = 1e-3  # how far a probability must vary between faces for a comparison to mean something
Probabilities = Callable[[np.ndarray], np.ndarray]


def main(paths: Sequence[str]) -> None:
    """Writes and checks the file. paths: the one to write."""
    if len(paths) != 1 or bool(WORKDIR.value) == bool(NET.value):
        raise UserError('name one file to write, and either --workdir=FOLDER or --net=FILE; see --help')
    place = _destination(paths[0])
    from fn2en_jax import portable, trained

    if NET.value and (METHOD.value or FOLD.value):
        raise UserError('--method and --fold choose among the nets of a workdir; a file holds one')
    net = (
        portable.read(NET.value)
        if NET.value
        else trained.find(WORKDIR.value or '', method=METHOD.value, fold=FOLD.value)
    )
    portable.check_names(net)
    print(f'{net.method} net{f" of fold {net.fold}" if net.fold else ""}: {_listed(net.class_names)}', flush=True)
    _check_size(net)
    faces = _faces(net, FACES.value)
    try:
        with workdir.replacing(place) as temporary:
            _compare(FORMS[place.suffix](net, temporary), faces)
            size = temporary.stat().st_size
    except OSError as error:
        raise UserError(f'cannot write {place}: {error.strerror or error}') from error
    print(f'written to {place} ({size / 1e6:.1f} MB)\n{portable.provenance(net)["licence"]}')


def safetensors(net: Any, path: Path) -> tuple[Probabilities, Probabilities]:
    """Writes the net and opens it again. Returns probabilities as the net and as the file computes them."""
    from fn2en_jax import portable

    portable.write(net, path)
    return _computed(net), _computed(portable.read(path))


def stablehlo(net: Any, path: Path) -> tuple[Probabilities, Probabilities]:
    """As above."""
    _needs('flatbuffers', 'requirements.txt')
    from fn2en_jax import stablehlo

    exact = _in_float32(net)
    stablehlo.write(exact, path)
    return _computed(exact), stablehlo.read(path).probabilities


def onnx(net: Any, path: Path) -> tuple[Probabilities, Probabilities]:
    """As above."""
    _needs('onnx', 'requirements-onnx.txt')
    _needs('onnxruntime', 'requirements-onnx.txt')
    import onnxruntime

    from fn2en_jax import onnx_graph, portable

    exact = _in_float32(net)
    proto = onnx_graph.build(
        exact.classifier,
        exact.variables(),
        image_shape=exact.image_shape,
        crop=exact.config.data.crop_size,
        metadata={'format': 'fn2en_jax onnx', 'version': '1', **portable.texts(exact)},
    )
    path.write_bytes(proto.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return _computed(exact), lambda faces: session.run([onnx_graph.OUTPUT], {onnx_graph.INPUT: faces})[0]


FORMS = {'.safetensors': safetensors, '.stablehlo': stablehlo, '.onnx': onnx}


def _destination(path: str) -> Path:
    place = Path(path)
    if '://' in path:
        raise UserError(f'{path}: only local files are written; write it here, and copy it there')
    if place.suffix not in FORMS:
        raise UserError(f'{path}: the file to write must end in {", ".join(FORMS)}')
    workdir.check_replaceable(place)
    if not place.parent.is_dir():
        raise UserError(f'there is no folder {place.parent}')
    if NET.value and place.resolve() == Path(NET.value).resolve():
        raise UserError(f'{path} is the file to read; choose another')
    return place


def _check_size(net: Any) -> None:
    """Refuses a net that no form could hold; ONNX and programs end at 2 GB."""
    import jax

    from fn2en_jax import trees
    from fn2en_jax.weights.binary import MAX_VALUES

    crop, channels = net.config.data.crop_size, net.config.data.channels
    image = np.zeros((1, crop, crop, channels), np.float32)
    values = trees.num_params(jax.eval_shape(net.classifier.model.init, jax.random.PRNGKey(0), image))
    if values > MAX_VALUES:
        raise UserError(f'the net has {values:,} parameters; a file holds at most {MAX_VALUES:,}')


def _needs(package: str, requirements: str) -> None:
    import importlib.util

    if not importlib.util.find_spec(package):
        raise UserError(f'this form needs the package {package}: pip install -r {requirements}')


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names[:10]) + (f' and {len(names) - 10} more' if len(names) > 10 else '')


def _faces(net: Any, folder: str) -> dict[str, np.ndarray]:
    """Faces to compare on, by kind; says where there are no real ones."""
    from fn2en_jax import trial_faces

    faces = {'random': trial_faces.random(net), 'rendered': trial_faces.rendered(net)}
    try:
        faces['real'] = trial_faces.real(net, folder)
    except UserError as error:
        if folder:
            raise
        print(f'not compared on real faces: {error}; name a folder of photographs with --faces')
    return faces


def _in_float32(net: Any) -> Any:
    """The net as it computes in float32, whatever it was trained in; its parameters are float32 in any case."""
    if net.config.dtype != 'float32':
        print(f'it was trained in {net.config.dtype}; this form computes in float32, and is compared with that')
    config = net.config.copy_and_resolve_references()
    config.dtype = 'float32'
    return dataclasses.replace(net, config=config)


def _computed(net: Any) -> Probabilities:
    import jax

    variables, apply = net.variables(), jax.jit(net.probabilities())
    return lambda faces: np.asarray(apply(variables, faces))


def _compare(pair: tuple[Probabilities, Probabilities], faces: dict[str, np.ndarray]) -> None:
    """Prints how far the probabilities of net and file are apart.

    Raises:
        UserError: when it is too far.
    """
    every = np.concatenate(list(faces.values()))
    # A batch of one and one of the rest, for the file must take any size.
    expected, found = (np.concatenate([compute(batch) for batch in (every[:1], every[1:])]) for compute in pair)
    difference = np.abs(expected - found)
    if np.ptp(expected, axis=0).max() < TELLING:
        print('warning: the net says the same of all these faces, so comparing on them shows little', file=sys.stderr)
    start, worst = 0, float(difference.max())
    for kind, images in faces.items():
        largest = difference[start : start + len(images)].max()
        print(f'largest difference of a probability on {len(images)} {kind} faces: {largest:.1e}')
        start += len(images)
    if not worst <= TOLERANCE:
        raise UserError(f'the file computes other probabilities than the net, up to {worst:.1e} apart; it is not kept')


if __name__ == '__main__':
    named, rest = commands.divide(sys.argv)
    sys.exit(commands.run(lambda: main(named), rest, __doc__ or ''))
