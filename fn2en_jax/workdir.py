"""The folder of a run: whose it is, and writing into it so that a kill leaves old or new files, never halves."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fn2en_jax.errors import UserError

# Keys that change how or how much a run does, not what any of its stages computes.
FREE_KEYS = (
    'methods',
    'fold',
    'checkpoint',
    'report',
    'visualize',
    'data.data_dir',
    'data.manual_dir',
    'data.extra_manual_dir',
    'steps_per_dispatch',
    'compilation_cache',
)
# Paths to what is compared by its content: the digest in the fingerprint that stands for it; the folds themselves are
# in `folds.json`, which whoever goes on with a workdir or joins several compares.
CONTENT = {'face_net.weights': 'data_fingerprint.face_net_weights', 'data.folds_file': None}


def cache(name: str) -> Path:
    """A folder of ours among the user's caches, where nothing is kept that cannot be made again."""
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'fn2en_jax' / name


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turns a full or read-only disk into a message; everything else passes."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f'cannot write {folder}: permission denied; choose another --workdir') from error
    except (OSError, ValueError, RuntimeError) as error:  # the last two are how tensorstore words a full disk
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if getattr(error, 'errno', None) in full or any(os.strerror(code) in str(error) for code in full):
            message = f'no space left on the disk of {folder}; free some and run the same command again'
            raise UserError(message) from error
        raise


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Creates the folder and keeps every other process out of it.

    Raises:
        UserError: when it cannot be written, or another run is using it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / '.lock').open('w')
    except OSError as error:
        raise UserError(f'cannot write to the workdir {folder}: {error.strerror}; choose another --workdir') from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f'another run is using the workdir {folder}; wait for it, or use another') from error
        yield


def claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.json` into the folder, or checks that the one there is of the same run.

    Args:
        folder: the workdir.
        config: nested plain values (JSON).

    Raises:
        UserError: when the folder was made with other settings (they are named).
    """
    check(folder, config)
    path = folder / 'config.json'
    if path.exists():
        config = _with_known_sets(config, read_json(path))
    write_json(path, config)


def check(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses what `claim` refuses, and writes nothing; arguments and errors as there."""
    path = folder / 'config.json'
    if path.exists() and (found := differing(read_json(path), json.loads(json.dumps(config)), ('there', 'now'))):
        raise UserError(
            f'the workdir {folder} belongs to a run with other settings: {"; ".join(found)}. '
            'Use another --workdir, or the same settings to go on with that run'
        )


def _with_known_sets(config: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the fingerprints of sets that only an earlier run of the workdir has opened."""
    known = old.get('data_fingerprint', {})
    marks = {name: mark or known.get(name, '') for name, mark in config.get('data_fingerprint', {}).items()}
    return {**config, 'data_fingerprint': marks} if marks else dict(config)


def differing(
    one: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str] = ('in one', 'in the other')
) -> list[str]:
    """The settings in which two runs differ that matter for their numbers, each with both values."""
    old, new = dict(flatten(one)), dict(flatten(other))
    missing = object()
    # What one of the two has not read (identities or weights, without a face net to train) is no difference.
    unknown = {
        key
        for key in old.keys() | new.keys()
        if key.startswith('data_fingerprint.') and '' in (old.get(key, ''), new.get(key, ''))
    }
    return [
        f'{key} ({json.dumps(old[key]) if key in old else "unset"} {names[0]}, '
        f'{json.dumps(new[key]) if key in new else "unset"} {names[1]})'
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
        and not (_free(key) or key in unknown or _same_content(key, old, new))
    ]


def _same_content(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two paths are of one content, whose digests are known and equal or which is compared elsewhere."""
    if key not in CONTENT or not (old.get(key) and new.get(key)):
        return False
    digest = CONTENT[key]
    return digest is None or old.get(digest, '') == new.get(digest) != ''


def _free(key: str) -> bool:
    return any(key == free or key.startswith(free + '.') for free in FREE_KEYS)


def flatten(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yields ('a.b.c', value) for every leaf of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a workdir, which holds one object.

    Raises:
        UserError: when it is missing, cannot be read, or is no JSON object.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged ({error}); delete it and run the same command again') from error
    if not isinstance(found, dict):
        raise UserError(f'{path} is damaged (it is no JSON object); delete it and run the same command again')
    return found


def read_text(path: Path) -> str:
    """Reads a text file of a workdir.

    Raises:
        UserError: when it is missing, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8')
    except FileNotFoundError as error:
        raise UserError(f'{path} does not exist; is {path.parent} the workdir of a finished run?') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is damaged ({error}); delete it and run the same command again') from error


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file in one step."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + '\n')


def write_text(path: Path, text: str) -> None:
    """Replaces a text file in one step: readers and crashes see the old file or the new one.

    Raises:
        UserError: when something that is no file has that name.
        OSError: as the disk does.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file under: it becomes `path` when the block ends well, and is deleted if not.

    Raises:
        UserError: when something that is no file has that name.
        OSError: as the disk does.
    """
    check_replaceable(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())  # or the name may reach the disk before the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """Refuses what must not be replaced by a file: a device, a pipe, a socket, a folder.

    Raises:
        UserError: when it is there and is no regular file.
    """
    if path.exists() and not path.is_file():
        what = 'a folder' if path.is_dir() else 'a device or another special file, which is never replaced'
        raise UserError(f'{path} is {what}; name a file')
