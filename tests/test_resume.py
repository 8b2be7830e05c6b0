"""Real runs of `launch.py`, killed, stopped and damaged: what comes out must be what an untouched run gives."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import chex
import numpy as np
import pytest

from fn2en_jax import checkpoint, experiment
from fn2en_jax.stages import Stages, open_sets
from tests import tiny_config

ROOT = Path(__file__).parents[1]
STAGES = ('face_net', 'test/finetune', 'test/stage1', 'test/stage2', 'test/scratch')
PATIENCE = 900  # seconds; a run takes a fraction of this on two idle cores
LAST = dict(zip(STAGES, (8, 16, 16, 16, 16), strict=True))

pytestmark = pytest.mark.timeout(2 * PATIENCE)


class Launcher:
    """Starts the tiny run. All runs share prepared sets and compiled steps, which no result depends on."""

    def __init__(self, shared: Path):
        self._shared = shared
        self.started: list[subprocess.Popen] = []

    def start(self, workdir: Path, *flags: str, method: str = 'all') -> subprocess.Popen:
        # One device; compiling is most of such a run, so it is kept cheap.
        env = {**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0', 'JAX_PLATFORMS': 'cpu'}
        command = [
            sys.executable,
            'launch.py',
            f'--config=tests/tiny_config.py:{method}',
            f'--workdir={workdir}',
            f'--config.data.data_dir={self._shared / "data"}',
            f'--config.compilation_cache={self._shared / "xla"}',
            *flags,
        ]
        number = len(self.started)
        with self._file('errors', number).open('w') as errors, self._file('output', number).open('w') as output:
            self.started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=errors))
        return self.started[-1]

    def _file(self, name: str, number: int) -> Path:
        return self._shared / f'{name}{number}.txt'

    def finish(self, process: subprocess.Popen) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        code, number = process.wait(timeout=PATIENCE), self.started.index(process)
        return code, self._file('output', number).read_text(), self._file('errors', number).read_text()

    def run(self, workdir: Path, *flags: str, method: str = 'all') -> tuple[int, str, str]:
        return self.finish(self.start(workdir, *flags, method=method))


@pytest.fixture(scope='module')
def launcher(tmp_path_factory) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp('shared'))
    yield launcher
    for process in launcher.started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope='module')
def straight(launcher, tmp_path_factory) -> Path:
    """The workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp('straight') / 'run'
    code, output, errors = launcher.run(workdir)
    assert code == 0, errors
    assert 'FN2EN' in output
    assert str(workdir) in output
    return workdir


@pytest.fixture(scope='module')
def templates(launcher, straight) -> dict[str, object]:
    """The shape of every stage's state."""
    config = tiny_config.get_config('all')
    config.data.data_dir = str(launcher._shared / 'data')
    data = open_sets(config)
    (fold,) = experiment.choose_folds(config, experiment.all_folds(config, data))
    stages = Stages(config, data, fold)
    return {name: stages.build(name.split('/')[-1]).template() for name in STAGES}


def final_state(workdir: Path, name: str, template: object) -> object:
    checkpoints = checkpoint.Checkpoints(workdir / name)
    found = checkpoints.newest(template)
    checkpoints.close()
    assert found is not None
    assert found[0] == LAST[name]
    return found[1]


def assert_same(workdir: Path, straight: Path, templates: dict[str, object], names=STAGES) -> None:
    """Every stage's final state, and every figure, to the last bit."""
    for name in names:
        ours, theirs = (final_state(folder, name, templates[name]) for folder in (workdir, straight))
        chex.assert_trees_all_equal_shapes_and_dtypes(ours, theirs)
        chex.assert_trees_all_equal(ours, theirs)
    ours, theirs = (json.loads((folder / 'results.json').read_text()) for folder in (workdir, straight))
    assert ours['class_names'] == theirs['class_names']
    for method, figures in ours['methods'].items():
        assert figures == theirs['methods'][method]


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def half_written(folder: Path) -> list[str]:
    """Saves under way: orbax writes into a folder of such a name and renames it at the end."""
    return [path.name for path in folder.glob('*orbax-checkpoint-tmp*')] if folder.exists() else []


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def freeze_when(process: subprocess.Popen, happens: Callable[[], object], delay: float = 0.0) -> bool:
    """Stops the process (SIGSTOP) `delay` seconds after a moment; False when it ends before.

    Without a delay the moment still lasts when this returns.
    """
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if happens():
            time.sleep(delay)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.02)
            if delay or happens():
                return process.poll() is None
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    assert process.poll() is not None, 'the run hangs'
    return False


def kill_and_go_on(launcher: Launcher, workdir: Path, moments: list[tuple[str, bool, float]]) -> list[list[str]]:
    """Starts a run, kills it at each of the moments, each time starting it again; at last lets it finish.

    moments: (stage, whether during a save, else seconds after a random checkpoint).
    Returns what half-written checkpoints each kill left.
    """
    left = []
    for name, during_save, delay in moments:
        process = launcher.start(workdir)
        folder, before = workdir / name, saved_steps(workdir / name)
        if during_save:
            frozen = freeze_when(process, lambda folder=folder: half_written(folder))
        else:
            frozen = freeze_when(
                process, lambda folder=folder, before=before: set(saved_steps(folder)) - set(before), delay
            )
        assert frozen, f'the run ended before the moment {name}: {launcher.finish(process)}'
        process.kill()
        assert process.wait() == -signal.SIGKILL
        left.append(half_written(folder))
    code, _, errors = launcher.run(workdir)
    assert code == 0, errors
    return left


