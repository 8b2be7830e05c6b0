"""One run: opens the data, trains the stages of every fold in order, evaluates, writes the results.

A run is a list of stages under one engine. Each stage has its own checkpoints in WORKDIR/<fold>/<stage>; a finished
stage is read back, an unfinished one goes on, so the same command continues a run wherever it stopped.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from fn2en_jax import (
    checkpoint,
    config_checks,
    engine,
    machine,
    metrics,
    page,
    parallel,
    plots,
    prediction_table,
    report,
    results,
    workdir,
)
from fn2en_jax.data import batches, folds
from fn2en_jax.data.datasets import DATASETS
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.sources import Data
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.methods.base import NetState
from fn2en_jax.plan import describe, estimate, parameter_table
from fn2en_jax.stages import FACE_NET, Stage, Stages, augmentation, open_sets, stage_names
from fn2en_jax.weights import files


def run(config: ml_collections.ConfigDict, folder: str, mode: str = 'train', *, command: str = '') -> dict[str, Any]:
    """Does what `launch.py` was asked for.

    Args:
        config: see `configs/base.py`.
        folder: the workdir.
        mode: 'train', or 'plan': check everything, say what would happen, train nothing.
        command: what the user typed, for the record.

    Returns:
        What `results.json` holds ({} for 'plan').

    Raises:
        UserError: for whatever the user can mend.
        engine.Interrupted: after SIGTERM or Ctrl-C, when the state is saved.
    """
    config_checks.check(config)
    parallel.keep_compiled(config.compilation_cache)
    data = open_sets(config)
    every = all_folds(config, data)
    chosen = choose_folds(config, every)
    first = Stages(config, data, chosen[0])
    stages = [first.build(name) for name in first.names()]
    first.check_weights()
    costs = {stage.name: estimate(stage, first.image_shape) for stage in stages}
    print(describe(stages, costs, chosen, data.expressions), flush=True)
    path = Path(folder)
    with workdir.only_run(path), workdir.disk_errors(path):
        settings = {**config_checks.plain(config), 'data_fingerprint': _fingerprint(config, data)}
        workdir.check(path, settings)
        kept = _kept_folds(path, every, data)
        workdir.claim(path, settings)
        earlier = _earlier(path, data)
        if not (kept and config.fold == 'none'):  # the nets and results there are of the folds there
            workdir.write_json(path / 'folds.json', folds.to_json(every, data.expressions))
        tables = (f'{stage.name}\n{parameter_table(stage)}\n' for stage in stages)
        workdir.write_text(path / 'parameters.txt', '\n'.join(tables))
        if data.found:
            workdir.write_text(path / 'dataset.txt', '\n'.join(data.found) + '\n')
        if mode == 'plan':
            return {}
        work = {name: cost.flops for name, cost in costs.items()}
        return Run(config, path, data, chosen, work).results(earlier, command)


def all_folds(config: ml_collections.ConfigDict, data: Data) -> tuple[folds.Fold, ...]:
    """Every fold of the set; for `config.fold` 'none' the one that trains on everything."""
    if config.fold == 'none':
        return (folds.all_data(data.expressions),)
    if config.data.folds_file:
        if config.data.fold_rule or config.data.fold_subjects != 'all':
            raise UserError('config.data.folds_file excludes config.data.fold_rule and config.data.fold_subjects')
        return folds.read_json(config.data.folds_file, data.expressions)
    published = config.data.source in DATASETS
    return folds.make_folds(data.expressions, num_folds=config.data.num_folds, seed=config.seed, published=published)


def choose_folds(config: ml_collections.ConfigDict, every: tuple[folds.Fold, ...]) -> tuple[folds.Fold, ...]:
    """Those that `config.fold` asks for.

    Raises:
        UserError: when there is no such fold.
    """
    if config.fold in ('all', 'none'):
        return every
    named = [fold for fold in every if config.fold in (fold.name, fold.name.removeprefix('fold'))]
    if not named:
        raise UserError(
            f'config.fold is {config.fold!r}; choose all, none, or one of {", ".join(fold.name for fold in every)}'
        )
    return tuple(named)


def _kept_folds(folder: Path, every: Sequence[folds.Fold], data: Data) -> dict[str, folds.Lists]:
    """The folds that nets in the workdir were trained in, as `folds.lists` gives them; {} where there are none.

    Raises:
        UserError: when the run has others: a net there might be judged on what it was trained on.
    """
    path, stages = folder / 'folds.json', {stage for stages in METHODS.values() for stage in stages}
    begun = (folder / 'results.json').exists() or any(place.name in stages for place in folder.glob('*/*'))
    kept = folds.lists(workdir.read_json(path), str(path)) if begun and path.exists() else {}
    now = folds.lists(folds.to_json(every, data.expressions), 'folds')
    if kept and now and kept != now:
        raise UserError(
            f'the workdir {folder} was begun with other folds, those of its folds.json; '
            'use another --workdir, or the same folds to go on with that run (another version may deal others)'
        )
    return kept


def _earlier(folder: Path, data: Data) -> dict[str, Any]:
    """The `results.json` of earlier runs in the workdir, {} where there is none.

    Raises:
        UserError: when it is damaged, or is not of this data.
    """
    path = folder / 'results.json'
    found = workdir.read_json(path) if path.exists() else {}
    if found and found.get('class_names') != list(data.expressions.class_names):
        raise UserError(f'{path} is not of this run: its classes are others; move it away, or use another --workdir')
    if found:
        results.check(found, path)
    return found


def _fingerprint(config: ml_collections.ConfigDict, data: Data) -> dict[str, str]:
    """Of everything a run reads, '' for what it does not: a workdir must not go on with other pictures or weights."""
    weights = config.face_net.weights if 'finetune' in stage_names(config) else ''
    return {**data.fingerprint, 'face_net_weights': files.sha256(weights) if weights else ''}


class Run:
    """Training and evaluation of the chosen folds in one workdir.

    Args:
        config: of the run.
        folder: the workdir.
        data: of the run.
        chosen: the folds.
        work: floating-point operations of every stage of a fold, by its name; they only serve the expected time.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        folder: Path,
        data: Data,
        chosen: tuple[folds.Fold, ...],
        work: Mapping[str, float],
    ):
        self._config, self._folder, self._data, self._folds = config, folder, data, chosen
        self._metrics = report.Metrics(folder)
        self._seconds: dict[str, float] = {}
        self._nets: dict[tuple[str, str], NetState] = {}
        self._stopping = False
        self._made = 0
        each = [name for name in work if name != FACE_NET]
        self._queue = [('', FACE_NET)] * (FACE_NET in work) + [(fold.name, name) for fold in chosen for name in each]
        self._finished: set[str] = set()  # stages of earlier runs in the workdir
        self._work = dict(work)
        self._seconds_per_flop: dict[str, float] = {}  # seconds of an operation in the stages trained by this process

    def results(self, earlier: Mapping[str, Any], command: str = '') -> dict[str, Any]:
        """Trains what is not trained yet and writes `results.json`, tables, plots and the page.

        earlier: what `results.json` held before, {} for nothing.
        command: what the user typed, '' where nobody typed anything.
        """
        self._finished = set(earlier.get('seconds', {}))
        with self._signals():
            scores = {fold.name: self._fold(fold) for fold in self._folds}
        names = self._data.expressions.class_names
        found = {
            'class_names': list(names),
            'methods': results.join(scores, earlier.get('methods', {}), names),
            'seconds': {**earlier.get('seconds', {}), **self._seconds},
            'seed': self._config.seed,
            'versions': machine.versions(),
            'commands': list(dict.fromkeys(filter(None, (*earlier.get('commands', []), command)))),
        }
        self._write(found)
        self._metrics.close()
        return found

    def _write(self, found: dict[str, Any]) -> None:
        workdir.write_json(self._folder / 'results.json', found)  # first: whatever fails below, it is not lost
        plots.learning_curves(self._metrics.rows(), self._folder / 'learning_curves.png')
        for name, method in found['methods'].items():
            plots.confusion_matrix(
                method['confusion_matrix'],
                found['class_names'],
                results.TITLES[name],
                self._folder / f'confusion_{name}.png',
            )
        if self._config.fold == 'none':
            print('\nTrained on everything (config.fold=none): there is nothing left to test on.')
        if found['methods']:
            text = results.table(found['methods'], found['class_names'])
            workdir.write_text(self._folder / 'results.txt', text + '\n')
            print(f'\n{text}\n')
        print(f'Results, plots and learning curves are in {self._folder}')
        shown = self._data.expressions if self._config.report.faces else None
        print(f'Report: {page.write(self._folder, shown, faces=self._config.report.faces)}')

    # One fold.

    def _fold(self, fold: folds.Fold) -> dict[str, dict[str, Any]]:
        """The figures of each method on this fold's test images; {} where nothing is tested."""
        stages = Stages(self._config, self._data, fold)
        for name in stages.names():
            self._net(stages, fold, name)
        if not len(fold.test):
            return {}
        # A run of FN2EN also judges its own teacher, which is the fine-tuned baseline.
        judged = {METHODS[method][-1]: method for method in METHODS if METHODS[method][-1] in stages.names()}
        scores = {method: self._judge(stages, fold, name, method) for name, method in judged.items()}
        self._nets = {key: net for key, net in self._nets.items() if key[1] == FACE_NET}
        return scores

    def _judge(self, stages: Stages, fold: folds.Fold, name: str, method: str) -> dict[str, Any]:
        stage = stages.build(name)
        state = parallel.replicate(self._net(stages, fold, name))
        frozen = stage.frozen(lambda earlier: self._net(stages, fold, earlier))

        def logits(images: Examples) -> np.ndarray:
            return self._evaluate(stage, images, state, frozen)['logits']

        test, watched = (self._data.expressions.take(ids) for ids in (fold.test, fold.validation))
        said = logits(test)
        place = page.predictions(self._folder, fold.name, method)
        prediction_table.write(place, test.files, test.labels, said, test.class_names)
        return {
            **_figures(said, test),
            **({'validation': _figures(logits(watched), watched)} if len(watched) else {}),
        }

    # One stage.

    def _net(self, stages: Stages, fold: folds.Fold, name: str) -> NetState:
        """The trained net of a stage: trained now if need be, else read back; earlier stages likewise."""
        key = ('' if name == FACE_NET else fold.name, name)
        if key not in self._nets:
            stage = stages.build(name)
            self._nets[key] = self._train(stage, lambda earlier: self._net(stages, fold, earlier))
        return self._nets[key]

    def _train(self, stage: Stage, nets: Any) -> NetState:
        config = self._config
        self._made += 1
        title = f'[{self._made}/{len(self._queue)}] {stage.title}'
        place = self._folder / stage.fold / stage.name
        checkpoints = checkpoint.Checkpoints(place, keep=config.checkpoint.keep)
        try:
            found = checkpoints.newest(stage.template())
            if found and found[0] == stage.last_step:
                print(f'{title}: finished earlier', flush=True)
                state, seconds = found[1], found[2]['seconds']
            else:
                state, seconds = self._fit(stage, title, nets, checkpoints, found)
                self._seconds_per_flop[stage.name] = seconds / self._work[stage.name]
        finally:
            checkpoints.close()
        self._seconds[_place(stage.fold, stage.name)] = round(seconds, 2)
        return state

    def _fit(self, stage: Stage, title: str, nets: Any, checkpoints: Any, found: Any) -> tuple[NetState, float]:
        config, begin = self._config, found[0] if found else 0
        if self._stopping:  # asked between two stages: compiling the next one would only cost the time left
            raise engine.Interrupted(f'stopped before {stage.title}')
        frozen = stage.frozen(nets)
        key = stage.key(config.seed)
        print(f'{title}: {stage.last_step} steps' + (f', going on from step {begin}' if begin else ''), flush=True)
        self._metrics.rewind(stage.fold, stage.name, begin)
        progress = report.Progress(title, begin, stage.last_step, later=self._later(stage))
        pending: dict[str, float] = {}

        def row(step: int, values: dict[str, float]) -> None:
            progress.update(step, values)
            pending.update(values)
            if not (stage.watched and self._eval_due(stage, step)):
                flush(step)

        def evaluate(step: int, state: Any) -> None:
            if stage.watched is not None:
                pending.update(self._curve_point(stage, stage.watched, state, frozen))
                flush(step)

        def flush(step: int) -> None:
            self._metrics.write(stage.fold, stage.name, step, step / stage.steps_per_epoch, pending)
            pending.clear()

        hooks = engine.Hooks(row, evaluate, lambda: self._stopping)
        try:
            return engine.fit(
                stage.method,
                lambda: stage.initial(config.seed, nets),
                frozen,
                self._feed(stage, key),
                found=found,
                key=key,
                pace=self._pace(stage),
                checkpoints=checkpoints,
                hooks=hooks,
                facts=self._facts(stage),
            )
        except engine.NonFiniteLoss as error:
            raise UserError(
                f'{stage.title}: training met a {error}; the last good checkpoint is kept. '
                'Lower the learning rate of this stage, or clip its gradients (clip_norm)'
            ) from error
        finally:
            progress.close()

    def _later(self, stage: Stage) -> Callable[[float], float]:
        """Seconds of a step of this stage -> seconds of the stages after it: at their own pace where it is known."""
        ahead = [name for fold, name in self._queue[self._made :] if _place(fold, name) not in self._finished]

        def seconds(step: float) -> float:
            here = step * stage.last_step / self._work[stage.name]
            return sum(self._work[name] * self._seconds_per_flop.get(name, here) for name in ahead)

        return seconds

    def _facts(self, stage: Stage) -> dict[str, Any]:
        """What a checkpoint must say for its net to be used without this run."""
        data = self._config.data
        preprocessing = {key: data[key] for key in ('stored_size', 'crop_size', 'channels', 'no_face')}
        preprocessing['faces'] = self._data.faces
        names = list(stage.train.class_names)
        return {'class_names': names, 'preprocessing': preprocessing, 'last_step': stage.last_step}

    def _pace(self, stage: Stage) -> engine.Pace:
        log_every = max(1, round(stage.last_step / self._config.report.rows_per_stage))
        return engine.Pace(
            last_step=stage.last_step,
            per_dispatch=self._config.steps_per_dispatch,
            log_every=log_every,
            eval_every=self._eval_every(stage, log_every),
            save_seconds=self._config.checkpoint.every_seconds,
        )

    def _eval_every(self, stage: Stage, log_every: int) -> int:
        if not self._config.report.evals_per_stage:
            return 0
        rows = max(1, round(stage.last_step / log_every / self._config.report.evals_per_stage))
        return rows * log_every

    def _eval_due(self, stage: Stage, step: int) -> bool:
        every = self._pace(stage).eval_every
        return step == stage.last_step or bool(every and step % every == 0)

    def _feed(self, stage: Stage, key: Any) -> engine.Feed:
        size, augment, pace = stage.batch_size, augmentation(self._config), self._pace(stage)
        if stage.train.in_memory:
            # A dispatch also ends at a row of metrics. Rounded up, so that nearly equal folds share compiled steps.
            steps = min(pace.per_dispatch, 1 << (pace.log_every - 1).bit_length())
            return batches.Resident(stage.train, batch_size=size, augmentation=augment, steps=steps)
        steps = min(pace.per_dispatch, pace.log_every)
        return batches.Streamed(stage.train, batch_size=size, augmentation=augment, key=key, steps=steps)

    def _curve_point(self, stage: Stage, watched: Examples, state: Any, frozen: Any) -> dict[str, float]:
        outputs, part = self._evaluate(stage, watched, state, frozen), stage.watched_part
        point = {f'{part}_loss': float(outputs['loss'].mean(dtype=np.float64))}
        if 'target_power' in outputs and (power := float(outputs['target_power'].mean(dtype=np.float64))):
            # The share of the target's variation that the student explains, 1 for a perfect imitation. A teacher
            # whose every unit is dead has no variation.
            point[f'{part}_explained'] = 1 - point[f'{part}_loss'] / power
        if 'logits' in outputs:
            point[f'{part}_accuracy'] = float((outputs['logits'].argmax(1) == watched.labels).mean())
        return point

    def _evaluate(self, stage: Stage, test: Examples, state: Any, frozen: Any) -> dict[str, np.ndarray]:
        return engine.evaluate(
            stage.method,
            state,
            parallel.broadcast(frozen),
            test,
            batch_size=stage.batch_size,
            crop=self._config.data.crop_size,
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C ask the loop to save and stop; a second one acts at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            del frame
            self._stopping = True
            signal.signal(number, before[number])
            logging.warning('stopping after the steps under way; send the signal again to stop at once')

        before = {int(number): signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _place(fold: str, stage: str) -> str:
    """The folder of a stage below the workdir."""
    return f'{fold}/{stage}' if fold else stage


def _figures(logits: np.ndarray, images: Examples) -> dict[str, Any]:
    """logits: [N,K]; images: N."""
    figures = metrics.classification(logits, images.labels, images.class_names)
    if images.sequences is not None and images.frames is not None:
        figures.update(metrics.sequence_votes(logits, images.labels, images.sequences, images.frames))
    return figures
