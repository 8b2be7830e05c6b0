"""Names of the files in a folder, none of them opened: quick enough for every start with half a million."""

import collections
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from fn2en_jax.data import images, records

MOST = 50  # files of one suffix in one folder that tell what the folder holds


def files(root: Path, own: Sequence[Path] = ()) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file below a folder, its path with '/' between the parts and its entry; in no order.

    As `records.walk` with links, four times as fast and less particular: a link further down is a file if it leads to
    one, wherever that is. What cannot be looked at is left out.

    Args:
        root: the folder.
        own: folders that are left out, whichever link leads to them.
    """
    left_out = {(found.st_dev, found.st_ino) for path in own if path.is_dir() for found in [path.stat()]}
    top, folders = os.path.realpath(root), [(os.fspath(root), '')]
    while folders:  # not by recursion, which a folder deep enough would exhaust
        folder, prefix = folders.pop()
        for entry in _entries(folder):
            if records.junk(entry.name):
                continue
            if not _is_folder(entry):
                yield prefix + entry.name, entry
            elif not (entry.is_symlink() and (prefix or _meets(entry.path, top))) and _identity(entry) not in left_out:
                folders.append((entry.path, f'{prefix}{entry.name}/'))


def digest(entries: Iterable[tuple[str, os.DirEntry[str]]]) -> str:
    """64 hexadecimal digits that change with the names, and with the sizes of what are no pictures.

    Half a million sizes would be asked for one by one, which takes minutes where the folder lies on a network.
    """
    found = sorted(name if _is_picture(name) else f'{name} {_size(entry)}' for name, entry in entries)
    return hashlib.sha256('\n'.join(found).encode('utf-8', 'surrogateescape')).hexdigest()


def sample(root: Path, own: Sequence[Path] = ()) -> list[str]:
    """Paths of the files below a folder, of each folder at most MOST with the same suffix."""
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    names = []
    for name, _ in files(root, own):
        kind = name.rpartition('/')[0], os.path.splitext(name)[1].lower()
        seen[kind] += 1
        if seen[kind] <= MOST:
            names.append(name)
    return names


def ends_as(patterns: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    """Whether a path ends as one of the patterns, as `records.Tree.match` takes them; 'end' is that part of it."""
    return re.compile(rf'(?:.*/)?(?P<end>{"|".join(patterns)})', re.IGNORECASE).fullmatch


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a closed folder
        return False


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in images.SUFFIXES


def _meets(link: str, top: str) -> bool:
    """Whether a link leads to the folder it lies in, into it, or above it."""
    end, start = Path(os.path.realpath(link)), Path(top)
    return end.is_relative_to(start) or start.is_relative_to(end)


def _identity(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        found = entry.stat()
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nowhere, or it is gone
        return -1
