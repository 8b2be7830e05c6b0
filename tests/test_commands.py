"""How a tool ends when it is stopped: one line, an exit code of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
