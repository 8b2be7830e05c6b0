"""The times in the headers of the configs: from operations, and from operations a second."""

import re

import numpy as np
import pytest

from benchmarks import compiled_loop, expected_time
from fn2en_jax import plan
from tests import tiny_config


def test_the_published_rate_is_that_of_vgg16():
    """15.47 G multiply-adds forward, three times for training, 154 images a second."""
    assert expected_time.published_rate() == pytest.approx(154 * 3 * 2 * 15.47e9, rel=0.01)


def test_times_are_operations_over_a_rate_that_equal_stages_share():
    asked = []

    def rate(config, stages, name):
        asked.append((config.data.source, name))
        return 1e12 if name == 'stage1' else 1e11

    rows = {row.config: row for row in expected_time.expect(['sfew', 'ckplus', 'tfd'], rate)}
    assert asked == [(source, name) for source in ('sfew', 'tfd') for name in expected_time.TRAINED]
    ckplus, sfew = rows['ckplus'], rows['sfew']
    assert ckplus.seconds == {
        name: pytest.approx(work / (1e12 if name == 'stage1' else 1e11)) for name, work in ckplus.operations.items()
    }
    fold = sum(ckplus.seconds[name] for name in ('finetune', 'stage1', 'stage2'))
    assert ckplus.fn2en_seconds == pytest.approx(10 * fold)
    # 18 steps an epoch against 14, of the same batch; one class more or less is nothing.
    assert ckplus.operations['scratch'] / sfew.operations['scratch'] == pytest.approx(18 / 14, rel=1e-4)


@pytest.fixture(scope='module')
def tiny():
    config = tiny_config.get_config('all')
    config.data.source, config.data.classes = 'ckplus', 6
    return config, expected_time.build(config, 24)


@pytest.mark.parametrize('name', ['stage1', 'scratch'])
def test_a_measured_rate_is_the_operations_of_a_step_over_its_seconds(tiny, name, monkeypatch):
    measured = {}

    def measure(runners, repeats):
        (run,) = runners.values()
        run(3)  # the steps themselves: a loss that is not finite, or a wrong shape, would end here
        measured.update(runners)
        return {name: np.array([4.0, 0.5, 0.25])}

    monkeypatch.setattr(compiled_loop, 'measure', measure)
    config, stages = tiny
    stage = stages.build(name)
    step = plan.estimate(stage, stages.image_shape).flops / stage.last_step
    assert expected_time.measured_rate(config, stages, name, repeats=3) == pytest.approx(step / 0.5)
    assert list(measured) == [name]


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.34, '0.34 s'), (81.3, '81 s'), (373, '6.2 min'), (3000, '50 min'), (17000, '4.7 h'), (4e5, '4.6 days')],
)
def test_times_have_two_digits(seconds, text):
    assert expected_time.about(seconds) == text


def test_the_measurement_warms_up_and_fills_its_time(monkeypatch):
    now, made = [0.0], []

    def run(steps):
        made.append(steps)
        now[0] += 0.01 * steps

    monkeypatch.setattr(compiled_loop.time, 'perf_counter', lambda: now[0])
    (times,) = compiled_loop.measure({'ours': run}, repeats=2).values()
    assert made == [1, 1, 50, 50]
    np.testing.assert_allclose(times, 0.01)


def test_unknown_configs_are_refused(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['expected_time.py', '--configs=ckplus,nothing'])
    with pytest.raises(SystemExit):
        expected_time.main()
    assert re.search(r'error: unknown config nothing; choose from affectnet, ckplus', capsys.readouterr().err)
