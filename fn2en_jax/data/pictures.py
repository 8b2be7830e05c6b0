"""What predictions are made of: photographs, folders of them, clips, arrays, Pillow's pictures, one after another."""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fn2en_jax.data import images, records, video
from fn2en_jax.errors import UserError
from fn2en_jax.spreadsheet import FORMULA

MARK = '.made_by_fn2en_jax'  # a folder that holds a file of this name is not read: we wrote the pictures in it
MAX_BYTES = 1 << 29  # of a file: the most pixels that are accepted take 400 million bytes, uncompressed in 16 bits


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One picture, not decoded yet.

    Attributes:
        file: its name on one line of valid text: the path as the user gave it, or 'image 3'.
        read: decodes it, uint8 [h, w, 1 or 3]; raises UserError where it cannot be read.
        frame: which frame of a clip, counted from 0; None for a still.
        nbytes: bytes that it keeps in memory before it is read.
    """

    file: str
    read: Callable[[], np.ndarray]
    frame: int | None = None
    nbytes: int = 0


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file that holds one picture, or a clip.

    Attributes:
        file: see `Picture.file`.
        path: where it is.
        clip: whether it is a clip.
        problem: why it cannot be read, where that is known already (a folder in a folder); else ''.
    """

    file: str
    path: Path
    clip: bool
    problem: str = ''

    def count(self, every: int) -> int:
        """How many pictures it will give, by the header if it is a clip."""
        if not self.clip:
            return 1
        try:
            return max(1, -(-video.count_frames(self.path, video.KINDS) // every))
        except UserError:
            return 1

    def pictures(self, every: int = 1) -> Iterator[Picture]:
        """The picture in it, or every Nth frame of a clip; what cannot be read is a picture that says so."""
        if self.problem:
            yield Picture(self.file, _refused(UserError(self.problem)))
            return
        if not self.clip:
            yield Picture(self.file, lambda: _decoded(_bytes(self.path)))
            return
        try:
            for number, frame in video.frames(self.path, every):
                yield Picture(self.file, _given(frame), number, frame.nbytes)
        except UserError as error:
            yield Picture(self.file, _refused(error, self.path.name))


@dataclasses.dataclass(frozen=True)
class Listing:
    """All files that a user named, those in folders included.

    Attributes:
        files: in order; those of a folder sorted by name.
        passed_over: how many files in the folders are neither a picture nor a clip by their names, were drawn by us, or
            are links to elsewhere that do not lie directly in a folder that was named.
    """

    files: tuple[Listed, ...]
    passed_over: int = 0


def listed(named: Sequence[str | Path], own: Path | None = None) -> Listing:
    """Lists photographs, clips and what folders hold of both, without opening the photographs.

    In a folder the names decide (`images.SUFFIXES`, `video.SUFFIXES`); hidden files and folders with MARK are passed
    over. A folder in it that cannot be read, and a link that leads nowhere, are listed: whoever reads them is told. A
    file that is named itself is taken for a picture, unless it is a clip.

    Args:
        named: files and folders.
        own: a folder that the caller will write pictures into.

    Raises:
        UserError: something named does not exist or cannot be read, or a folder holds no picture, or `own` would hold
            what is looked at.
    """
    files: list[Listed] = []
    passed_over = 0
    for each in named:
        path = Path(each)
        if not str(each):
            raise UserError('an empty name is no file')
        mode = _mode(path)
        if own is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(own)):
            raise UserError(f'{spelled(path)}: pictures are read from this folder; write into another one')
        if stat.S_ISDIR(mode):
            inside, others = _in_folder(path, own)
            files += inside
            passed_over += others
        elif stat.S_ISREG(mode):
            files.append(Listed(spelled(path), path, _is_clip(path)))
        else:
            raise UserError(f'{spelled(path)}: is no regular file')
    return Listing(tuple(files), passed_over)


def given(what: Any, *, every: int = 1) -> Iterator[Picture]:
    """The pictures in whatever a program hands over.

    Args:
        what: the path of a photograph, a clip or a folder; the bytes of an image file, or one opened in binary mode; a
            picture of Pillow's; an array [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] of uint8, or a batch [N, h, w, C]
            of them; or an iterable of any of these (also an array or a column of pandas), in any mixture. It is
            iterated once, and no further ahead than needed.
        every: frames of a clip from one that is looked at to the next.

    Raises:
        UserError: for an array that can be no picture, and for what is none of these, naming its place.
    """
    for number, each in enumerate(_each(what)):
        if isinstance(each, (str, os.PathLike)):
            yield from _of_path(os.fspath(each), every)
        else:
            yield _of_value(each, f'image {number}')


def spelled(path: str | Path) -> str:
    """A path as text on one line: what is no UTF-8 or not printable as escapes, and no formula to a spreadsheet."""
    text = _visible(records.printable(str(path).replace('\\', r'\\')))
    return f'./{text}' if text.startswith(FORMULA) else text


def _visible(text: str) -> str:
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode('ascii') for c in text)


