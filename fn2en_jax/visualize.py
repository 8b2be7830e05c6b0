"""What the neurons of a finished run learned: the fine-tuned face net and FN2EN side by side.

    python -m fn2en_jax.visualize --workdir=runs/demo
    python -m fn2en_jax.visualize --workdir=runs/faces --fold=fold0 --no_faces
    python -m fn2en_jax.visualize --workdir=runs/demo --neurons=fc7:12,hidden:5 --config.visualize.ascent.steps=800

Writes pictures into WORKDIR/visualize: the images that excite hidden neurons most, the input that maximises every class
neuron, Grad-CAM, stage 1 beside its teacher, and what linear probes read of expression and identity from every layer
(probe.json, probe.csv, probe.md). facts.json holds notes and seconds. index.json lists the pictures with titles,
captions, alternative texts, and whether images of the data set can be seen in them: the licences of most sets forbid
publishing those, so --no_faces leaves all such pictures out, and removes those that an earlier run of this tool left
there.

All images shown and probed are test images of the fold: neither net saw them, or their persons, in training.
"""

import csv
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from configs import base
from fn2en_jax import commands, workdir
from fn2en_jax.errors import UserError

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a finished run.')
OUTPUT = flags.DEFINE_string('output', None, 'Folder for the pictures; default: WORKDIR/visualize.')
FOLD = flags.DEFINE_string('fold', '', "Which fold's nets, where there are several.")
NO_FACES = flags.DEFINE_bool('no_faces', False, 'Leave out every picture in which images of the data set can be seen.')
TRUST = flags.DEFINE_bool(
    'trust_data', False, 'Take data that differ from those of the run, by its record, as the same.'
)
NEURONS = flags.DEFINE_list('neurons', [], 'Hidden neurons to show, LAYER:INDEX; default: one for every expression.')
CONFIG = config_flags.DEFINE_config_dict(
    'config', base.get_config(), 'Another value for config.visualize.KEY, or for where the data lie (config.data.KEY).'
)

INDEX, FACTS = 'index.json', 'facts.json'
TABLES = ('probe.json', 'probe.csv', 'probe.md')


def main() -> None:
    """Opens the run, makes everything in a folder beside the output, and moves it there at the end."""
    if not WORKDIR.value:
        raise UserError('--workdir=FOLDER is needed; see --help')
    named = _neurons(NEURONS.value)
    from fn2en_jax.exhibits import Exhibits
    from fn2en_jax.finished import TITLES, Net, reopen

    began = time.monotonic()
    changes = config_flags.get_override_values(flags.FLAGS['config'])
    run = reopen(WORKDIR.value, fold=FOLD.value, changes=changes, trust_data=TRUST.value)
    found = {key: run.net(stage) for key, stage in STAGES.items()}
    nets = {key: Net.of(key, net) for key, net in found.items() if net is not None}
    shown = [key for key in nets if key in ('finetune', 'fn2en')] or ['scratch']
    output = Path(OUTPUT.value or Path(WORKDIR.value) / 'visualize')
    print(
        f'fold {run.fold.name}: {len(run.fold.test)} test images; {", ".join(TITLES[key] for key in nets)}', flush=True
    )
    exhibits = Exhibits(run, nets, shown, named, with_faces=not NO_FACES.value)
    with workdir.disk_errors(output), _room(output) as room:
        making = Making(Path(room), began)
        making.pictures('hidden neurons', exhibits.hidden_neurons())
        making.pictures('class neurons', exhibits.class_neurons())
        making.pictures('Grad-CAM', exhibits.evidence())
        making.pictures('stage 1', exhibits.regression())
        making.probes(run, nets)
        making.finish(
            output, {'fold': run.fold.name, 'nets': list(nets), 'class_names': list(run.data.expressions.class_names)}
        )
    print(f'{len(making.listed)} pictures are in {output}, listed in {INDEX}')


