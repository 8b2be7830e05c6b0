"""Lists the published sets, prepares one from the folder of its licensee, shows what is in it.

    python -m fn2en_jax.datasets
    python -m fn2en_jax.datasets --prepare=ckplus --manual_dir=/data/CK+
    python -m fn2en_jax.datasets --show=ckplus --output=sheets

Archives are taken as downloaded, or unpacked. Preparing is done once, in parallel, and goes on where it was stopped;
launch.py does it by itself when it is needed.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from fn2en_jax import commands
from fn2en_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from fn2en_jax.data.published import Faces, Place
    from fn2en_jax.data.records import Dataset

PREPARE = flags.DEFINE_string('prepare', '', 'The set to prepare.')
SHOW = flags.DEFINE_string('show', '', 'A prepared set of which to write contact sheets, one PNG per class.')
MANUAL_DIR = flags.DEFINE_string('manual_dir', '', 'Folder of the download.')
DATA_DIR = flags.DEFINE_string('data_dir', '', 'Where prepared sets are kept; default: ~/.cache/fn2en_jax/data.')
FACES = flags.DEFINE_enum(
    'faces', '', ['', 'align', 'box', 'none'], 'How faces are cut out; default: as the set needs.'
)
NO_FACE = flags.DEFINE_enum('no_face', 'keep', ['keep', 'drop'], 'What becomes of images in which no face is found.')
OUTPUT = flags.DEFINE_string('output', '.', 'Folder for the contact sheets.')

PER_SHEET = 48  # images
SIDE = 96  # of an image on a sheet, pixels


def main() -> None:
    """Does what the flags ask for."""
    _check_places()
    if PREPARE.value:
        prepare(PREPARE.value)
    if SHOW.value:
        show(SHOW.value)
    if not PREPARE.value and not SHOW.value:
        print('\n\n'.join(overview()))


def overview() -> list[str]:
    """A paragraph per set: what it is, where to get it, what to put where, whether it is prepared."""
    from fn2en_jax.data import listing, published
    from fn2en_jax.data.datasets import DATASETS

    place = _place()
    unpacked = Path(place.data_dir).expanduser() / 'unpacked'
    names = listing.sample(Path(MANUAL_DIR.value).expanduser(), [unpacked]) if MANUAL_DIR.value else []
    paragraphs = []
    for name, dataset in DATASETS.items():
        ready = ', '.join(faces.flags() for faces in published.all_stored(dataset, place))
        state = f'prepared ({ready})' if ready else 'not prepared'
        folder = f', {_found(dataset, names)} in {MANUAL_DIR.value}' if MANUAL_DIR.value else ''
        paragraphs.append(
            f'{name}: {dataset.title}\n  get it: {dataset.access}\n  put:    {dataset.layout}\n  {state}{folder}'
        )
    return paragraphs


def prepare(name: str) -> 'tfds.core.DatasetBuilder':
    """Prepares a set and prints what was found against what was published.

    Raises:
        UserError: for an unknown set, a wrong folder, one that is not as it was when the set was prepared, a full disk.
        commands.Stopped: after Ctrl-C or SIGTERM; what is finished is kept.
    """
    from fn2en_jax import report
    from fn2en_jax.data import published

    dataset, place, faces = published.find(name), _place(), _faces()
    already = published.stored(dataset, place, faces)
    builder = published.prepare(dataset, place, faces, progress=report.preparing(), on_change=_refuse)
    found = builder.info.metadata
    print('\n'.join(published.report_lines(dataset, found)))
    if verdict := published.verdict(found):
        print(f'{verdict}: see above what differs from the published set')
    print(f'{"was prepared before" if already else "prepared"} in {builder.data_dir}')
    return builder


def show(name: str) -> None:
    """Writes a contact sheet per class; prepares the set, and reports it, where it is not prepared yet.

    Raises:
        UserError: when the set is not prepared and cannot be, or the sheets cannot be written.
    """
    from fn2en_jax.data import contact_sheet, published, store

    dataset, place, faces = published.find(name), _place(), _faces()
    builder = published.prepare(dataset, place, faces) if published.stored(dataset, place, faces) else prepare(name)
    examples = store.load(builder, size=SIDE, channels=3, in_memory_bytes=0)
    folder = Path(OUTPUT.value)
    for label, class_name in enumerate(examples.class_names):
        ids = np.flatnonzero(examples.labels == label)
        ids = ids[np.linspace(0, len(ids) - 1, min(PER_SHEET, len(ids))).astype(int)]
        path = folder / f'{name}_{class_name}.png'
        captions = [Path(examples.files[i]).name for i in ids]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            contact_sheet.save(path, examples.gather(ids), captions)
        except OSError as error:
            raise UserError(f'cannot write {path}: {error.strerror}') from error
        print(path)


def _refuse(change: str) -> None:
    raise UserError(f'nothing was prepared: {change}')


def _faces() -> 'Faces':
    from fn2en_jax.data.published import Faces

    return Faces(FACES.value, NO_FACE.value)


def _place() -> 'Place':
    from fn2en_jax import workdir
    from fn2en_jax.data.published import Place

    return Place(MANUAL_DIR.value, DATA_DIR.value or str(workdir.cache('data')))


def _check_places() -> None:
    """Refuses folders that cannot be meant.

    Raises:
        UserError: the folder of the download is not there, or that for prepared sets is a file.
    """
    if MANUAL_DIR.value and not os.path.isdir(Path(MANUAL_DIR.value).expanduser()):
        raise UserError(f'--manual_dir: {MANUAL_DIR.value}: no such folder')
    data_dir = Path(DATA_DIR.value).expanduser()
    if data_dir.exists() and not data_dir.is_dir():
        raise UserError(f'--data_dir: {DATA_DIR.value}: is a file, not a folder')


def _found(dataset: 'Dataset', names: Sequence[str]) -> str:
    """What of a set is in the folder of the user, by the names in it; nothing is opened."""
    from fn2en_jax.data import archives, published

    if published.is_there(dataset, Path(MANUAL_DIR.value).expanduser(), names):
        return 'found'
    closed = any(archives.is_archive(name) and dataset.wants(name) for name in names)
    return 'archives there, not opened yet,' if closed else 'not found'


if __name__ == '__main__':
    sys.exit(commands.run(main, sys.argv, __doc__ or ''))
