"""What a published set is before it is stored: its files on disk, its records, and what was expected of it."""

import abc
import copy
import dataclasses
import os
import re
import stat
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fn2en_jax.data.tables import quoted
from fn2en_jax.data.video import VideoFrame
from fn2en_jax.errors import UserError

EXPRESSIONS = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')

# The end of the name of an archive that is opened here; without it, its name is that of a folder.
ARCHIVE = re.compile(r'\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2?|txz)$', re.IGNORECASE)

_JUNK = {'__macosx', 'thumbs.db', 'desktop.ini'}  # hidden files are passed over as well
ABOVE = 2  # folders above the named one that may belong to the paths of a set: 'VL' and 'Strong' of Oulu-CASIA
_NAMED = 3  # copies, or archives, that are named one by one; a whole set that lies twice is one line

Point = tuple[float, float]  # x, y in pixels of the source image
Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the source image


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One image of a published set, not read yet.

    Attributes:
        image: where it is: a file, uint8 pixels [h,w] or [h,w,3], or a frame of a clip.
        file: its source name, unique in the set: the path below the set's own root, or 'row 17' of a table.
        label: the expression, one of EXPRESSIONS.
        subject: who is shown, '' where nobody said.
        sequence: which sequence it is a frame of, unique in the set; '' for a still.
        frame: its number in the sequence, as the file counts; -1 for a still.
        split: 'train', 'validation', 'test', or '' where the set brings no split.
        folds: for sets with official folds a word of one letter per fold: 't'rain, 'v'alidation, t'e'st.
        box: the face, where the set tells.
        points: left eye, right eye (left and right of the image), tip of the nose, left and right corner of the
            mouth, where the set tells.
    """

    image: Path | np.ndarray | VideoFrame
    file: str
    label: str
    subject: str = ''
    sequence: str = ''
    frame: int = -1
    split: str = ''
    folds: str = ''
    box: Box | None = None
    points: tuple[Point, Point, Point, Point, Point] | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a set's folder turned out to hold.

    Attributes:
        records: in the order in which they are stored.
        edition: which known edition this is, for people: 'aligned faces, 891 + 431'.
        expected: published number of records per class, or per 'split/class'; {} where nobody published one.
        missing: names of what should be there and is not, for people.
        skipped: names of what is there and cannot be used, each with its reason.
        faces: what the images of this edition need, where that is not what the set's `faces` says; else ''.
        surplus: what is there beyond the published totals, for people; where there are no numbers to expect per class.
    """

    records: tuple[Record, ...]
    edition: str
    expected: Mapping[str, int]
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    faces: str = ''
    surplus: tuple[str, ...] = ()

    def is_whole(self) -> bool:
        """Whether nothing is known to be missing, and there are images of every class, or split and class."""
        there = {name for one in self.records for name in (one.label, f'{one.split}/{one.label}')}
        return not self.missing and there.issuperset(self.expected)


class ForeignError(UserError):
    """A folder is not the set that was looked for."""


@dataclasses.dataclass(frozen=True)
class Dataset(abc.ABC):
    """A published set: how people get it, and how its folder is read.

    Attributes:
        name: what `config.data.source` calls it.
        title: what people call it.
        access: where to apply for it or download it, one line.
        layout: what to put into the folder, one line.
        faces: what its images need: 'align', 'box', or 'none' where they come cropped.
    """

    name: str
    title: str
    access: str
    layout: str
    faces: str

    def read(self, tree: 'Tree') -> Found:
        """What `find` finds, with what the tree itself passed over among the skipped.

        A folder inside of the set is taken for the set if all of it is there.

        Raises:
            UserError: as `find`; or the folder holds a part of the set, and one above it is to be named.
        """
        try:
            found = self.find(tree)
        except ForeignError as error:
            found = self._find_from_above(tree, error)
        return dataclasses.replace(found, skipped=(*tree.notes(), *found.skipped))

    @abc.abstractmethod
    def find(self, tree: 'Tree') -> Found:
        """Lists the records below a folder.

        Raises:
            UserError: when this is not the set at all; made by `foreign`.
        """

    def _find_from_above(self, tree: 'Tree', refusal: ForeignError) -> Found:
        seen: list[tuple[Found, Path]] = []
        for above in tree.from_above():
            try:
                seen.append((self.find(above), above.root))
            except UserError:  # it is not the set from there: the first refusal tells why
                break
        if not seen:
            raise refusal
        found, nearest = seen[-1]
        if not found.is_whole():
            raise ForeignError(
                f'{tree.root}: looks like a part of {self.title} ({found.edition}); '
                f'name the folder that holds all of it, such as {nearest}'
            )
        return found

    def wants(self, archive: str) -> bool:
        """Whether an archive found below the folder, a path with '/', can hold anything of this set."""
        del archive
        return True

    def foreign(self, tree: 'Tree', looked_for: str) -> UserError:
        """The refusal of a folder that is not this set, in one line."""
        links = ''.join(f'; {text}' for text in tree.link_notes())
        return ForeignError(
            f'{tree.root}: not {self.title}: no {looked_for}{links}; '
            f'expected there: {self.layout}. To get it: {self.access}'
        )