def _mode(path: Path) -> int:
    """What a path is, see `os.stat`; raises UserError where that cannot be found out."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError as error:
        raise UserError(f'{spelled(path)}: no such file or folder') from error
    except OSError as error:
        raise UserError(f'{spelled(path)}: cannot be read ({error.strerror})') from error
    except ValueError as error:
        raise UserError(f'{spelled(path)}: is no name of a file ({error})') from error


def _in_folder(root: Path, own: Path | None) -> tuple[list[Listed], int]:
    """The pictures and clips below a folder, and how many other files there are."""
    real = Path(os.path.realpath(root))
    for folder in (real, *real.parents):
        if os.path.lexists(folder / MARK):
            raise UserError(
                f'{spelled(root)}: these pictures were drawn by us; to have them read, delete {folder / MARK}'
            )
    base = spelled(root).rstrip('/')
    suffixes = (*images.SUFFIXES, *video.SUFFIXES)
    found, unreadable, passed_over = _walk(root, own)
    inside = []
    for name, path in found.items():
        if path.suffix.lower() in suffixes and _may_be_read(path):
            inside.append(Listed(f'{base}/{_visible(name)}', path, _is_clip(path)))
        else:
            passed_over += 1
    inside += [Listed(f'{base}/{_visible(name)}', root / name, False, why) for name, why in unreadable.items()]
    if not inside:
        raise UserError(f'{spelled(root)}: holds no picture and no clip ({" ".join(suffixes)})')
    return sorted(inside, key=lambda each: each.file), passed_over


def _walk(root: Path, own: Path | None) -> tuple[dict[str, Path], dict[str, str], int]:
    """The files below a folder by their names, the folders that cannot be read with the reasons, and how many files
    are passed over: in folders of ours, and behind links that were not made by the user (see `records.walk`).

    Raises:
        UserError: `root` itself cannot be read.
    """
    files: dict[str, Path] = {}
    unreadable: dict[str, str] = {}
    ours = set() if own is None else {os.path.realpath(own)}
    passed_over = 0
    for top in (root, *_linked_folders(root)):
        for folder, folders, names in os.walk(top, onerror=lambda error: unreadable.update(_reason(error, root))):
            folders[:] = sorted(name for name in folders if not records.junk(name))
            here = os.path.realpath(folder)
            if MARK in names or os.path.dirname(here) in ours:
                ours.add(here)
            for name in names:
                path = Path(folder, name)
                if records.junk(name):
                    continue
                if here in ours or (path.is_symlink() and Path(folder) != root and _leads_out(path, top)):
                    passed_over += 1
                else:
                    files[_below(path, root)] = path
    return files, unreadable, passed_over


def _linked_folders(root: Path) -> list[Path]:
    """The links in a folder to folders outside it; of several to the same, or into one another, one is enough."""
    real = Path(os.path.realpath(root))
    try:
        links = [Path(each.path) for each in os.scandir(root) if each.is_symlink() and os.path.isdir(each.path)]
    except OSError as error:
        raise UserError(f'{spelled(root)}: cannot be read as a folder ({error.strerror})') from error
    taken: dict[Path, Path] = {}
    for target, link in sorted((Path(os.path.realpath(link)), link) for link in links if not records.junk(link.name)):
        around = target.is_relative_to(real) or real.is_relative_to(target)
        if not around and not any(target.is_relative_to(other) for other in taken):
            taken[target] = link
    return list(taken.values())


def _leads_out(path: Path, top: Path) -> bool:
    """Whether a link ends elsewhere, and there is something."""
    return os.path.exists(path) and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(top))


def _reason(error: OSError, root: Path) -> dict[str, str]:
    return {_below(Path(error.filename), root): f'cannot be read as a folder ({error.strerror})'}


def _below(path: Path, root: Path) -> str:
    return records.printable(path.relative_to(root).as_posix().replace('\\', r'\\'))


def _may_be_read(path: Path) -> bool:
    """Whether it is a regular file, or something of which only reading shows what is wrong with it."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _is_clip(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in video.SUFFIXES or (suffix not in images.SUFFIXES and video.is_clip(path))


