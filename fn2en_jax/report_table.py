"""Puts finished runs beside the published numbers of their data set.

    python -m fn2en_jax.report_table runs/ckplus
    python -m fn2en_jax.report_table runs/fold0 runs/fold1 runs/fold2 --merge=runs/ckplus
    python -m fn2en_jax.report_table runs/ckplus --format=latex

Workdirs of one experiment, a fold each, are joined: their settings must agree but for the fold. Accuracies are in
percent: mean ± standard deviation over the folds. Where a set keeps validation images beside those that are tested, the
last rows are of these.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from fn2en_jax import commands, literature, plots, results, table_formats, workdir
from fn2en_jax.data.folds import lists
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS

FORMAT = flags.DEFINE_enum('format', 'text', [*table_formats.FORMATS], 'How the table is printed.', allow_override=True)
MERGE = flags.DEFINE_string('merge', '', 'Folder for the joined results of the workdirs.')


def main(folders: Sequence[str]) -> None:
    """Prints the table of the workdirs.

    Raises:
        UserError: for a workdir without results, or workdirs that are not of one experiment.
    """
    if not folders:
        raise UserError('name the workdirs; see --help')
    paths = [Path(folder) for folder in folders]
    config, found = joined(paths)
    folds = joined_folds(paths)
    if absent := missing(folds, found):
        print(f'not judged yet: {", ".join(absent)}', file=sys.stderr)
    if MERGE.value:
        merge(Path(MERGE.value), config, found, folds, paths)
    title, rows = literature.beside_published(config, found)
    print(table_formats.FORMATS[FORMAT.value](title, [literature.COLUMNS, *rows, *literature.on_validation(found)]))


def joined(folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config of the first workdir and the results of all of them.

    Raises:
        UserError: when their settings differ, or two of them judged the same fold.
    """
    configs = [_config(folder) for folder in folders]
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        if keys := workdir.differing(configs[0], config):
            raise UserError(f'{folder} is of another experiment than {folders[0]}: {"; ".join(keys)}')
    runs = [results.read(folder) for folder in folders]
    _check_folds(folders, runs)
    methods: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for run in runs:
        scores = {
            fold: {name: method['folds'][fold] for name, method in run['methods'].items() if fold in method['folds']}
            for fold in {fold for method in run['methods'].values() for fold in method['folds']}
        }
        methods = results.join(scores, methods, run['class_names'])
        seconds.update(run.get('seconds', {}))
    typed = list(dict.fromkeys(command for run in runs for command in run.get('commands', [])))
    return configs[0], {**runs[0], 'methods': methods, 'seconds': seconds, 'commands': typed}


def joined_folds(folders: Sequence[Path]) -> dict[str, Any]:
    """The `folds.json` that all workdirs share.

    Raises:
        UserError: when they do not.
    """
    contents = [_folds(folder) for folder in folders]
    for folder, content in zip(folders[1:], contents[1:], strict=True):
        if lists(content, str(folder)) != lists(contents[0], str(folders[0])):
            raise UserError(f'{folder} has other folds than {folders[0]}; they cannot be joined')
    return contents[0]


def missing(folds: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The folds that no method was judged on ('fold2'), or not every method that is there ('fold1 of fn2en')."""
    there, absent = judged(found), []
    for fold in (fold['name'] for fold in folds['folds']):
        without = [name for name in found['methods'] if (name, fold) not in there]
        absent += [fold] if len(without) == len(found['methods']) else [f'{fold} of {name}' for name in without]
    return absent


def merge(
    folder: Path,
    config: Mapping[str, Any],
    found: Mapping[str, Any],
    folds: Mapping[str, Any],
    parts: Sequence[Path] = (),
) -> None:
    """Writes the joined `results.json`, its table and plots, the folds, the config, and the predictions that the
    workdirs `parts` keep, into a folder.

    Raises:
        UserError: when it cannot be written, is a workdir itself, is of another experiment, or holds more.
    """
    _check_target(folder, parts)
    with workdir.only_run(folder), workdir.disk_errors(folder):
        _check_kept(folder, found)
        workdir.claim(folder, {**config, 'fold': 'all'})
        workdir.write_json(folder / 'folds.json', folds)
        workdir.write_json(folder / 'results.json', found)
        workdir.write_text(folder / 'results.txt', results.table(found['methods'], found['class_names']) + '\n')
        for name, method in found['methods'].items():
            matrix, path = method['confusion_matrix'], folder / f'confusion_{name}.png'
            plots.confusion_matrix(matrix, found['class_names'], results.TITLES[name], path)
        for table in (path for part in parts for path in sorted(part.glob('*/predictions_*.csv'))):
            (folder / table.parent.name).mkdir(exist_ok=True)
            workdir.write_text(folder / table.parent.name / table.name, table.read_bytes().decode())


def _check_target(folder: Path, parts: Sequence[Path]) -> None:
    """Refuses to join into one of the workdirs, or into any folder in which nets were trained."""
    if any(folder.resolve() == part.resolve() for part in parts):
        raise UserError(f'--merge={folder} is one of the workdirs to be joined; name a folder of its own')
    stages = {stage for names in METHODS.values() for stage in names}
    if (folder / 'metrics.jsonl').exists() or any(
        path.name in stages for path in (*folder.glob('*'), *folder.glob('*/*'))
    ):
        raise UserError(f'--merge={folder} is the workdir of a run of its own; name another folder')


def _check_kept(folder: Path, found: Mapping[str, Any]) -> None:
    """Refuses to replace results by others that lack some of their folds."""
    if not (folder / 'results.json').exists():
        return
    lost = judged(results.read(folder)) - judged(found)
    if lost:
        shown = ', '.join(f'{fold} of {name}' for name, fold in sorted(lost)[:5]) + (' ...' if len(lost) > 5 else '')
        raise UserError(
            f'--merge={folder} holds {shown}, which would be lost: '
            'name the workdirs of all folds again, or another folder'
        )


def judged(found: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The (method, fold) pairs that results hold figures of."""
    return {(name, fold) for name, method in found['methods'].items() for fold in method['folds']}


def _config(folder: Path) -> dict[str, Any]:
    """`config.json` of a workdir; raises UserError where it is not there or is none of a run.

    Without the number of bytes of the stored images: machines with other PNG encoders may share an experiment.
    """
    path = folder / 'config.json'
    found = workdir.read_json(path)
    data = found.get('data') if isinstance(found, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get('source'), str):
        raise UserError(f'{path} is damaged (it names no data); the same run writes it again')
    if isinstance(marks := found.get('data_fingerprint'), dict):
        marks.pop('stored_bytes', None)
    return found


def _folds(folder: Path) -> dict[str, Any]:
    """`folds.json` of a workdir; raises UserError where it is not there or lists no folds."""
    path = folder / 'folds.json'
    found = workdir.read_json(path)
    folds = found.get('folds') if isinstance(found, dict) else None
    if not isinstance(folds, list) or not all(isinstance(fold, dict) and 'name' in fold for fold in folds):
        raise UserError(f'{path} is damaged (it lists no folds); the same run writes it again')
    return found


def _check_folds(folders: Sequence[Path], runs: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[tuple[str, str], Path] = {}
    for folder, run in zip(folders, runs, strict=True):
        for name, method in run['methods'].items():
            for fold in method['folds']:
                if (name, fold) in seen:
                    raise UserError(f'{folder} and {seen[name, fold]} both hold {fold} of {name}; name one of them')
                seen[name, fold] = folder


if __name__ == '__main__':
    names, options = commands.divide(sys.argv)
    sys.exit(commands.run(lambda: main(names), options, __doc__ or ''))
