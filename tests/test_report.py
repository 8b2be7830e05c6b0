"""Rows of metrics that survive kills and resumes, and progress with an ETA."""

import io
import json

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from fn2en_jax import report


@pytest.fixture
def metrics(tmp_path):
    metrics = report.Metrics(tmp_path)
    yield metrics
    metrics.close()  # closing twice does no harm


def fill(metrics: report.Metrics) -> None:
    for fold in ('fold0', 'fold1'):
        for stage in ('stage1', 'stage2'):
            for step in (5, 10, 15):
                metrics.write(fold, stage, step, step / 4, {'loss': 1 / step})


def test_rows_are_json_lines_and_tensorboard_events(metrics, tmp_path):
    metrics.write('', 'face_net', 5, 1.23456789, {'loss': 0.5, 'accuracy': 0.25})
    metrics.write('fold0', 'stage1', 6, 2.0, {'loss': 0.125})
    metrics.close()
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert json.loads(lines[0]) == {
        'fold': '',
        'stage': 'face_net',
        'step': 5,
        'epoch': 1.2346,
        'loss': 0.5,
        'accuracy': 0.25,
    }
    assert metrics.rows() == [json.loads(line) for line in lines]
    for run in ('face_net', 'fold0/stage1'):
        (events,) = (tmp_path / 'tensorboard' / run).iterdir()
        assert b'loss' in events.read_bytes()


def test_going_on_from_a_step_forgets_only_the_later_rows_of_that_stage(metrics):
    fill(metrics)
    metrics.rewind('fold0', 'stage2', 10)
    steps = {(fold, stage): [] for fold in ('fold0', 'fold1') for stage in ('stage1', 'stage2')}
    for row in metrics.rows():
        steps[row['fold'], row['stage']].append(row['step'])
    assert steps.pop(('fold0', 'stage2')) == [5, 10]
    assert set(map(tuple, steps.values())) == {(5, 10, 15)}


def test_going_on_from_a_step_hides_the_later_events_from_tensorboard(tmp_path):
    """A session that starts at step 11 makes TensorBoard drop what older files hold from there on."""
    for step in (0, 10):  # a run, and the same after a kill
        metrics = report.Metrics(tmp_path)
        metrics.rewind('fold0', 'stage2', step)
        metrics.write('fold0', 'stage2', step + 5, 3.75, {'loss': 0.0})
        metrics.close()
    found = [events(path) for path in (tmp_path / 'tensorboard' / 'fold0' / 'stage2').iterdir()]
    starts = [event.step for file in found for event in file if event.session_log.status == SessionLog.START]
    assert sorted(starts) == [1, 11]


def events(path) -> list[Event]:
    """Of a TFRecord file: length (8 bytes), checksum (4), an event, checksum (4), and again."""
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], 'little')
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_half_a_line_left_by_a_kill_is_ignored_and_written_over(metrics, tmp_path):
    fill(metrics)
    path = tmp_path / 'metrics.jsonl'
    path.write_text(path.read_text()[:-8])
    assert len(metrics.rows()) == 11
    metrics.rewind('fold1', 'stage2', 10)
    metrics.write('fold1', 'stage2', 15, 3.75, {'loss': 0.0})
    assert len(metrics.rows()) == 12
    assert metrics.rows()[-1]['loss'] == 0.0


def test_no_rows_before_the_first(metrics):
    assert metrics.rows() == []


def test_plain_progress_prints_the_steps_and_an_eta_but_not_every_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(report.time, 'monotonic', lambda: now[0])
    stream = io.StringIO()
    progress = report.Progress('[1/3] stage1', 10, 50, stream=stream, every_seconds=10.0)
    for step, seconds in ((15, 5), (20, 14), (30, 20), (40, 25), (50, 26)):
        now[0] = 100.0 + seconds
        progress.update(step, {'loss': 0.123456})
    progress.close()
    assert stream.getvalue().splitlines() == [
        '[1/3] stage1: step 15/50  loss 0.1235',
        '[1/3] stage1: step 30/50  loss 0.1235  ETA 0:20',  # 15 s for 15 steps after the first row, 20 to go
        '[1/3] stage1: step 50/50  loss 0.1235  ETA 0:00',
    ]


def test_with_work_that_follows_the_time_of_the_whole_run_is_told(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(report.time, 'monotonic', lambda: now[0])
    stream = io.StringIO()
    progress = report.Progress('stage1', 0, 40, stream=stream, every_seconds=0.0, later=lambda each: 30 * each)
    for step, seconds in ((10, 50), (20, 70), (40, 110)):
        now[0] = float(seconds)
        progress.update(step, {})
    ends = [line.partition('40  ')[2] for line in stream.getvalue().splitlines()]
    assert ends == ['', '  ETA 0:40  whole run 1:40', '  ETA 0:00  whole run 1:00']  # 2 s a step


def test_the_end_of_prepared_work_is_shown_once(capsys):
    show = report.preparing()
    for done in (5, 9, 9, 9):
        show('unpacking', done, 9)
    show('unpacking', 4, 4)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ['5/9', '9/9', '4/4']


def test_on_a_terminal_it_is_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = report.Progress('stage1', 0, 4, stream=stream)
    progress.update(2, {'loss': 0.5})
    progress.update(4, {'loss': 0.25})
    progress.close()
    last = stream.getvalue().split('\r')[-1]
    assert '100%' in last
    assert '4/4' in last
    assert 'loss 0.25' in last


@pytest.mark.parametrize(
    ('seconds', 'text'), [(0, '0:00'), (59.6, '1:00'), (61, '1:01'), (3599, '59:59'), (3661.2, '1:01:01')]
)
def test_clock(seconds, text):
    assert report.clock(seconds) == text
