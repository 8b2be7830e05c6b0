"""Finds the faces in photographs, folders of them and clips, and says what they express.

    python -m fn2en_jax.predict --workdir=runs/demo photos
    python -m fn2en_jax.predict --net=net.safetensors photos clip.mp4 --output=faces.csv --annotated=seen

One row per face: file, frame, box and eyes in pixels, expression, the probability of every class. A picture without a
face, or one that cannot be read, has a row that says so; the others go on. Folders are read with all that is in them.
Without --output rows are printed; they alone go to standard output, everything else to standard error.
"""

import collections
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from absl import flags

from fn2en_jax import commands
from fn2en_jax.errors import UserError

if TYPE_CHECKING:
    from fn2en_jax.data.pictures import Listing
    from fn2en_jax.predictions import Output
    from fn2en_jax.predictor import Looking, Pace, Predictor, Seen

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a finished run.')
NET = flags.DEFINE_string('net', None, 'File of an exported net (.safetensors), in place of --workdir.')
METHOD = flags.DEFINE_string('method', '', 'fn2en, finetune or scratch; default: the first of these that is there.')
FOLD = flags.DEFINE_string('fold', '', "Which fold's net, where there are several.")
OUTPUT = flags.DEFINE_string('output', None, 'File to write, .csv or .jsonl; it has its name when it is whole.')
ANNOTATED = flags.DEFINE_string('annotated', None, 'Folder for the photographs with box, eyes and expression drawn in.')
CROPPED = flags.DEFINE_bool('cropped', False, 'The pictures are faces already: take their central squares as they are.')
FACES = flags.DEFINE_enum(
    'faces',
    '',
    ['', 'align', 'box'],
    'How faces are cut out; default: as in training, align for a net of cropped faces.',
)
LARGEST = flags.DEFINE_bool('largest', False, 'Only the largest face of every picture, which takes less time.')
CENTRE = flags.DEFINE_bool('centre', False, 'Classify the central square of a picture in which no face is found.')
EVERY = flags.DEFINE_integer('every', 1, 'Of clips, look at every Nth frame.', lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'Faces that the net takes at once.', 1, 4096)
WORKERS = flags.DEFINE_integer('workers', 0, 'Threads that look for faces; 0: one per core.', lower_bound=0)

# OpenCV and FFmpeg write about damaged clips; what there is to say is in the rows.
_QUIET = {'OPENCV_LOG_LEVEL': 'OFF', 'OPENCV_FFMPEG_LOGLEVEL': '-8'}


_TWICE = (
    0.5  # seconds within which two signals are one: `timeout` and some shells send it to a process and to its group
)


def main(named: Sequence[str]) -> None:
    if bool(WORKDIR.value) == bool(NET.value):
        raise UserError('name the net with either --workdir=FOLDER or --net=FILE; see --help')
    if not named:
        raise UserError('name photographs, folders or clips to look at; see --help')
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    from fn2en_jax import annotation, predictions, predictor
    from fn2en_jax.data import pictures

    own = Path(ANNOTATED.value) if ANNOTATED.value else None
    listing = pictures.listed(named, own)
    _keep_apart(listing)
    if OUTPUT.value:
        predictions.check_place(Path(OUTPUT.value))
    if own:
        annotation.check_place(own)
    loaded = predictor.load(WORKDIR.value or NET.value or '', METHOD.value, FOLD.value)
    looking = loaded.looking(cropped=CROPPED.value, faces=FACES.value, largest=LARGEST.value, centre=CENTRE.value)
    print(describe(loaded, looking), file=sys.stderr, flush=True)
    output = predictions.Output(Path(OUTPUT.value), loaded.class_names) if OUTPUT.value else None
    try:
        album = annotation.Album(own) if own else None
        _Work(loaded, looking, listing, output, album).run()
    except commands.Stopped:
        raise
    except BaseException:
        if output:
            output.discard()
        raise


def describe(loaded: 'Predictor', looking: 'Looking') -> str:
    """Which net it is, and what becomes of the pictures."""
    net = loaded.net
    name = f'{net.method} net' + (f' of fold {net.fold}' if net.fold else '')
    ways = {'align': 'aligned by the eyes', 'box': 'cut by their boxes', 'none': 'the central squares of the pictures'}
    lines = [f'{name}: {", ".join(net.class_names)}', f'faces are {ways[looking.faces]}']
    if net.faces == 'none' and looking.faces != 'none':
        lines[1] += '; the net was trained on images that were faces already: --cropped takes such as they are'
    return '\n'.join(lines)


