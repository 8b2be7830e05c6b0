"""How a tool ends when it is stopped: one line, an exit code of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fn2en_jax import commands

ROOT = Path(__file__).parents[1]
WAITING = """
import sys, time
from fn2en_jax import commands

def main():
    try:
        print('begun', flush=True)
        time.sleep(60)
    finally:
        print('tidied up', flush=True)

sys.exit(commands.run(main, ['tool'], ''))
"""


@pytest.mark.parametrize(
    ('number', 'code', 'told'),
    [(signal.SIGINT, 130, 'stopped by Ctrl-C\n'), (signal.SIGTERM, 143, 'stopped by SIGTERM\n')],
    ids=['ctrl-c', 'sigterm'],
)
def test_a_stopped_tool_says_so_in_one_line(number, code, told):
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, '-c', WAITING], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == 'begun\n'
    os.kill(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (code, 'tidied up\n', told)


TIDYING = """
import atexit, sys, time
from fn2en_jax import commands

def tidy():
    print('leaving', flush=True)
    time.sleep(0.5)
    print('left', flush=True)

def main():
    try:
        print('begun', flush=True)
        time.sleep(60)
    except KeyboardInterrupt as interrupt:
        print('tidying up', flush=True)
        time.sleep(0.5)
        if 'kept' in sys.argv[1]:
            raise commands.Stopped('all is kept') from interrupt
        raise

atexit.register(tidy)
sys.exit(commands.run(main, ['tool'], ''))
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ('kept', 'told'), [('', 'stopped by '), ('kept', 'stopped: all is kept; run the same command to go on')]
)
def test_further_signals_do_not_disturb_the_end(number, kept, told):
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, '-c', TIDYING, kept], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    for line in ('begun\n', 'tidying up\n', 'leaving\n'):
        assert process.stdout.readline() == line
        os.kill(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130 if (kept, number) == ('', signal.SIGINT) else 143, 'left\n')
    assert (errors.startswith(told), errors.count('\n')) == (True, 1)


TALKING = """
import sys
from fn2en_jax import commands

def main():
    for _ in range(int(sys.argv[1])):
        print('a line')

sys.exit(commands.run(main, ['tool', *sys.argv[2:]], 'usage ' * 100_000))
"""


def talk(stdout, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, '-c', TALKING, *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False)


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs /dev/full')
@pytest.mark.parametrize('arguments', [('1',), ('100000',), ('0', '--help')])
def test_a_full_disk_under_the_output_is_one_line(arguments):
    with Path('/dev/full').open('w') as full:
        done = talk(full, *arguments)
    assert (done.returncode, done.stderr) == (
        2,
        'error: cannot write what is to be printed: No space left on device\n',
    )


@pytest.mark.parametrize('arguments', [('100000',), ('0', '--help')])
def test_a_reader_who_has_seen_enough_is_no_failure(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, 'w') as pipe:
        done = talk(pipe, *arguments)
    assert (done.returncode, done.stderr) == (141, '')


def test_other_failures_of_the_disk_are_not_called_so():
    def main():
        raise FileNotFoundError(2, 'No such file', 'x')

    with pytest.raises(FileNotFoundError):
        commands.run(main, ['tool'], '')


def test_after_two_dashes_everything_is_a_name():
    line = ['tool', 'a.jpg', '--flag=1', '--', '-dash.jpg', '--flag=2', '--']
    assert commands.divide(line) == (['a.jpg', '-dash.jpg', '--flag=2', '--'], ['tool', '--flag=1'])
    assert commands.divide(['tool', '-x', 'a']) == (['a'], ['tool', '-x'])


def test_a_workdir_whose_name_is_no_text_is_refused_by_name():
    code = (
        'import sys\nfrom absl import flags\nfrom fn2en_jax import commands\n'
        'flags.DEFINE_string("workdir", None, "")\nsys.exit(commands.run(lambda: None, sys.argv, ""))'
    )
    command = [sys.executable, '-c', code, b'--workdir=d\xffmo']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        'error: the name of the workdir d\\xffmo is not UTF-8; rename the folder\n',
    )
