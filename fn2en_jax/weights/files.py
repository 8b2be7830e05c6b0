"""Reading a face net's variables from a safetensors file.

Tensor names are paths in the variable tree: 'params/conv1_1/kernel' (HWIO), 'batch_stats/conv1_1_bn/mean', ...; a name
without a collection belongs to 'params'.
"""

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from fn2en_jax.errors import UserError
from fn2en_jax.types import PyTree

COLLECTIONS = ('params', 'batch_stats')


def load(path: str) -> dict[str, PyTree]:
    """Reads the file into {'params': ..., 'batch_stats': ...}; no code from the file is run.

    Raises:
        UserError: when the file is missing or is not a whole safetensors file, or holds values that are not finite.
    """
    if not Path(path).is_file():
        raise UserError(f'config.face_net.weights: there is no file {path}')
    tree: dict[str, PyTree] = {}
    try:
        with safe_open(path, framework='numpy') as file:
            for name in file.keys():  # noqa: SIM118 (the reader is not a mapping)
                _insert(tree, name, file.get_tensor(name), path)
    except SafetensorError as error:
        raise UserError(f'{path} is not a readable safetensors file: {error}') from error
    return tree


def digest(path: str) -> str:
    """What tells this file's bytes from those of another."""
    with Path(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()[:16]


def _insert(tree: dict[str, PyTree], name: str, value: np.ndarray, path: str) -> None:
    if not np.isfinite(value).all():
        raise UserError(f'{path}: {name} holds values that are not finite; the file is damaged or not a trained net')
    parts = name.split('/')
    if parts[0] not in COLLECTIONS:
        parts = ['params', *parts]
    for part in parts[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise UserError(f'{path}: {name} lies inside another tensor; the file is no face net')
    if parts[-1] in tree:
        raise UserError(f'{path}: {name} is there twice; the file is no face net')
    tree[parts[-1]] = value
