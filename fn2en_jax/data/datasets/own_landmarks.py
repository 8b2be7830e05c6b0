"""Five points of the user's own for images of a published set: a file `landmarks.csv` beside the download."""

import dataclasses
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from fn2en_jax.data import tables
from fn2en_jax.data.datasets.copies import first_of_each
from fn2en_jax.data.datasets.counted import counted
from fn2en_jax.data.landmarks import FivePoints
from fn2en_jax.data.records import Found, Record, Tree
from fn2en_jax.data.video import VideoFrame
from fn2en_jax.errors import UserError

LIST = 'landmarks.csv'
_LARGEST = 1 << 28  # bytes; a line for each of AffectNet's pictures makes 50 million

_Listed = Mapping[str, FivePoints | None]


def put(found: Found, tree: Tree, mode: str) -> Found:
    """What was found, with the points of the user's list in the place of those that came with the set, if any.

    The list has a column `file` and the ten of `tables.POINTS`. A file is called as the record is (`Record.file`), or
    by its path below the user's folder or below that of the list; a frame of a clip by the path of the clip, a slash
    and its number in three digits. Where the ten cells are empty the face is detected.

    Args:
        found: what `Dataset.find` made of the tree.
        tree: the files.
        mode: how faces will be cut: 'align', 'box' or 'none'. For 'none', the list is not read.

    Raises:
        UserError: the list cannot be read; names its lines.
    """
    skipped: list[str] = []
    lists = first_of_each(tree.match(re.escape(LIST)), lambda _: LIST, skipped)
    if not lists:
        return found
    match, path = lists[LIST]
    if mode == 'none':
        return dataclasses.replace(found, skipped=(*found.skipped, f'{match.string}: no faces are cut, it is not used'))
    listed = _read(path)
    names = _Names(tree, posixpath.dirname(match.string))
    used: set[str] = set()
    records = tuple(_with_points(record, names, listed, used) for record in found.records)
    rest = [name for name in listed if name not in used]
    there = [name for name in rest if names.is_there(name)]
    lost = sorted(set(rest) - set(there))
    given = sum(1 for name in used if listed[name])
    absent = f'files that {LIST} names and are not there'
    skipped += counted(there, f'files in {LIST} of which no image is used')
    return dataclasses.replace(
        found,
        records=records,
        edition=f'{found.edition}, landmarks of {given:,} files from {LIST}',
        missing=(*found.missing, *(counted(lost, absent) if used else ())),
        skipped=(*found.skipped, *skipped, *(() if used else counted(lost, absent))),  # the list of another set
    )


def _read(path: Path) -> _Listed:
    """Points by file, as `_Names` calls it."""
    if path.stat().st_size > _LARGEST:
        raise UserError(f'{path}: more than {_LARGEST >> 20} MB, no list of landmarks')
    problems = tables.Problems(path)
    lines: dict[str, int] = {}
    listed: dict[str, FivePoints | None] = {}
    for line, file, points in tables.read_landmarks(path):
        name = posixpath.normpath(file.replace('\\', '/'))
        if lines.setdefault(name, line) != line:
            problems.add(line, f'{tables.quoted(file)}: the same file as in line {lines[name]}')
        listed[name] = cast(FivePoints | None, points)
    problems.raise_if_any()
    return listed


class _Names:
    """What the user may call the files of a tree: by their paths below its root, or below the folder of the list."""

    def __init__(self, tree: Tree, folder: str):
        self._folder = f'{folder}/' if folder else ''
        self._names: dict[Path, str] = {path: name for name, path in tree.files.items()}
        self._ends = {end for name in tree.files for end in _ends(name)}

    def of(self, record: Record) -> Iterator[str]:
        """Best one first."""
        yield record.file
        image = record.image
        path = image.path if isinstance(image, VideoFrame) else image
        if isinstance(path, Path) and path in self._names:
            name = self._names[path] + (f'/{record.frame:03}' if isinstance(image, VideoFrame) else '')
            yield name
            if name.startswith(self._folder):
                yield name.removeprefix(self._folder)

    def is_there(self, name: str) -> bool:
        """Whether this is the end of the path of a file, or of a clip and the number of a frame."""
        return name in self._ends or (posixpath.basename(name).isdigit() and posixpath.dirname(name) in self._ends)


def _ends(name: str) -> Sequence[str]:
    parts = name.split('/')
    return ['/'.join(parts[start:]) for start in range(len(parts))]


def _with_points(record: Record, names: _Names, listed: _Listed, used: set[str]) -> Record:
    name = next((name for name in names.of(record) if name in listed), None)
    if name is None:
        return record
    used.add(name)
    return dataclasses.replace(record, points=listed[name])
