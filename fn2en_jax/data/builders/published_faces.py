"""A published set, prepared by `data.preparation`, stored once through TFDS, with a report of what it held."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from fn2en_jax.data import preparation
from fn2en_jax.data.builders import schema
from fn2en_jax.data.builders.in_order import InOrderBuilder
from fn2en_jax.data.datasets.counted import counted
from fn2en_jax.data.preparation import Prepared
from fn2en_jax.data.records import Found, Record, printable
from fn2en_jax.errors import UserError


@dataclasses.dataclass(eq=False)
class PublishedConfig(tfds.core.BuilderConfig):
    """Names one set and how its faces are cut: `ckplus-align-256-keep`.

    found, mode, prepared, lists and download are needed only where the set is not stored yet: what its folder holds,
    how faces are cut, per record what `preparation.prepare` yields, the digests of the user's own lists by their names,
    and the state of the folder.
    """

    found: Found | None = dataclasses.field(default=None, repr=False)
    mode: str = dataclasses.field(default='', repr=False)
    prepared: Iterable[tuple[Record, Prepared]] = dataclasses.field(default=(), repr=False)
    lists: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    download: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)


class PublishedFaces(InOrderBuilder):
    """TFDS builder of a published set; `info.metadata` is its report, see `report`, and with it `no_face_kept`,
    how many of the images without a face were stored by their centres, `lists`, the digests of the user's lists, and
    `download`: how many 'files' of the folder counted, their `listing.digest`, and the 'date' of the preparation."""

    VERSION = tfds.core.Version(f'1.{preparation.VERSION}.0')

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description='Faces of a published set, from the files of a licensee.',
            features=schema.features(),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded: the sets need a licence
        return {schema.SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        stored: list[Record] = []
        faults: list[str] = []
        faceless: list[str] = []
        pointless: list[str] = []  # whose points `alignment.cut` passed over
        kept = 0
        for record, face in config.prepared:
            if face.fault:
                faults.append(f'{record.file}: {face.fault}')
            if face.no_face:
                faceless.append(record.file)
                kept += bool(face.encoded)
            if record.points and config.mode == 'align' and not face.fault and face.face != 'points':
                pointless.append(record.file)
            if face.encoded:
                yield len(stored), _example(record, face)
                stored.append(record)
        if not stored:
            raise UserError(_nothing(faults, faceless))
        told = report(config.found, config.mode, stored, faults, faceless)
        told['skipped'] += [
            printable(text) for text in counted(pointless, 'images whose landmarks can be no face in them')
        ]
        self.info.metadata.update(told, no_face_kept=kept, lists=dict(config.lists), download=dict(config.download))

    @property
    def told(self) -> bool:
        return True

    def _create_builder_config(self, builder_config: PublishedConfig, version: str | None) -> PublishedConfig:
        """Every config is made for its set; TFDS would warn that it is not among those of the class."""
        del version
        return builder_config


def report(found: Found, mode: str, stored: list[Record], faults: list[str], faceless: list[str]) -> dict[str, Any]:
    """What a set held, ready for JSON.

    Returns:
        edition; faces (how they were cut: 'align', 'box' or 'none'); expected and stored (numbers by class, or by
        'split/class'); missing, surplus, skipped and damaged (names, with their reasons); no_face (names of images in
        which no face was found).
    """
    return {
        'edition': found.edition,
        'faces': mode,
        'expected': dict(found.expected),
        'stored': count(stored, found.expected),
        'missing': [printable(text) for text in found.missing],
        'surplus': [printable(text) for text in found.surplus],
        'skipped': [printable(text) for text in found.skipped],
        'damaged': [printable(text) for text in faults],
        'no_face': faceless,
    }


def count(records: list[Record], expected: Mapping[str, int]) -> dict[str, int]:
    """Records by class, or by 'split/class' where `expected` is; classes that should be there and are not count 0."""
    by_split = any('/' in key for key in expected)
    numbers = dict.fromkeys(expected, 0)
    for record in records:
        key = f'{record.split}/{record.label}' if by_split else record.label
        numbers[key] = numbers.get(key, 0) + 1
    return dict(sorted(numbers.items()))


def _nothing(faults: list[str], faceless: list[str]) -> str:
    """Why there is nothing to store, and what can be done about it."""
    if faceless and not faults:
        return (
            f'no face was found in any of {len(faceless)} images, the first: {faceless[0]}; take them by their centres '
            'with --no_face=keep, or as they are with --faces=none (--config.data.no_face and .faces of launch.py)'
        )
    dropped = f', {len(faceless)} without a face were dropped' if faceless else ''
    first = f'; the first: {faults[0]}' if faults else ''
    return f'no image can be used of {len(faults) + len(faceless)}{dropped}{first}'


def _example(record: Record, face: Prepared) -> dict[str, Any]:
    return schema.example(
        face.encoded,
        label=record.label,
        file=record.file,
        subject=record.subject,
        split=record.split,
        sequence=record.sequence,
        frame=record.frame,
        folds=record.folds,
        face=face.face,
        box=face.box or schema.UNKNOWN,
        eyes=face.eyes or schema.UNKNOWN,
    )
