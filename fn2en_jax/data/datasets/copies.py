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
