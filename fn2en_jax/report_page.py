"""Draws the page of a finished run anew: WORKDIR/report.html, one file that needs nothing else.

    python -m fn2en_jax.report_page --workdir=runs/faces
    python -m fn2en_jax.report_page --workdir=runs/faces --no_faces --output=public.html

A run leaves this page by itself; write it again after fn2en_jax.visualize has made pictures, or without faces. The
licences of CK+ and of most other sets forbid publishing most of their faces: --no_faces leaves out every picture that
shows images of the set. Where the set is not there any more, the page says so and is complete otherwise.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from fn2en_jax import commands
from fn2en_jax.errors import UserError

if TYPE_CHECKING:
    from fn2en_jax.data.examples import Examples

WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a finished run.')
NO_FACES = flags.DEFINE_boolean(
    'no_faces', None, 'Leave out pictures that show images of the set; default: as config.report.faces of the run.'
)
DATA_DIR = flags.DEFINE_string('data_dir', '', 'Where prepared sets are kept now; default: where the run kept them.')
OUTPUT = flags.DEFINE_string('output', '', 'The file to write; default: report.html in the workdir.')


def main() -> None:
    """Writes the page and prints its name."""
    from fn2en_jax import page, workdir

    if not WORKDIR.value:
        raise UserError('--workdir=FOLDER is needed; see --help')
    folder = Path(WORKDIR.value)
    output = Path(OUTPUT.value) if OUTPUT.value else None
    if output:
        workdir.check_replaceable(output)
    config = workdir.read_json(folder / 'config.json')
    faces = config.get('report', {}).get('faces', True) if NO_FACES.value is None else not NO_FACES.value
    wanted = faces and any(folder.glob('*/predictions_*.csv'))
    images, missing = _images(config) if wanted else (None, '')
    try:
        print(f'Report: {page.write(folder, images, faces=faces, missing=missing, output=output)}')
    except OSError as error:
        raise UserError(f'cannot write {output or folder / page.NAME}: {error.strerror}') from error


def _images(config: dict[str, Any]) -> 'tuple[Examples | None, str]':
    """The labelled images of the run; None, and why, where they cannot be had or are others now."""
    from fn2en_jax.stages import open_labelled

    try:
        data = open_labelled(config, DATA_DIR.value)
    except UserError as error:
        return None, str(error)
    if not data.is_of(config.get('data_fingerprint', {})):
        return None, 'the images there now are not those of the run'
    return data.expressions, ''


if __name__ == '__main__':
    sys.exit(commands.run(main, sys.argv, __doc__ or ''))
