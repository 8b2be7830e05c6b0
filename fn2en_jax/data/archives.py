"""Archives as downloaded: each extracted once, into a folder of its own, and nothing outside of it touched.

An archive comes from elsewhere and may be hostile: what its headers say is checked before a byte is written, and
counted again while writing. Neither `zipfile` nor `tarfile` ever writes here; their members are read as streams and
written by one function to paths that this module made.
"""

import bz2
import gzip
import hashlib
import lzma
import os
import re
import shlex
import shutil
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from absl import logging

from fn2en_jax.data import locks, records
from fn2en_jax.data.tables import quoted
from fn2en_jax.errors import UserError

MAX_MEMBERS = 4_000_000  # the largest known set has a million and a half
MAX_RATIO = 200  # bytes extracted per byte of the archive; published sets stay below 20
ALWAYS_ALLOWED = 1 << 26  # bytes that even a very small archive may become
RESERVE = 1 << 28  # bytes that stay free on the disk

_OPEN = records.ARCHIVE
_CLOSED = re.compile(r'\.(rar|7z|[rz]\d\d|(7z|zip)\.\d{3})$', re.IGNORECASE)
_LATER_PART = re.compile(r'\.(part(?!0*1\.rar)\d+\.rar|[rz]\d\d|(7z|zip)\.(?!001)\d{3})$', re.IGNORECASE)
# What lies beside archives without being the data that they hold.
_PAPERS = {'', '.txt', '.csv', '.md', '.pdf', '.doc', '.docx', '.rtf', '.xls', '.xlsx', '.html', '.htm', '.xml', '.bib'}
_PIECE = 1 << 20  # bytes written at a time
_HEADERS = 1 << 24  # bytes of tar headers before one member; tarfile holds them in memory

Progress = Callable[[str, int, int], None]


def unpack(
    folder: Path,
    into: Path,
    progress: Progress | None = None,
    wanted: Callable[[str], bool] = lambda name: True,
) -> dict[Path, str]:
    """Extracts the zip and tar archives below a folder, and those inside of them, one level deep.

    Each goes into a folder of its own, named by the archive's name, size and time of change; one that is there
    already is taken as it is. An archive within an archive becomes a folder in its place. Hidden files and what
    file browsers leave behind are not extracted.

    Args:
        folder: where the user put the downloads.
        into: where the folders are made; created where needed, and one for each data set.
        progress: called now and then with the name of an archive, the bytes of it read so far, and its size; never
            twice with the same.
        wanted: whether an archive is extracted, by its path below `folder` with '/' between the parts; for one
            inside another the path goes on behind the name of the outer one.

    Returns:
        The folders, and what each was extracted from: the path of the archive below `folder` with '/' between the
        parts. They are in the order of these.

    Raises:
        UserError: an archive is damaged or unsafe, or the disk cannot take it; or all there is are archives that
            only the user can open (RAR, 7-Zip, in parts, with a password).
    """
    own = [into] if not folder.resolve().is_relative_to(into.resolve()) else []
    listed = sorted(records.outside(records.walk(folder, links=True), own))
    closed = [path for name, path in listed if _is_closed(path) and wanted(name)]
    folders: dict[Path, str] = {}
    with locks.only_one(into / '.lock', f'another process unpacks the archives of {folder}'):
        for name, path in listed:
            if _OPEN.search(name) and path not in closed and wanted(name):
                try:
                    folders[_extracted(path, name, into, progress, wanted)] = name
                except _ClosedError:
                    closed.append(path)
    if not any(_is_data(name) for name, _ in listed):
        inside = [(f'{outer}/{name}', path) for made, outer in folders.items() for name, path in records.walk(made)]
        if not any(_is_data(name) for name, _ in inside):
            closed += [path for name, path in inside if is_archive(name) and wanted(name)]
            if closed:
                raise UserError(_how_to_open(closed, folder))
    if closed:
        logging.warning('passed over, since other files are there: %s', _how_to_open(closed, folder))
    return folders


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive, or a part of one, whoever can open it."""
    return bool(_OPEN.search(name) or _CLOSED.search(name))


class _ClosedError(Exception):
    """The archive is sound as far as one can tell, and cannot be opened here."""


def _is_closed(path: Path) -> bool:
    parts = [path.with_suffix(suffix) for suffix in ('.z01', '.Z01')] if path.suffix.lower() == '.zip' else []
    return bool(_CLOSED.search(path.name)) or any(part.exists() for part in parts)


def _extracted(path: Path, name: str, into: Path, progress: Progress | None, wanted: Callable[[str], bool]) -> Path:
    """The folder with an archive's members; `name` is its path below the user's folder."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    mark = hashlib.sha256(f'{name} {found.st_size} {found.st_mtime_ns}'.encode()).hexdigest()
    stem = re.sub(r'[^A-Za-z0-9._-]+', '_', _OPEN.sub('', path.name))[:60].lstrip('.')
    target = into / f'{stem}-{mark[:16]}'
    if target.is_dir():
        return target
    temporary = into / f'.{target.name}'
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left; a living one would hold the lock
    try:
        _fill(path, str(path), temporary, progress)
        _open_nested(temporary, path, name, progress, wanted)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _open_nested(root: Path, outer: Path, name: str, progress: Progress | None, wanted: Callable[[str], bool]) -> None:
    """Replaces the archives among extracted files by folders of the same name."""
    for inner, path in sorted(records.walk(root)):
        if _OPEN.search(inner) and not _is_closed(path) and wanted(f'{name}/{inner}'):
            temporary = root / '.nested'  # hidden, so no member is called so
            try:
                _fill(path, f'{outer}: {inner}', temporary, progress)
            except _ClosedError:
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                path.unlink()
                temporary.rename(path)


