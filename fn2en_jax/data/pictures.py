"""What predictions are made of: photographs, folders of them, clips, arrays, Pillow's pictures, one after another."""

import dataclasses
import os
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
    """

    file: str
    read: Callable[[], np.ndarray]
    frame: int | None = None


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file that holds one picture, or a clip.

    Attributes:
        file: see `Picture.file`.
        path: where it is.
        clip: whether it is a clip.
    """

    file: str
    path: Path
    clip: bool

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
        if not self.clip:
            yield Picture(self.file, lambda: images.decode_as_it_is(_bytes(self.path)))
            return
        try:
            for number, frame in video.frames(self.path, every):
                yield Picture(self.file, _given(frame), number)
        except UserError as error:
            yield Picture(self.file, _refused(error, self.path.name))


@dataclasses.dataclass(frozen=True)
class Listing:
    """All files that a user named, those in folders included.

    Attributes:
        files: in order; those of a folder sorted by name.
        passed_over: how many files in the folders are neither a picture nor a clip by their names.
    """

    files: tuple[Listed, ...]
    passed_over: int = 0


def listed(named: Sequence[str | Path], own: Path | None = None) -> Listing:
    """Lists photographs, clips and what folders hold of both, without opening the photographs.

    In a folder the names decide (`images.SUFFIXES`, `video.SUFFIXES`); hidden files and folders with
    MARK are passed over. A file that is named itself is taken for a picture, unless it is a clip.

    Args:
        named: files and folders.
        own: a folder that the caller will write pictures into.

    Raises:
        UserError: something named does not exist or cannot be read, or a folder holds no picture.
    """
    files: list[Listed] = []
    passed_over = 0
    for each in named:
        path = Path(each)
        if not str(each):
            raise UserError('an empty name is no file')
        if path.is_dir():
            inside, others = _in_folder(path, own)
            files += inside
            passed_over += others
        elif path.is_file():
            files.append(Listed(spelled(path), path, _is_clip(path)))
        else:
            raise UserError(f'{spelled(path)}: {"is no regular file" if path.exists() else "no such file or folder"}')
    return Listing(tuple(files), passed_over)


def given(what: Any, *, every: int = 1) -> Iterator[Picture]:
    """The pictures in whatever a program hands over.

    Args:
        what: the path of a photograph, a clip or a folder; the bytes of an image file; a picture of Pillow's; an array
            [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] of uint8, or a batch [N, h, w, C] of them; or an iterable of
            any of these, in any mixture. It is iterated once, and no further ahead than needed.
        every: frames of a clip from one that is looked at to the next.

    Raises:
        UserError: for an array that can be no picture, and for what is none of these, naming its place.
    """
    for number, each in enumerate(_each(what)):
        if isinstance(each, (str, Path)):
            yield from _of_path(each, every)
        else:
            yield _of_value(each, f'image {number}')


def spelled(path: str | Path) -> str:
    """A path as text on one line: what is no UTF-8 or not printable as escapes, and no formula to a spreadsheet."""
    text = _visible(records.printable(str(path).replace('\\', r'\\')))
    return f'./{text}' if text.startswith(FORMULA) else text


def _visible(text: str) -> str:
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode('ascii') for c in text)


def _in_folder(root: Path, own: Path | None) -> tuple[list[Listed], int]:
    """The pictures and clips below a folder, and how many other files there are."""
    if own is not None and os.path.realpath(own) == os.path.realpath(root):
        raise UserError(f'{spelled(root)}: pictures are read from this folder; write into another one')
    ours = [records.place_below(marked.parent, root) for marked in root.rglob(MARK)]
    ours += [records.place_below(own, root)] if own else []
    passed = tuple(filter(None, ours))
    files = {name: path for name, path in records.Tree(root).files.items() if not name.startswith(passed)}
    base = spelled(root).rstrip('/')
    suffixes = (*images.SUFFIXES, *video.SUFFIXES)
    inside = [
        Listed(f'{base}/{_visible(name)}', path, _is_clip(path))
        for name, path in files.items()
        if path.suffix.lower() in suffixes
    ]
    if not inside:
        raise UserError(f'{spelled(root)}: holds no picture and no clip ({" ".join(suffixes)})')
    return inside, len(files) - len(inside)


def _is_clip(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in video.SUFFIXES or (suffix not in images.SUFFIXES and video.is_clip(path))


def _each(what: Any) -> Iterator[Any]:
    """Paths, bytes, Pillow's pictures and arrays of one image, whatever they come in."""
    if isinstance(what, (str, Path, bytes, Image.Image)):
        yield what
    elif isinstance(what, np.ndarray) or hasattr(what, '__array__'):
        array = np.asarray(what)
        yield from array if array.ndim == 4 else (array,)
    elif isinstance(what, Iterable) and not isinstance(what, Mapping):
        for each in what:
            yield from _each(each)
    else:
        raise UserError(f'{type(what).__name__} is no picture; give paths, arrays, Pillow images or bytes of files')


def _of_path(path: str | Path, every: int) -> Iterator[Picture]:
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
        return Picture(file, lambda: images.decode_as_it_is(value))
    try:
        if isinstance(value, Image.Image):
            return Picture(file, _given(images.from_pillow(value)))
        return Picture(file, _given(images.from_array(value).copy()))
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


def _bytes(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UserError(f'the file has {size} bytes; more than {MAX_BYTES} are not read')
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from error
