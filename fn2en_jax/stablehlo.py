"""A trained net as a compiled program that JAX runs on CPU, NVIDIA GPU and TPU: StableHLO by `jax.export`.

A serialised program has no room for class names, so a file is a zip, not compressed, of two members:

    model.stablehlo   faces uint8 [batch,S,S,C] -> probabilities float32 [batch,K]; preprocessing and weights are inside
    net.json          format, version, input, output, and the net's card (class names, preprocessing, provenance)

Equal nets give equal files. A program is code: open those of people you trust. `jax.export` promises that a program
runs under any JAX of the six months after it was written.
"""

import contextlib
import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from fn2en_jax import portable
from fn2en_jax.errors import UserError
from fn2en_jax.trained import Trained

FORMAT, VERSION = 'fn2en_jax program', '1'
PLATFORMS = ('cpu', 'cuda', 'tpu')
PROGRAM, CARD = 'model.stablehlo', 'net.json'
_MOMENT = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_LONGEST_CARD = 1 << 20  # bytes
_LONGEST_PROGRAM = (1 << 31) - 1  # bytes, of flatbuffers


@dataclasses.dataclass(frozen=True)
class Program:
    """An opened program.

    Attributes:
        class_names: K names; the order of the probabilities.
        card: all of `net.json`.
        probabilities: faces uint8 [B,S,S,C] -> float32 [B,K], host arrays.
    """

    class_names: tuple[str, ...]
    card: Mapping[str, Any]
    probabilities: Callable[[np.ndarray], np.ndarray]


def write(net: Trained, path: str | Path) -> None:
    """Writes the net as a program. It computes in the net's own dtype, and on every platform as exactly as on the CPU.

    Raises:
        UserError: when the net is not whole, or too large.
        OSError: as the disk does.
    """
    program = _exported(net).serialize()
    facts = {
        'format': FORMAT,
        'version': VERSION,
        'input': {'dtype': 'uint8', 'shape': ['batch', *net.image_shape]},
        'output': {'dtype': 'float32', 'shape': ['batch', len(net.class_names)], 'meaning': 'probabilities'},
        'platforms': list(PLATFORMS),
        **portable.card(net),
    }
    with zipfile.ZipFile(path, 'w') as file:
        for name, content in ((CARD, json.dumps(facts, indent=1).encode()), (PROGRAM, program)):
            file.writestr(zipfile.ZipInfo(name, _MOMENT), content)


def read(path: str | Path) -> Program:
    """Opens a file of `write`.

    Raises:
        UserError: when it cannot be read, is damaged, or is none of these files.
    """
    facts, content = _members(Path(path))
    if facts.get('format') != FORMAT or facts.get('version') != VERSION:
        raise UserError(f'{path} is no {FORMAT} of version {VERSION}')
    program = export.deserialize(bytearray(content))
    call = jax.jit(program.call)
    return Program(tuple(facts['class_names']), facts, lambda faces: np.asarray(call(faces)))


def _exported(net: Trained) -> export.Exported:
    variables, apply = net.variables(), net.probabilities()
    (batch,) = export.symbolic_shape('batch')
    faces = jax.ShapeDtypeStruct((batch, *net.image_shape), np.uint8)
    # TPUs and newer GPUs would else round the factors of every product to 8 or 10 bits.
    with jax.default_matmul_precision('highest'), _without_source_lines():
        return export.export(jax.jit(lambda faces: apply(variables, faces)), platforms=PLATFORMS)(faces)


@contextlib.contextmanager
def _without_source_lines() -> Iterator[None]:
    """Keeps out of a program which line of which file on this machine every operation comes from."""
    before = jax.config.values['jax_traceback_in_locations_limit']
    jax.config.update('jax_traceback_in_locations_limit', 0)
    try:
        yield
    finally:
        jax.config.update('jax_traceback_in_locations_limit', before)


def _members(path: Path) -> tuple[dict[str, Any], bytes]:
    """The card and the serialised program."""
    try:
        with zipfile.ZipFile(path) as file:
            sizes = {entry.filename: (entry.file_size, entry.compress_type) for entry in file.infolist()}
            bounds = {CARD: _LONGEST_CARD, PROGRAM: _LONGEST_PROGRAM}
            # What is stored as it is cannot unpack to more than the file holds.
            sound = sizes.keys() == bounds.keys() and all(
                size <= bounds[name] and kind == zipfile.ZIP_STORED for name, (size, kind) in sizes.items()
            )
            facts, content = (json.loads(file.read(CARD)), file.read(PROGRAM)) if sound else ({}, b'')
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    # Damage shows as whatever error the part of `zipfile` that met it raises, so no narrower class would do.
    except Exception as error:
        raise UserError(f'{path} is damaged, or no file of python -m fn2en_jax.export ({error})') from error
    if not isinstance(facts, dict) or not facts:
        raise UserError(f'{path} is a zip file, but none of python -m fn2en_jax.export')
    return facts, content