class _Work:
    """One pass over all pictures, and what is counted on the way."""

    def __init__(self, loaded: 'Predictor', looking: 'Looking', listing: 'Listing', output: 'Output | None', album):
        self._loaded, self._looking, self._listing = loaded, looking, listing
        self._output, self._album = output, album
        self._counts: collections.Counter[str] = collections.Counter()
        self._first_problem = ''
        self._pace: Pace | None = None
        self._looked = 0
        self._drawing = 0.0

    def run(self) -> None:
        begin = time.monotonic()
        with _asked_to_stop() as stopping, self._progress() as progress:
            for seen in self._seen(stopping, progress):
                self._take(seen)
        if self._pace and self._pace.cut_short:
            self._stop()
        seconds = time.monotonic() - begin
        if self._output:
            self._output.finish()
        if (count := self._counts['pictures']) == self._counts['unreadable']:
            where = f'; {OUTPUT.value} has the reasons' if self._output else ''
            said = f'none of {_number(count, "picture")} can be read{where}; the first: {self._first_problem}'
            raise UserError(said)
        print(self._summary(seconds), file=sys.stderr)

    def _seen(self, stopping: Callable[[], bool], progress: Callable[['Pace'], None]) -> Iterator['Seen']:
        from fn2en_jax.annotation import LONGEST

        source = (picture for file in self._listing.files for picture in file.pictures(EVERY.value))
        keep = LONGEST if self._album else 0
        options = {'batch_size': BATCH_SIZE.value, 'workers': WORKERS.value, 'keep': keep}
        yield from self._loaded.look(source, self._looking, stop=stopping, progress=progress, **options)

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Callable[['Pace'], None]]:
        """Takes the pace down, and shows it where rows that appear on the terminal are not progress enough."""
        from fn2en_jax.report import Progress

        total = sum(file.count(EVERY.value) for file in self._listing.files)
        shown = self._output or not sys.stdout.isatty()
        progress = Progress('looking', 0, total, unit='picture') if shown else None

        def show(pace: 'Pace') -> None:
            before, self._pace = self._looked, pace
            self._looked = pace.looked
            if progress and before < pace.looked <= total:  # the headers of clips may promise too little
                progress.update(pace.looked, {})

        try:
            yield show
        finally:
            if progress:
                progress.close()

    def _take(self, seen: 'Seen') -> None:
        from fn2en_jax.predictions import NO_FACE

        first = seen.rows[0]
        unreadable = bool(first.problem) and first.problem != NO_FACE
        found = sum(not row.problem and row.cut_by != 'centre' for row in seen.rows)
        self._counts.update(pictures=1, unreadable=int(unreadable), with_face=int(found > 0), faces=found)
        if unreadable and not self._first_problem:
            self._first_problem = first.line()
        for row in seen.rows:
            if self._output:
                self._output.write(row)
            else:
                print(row.line(), flush=True)
        if self._album and seen.image is not None:
            begin = time.monotonic()
            self._album.add(seen.image, seen.rows, seen.scale)
            self._drawing += time.monotonic() - begin

    def _stop(self) -> None:
        done = f'after {_number(self._counts["pictures"], "picture")}'
        if not self._output:
            raise commands.Stopped(done, 'run the same command to begin anew')
        raise commands.Stopped(f'{done}, whose rows are in {self._output.keep()}', 'the same command begins anew')

    def _summary(self, seconds: float) -> str:
        count = self._counts
        readable = count['pictures'] - count['unreadable']
        rate = count['pictures'] / seconds
        lines = [f'{_number(count["pictures"], "picture")} in {seconds:.1f} s: {rate:.1f} per second']
        if self._looking.faces != 'none':
            share = f'{count["with_face"]} of {readable} ({count["with_face"] / readable:.1%})'
            lines.append(f'{_number(count["faces"], "face")}, in {share} of the pictures that can be read')
        lines.append(f'time of all threads: {self._shares()}')
        if count['unreadable']:
            lines.append(f'{count["unreadable"]} cannot be read; the first: {self._first_problem}')
        if self._listing.passed_over:
            lines.append(f'{_number(self._listing.passed_over, "other file")} passed over')
        return '\n'.join(lines)

    def _shares(self) -> str:
        """What the threads did with their time."""
        pace = self._pace
        assert pace is not None
        seconds = {'decoding': pace.decoding, 'faces': pace.finding, 'net': pace.classifying}
        if self._album:
            seconds['drawing'] = self._drawing
        return ', '.join(f'{what} {each / sum(seconds.values()):.0%}' for what, each in seconds.items())


def _number(count: int, what: str) -> str:
    return f'{count} {what}' if count == 1 else f'{count} {what}s'


def _keep_apart(listing: 'Listing') -> None:
    """Refuses to write over what is read."""
    if OUTPUT.value and any(os.path.realpath(file.path) == os.path.realpath(OUTPUT.value) for file in listing.files):
        raise UserError(f'--output={OUTPUT.value} is one of the files to look at; choose another')


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came; a second one acts at once."""
    asked: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        if not asked:
            asked.append(time.monotonic())
            os.write(2, b'stopping after the pictures under way\n')  # print might be interrupted in its own middle
        elif time.monotonic() - asked[0] > _TWICE:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    before = {int(number): signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == '__main__':
    places, rest = commands.divide(sys.argv)
    sys.exit(commands.run(lambda: main(places), rest, __doc__ or ''))