def _fill(path: Path, title: str, root: Path, progress: Progress | None) -> None:
    """Extracts one archive into a new folder; `title` is what messages call it."""
    try:
        raw = path.open('rb')
    except OSError as error:
        raise UserError(f'{title}: cannot be read ({error.strerror})') from error
    with raw:
        writer = _Writer(root, title, raw, progress)
        try:
            (_fill_from_zip if path.suffix.lower() == '.zip' else _fill_from_tar)(raw, writer)
        except (UserError, _ClosedError):
            raise
        # Both modules meet bytes from anywhere and raise whatever comes to hand: BadZipFile, TarError, zlib.error,
        # EOFError, ValueError, RecursionError ... To the user it is all the same.
        except Exception as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise UserError(f'{title}: damaged, or not what its name says ({reason}); download it again') from error


class _Writer:
    """Puts the members of one archive below a new folder, within limits of place, number and size."""

    def __init__(self, root: Path, title: str, raw: IO[bytes], progress: Progress | None):
        self._root, self._title, self._raw, self._progress = root, title, raw, progress
        self._size = os.fstat(raw.fileno()).st_size
        self._make(root)
        room = shutil.disk_usage(root).free - RESERVE
        self._room = max(0, min(room, ALWAYS_ALLOWED + MAX_RATIO * self._size))
        self._why = 'the disk has room for' if self._room == max(0, room) else 'an archive of its size may become'
        self._announced = self._written = self._members = 0
        self._reported = -1  # position in the archive
        self._files: set[str] = set()
        self._folders: set[str] = {''}

    def place(self, member: str, size: int, is_folder: bool) -> Path | None:
        """Checks a member's name and size; returns where to write it, or None for what is not extracted.

        Raises:
            UserError: the member leads elsewhere, takes another's place, or is one too many or too much.
        """
        if size < 0:
            raise self.refusal(f'member {quoted(member)} has a negative size')
        self._members += 1
        self._announced += size
        if self._members > MAX_MEMBERS:
            raise self.refusal(f'it holds more than {MAX_MEMBERS} members')
        self._check_room(self._announced)
        parts = self._parts(member)
        if not parts or any(records.junk(part) for part in parts):
            return None
        self._reserve(parts, is_folder, member)
        return None if is_folder else self._root.joinpath(*parts)

    def write(self, place: Path, data: IO[bytes]) -> None:
        """Writes a member's bytes, and counts what really comes out of the archive."""
        self._make(place.parent)
        try:
            file = place.open('xb')
        except OSError as error:
            raise self._disk_fault(error) from error
        with file:
            while piece := data.read(_PIECE):
                self._written += len(piece)
                self._check_room(self._written)
                try:
                    file.write(piece)
                    file.flush()  # a full disk shows here, not at the closing
                except OSError as error:
                    raise self._disk_fault(error) from error
                self._report()
        self._report()

    def refusal(self, reason: str) -> UserError:
        """Why the archive is not extracted, in one line."""
        return UserError(
            f'{self._title}: not extracted: {reason}; if you trust it, unpack it yourself and move it away'
        )

    def _parts(self, member: str) -> list[str]:
        path = member.replace('\\', '/')  # as some Windows tools write them
        parts = [part for part in path.split('/') if part not in ('', '.')]
        if path.startswith('/') or re.match('[A-Za-z]:', path) or '..' in parts:
            raise self.refusal(f'member {quoted(member)} leads out of the folder')
        if re.search(r'[\x00-\x1f\x7f]', path):
            raise self.refusal(f'member {quoted(member)} has control characters in its name')
        return parts

    def _reserve(self, parts: Sequence[str], is_folder: bool, member: str) -> None:
        """Names that some file system takes for the same must not meet: one file would replace another there."""
        keys = [_same_name('/'.join(parts[: end + 1])) for end in range(len(parts))]
        last = keys if is_folder else keys[:-1]
        clash = any(key in self._files for key in keys) or (not is_folder and keys[-1] in self._folders)
        if clash:
            raise self.refusal(f'two members have the name {quoted(member)}, or names that differ by case alone')
        self._folders.update(last)
        if not is_folder:
            self._files.add(keys[-1])

    def _check_room(self, size: int) -> None:
        if size > self._room:
            raise self.refusal(f'it holds more than the {self._room / 1e9:.1f} GB that {self._why}')

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._disk_fault(error) from error

    def _disk_fault(self, error: OSError) -> UserError:
        return UserError(f'{self._title}: cannot be extracted into {self._root.parent} ({error.strerror})')

    def _report(self) -> None:
        position = min(self._raw.tell(), self._size)
        if self._progress and position != self._reported:  # many small members come out of one piece of the archive
            self._reported = position
            self._progress(self._title, position, self._size)