def _each(what: Any) -> Iterator[Any]:
    """Paths, bytes, Pillow's pictures and arrays of one image, whatever they come in."""
    if isinstance(what, (str, os.PathLike, bytes, Image.Image)):
        yield what
    elif isinstance(what, (bytearray, memoryview)):
        yield bytes(what)
    elif isinstance(what, np.ndarray) or hasattr(what, '__array__'):
        array = np.asarray(what)
        if array.dtype.kind in 'OUT':  # names, or pictures of several sizes
            yield from (one for each in array.ravel().tolist() for one in _each(each))
        else:
            yield from array if array.ndim == 4 else (array,)
    elif hasattr(what, 'read'):
        yield _content(what)
    elif isinstance(what, Iterable) and not isinstance(what, Mapping):
        for each in what:
            yield from _each(each)
    else:
        raise UserError(f'{type(what).__name__} is no picture; give paths, arrays, Pillow images or bytes of files')


def _content(file: Any) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise UserError(f'a file that gives {type(data).__name__} is no picture; open it in binary mode')
    return data


def _of_path(path: str, every: int) -> Iterator[Picture]:
    try:
        files = listed([path]).files
    except UserError as error:
        yield Picture(spelled(path), _refused(error, spelled(path)))
        return
    for file in files:
        yield from file.pictures(every)


def _of_value(value: bytes | Image.Image | np.ndarray, file: str) -> Picture:
    """Pixels are taken at once: the caller may use the array for the next image, or the same picture twice."""
    if isinstance(value, bytes):
        return Picture(file, lambda: _decoded(value), nbytes=len(value))
    try:
        pixels = images.from_pillow(value) if isinstance(value, Image.Image) else images.from_array(value).copy()
        return Picture(file, _given(pixels), nbytes=pixels.nbytes)
    except UserError as error:
        return Picture(file, _refused(error))
    except ValueError as error:
        raise UserError(f'{file}: {error}') from error


def _given(pixels: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: pixels


def _refused(error: UserError, name: str = '') -> Callable[[], np.ndarray]:
    """Raises the error when it is read, without the file's name in front, which the picture has."""

    def read() -> np.ndarray:
        raise UserError(str(error).removeprefix(f'{name}: '))

    return read


def _decoded(data: bytes) -> np.ndarray:
    if data[:6] in (b'GIF87a', b'GIF89a'):
        raise UserError(f'the file is a GIF, which is not read (accepted: {", ".join(images.FORMATS)})')
    return images.decode_as_it_is(data)


def _bytes(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f'the file has {size} bytes; more than {MAX_BYTES} are not read')
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error
