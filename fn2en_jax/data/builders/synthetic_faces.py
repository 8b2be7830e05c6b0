"""SyntheticFaces: rendered faces as a TFDS data set, stored as ArrayRecord without TensorFlow.

builder('identities')    many persons, `per_person` shots each; label = person
builder('expressions')   other persons, few for training and more, never seen, for the test; label =
expression
"""

from __future__ import annotations

import dataclasses
import io
import multiprocessing
import os
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image

from fn2en_jax.data import synthetic, synthetic_persons
from fn2en_jax.data.builders import schema
from fn2en_jax.data.builders.in_order import InOrderBuilder

KINDS = ('identities', 'expressions')
DEFAULTS = {
    'identities': {'persons': 200, 'per_person': 20, 'test_persons': 0, 'test_per_person': 0},
    'expressions': {'persons': 60, 'per_person': 7, 'test_persons': 100, 'test_per_person': 14},
}

# First person number of each part: parts never share a person, whatever their sizes.
FIRST_PERSON = {'identities': 0, 'train': 100_000, 'test': 200_000}
MAX_PERSONS = 100_000

# Below this many pictures a second process costs more than it saves.
PARALLEL_FROM = 600
CHUNK = 50


@dataclasses.dataclass(frozen=True)
class Task:
    """One picture to be drawn."""

    seed: int
    person: int
    shot: int
    expression: str | None
    size: int
    channels: int
    split: str


@dataclasses.dataclass(eq=False)
class SyntheticFacesConfig(tfds.core.BuilderConfig):
    """What to draw. Every field alters the pictures and is part of the name, hence of the folder.

    persons and per_person count the identities or the training part; test_persons and test_per_person the
    test part of 'expressions'. size: side of the square pictures in pixels. channels: 1 or 3. seed: of the
    whole population.
    """

    name: str = dataclasses.field(default='', init=False)
    kind: str = 'expressions'
    persons: int = 0
    per_person: int = 0
    test_persons: int = 0
    test_per_person: int = 0
    size: int = 72
    channels: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'kind must be one of {KINDS}, got {self.kind!r}')
        counts = (self.persons, self.per_person, self.test_persons, self.test_per_person)
        if min(counts) < 0 or max(self.persons, self.test_persons) > MAX_PERSONS or not self.persons * self.per_person:
            raise ValueError(f'persons must be 1 to {MAX_PERSONS} and per_person at least 1, got {counts}')
        if self.kind == 'identities' and (self.test_persons or self.test_per_person):
            raise ValueError('identities have no test part: leave test_persons and test_per_person 0')
        if self.size < 16 or self.channels not in (1, 3) or self.seed < 0:
            raise ValueError(
                f'need size >= 16, channels 1 or 3, seed >= 0, got {self.size}, {self.channels}, {self.seed}'
            )
        test = f'_test_{self.test_persons}x{self.test_per_person}' if self.kind == 'expressions' else ''
        pixels = f'{self.size}px_{self.channels}ch_seed_{self.seed}'
        self.name = f'{self.kind}_{self.persons}x{self.per_person}{test}_{pixels}'

    def tasks(self) -> list[Task]:
        """All pictures of the data set, in their order of storage."""
        if self.kind == 'identities':
            return self._part('identities', '', self.persons, self.per_person)
        train = self._part('train', 'train', self.persons, self.per_person)
        return train + self._part('test', 'test', self.test_persons, self.test_per_person)

    def _part(self, part: str, split: str, persons: int, per_person: int) -> list[Task]:
        """One part: expressions take turns, or are left to chance where persons are the classes."""
        turns = (None,) if self.kind == 'identities' else synthetic_persons.EXPRESSIONS
        tasks = []
        for number in range(persons * per_person):
            who, shot = divmod(number, per_person)
            person, expression = FIRST_PERSON[part] + who, turns[number % len(turns)]
            tasks.append(Task(self.seed, person, shot, expression, self.size, self.channels, split))
        return tasks


class SyntheticFaces(InOrderBuilder):
    """Faces rendered by `fn2en_jax.data.synthetic`; the version rises whenever its pictures change."""

    VERSION = tfds.core.Version('1.1.0')
    BUILDER_CONFIGS: ClassVar = [SyntheticFacesConfig(kind=kind, **DEFAULTS[kind]) for kind in KINDS]
    processes = 0  # that draw; 0 chooses by the size of the set

    def _create_builder_config(self, builder_config: Any, version: str | None) -> Any:
        """Any setting is as good as those of the class; TFDS would warn of it as of a custom one."""
        if isinstance(builder_config, SyntheticFacesConfig):
            return builder_config
        return super()._create_builder_config(builder_config, version)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description='Procedurally rendered faces of imaginary persons with labelled facial expressions.',
            features=schema.features(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {schema.SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        tasks = self.builder_config.tasks()
        for key, (task, encoded) in enumerate(zip(tasks, _drawn(tasks, self.processes), strict=True)):
            name = f'person_{task.person:04d}'
            label = task.expression or name
            file = f'{name}/{task.shot:03d}_{label}.png'
            yield key, schema.example(encoded, label=label, subject=name, file=file, split=task.split)


def draw(task: Task) -> bytes:
    """The PNG of one task."""
    picture = synthetic.render(
        task.seed, task.person, task.shot, task.expression, size=task.size, channels=task.channels
    )
    stream = io.BytesIO()
    Image.fromarray(picture if task.channels == 3 else picture[:, :, 0]).save(stream, format='PNG', compress_level=1)
    return stream.getvalue()


def _drawn(tasks: list[Task], processes: int) -> Iterator[bytes]:
    """PNGs in the order of the tasks; pictures do not depend on the number of processes."""
    processes = processes or (min(2, os.cpu_count() or 1) if len(tasks) >= PARALLEL_FROM else 1)
    if processes == 1:
        yield from map(draw, tasks)
        return
    # Spawned, because a fork of a process that has started JAX's threads may deadlock.
    with multiprocessing.get_context('spawn').Pool(processes) as pool:
        yield from pool.imap(draw, tasks, chunksize=CHUNK)


def builder_config(kind: str, **fields: int) -> SyntheticFacesConfig:
    """The setting of one data set: the defaults of `kind`, overridden. Raises ValueError as `builder`."""
    if kind not in DEFAULTS:
        raise ValueError(f'kind must be one of {KINDS}, got {kind!r}')
    return SyntheticFacesConfig(kind=kind, **{**DEFAULTS[kind], **fields})


def builder(kind: str, *, data_dir: str | pathlib.Path, processes: int = 0, **fields: int) -> SyntheticFaces:
    """The builder of one setting; `fields` override the defaults of `kind` (see SyntheticFacesConfig).

    Call `download_and_prepare()` on it, which draws and writes the set on the first call and does nothing
    afterwards. `processes` that draw: 0 chooses by the size of the set; the pictures do not depend on it.
    More than one are started by spawning, so a script needs its `if __name__ == '__main__'`.
    Raises ValueError for an unknown kind or an impossible setting.
    """
    config = builder_config(kind, **fields)
    # tfds wants a setting that is in BUILDER_CONFIGS by its name, any other as an object.
    known = config.name in SyntheticFaces.builder_configs
    made = SyntheticFaces(
        config=config.name if known else config, data_dir=str(data_dir), file_format=schema.FILE_FORMAT
    )
    made.processes = processes
    return made
