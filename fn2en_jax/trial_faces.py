"""A few faces as a net takes them, on which two forms of it are compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fn2en_jax.data import alignment, images, synthetic, synthetic_persons, tables
from fn2en_jax.data.alignment import FaceStep
from fn2en_jax.data.datasets import DATASETS
from fn2en_jax.errors import UserError
from fn2en_jax.stages import open_sets
from fn2en_jax.trained import Trained

_MOST = 8
_PERSON = 4_000_000  # in the population of rendered persons: nobody whom a set shows


def random(net: Trained) -> np.ndarray:
    """Noise, uint8 [N,S,S,C]."""
    return np.random.default_rng(0).integers(0, 256, (_MOST, *net.image_shape), np.uint8)


def rendered(net: Trained) -> np.ndarray:
    """One rendered person with every expression, uint8 [N,S,S,C]."""
    size, _, channels = net.image_shape
    names = synthetic_persons.EXPRESSIONS
    return np.stack(
        [synthetic.render(0, _PERSON, n, name, size=size, channels=channels) for n, name in enumerate(names)]
    )


def real(net: Trained, folder: str = '') -> np.ndarray:
    """Photographed faces, uint8 [N,S,S,C]: those of a folder of the user's, or else of the data the net was trained on.

    Raises:
        UserError: saying why there are none.
    """
    if folder:
        return _cut(net, _files(Path(folder)))
    source = net.config.data.get('source', '')
    if source == 'csv':
        return _cut(net, tables.read_expressions(net.config.data.expressions).paths)
    if source == 'folder':
        return _cut(net, tables.read_folder(net.config.data.expressions).paths)
    if source not in DATASETS:
        raise UserError('it was trained on rendered faces' if source else 'a net in a file brings none')
    config = net.config.copy_and_resolve_references()
    with config.unlocked():
        config.methods, config.data.manual_dir = ('scratch',), ''  # no identities, and nothing is prepared anew
    chosen = open_sets(config).expressions.images
    return np.asarray(chosen.gather(np.arange(_MOST)) if not isinstance(chosen, np.ndarray) else chosen[:_MOST])


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f'--faces={folder} is no folder')
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith('.'))
    if not found:
        raise UserError(f'--faces={folder} holds no files')
    return found


def _cut(net: Trained, paths: Sequence[Path]) -> np.ndarray:
    """Faces out of photographs spread over the list, as for the net's training."""
    size, _, channels = net.image_shape
    step = FaceStep(net.faces, size)
    faces: list[np.ndarray] = []
    faults: list[str] = []
    # Those spread over the list first, and then the others, as long as some cannot be read.
    spread = paths[:: max(1, len(paths) // _MOST)][:_MOST]
    for path in dict.fromkeys([*spread, *paths]):
        if len(faces) == len(spread):
            break
        try:
            faces.append(_face(path, step, channels))
        except UserError as error:
            faults.append(str(error))
    if not faces:
        raise UserError(f'none of the {len(paths)} photographs can be read; the first: {faults[0]}')
    if faults:
        print(f'{len(faults)} photographs cannot be read and are left out; the first: {faults[0]}')
    return np.stack(faces)


def _face(path: Path, step: FaceStep, channels: int) -> np.ndarray:
    try:
        face = alignment.cut(images.decode(path.read_bytes(), channels), step)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    assert face is not None  # `step` keeps images without a face
    return face.image
