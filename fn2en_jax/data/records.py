"""What a published set is before it is stored: its files on disk, its records, and what was expected of it."""

import abc
import dataclasses
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fn2en_jax.data.video import VideoFrame
from fn2en_jax.errors import UserError

EXPRESSIONS = ('anger', 'contempt', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')

_JUNK = {'__macosx', 'thumbs.db', 'desktop.ini'}  # hidden files are passed over as well

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
    """

    records: tuple[Record, ...]
    edition: str
    expected: Mapping[str, int]
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    faces: str = ''


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

    @abc.abstractmethod
    def find(self, tree: 'Tree') -> Found:
        """Lists the records below a folder.

        Raises:
            UserError: when this is not the set at all; made by `foreign`.
        """

    def wants(self, archive: str) -> bool:
        """Whether an archive found below the folder, a path with '/', can hold anything of this set."""
        del archive
        return True

    def foreign(self, tree: 'Tree', looked_for: str) -> UserError:
        """The refusal of a folder that is not this set, in one line."""
        return UserError(
            f'{tree.root}: not {self.title}: no {looked_for}; expected there: {self.layout}. To get it: {self.access}'
        )


class Tree:
    """All files below some folders, listed once; hidden files and what file browsers leave behind are passed over.

    Links are followed as `walk` does it; those directly in the folder that the user named are the user's own.
    """

    def __init__(self, root: Path, unpacked: Sequence[Path] = ()):
        """root: what the user named; unpacked: folders into which its archives were extracted."""
        self.root = root
        listed = list(outside(walk(root, links=True), _own(root, unpacked)))
        listed += [name_path for folder in unpacked for name_path in walk(folder)]
        self.files: dict[str, Path] = dict(sorted(listed))

    def match(self, pattern: str) -> Iterator[tuple[re.Match[str], Path]]:
        """Files whose path below the root, with '/' between its parts, ends as `pattern` (case is ignored).

        The pattern must begin where a part of the path begins: 'Emotion/S' does not match 'MyEmotion/S'.
        Yields the match (of the pattern alone) and the file, in the order of the paths.
        """
        compiled = re.compile(rf'(?:^|.*/)(?:{pattern})$', re.IGNORECASE)
        for name, path in self.files.items():
            if found := compiled.match(name):
                yield found, path


def walk(root: Path, *, links: bool = False) -> Iterator[tuple[str, Path]]:
    """Every file below a folder as its path with '/' between the parts, and where it is; as `Tree`, in no order.

    A link to a file is followed when it ends inside the folder, a link to a folder is not: what it leads to inside is
    met anyway. Links that lead nowhere, pipes and devices are no files. Bytes that are no UTF-8 are spelled out in the
    path ('caf\\udce9.png'), which can then be stored and printed; backslashes are doubled, so that no two files have
    the same path.

    Args:
        root: the folder.
        links: whether links that lie directly in it, which users make to what they keep elsewhere, are followed
            wherever they lead. Links further down never are: they may come from whoever packed the files.

    Raises:
        UserError: a folder cannot be read.
    """
    real = Path(os.path.realpath(root))
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not junk(name))
        top = links and Path(folder) == root
        for name in files:
            path = Path(folder, name)
            if not junk(name) and (not path.is_symlink() or top or _ends_below(path, real)) and _is_file(path):
                yield _spelled(path.relative_to(root)), path
    for link in _links_elsewhere(root, real) if links else ():
        for name, path in walk(link):
            yield f'{_spelled(link.relative_to(root))}/{name}', path


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
    real = [Path(os.path.realpath(folder)) for folder in own]
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


def _spelled(path: Path) -> str:
    return printable(path.as_posix().replace('\\', r'\\'))


def _refuse(error: OSError) -> None:
    raise UserError(f'{error.filename}: cannot be read as a folder ({error.strerror})') from error
