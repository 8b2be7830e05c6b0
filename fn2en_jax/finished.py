"""A finished run, opened again: its data, one of its folds, and the nets that were trained on it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from configs import base
from fn2en_jax import config_checks, engine, parallel, results, stages, trained
from fn2en_jax.activations import Activations
from fn2en_jax.data import folds
from fn2en_jax.data.datasets import DATASETS
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data
from fn2en_jax.errors import UserError
from fn2en_jax.methods.base import Evaluator, NetState
from fn2en_jax.models.vgg_face import MAPS, VGGFace
from fn2en_jax.stages import FACE_NET
from fn2en_jax.trained import Trained
from fn2en_jax.types import PyTree

TITLES = {'face_net': 'face net (persons)', **results.TITLES}
SHORT = {'face_net': 'face net', 'scratch': 'scratch', 'finetune': 'fine-tune', 'fn2en': 'FN2EN'}

# What may differ from the run: where its data lie now, and what only this look at it is about.
OPEN_KEYS = (
    'visualize',
    'data.data_dir',
    'data.expressions',
    'data.manual_dir',
    'data.extra_manual_dir',
    'data.in_memory_bytes',
    'compilation_cache',
)
UNLABELLED = (FACE_NET, 'stage1')  # stages whose classes are not those of the expressions


@dataclasses.dataclass(frozen=True)
class Finished:
    """One fold of a finished run.

    Attributes:
        folder: the workdir.
        config: of the run, keys that are younger than it at their defaults.
        data: its labelled faces.
        fold: which of them trained and tested the nets.
    """

    folder: str
    config: ml_collections.ConfigDict
    data: Data
    fold: Fold

    @property
    def test(self) -> Examples:
        """The test images; none where the run trained on everything."""
        return self.data.expressions.take(self.fold.test)

    def net(self, stage: str) -> Trained | None:
        """The net that a stage of `methods.METHODS` left; None where there was no such stage.

        Raises:
            UserError: when the stage is not finished, or its net is for other classes than the data's.
        """
        found = trained.of_stage(self.folder, self.fold.name, stage)
        names = self.data.expressions.class_names
        if found is not None and stage not in UNLABELLED and found.class_names != names:
            raise UserError(f'{found.place} is for {", ".join(found.class_names)}, the data are {", ".join(names)}')
        return found

    def outputs(self, evaluator: Evaluator, variables: PyTree, examples: Examples) -> dict[str, np.ndarray]:
        """What an evaluator that reads everything from `frozen` returns, for every image in order."""
        devices = parallel.num_devices()
        return engine.evaluate(
            evaluator,
            parallel.replicate({}),
            parallel.broadcast(variables),
            examples,
            batch_size=-(-self.config.visualize.batch_size // devices) * devices,
            crop=self.config.data.crop_size,
        )

    def stage1(self) -> tuple[Any, NetState, PyTree] | None:
        """The method of stage 1, what it trained, and what its step reads; None where the run had no stage 1."""
        student, teacher = self.net('stage1'), self.net('finetune')
        if student is None or teacher is None:
            return None
        expressions = self.data.expressions
        # With unlabelled faces, stage 1 asks for a set of them; their number only counts for its length.
        built = stages.Stages(self.config, Data(expressions, expressions, {}), self.fold).build('stage1')
        variables = teacher.variables()
        net = NetState(variables['params'], (), variables.get('batch_stats', {}))
        return built.method, student.read(built.template()), built.frozen(lambda name: net)


@dataclasses.dataclass(frozen=True)
class Net:
    """A trained net, opened once.

    Attributes:
        key: 'face_net', 'finetune', 'fn2en' or 'scratch'.
        trained: how it was found.
        model: the Linen module.
        variables: its parameters and statistics.
        side: of the images that it sees, pixels.
        channels: of these images.
    """

    key: str
    trained: Trained
    model: nn.Module
    variables: PyTree
    side: int
    channels: int

    @classmethod
    def of(cls, key: str, found: Trained) -> 'Net':
        data = found.config.data
        return cls(key, found, found.model, found.variables(), data.crop_size, data.channels)

    def activations(
        self, run: Finished, examples: Examples, names: tuple[str, ...], cells: int
    ) -> dict[str, np.ndarray]:
        """Activations by name, for every image in order; see `Activations`."""
        return run.outputs(Activations(self.model, names, cells), self.variables, examples)

    @property
    def is_face_net(self) -> bool:
        return isinstance(self.model, VGGFace)

    @property
    def output(self) -> str:
        return 'fc8' if self.is_face_net else 'logits'

    @property
    def hidden(self) -> str:
        """The last layer of hidden units: fc7 of the face net, fc1 ('hidden') of the expression net."""
        return 'fc7' if self.is_face_net else 'hidden'

    @property
    def maps(self) -> tuple[str, ...]:
        """Its maps in the order in which they are computed."""
        if self.is_face_net:
            return MAPS
        return (*(f'{kind}{n}' for n in range(1, self._convolutions + 1) for kind in ('conv', 'pool')), 'features')

    @property
    def probed(self) -> tuple[str, ...]:
        """The layers whose features are probed."""
        pools = tuple(name for name in self.maps if name.startswith('pool'))
        return (*pools, 'fc6', 'fc7') if self.is_face_net else (*pools, 'features', 'hidden')

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes [1,...] of its activations by name."""
        image = jax.ShapeDtypeStruct((1, self.side, self.side, self.channels), jnp.float32)
        found: Any = jax.eval_shape(self.model.apply, self.variables, image)
        return {name: leaf.shape for name, leaf in found.items()}

    @property
    def _convolutions(self) -> int:
        return len(self.trained.config.expression_net.features)


