"""How every command-line tool starts and ends: flags, one-line errors, exit codes."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from absl import flags, logging

from fn2en_jax.errors import UserError

OK, BAD_INPUT, TERMINATED = 0, 2, 143  # 143 = 128 + SIGTERM, so that `command && next` does not go on
INTERRUPTED = 130  # 128 + SIGINT
CLOSED_PIPE = 141  # 128 + SIGPIPE: whoever read the output, such as `head`, has seen enough


def run(main: Callable[[], None], argv: Sequence[str], usage: str) -> int:
    """Parses flags, calls `main`, and turns what a user can mend into one line.

    Args:
        main: the tool; reads `absl.flags.FLAGS`.
        argv: the command line with the program's name.
        usage: what `--help` prints above the flags.

    Returns:
        The exit code: 0; 2 after bad input, or when what is printed cannot be written; 143 when stopped by a signal
        with everything saved, or by SIGTERM; 130 when stopped by Ctrl-C; 141 when nobody reads what is printed any
        more.
    """
    try:
        with contextlib.redirect_stdout(_Printed(sys.stdout)):
            code = _outcome(main, argv, usage)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_stdout()
        return CLOSED_PIPE
    except _PrintingFailedError as error:
        _discard_stdout()
        print(f'error: cannot write what is to be printed: {error}', file=sys.stderr)
        return BAD_INPUT


class _PrintingFailedError(Exception):
    """The disk under the standard output is full, or similar; not to be taken for the failure of another file."""


class _Printed:
    """The standard output, whose failures can be told from those of other files."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _PrintingFailedError(error.strerror) from error


def _discard_stdout() -> None:
    """Else Python complains when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _outcome(main: Callable[[], None], argv: Sequence[str], usage: str) -> int:
    if any(arg in ('-h', '--help', '-help') for arg in argv[1:]):
        print(f'{usage.strip()}\n\nFlags:\n{flags.FLAGS.module_help("__main__")}')
        return OK
    try:
        _parse(argv)
        logging.use_absl_handler()
        logging.set_verbosity(logging.WARNING)
        logging.set_stderrthreshold('warning')
        with _signals_as_exceptions():
            main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return BAD_INPUT
    except Stopped as stopped:
        print(f'stopped: {stopped}; {stopped.advice}', file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt as interrupt:
        by_sigterm = isinstance(interrupt, _Terminated)
        print(f'stopped by {"SIGTERM" if by_sigterm else "Ctrl-C"}', file=sys.stderr)
        return TERMINATED if by_sigterm else INTERRUPTED
    return OK


def divide(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is named on a command line (files and folders), and the command line without it, as `run` takes it.

    After `--` everything is a name, whatever it begins with.
    """
    end = argv.index('--') if '--' in argv else len(argv)
    before = argv[1:end]
    named = [*(arg for arg in before if not arg.startswith('-')), *argv[end + 1 :]]
    return named, [argv[0], *(arg for arg in before if arg.startswith('-'))]


class Stopped(Exception):
    """A signal ended the work in good order; `advice` says how it can be finished."""

    def __init__(self, message: object, advice: str = 'run the same command to go on'):
        super().__init__(message)
        self.advice = advice


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a tool as Ctrl-C does: what is half-written is removed."""


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """The first of Ctrl-C and SIGTERM ends the tool; a further one would only disturb its tidying up.

    Training takes both signals over while it lasts, see `experiment`.
    """
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        before = dict.fromkeys(before, signal.SIG_IGN)  # until the process has ended
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parse(argv: Sequence[str]) -> None:
    """Parses `argv` into `FLAGS`.

    Raises:
        UserError: for a missing config file, an unknown key, a value of the wrong type, an unknown flag.
    """
    _check_config_file(argv)
    try:
        rest = flags.FLAGS(list(argv))
    # ml_collections reports an unknown key as AttributeError or KeyError, a wrong value as one of the others.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        lines = str(error.args[0] if error.args else error).strip().split('\n')
        # What a config file itself objects to stands at the end of the traceback that ml_collections quotes.
        text = lines[-1].partition(': ')[2] if 'whilst parsing config file' in lines[0] else lines[0]
        if isinstance(error, (AttributeError, KeyError)):
            text = f'unknown config key {text.strip(chr(34))}'
        raise UserError(f'{text} (see configs/base.py for all keys, --help for all flags)') from error
    if len(rest) > 1:
        raise UserError(f'what is {rest[1]!r} for? Give every value as --flag=value; see --help')
    if 'workdir' in flags.FLAGS:
        _check_path(flags.FLAGS['workdir'].value or '')


def _check_path(path: str) -> None:
    """Checkpoints are kept under names that must be text."""
    if not path.isascii() and any('\udc80' <= character <= '\udcff' for character in path):
        readable = os.fsencode(path).decode('utf-8', 'backslashreplace')
        raise UserError(f'the name of the workdir {readable} is not UTF-8; rename the folder')


def _check_config_file(argv: Sequence[str]) -> None:
    for arg in argv[1:]:
        name, _, value = arg.lstrip('-').partition('=')
        if name == 'config' and value and not Path(value.partition(':')[0]).is_file():
            raise UserError(f'there is no config file {value.partition(":")[0]}; see configs/ for those that exist')