def _same_name(path: str) -> str:
    return unicodedata.normalize('NFC', path.casefold())


def _fill_from_zip(raw: IO[bytes], writer: _Writer) -> None:
    with zipfile.ZipFile(raw) as archive:
        planned = []
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refusal(f'member {quoted(info.filename)} is a link or a device')
            # Python has no ciphers and not all of the methods, and it cannot bound what bzip2 and LZMA make of a piece.
            if info.flag_bits & 0x41 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _ClosedError
            if place := writer.place(info.orig_filename, info.file_size, info.is_dir()):
                planned.append((info, place))
        for info, place in planned:
            with archive.open(info) as data:
                writer.write(place, data)


def _fill_from_tar(raw: IO[bytes], writer: _Writer) -> None:
    with _decompressed(raw) as plain:
        source = _Allowance(plain)
        with tarfile.open(fileobj=source, mode='r:') as archive:  # type: ignore[call-overload]
            while member := _next_member(archive, source):
                if not (member.isreg() or member.isdir()):
                    raise writer.refusal(f'member {quoted(member.name)} is a link or a device')
                place = writer.place(member.name, member.size, member.isdir())
                archive.members = []  # else tarfile remembers every member
                if place:
                    source.left = member.size + _HEADERS
                    with archive.extractfile(member) as data:
                        writer.write(place, data)
        source.left = 2 * _HEADERS
        while source.left > _HEADERS and source.read(_PIECE):  # to the end, where the checksum is compared
            pass


def _next_member(archive: tarfile.TarFile, source: '_Allowance') -> tarfile.TarInfo | None:
    """The next member; None at the end, which tarfile sees in every damaged header as well."""
    source.left = _HEADERS
    member = archive.next()
    if member is None and source.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError('it breaks off')
    return member


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    """The tar stream, compressed as its first bytes say."""
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b'\x1f\x8b'):
        return gzip.open(raw)  # type: ignore[return-value]
    if head.startswith(b'BZh'):
        return bz2.open(raw)
    if head == b'\xfd7zXZ\0':
        return lzma.open(raw)
    return raw


class _Allowance:
    """A stream of which only so many bytes may be read: tarfile would take a header of any size into memory."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self.left = _HEADERS
        self.last = b''  # what was read last

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError('its headers are too large')
        self.last = self._stream.read(size)
        return self.last

    def seek(self, position: int) -> int:
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()


def _is_data(name: str) -> bool:
    return not is_archive(name) and os.path.splitext(name)[1].lower() not in _PAPERS


def _how_to_open(closed: Sequence[Path], folder: Path) -> str:
    firsts = [path for path in closed if not _LATER_PART.search(path.name)] or closed
    path, target = shlex.quote(str(firsts[0])), shlex.quote(str(folder))
    is_rar = re.search(r'\.(rar|r\d\d)$', firsts[0].name, re.IGNORECASE)
    command = f'unrar x {path} {target}/' if is_rar else f'7z x -o{target} {path}'
    more = f' (and so on for {len(firsts) - 1} more)' if len(firsts) > 1 else ''
    return f'{firsts[0]}: an archive that this program cannot open; unpack it yourself with: {command}{more}'