class Tree:
    """All files below some folders, listed once; hidden files and what file browsers leave behind are passed over.

    Links are followed as `walk` does it; those directly in the folder that the user named are the user's own.

    The members of an archive lie in a folder in its place, called like it without the suffix: the file 'Angry/1.png' of
    'Train.zip' is 'Train/Angry/1.png'; so members of different archives stay apart. Where a file of that path is there
    already, it is used and the member is not. An archive whose members all lie unpacked beside it is left out.

    Attributes:
        root: the folder that the user named.
        files: by their paths below the root, with '/' between the parts: those of the user in the order of the paths,
            then those of each archive.
        links: paths of the links that are not followed and lead to something else than these files, or nowhere.
    """

    def __init__(self, root: Path, unpacked: Mapping[Path, str] = types.MappingProxyType({})):
        """root: what the user named; unpacked: the folders into which its archives were extracted, with the paths of
        the archives below the root, or '' for files that are to be listed as if they lay in the root itself."""
        self.root = root
        own = _own(root, list(unpacked))
        links: list[tuple[str, Path]] = []
        self.files: dict[str, Path] = dict(sorted(outside(walk(root, links=True, passed_over=links), own)))
        self.links = sorted(_leading_elsewhere(outside(links, own), root))
        self._beside: list[str] = []
        self._copies: list[tuple[str, str]] = []
        mine = dict(self.files)
        for folder, archive in unpacked.items():
            self._add(archive, sorted(walk(folder)), mine)

    def _add(self, archive: str, members: Sequence[tuple[str, Path]], mine: Mapping[str, Path]) -> None:
        """Lists the members of an archive; `mine` are the user's own files."""
        if archive and _lie_beside(archive, members, mine):
            self._beside.append(archive)
            return
        for name, path in members:
            whole = f'{archive}/{name}' if archive else name
            listed = _without_suffixes(whole)
            if self.files.setdefault(listed, path) is not path:
                self._copies.append((whole, listed))

    def notes(self) -> list[str]:
        """What is not listed, for people."""
        named, more = ', '.join(self._beside[:_NAMED]), len(self._beside) - _NAMED
        beside = f'{named} and {more} more' if more > 0 else named
        unpacked = [f'{beside}: not used, since all of it lies unpacked beside it'] if beside else []
        return [*self.link_notes(), *unpacked, *notes(self._copies)]

    def link_notes(self) -> list[str]:
        """How many links were not followed, and one of them; nothing if there are none."""
        if not self.links:
            return []
        some = (
            quoted(self.links[0]) if len(self.links) == 1 else f'{len(self.links):,}, such as {quoted(self.links[0])}'
        )
        return [f'links not followed: {some} (those directly in {self.root} are, if they lead anywhere)']

    def from_above(self) -> Iterator['Tree']:
        """The same files seen from folders above the root, the farthest first: what matches from a nearer one, matches
        from there as well. What else those folders hold is not looked at."""
        root = Path(os.path.abspath(self.root))
        for count in range(min(ABOVE, len(root.parents)), 0, -1):
            below = _spelled('/'.join(root.parts[-count:]))
            above = copy.copy(self)
            above.root = root.parents[count - 1]
            above.files = {f'{below}/{name}': path for name, path in self.files.items()}
            yield above

    def match(self, pattern: str) -> Iterator[tuple[re.Match[str], Path]]:
        """Files whose path below the root, with '/' between its parts, ends as `pattern` (case is ignored).

        The pattern must begin where a part of the path begins: 'Emotion/S' does not match 'MyEmotion/S'.
        Yields the match (of the pattern alone) and the file, in the order of the paths.
        """
        compiled = re.compile(rf'(?:^|.*/)(?:{pattern})$', re.IGNORECASE)
        for name, path in self.files.items():
            if found := compiled.match(name):
                yield found, path


def notes(copies: Sequence[tuple[str, str]]) -> list[str]:
    """Says of copies, each with the file that is used instead, what became of them; one line where they are many."""
    if len(copies) <= _NAMED:
        return [f'{copy}: {used} is used instead' for copy, used in copies]
    some = ', '.join(f'{used} (not {copy})' for copy, used in copies[:_NAMED])
    return [f'{len(copies):,} files lie twice; the first of each is used: {some} ...']