def reopen(
    folder: str, *, fold: str = '', changes: Mapping[str, Any] | None = None, trust_data: bool = False
) -> Finished:
    """Opens the data of a run again, and finds the fold.

    Args:
        folder: the workdir.
        fold: which fold; '' takes the only one, or the one trained on everything.
        changes: other values for keys of its config, by their full names; only `OPEN_KEYS` may be changed.
        trust_data: warn, rather than refuse, where the data are not known to be those of the run. Their files must be
            those that its folds list all the same.

    Raises:
        UserError: when there is no finished net, when the data are not those of the run, for a key that may not be
            changed, and whatever is wrong with the data.
    """
    chosen = trained.find(folder, fold=fold)
    config = _completed(chosen.config, changes or {})
    parallel.keep_compiled(config.compilation_cache)
    config.methods = ('scratch',)  # needs no faces of identities: they are not looked at
    data = stages.open_sets(config)
    _check_fingerprint(folder, chosen.config, data, trust_data)
    return Finished(folder, config, data, _fold(folder, config, data, chosen.fold))


def _completed(stored: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> ml_collections.ConfigDict:
    values = _merged(config_checks.plain(base.get_config()), config_checks.plain(stored))
    config = ml_collections.ConfigDict(values)
    for key, value in changes.items():
        if not any(key == known or key.startswith(f'{known}.') for known in OPEN_KEYS):
            raise UserError(f'config.{key} is of the training; only {", ".join(OPEN_KEYS)} can be changed afterwards')
        config.update_from_flattened_dict({key: value})
    config_checks.check_numbers(config.visualize)
    return config


def _merged(defaults: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored values, and the defaults of keys that are younger than the run."""
    merged = {**defaults, **stored}
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(stored.get(key), Mapping):
            merged[key] = _merged(value, stored[key])
    return merged


def _check_fingerprint(folder: str, stored: ml_collections.ConfigDict, data: Data, trust: bool) -> None:
    marks = stored.get('data_fingerprint', {})
    if not (known := marks.get('expressions', '')):
        logging.warning(
            '%s does not say which data it was trained on; whether these are they cannot be checked', folder
        )
    elif not data.is_of(marks):
        now = data.fingerprint['expressions']
        but = f'({known}), but {now}' if now != known else '(the stored images have another number of bytes)'
        text = f'the data are not those that {folder} was trained on {but}'
        if not trust:
            raise UserError(
                f'{text}; name the right ones with --config.data.expressions=PATH, or say --trust_data if an older '
                'version of this program prepared the same images'
            )
        logging.warning(text)


def _fold(folder: str, config: ml_collections.ConfigDict, data: Data, name: str) -> Fold:
    if name == 'all':
        return folds.all_data(data.expressions)
    # The workdir lists its folds by file: nothing has to be dealt again.
    published = config.data.source in DATASETS and not config.data.folds_file
    every = folds.read_json(Path(folder) / 'folds.json', data.expressions, published=published)
    for fold in every:
        if fold.name == name:
            return fold
    raise UserError(f'{folder} holds a net of the fold {name}, which its folds.json does not list')
