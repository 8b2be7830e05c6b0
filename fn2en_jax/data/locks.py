"""One process at a time: what two would do to each other in one folder, the second waits for."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from fn2en_jax import commands
from fn2en_jax.errors import UserError


@contextlib.contextmanager
def only_one(lock: Path, busy: str) -> Iterator[None]:
    """Keeps every other process out of the block, and waits for one that is in it.

    Args:
        lock: a file that is made for it, as its folder is.
        busy: what another process that is in it does, for messages: 'another process prepares JAFFE'.

    Raises:
        UserError: the file cannot be written.
        commands.Stopped: after Ctrl-C or SIGTERM while it waited.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open('w')
    except OSError as error:
        raise UserError(f'{lock.parent}: cannot store data here ({error.strerror or error})') from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                logging.warning('%s; waiting for it', busy)
                fcntl.flock(file, fcntl.LOCK_EX)
            except KeyboardInterrupt:
                raise commands.Stopped(f'{busy}, and this one was waiting for it') from None
        yield