def walk(
    root: Path, *, links: bool = False, passed_over: list[tuple[str, Path]] | None = None
) -> Iterator[tuple[str, Path]]:
    """Every file below a folder as its path with '/' between the parts, and where it is; as `Tree`, in no order.

    A link to a file is followed when it ends inside the folder, a link to a folder is not: what it leads to inside is
    met anyway. Links that lead nowhere, pipes and devices are no files. Bytes that are no UTF-8 are spelled out in the
    path ('caf\\udce9.png'), which can then be stored and printed; backslashes are doubled, so that no two files have
    the same path.

    Args:
        root: the folder.
        links: whether links that lie directly in it, which users make to what they keep elsewhere, are followed
            wherever they lead. Links further down never are: they may come from whoever packed the files.
        passed_over: takes, in the same form, the links that lead out of the folder and are not followed, or nowhere.

    Raises:
        UserError: a folder cannot be read.
    """
    real = Path(os.path.realpath(root))
    unfollowed = passed_over if passed_over is not None else []
    folders = [(os.fspath(root), '')]
    while folders:  # not by recursion, which a folder deep enough would exhaust
        folder, prefix = folders.pop()
        own = links and not prefix  # lies directly in the user's folder
        for entry in _entries(folder):
            name, path = prefix + _spelled(entry.name), Path(entry.path)
            if not entry.is_symlink():
                if entry.is_dir():
                    folders.append((entry.path, f'{name}/'))
                elif entry.is_file():
                    yield name, path
            elif os.path.isdir(path):
                if not own and not _ends_below(path, real):
                    unfollowed.append((name, path))
            elif (own or _ends_below(path, real)) and _is_file(path):
                yield name, path
            else:
                unfollowed.append((name, path))
    for link in _links_elsewhere(root, real) if links else ():
        below = _spelled(link.name)
        inside: list[tuple[str, Path]] = []
        for name, path in walk(link, passed_over=inside):
            yield f'{below}/{name}', path
        unfollowed += [(f'{below}/{name}', path) for name, path in inside]


def _links_elsewhere(root: Path, real: Path) -> list[Path]:
    """The links in a folder to other folders outside it; of several to the same, or into one another, one is enough."""
    targets: dict[Path, Path] = {}
    for path in sorted(root.iterdir()):
        if path.is_symlink() and path.is_dir() and not junk(path.name):
            targets.setdefault(Path(os.path.realpath(path)), path)
    outside = {target for target in targets if not (target.is_relative_to(real) or real.is_relative_to(target))}
    return [targets[target] for target in sorted(outside) if not outside & set(target.parents)]


def _is_file(path: Path) -> bool:
    """Whether it is one, or may be one that nobody here may look at: reading it will say so."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        return True
    except OSError:  # a link to nowhere or in a circle, or the file is gone
        return False


def _ends_below(path: Path, real: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(real)


def printable(text: str) -> str:
    """The text with what cannot be encoded spelled out: bytes of file names that are no UTF-8."""
    return text.encode('utf-8', 'backslashreplace').decode()


def junk(name: str) -> bool:
    """Whether a file or folder of this name is passed over: hidden, or left behind by a file browser."""
    return name.startswith('.') or name.lower() in _JUNK


def outside(listed: Iterable[tuple[str, Path]], own: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """What `walk` lists, without the files in some folders and below, whichever links lead there."""
    real = [Path(os.path.realpath(folder)) for folder in own if folder.is_dir()]
    if not real:
        yield from listed
        return
    within: dict[Path, bool] = {}
    for name, path in listed:
        folder = path.parent
        if folder not in within:
            there = Path(os.path.realpath(folder))
            within[folder] = any(there.is_relative_to(one) for one in real)
        if not within[folder]:
            yield name, path


def _own(root: Path, unpacked: Sequence[Path]) -> Sequence[Path]:
    """Where the unpacked folders lie: in one of their own, unless the user's is in it as well, or each by itself."""
    common = {folder.parent for folder in unpacked}
    alone = len(common) == 1 and not root.resolve().is_relative_to(next(iter(common)).resolve())
    return [*common] if alone else unpacked


def _leading_elsewhere(links: Iterable[tuple[str, Path]], root: Path) -> Iterator[str]:
    """The names of those links that lead to nothing that `walk` lists anyway."""
    real = Path(os.path.realpath(root))
    listed = [real, *(Path(os.path.realpath(link)) for link in _links_elsewhere(root, real))]
    for name, path in links:
        if not (path.exists() and any(_ends_below(path, place) for place in listed)):
            yield name


def _lie_beside(archive: str, members: Sequence[tuple[str, Path]], files: Mapping[str, Path]) -> bool:
    """Whether all members of an archive lie, of the same size, in its folder or in one of its name there."""
    places = {archive.rpartition('/')[0], ARCHIVE.sub('', archive)}
    names = [_without_suffixes(name) for name, _ in members]
    beside = [[files.get(f'{place}/{name}'.lstrip('/')) for name in names] for place in places]
    return any(
        found and all(path and _size(path) == _size(member) for path, (_, member) in zip(found, members, strict=True))
        for found in beside
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it will say so
        return -1


def _without_suffixes(name: str) -> str:
    *folders, file = name.split('/')
    return '/'.join([*(ARCHIVE.sub('', folder) for folder in folders), file])


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not junk(entry.name)]
    except OSError as error:
        raise UserError(f'{folder}: cannot be read as a folder ({error.strerror})') from error


def _spelled(name: str) -> str:
    return printable(name.replace('\\', r'\\'))
