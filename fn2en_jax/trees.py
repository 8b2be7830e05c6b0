"""Parameter trees by the names of their leaves: groups, strict merging, checksums."""

import re
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax.errors import UserError
from fn2en_jax.types import PyTree

_LISTED = 20  # names shown in one error message


def path_name(path: Sequence[jax.tree_util.KeyEntry]) -> str:
    """'features/conv1/kernel' for the key path of a leaf."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator='/')


def paths(tree: PyTree) -> dict[str, Any]:
    """All leaves by name: {'features/conv1/kernel': leaf, ...}, in the order of the tree."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def num_params(tree: PyTree) -> int:
    """How many numbers the leaves hold together; abstract leaves (with a shape only) count too."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


def match_groups(tree: PyTree, groups: Sequence[tuple[str, str]]) -> PyTree:
    """The tree with every leaf replaced by the name of its group.

    groups: (name, regular expression) pairs. A leaf belongs to the first group whose expression matches its
        whole name, so that 'fc8' alone does not match 'fc8/kernel' or 'myfc8'; 'fc8/.*' matches the former.

    Raises UserError that lists the leaves which no group matches, and for a malformed expression.
    """
    compiled = [(name, _compiled(name, pattern)) for name, pattern in groups]
    found = {leaf: next((name for name, pattern in compiled if pattern.fullmatch(leaf)), None) for leaf in paths(tree)}
    lost = [leaf for leaf, group in found.items() if group is None]
    if lost:
        raise UserError(
            f'no group matches {_listed(lost)}; groups: '
            f'{", ".join(f"{name}={pattern!r}" for name, pattern in groups) or "none"}. '
            "Add a group, or a last one with the pattern '.*'."
        )
    return jax.tree_util.tree_map_with_path(lambda path, _: found[path_name(path)], tree)


def strict_merge(
    into: PyTree, loaded: PyTree, *, allow_missing: Sequence[str] = (), allow_surplus: Sequence[str] = ()
) -> PyTree:
    """The tree `into` with its leaves taken from `loaded` by name and cast to their own dtype.

    allow_missing: regular expressions (whole name) of leaves that `loaded` may lack; `into` keeps its own.
    allow_surplus: regular expressions of leaves of `loaded` that may be dropped.
    A leaf of another shape counts as both missing and surplus: it must be allowed by both, and `into` keeps
    its own.

    Raises UserError that lists all missing, surplus and mis-shaped names.
    """
    wanted, given = paths(into), paths(loaded)
    misshaped = [name for name in wanted if name in given and np.shape(wanted[name]) != np.shape(given[name])]
    missing = [name for name in wanted if name not in given and not _any(allow_missing, name)]
    surplus = [name for name in given if name not in wanted and not _any(allow_surplus, name)]
    wrong = [
        f'{name} {np.shape(given[name])} where {np.shape(wanted[name])} is needed'
        for name in misshaped
        if not (_any(allow_missing, name) and _any(allow_surplus, name))
    ]
    problems = [
        f'{title}: {_listed(names)}'
        for title, names in (('missing', missing), ('surplus', surplus), ('of another shape', wrong))
        if names
    ]
    if problems:
        raise UserError(
            f'the loaded parameters do not fit this net; {"; ".join(problems)}. '
            'Load parameters of the same net, or allow these names explicitly.'
        )

    def pick(path, own):
        name = path_name(path)
        return jnp.asarray(given[name], own.dtype) if name in given and name not in misshaped else own

    return jax.tree_util.tree_map_with_path(pick, into)


def checksum(tree: PyTree) -> int:
    """A 32-bit checksum (CRC-32) of names, dtypes, shapes and bits of all leaves, computed on the host."""
    crc = 0
    for name, leaf in paths(tree).items():
        array = np.ascontiguousarray(leaf)
        crc = zlib.crc32(f'{name} {array.dtype} {array.shape}'.encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f'group {name!r}: {pattern!r} is not a regular expression ({error})') from error


def _any(patterns: Sequence[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _listed(names: Sequence[str]) -> str:
    more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
    return ', '.join(names[:_LISTED]) + more
