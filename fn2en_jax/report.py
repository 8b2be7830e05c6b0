"""What a run says while it works: rows of metrics, TensorBoard events, progress with an ETA."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from fn2en_jax import workdir

if TYPE_CHECKING:
    import tensorboardX


class Metrics:
    """`metrics.jsonl` and TensorBoard events of a workdir.

    Rows are {'fold', 'stage', 'step', 'epoch', metric: value, ...}.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / 'metrics.jsonl'
        self._writers: dict[str, tensorboardX.SummaryWriter] = {}

    def rewind(self, fold: str, stage: str, step: int) -> None:
        """Forgets the rows and events of a stage after `step`, which a resumed run is about to write again."""
        run = _run(fold, stage)
        if run in self._writers:
            self._writers[run].close()
        self._writers[run] = self._events(run, purge_step=step + 1)
        kept = [row for row in self.rows() if (row['fold'], row['stage']) != (fold, stage) or row['step'] <= step]
        workdir.write_text(self._path, ''.join(json.dumps(row) + '\n' for row in kept))

    def write(self, fold: str, stage: str, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Appends a row and the TensorBoard events for it."""
        row = {'fold': fold, 'stage': stage, 'step': step, 'epoch': round(epoch, 4), **values}
        with self._path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')
        run = _run(fold, stage)
        if run not in self._writers:
            self._writers[run] = self._events(run)
        for name, value in values.items():
            self._writers[run].add_scalar(name, value, step)
        self._writers[run].flush()

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far; the half of a line that a kill may have left at the end is ignored."""
        if not self._path.exists():
            return []
        lines = self._path.read_text(encoding='utf-8').splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith('\n')]

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _events(self, run: str, purge_step: int | None = None) -> 'tensorboardX.SummaryWriter':
        """A new file of TensorBoard events; those from `purge_step` on in older files are no longer shown."""
        import tensorboardX  # takes a second where PyTorch is installed; only training writes events

        # Names end in seconds: without the suffix, a second file of the same second would replace the first.
        folder, suffix = str(self._folder / 'tensorboard' / run), '' if purge_step is None else f'.{purge_step}'
        return tensorboardX.SummaryWriter(folder, purge_step=purge_step, filename_suffix=suffix)


def _run(fold: str, stage: str) -> str:
    return f'{fold}/{stage}' if fold else stage


class Progress:
    """Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere.

    Args:
        title: what is being done.
        begin: units that are done already.
        last: units in all.
        unit: what is counted.
        stream: where it is shown; standard error.
        every_seconds: least time between two plain lines.
        later: seconds of a unit -> seconds of the work that follows this, for the expected time of the whole.
    """

    def __init__(
        self,
        title: str,
        begin: int,
        last: int,
        *,
        unit: str = 'step',
        stream: TextIO | None = None,
        every_seconds: float = 10.0,
        later: Callable[[float], float] = lambda each: 0.0,
    ):
        self._stream = stream or sys.stderr
        self._title, self._last, self._every, self._unit, self._later = title, last, every_seconds, unit, later
        self._printed = -every_seconds
        self._first: tuple[float, int] | None = None
        self._bar = (
            tqdm(total=last, initial=begin, desc=title, unit=unit, file=self._stream, leave=True)
            if self._stream.isatty()
            else None
        )

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Shows that `step` is reached."""
        note = '  '.join(f'{name} {value:.4g}' for name, value in values.items())
        now = time.monotonic()
        eta, whole = self._expected(step, now)
        if self._bar is not None:  # it has an ETA of its own
            self._bar.set_postfix_str(note + whole, refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._printed >= self._every or step == self._last:
            self._printed = now
            count = f'{self._unit} {step}/{self._last}'.strip()
            print(f'{self._title}: {count}  {note}{eta}{whole}', file=self._stream, flush=True)

    def _expected(self, step: int, now: float) -> tuple[str, str]:
        """The time left for this work, and for what follows it as well; '' while there is no rate to tell it by."""
        if self._first is None:
            self._first = now, step  # the time before the first row is mostly compilation: no rate comes from it
        if step == self._first[1]:
            return '', ''
        each = (now - self._first[0]) / (step - self._first[1])
        left, later = each * (self._last - step), self._later(each)
        return f'  ETA {clock(left)}', f'  whole run {clock(left + later)}' if later else ''

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def preparing() -> Callable[[str, int, int], None]:
    """Shows how far some work is, when told its title, how much is done and of how much; its end is shown once."""
    bars: dict[str, Progress] = {}
    finished: set[tuple[str, int]] = set()

    def show(title: str, done: int, total: int) -> None:
        if done == total and (title, total) in finished:
            return
        if title not in bars:
            bars[title] = Progress(title, 0, total, unit='')
        bars[title].update(done, {})
        if done == total:
            bars.pop(title).close()
            finished.add((title, total))

    return show


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f'{hours}:{minute:02d}:{second:02d}' if hours else f'{minute}:{second:02d}'