def random_moments(seed: int, count: int) -> list[tuple[str, bool, float]]:
    """In order of stages; the first, and every second on average, falls into a save."""
    draw = np.random.default_rng(seed)
    names = [STAGES[i] for i in sorted(draw.integers(0, len(STAGES), count))]
    return [(name, not i or bool(draw.random() < 0.5), float(draw.uniform(0.001, 0.2))) for i, name in enumerate(names)]


def check_killed(launcher, straight, templates, workdir, moments) -> None:
    left = kill_and_go_on(launcher, workdir, moments)
    assert all(found for found, (_, during_save, _) in zip(left, moments, strict=True) if during_save)
    assert_same(workdir, straight, templates)
    assert [(row['stage'], row['step']) for row in rows(workdir)] == [
        (row['stage'], row['step']) for row in rows(straight)
    ]
    for name in STAGES:
        assert not half_written(workdir / name)
        assert len(saved_steps(workdir / name)) <= tiny_config.get_config().checkpoint.keep


def test_killed_at_random_moments_and_during_saves_a_run_ends_the_same(launcher, straight, templates, tmp_path):
    moments = [
        ('face_net', True, 0.0),
        ('test/finetune', False, 0.05),
        ('test/stage1', True, 0.0),
        ('test/stage2', False, 0.15),
    ]
    check_killed(launcher, straight, templates, tmp_path / 'run', moments)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(5))
def test_killed_at_more_random_moments(launcher, straight, templates, tmp_path, seed):
    check_killed(launcher, straight, templates, tmp_path / 'run', random_moments(seed, 7))


def test_sigterm_saves_and_the_same_command_goes_on(launcher, straight, templates, tmp_path):
    workdir = tmp_path / 'run'
    process = launcher.start(workdir, method='scratch')
    assert freeze_when(process, lambda: saved_steps(workdir / 'test/scratch'))

    second = launcher.run(workdir, method='scratch')
    assert second[0] == 2
    assert f'error: another run is using the workdir {workdir}' in second[2]

    process.terminate()  # arrives when the process goes on
    process.send_signal(signal.SIGCONT)
    code, _, errors = launcher.finish(process)
    assert code == 143
    (line,) = (line for line in errors.splitlines() if line.startswith('stopped:'))
    step = int(re.search(r'saved at step (\d+) of 16', line).group(1))
    assert 'run the same command' in line
    assert 'Traceback' not in errors
    assert saved_steps(workdir / 'test/scratch')[-1] == step < 16
    assert not (workdir / 'results.json').exists()

    code, output, errors = launcher.run(workdir, method='scratch')
    assert code == 0, errors
    assert f'going on from step {step}' in output
    assert_same(workdir, straight, templates, ['test/scratch'])


def test_a_finished_run_trains_nothing_again_but_mends_what_is_damaged(launcher, straight, templates, tmp_path):
    """Same command, finished workdir: read back; a damaged last checkpoint is trained again from the one before."""
    newest = straight / 'test/stage2/16'
    before = final_state(straight, 'test/stage2', templates['test/stage2'])
    results = json.loads((straight / 'results.json').read_text())
    for path in newest.rglob('*'):
        if path.is_file() and path.parent.name == 'd':
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, output, errors = launcher.run(straight)
    assert code == 0, errors
    assert output.count('finished earlier') == 4
    assert 'test stage2: 16 steps, going on from step 14' in output
    assert 'is damaged, using the one before' in errors
    chex.assert_trees_all_equal(final_state(straight, 'test/stage2', templates['test/stage2']), before)
    again = json.loads((straight / 'results.json').read_text())
    assert again['methods'] == results['methods']


def test_a_workdir_of_another_run_is_refused_and_left_alone(launcher, straight):
    files = {path: path.read_bytes() for path in straight.glob('*.*') if path.is_file()}
    code, _, errors = launcher.run(straight, '--config.stage1.p=1.5', '--config.seed=3', '--config.checkpoint.keep=5')
    assert code == 2
    (line,) = (line for line in errors.splitlines() if line.startswith('error:'))
    assert 'seed (0 there, 3 now)' in line
    assert 'stage1.p (2.0 there, 1.5 now)' in line
    assert 'keep' not in line
    assert 'Traceback' not in errors
    assert {path: path.read_bytes() for path in straight.glob('*.*') if path.is_file()} == files


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(launcher, templates, tmp_path):
    flags = ('--config.scratch.drop_factor=1e30',)  # after two epochs, eight steps
    workdir = tmp_path / 'run'
    code, _, errors = launcher.run(workdir, *flags, method='scratch')
    assert code == 2
    (line,) = (line for line in errors.splitlines() if line.startswith('error:'))
    assert re.search(r'test scratch: .* not finite at.* step \d+', line)
    assert 'Traceback' not in errors
    checkpoints = checkpoint.Checkpoints(workdir / 'test/scratch')
    found = checkpoints.newest(templates['test/scratch'])
    checkpoints.close()
    assert 0 < found[0] <= LAST['test/scratch'] // 2
    chex.assert_tree_all_finite(found[1])
    assert not (workdir / 'results.json').exists()