STAGES = {'face_net': 'face_net', 'finetune': 'finetune', 'fn2en': 'stage2', 'scratch': 'scratch'}


class Making:
    """Pictures and tables under way, in a room of their own.

    Attributes:
        listed: what `index.json` will say of every picture.
    """

    def __init__(self, room: Path, began: float):
        self._room, self._last = room, began
        self._seconds: dict[str, float] = {}
        self._notes: list[str] = []
        self.listed: list[dict[str, Any]] = []

    def pictures(self, part: str, made: Any) -> None:
        """Draws what a part of the exhibits yields, and says how long that took."""
        for picture in made:
            picture.draw(self._room / picture.file)
            facts = ('file', 'title', 'caption', 'alt', 'shows_data')
            self.listed.append({name: getattr(picture, name) for name in facts})
        self._clock(part)

    def probes(self, run: Any, nets: Any) -> None:
        """Probes all nets; writes tables and the plot."""
        from fn2en_jax import probing

        found = probing.probes(run, nets, self._note)
        if found:
            rows = probing.rows(found)
            workdir.write_json(self._room / 'probe.json', found)
            workdir.write_text(self._room / 'probe.csv', _csv(rows))
            workdir.write_text(self._room / 'probe.md', _markdown(rows) + f'\n\n{found["protocol"]}\n')
            print(f'\n{_markdown(rows)}\n')
            self.pictures('linear probes', [probing.picture(found)])

    def finish(self, output: Path, facts: dict[str, Any]) -> None:
        """Moves everything to the output, its index last, and removes what only an earlier index lists."""
        output.mkdir(parents=True, exist_ok=True)
        workdir.write_json(self._room / FACTS, {**facts, 'notes': self._notes, 'seconds': self._seconds})
        made = {path.name for path in self._room.iterdir()}
        earlier = _listed(output / INDEX)
        (output / INDEX).unlink(missing_ok=True)
        for name in sorted(earlier - made):
            (output / name).unlink(missing_ok=True)
        for name in sorted(made):
            os.replace(self._room / name, output / name)
        workdir.write_json(output / INDEX, self.listed)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        print(text, flush=True)

    def _clock(self, part: str) -> None:
        now = time.monotonic()
        self._seconds[part] = round(now - self._last, 1)
        self._last = now
        print(f'{part}: {self._seconds[part]:.1f} s', flush=True)


def _room(output: Path) -> tempfile.TemporaryDirectory:
    """A folder beside the output, on the same disk, so that finished files can be moved in one step each."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.exists() and not output.is_dir():
            raise UserError(f'--output={output} is a file; name a folder')
        return tempfile.TemporaryDirectory(dir=output.parent, prefix=f'.{output.name}.')
    except OSError as error:
        raise UserError(f'cannot write {output}: {error.strerror}; choose another --output') from error


def _listed(index: Path) -> set[str]:
    """The names of the files that came with an earlier index, if it is one of ours; else none."""
    try:
        names = {picture['file'] for picture in json.loads(index.read_text(encoding='utf-8'))}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    pictures = {name for name in names if isinstance(name, str) and name == Path(name).name and name.endswith('.png')}
    return pictures | {*TABLES} if names else set()


def _neurons(texts: Sequence[str]) -> dict[str, list[int]]:
    """{layer: indices} of LAYER:INDEX."""
    found: dict[str, list[int]] = {}
    for text in texts:
        layer, colon, index = text.partition(':')
        if not (layer and colon and index.isascii() and index.isdigit()):
            raise UserError(f'--neurons={text} is not LAYER:INDEX, such as fc7:12')
        found.setdefault(layer, []).append(int(index))
    return found


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f'| {" | ".join(row)} |' for row in rows]
    return '\n'.join([lines[0], f'|{"---|" * len(rows[0])}', *lines[1:]])


if __name__ == '__main__':
    sys.exit(commands.run(main, sys.argv, __doc__ or ''))
