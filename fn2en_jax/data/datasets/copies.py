"""Files that lie twice in a folder, such as an archive unpacked beside an older copy: one of them is used."""

import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from fn2en_jax.data.records import notes

Key = TypeVar('Key', bound=Hashable)


def first_of_each(
    matches: Iterable[tuple[re.Match[str], Path]], key: Callable[[re.Match[str]], Key], skipped: list[str]
) -> dict[Key, tuple[re.Match[str], Path]]:
    """The first file of every key, in the order of `matches` (of `Tree.match`); the others are noted in `skipped`."""
    first: dict[Key, tuple[re.Match[str], Path]] = {}
    copies = []
    for found, path in matches:
        used, _ = first.setdefault(key(found), (found, path))
        if used is not found:
            copies.append((found.string, used.string))
    skipped += notes(copies)
    return first


def distance(one: str, other: str) -> int:
    """How many folders lie between two files of a `Tree`, given by their paths in it; 0 in the same folder."""
    here, there = one.split('/')[:-1], other.split('/')[:-1]
    shared = next((depth for depth, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None)
    shared = min(len(here), len(there)) if shared is None else shared
    return len(here) + len(there) - 2 * shared
