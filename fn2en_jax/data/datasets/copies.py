"""Files that lie twice in a folder, such as an archive unpacked beside an older copy: one of them is used."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

_NAMED = 3  # copies that are named one by one; a whole set that lies twice is one line

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


def notes(copies: Sequence[tuple[str, str]]) -> list[str]:
    """Says of copies, each with the file that is used instead, what became of them; one line where they are many."""
    if len(copies) <= _NAMED:
        return [f'{copy}: {used} is used instead' for copy, used in copies]
    some = ', '.join(f'{used} (not {copy})' for copy, used in copies[:_NAMED])
    return [f'{len(copies):,} files lie twice; the first of each is used: {some} ...']
