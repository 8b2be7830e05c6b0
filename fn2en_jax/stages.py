"""From a config to the stages of a run: which net, which loss, which data, how long.

Together with `experiment.py` this is where a config is read; nothing below knows that it exists.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from fn2en_jax import engine, optim, parallel, report, rng, workdir
from fn2en_jax.ascent import Ascent
from fn2en_jax.data.augmentation import Augmentation
from fn2en_jax.data.examples import Examples, unlabelled
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.protocols import Choice
from fn2en_jax.data.sources import Data, Reading, Wanted, open_data
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.methods.base import NetState
from fn2en_jax.methods.classifier import Classifier
from fn2en_jax.methods.finetune import NEW_LAYERS, from_face_net
from fn2en_jax.methods.fn2en import FeatureRegression, TargetMoments, attach_head
from fn2en_jax.models.expression_net import ExpressionFeatures, ExpressionNet
from fn2en_jax.models.vgg_face import LAYERS, MEAN_RGB, SMALLEST_SIDE, VGGFace
from fn2en_jax.types import Key, PyTree
from fn2en_jax.weights import files
from fn2en_jax.weights.canonical import CONVOLUTIONS_ONLY, MEAN_TOLERANCE, Net, Wish

FACE_NET = 'face_net'
Nets = Callable[[str], NetState]  # the trained net of an earlier stage


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of one fold.

    Attributes:
        name: its name in `methods.METHODS`.
        fold: the fold's name; '' where all folds share the stage.
        method: makes the steps.
        variables: key -> freshly initialised variables of the net.
        adopt: (fresh variables, nets of earlier stages) -> the variables to start from.
        frozen: nets of earlier stages -> what the step reads and never changes.
        train: what it learns from.
        watched: what its learning curve is drawn on: the fold's validation images, where it has none its test images,
            None where it has neither.
        watched_part: 'validation' or 'test', the part of the fold that these are.
        batch_size, steps_per_epoch, last_step: the stage's length.
    """

    name: str
    fold: str
    method: Any
    variables: Callable[[Key], PyTree]
    adopt: Callable[[PyTree, Nets], PyTree]
    frozen: Callable[[Nets], PyTree]
    train: Examples
    watched: Examples | None
    watched_part: str
    batch_size: int
    steps_per_epoch: int
    last_step: int

    @property
    def title(self) -> str:
        return f'{self.fold} {self.name}' if self.fold else self.name

    def key(self, seed: int) -> Key:
        """The root of every random draw of this stage."""
        return rng.stream(seed, f'{self.fold}/{self.name}')

    def template(self) -> NetState:
        """Shapes and dtypes of the stage's state, without computing it."""
        return jax.eval_shape(lambda key: self.method.init(self.variables(key)), jax.random.PRNGKey(0))

    def initial(self, seed: int, nets: Nets) -> NetState:
        """The state at step 0."""
        key = rng.named(self.key(seed), 'init')
        # Run once: compiling the random draws with all optimisations takes far longer than drawing them.
        options: dict[str, str | bool] = {'xla_backend_optimization_level': '0'}
        on_cpu = jax.default_backend() == 'cpu'
        draw = jax.jit(self.variables).lower(key).compile(compiler_options=options if on_cpu else None)
        fresh = draw(key)
        return jax.device_get(self.method.init(self.adopt(fresh, nets)))


class Stages:
    """Builds the stages of one fold.

    Args:
        config: of the run.
        data: of the run.
        fold: which examples train and which test.
    """

    def __init__(self, config: ml_collections.ConfigDict, data: Data, fold: Fold):
        self._config, self._data, self._fold = config, data, fold
        self._train = data.expressions.take(fold.train)
        self._watched_part = 'validation' if len(fold.validation) else 'test'
        watched = fold.parts[self._watched_part]
        self._watched = data.expressions.take(watched) if len(watched) else None
        self._dtype = jnp.dtype(config.dtype)

    def names(self) -> tuple[str, ...]:
        """See `stage_names`."""
        return stage_names(self._config)

    def build(self, name: str) -> Stage:
        """The stage of this name (see `methods.METHODS`)."""
        builders = {
            FACE_NET: self._face_net,
            'finetune': self._finetune,
            'stage1': self._stage1,
            'stage2': self._stage2,
            'scratch': self._scratch,
        }
        return builders[name]()

    # One method per stage.

    def _face_net(self) -> Stage:
        config, identities = self._config.face_net, self._data.identities
        if identities is None:
            raise UserError(
                'the face net needs either config.face_net.weights (a file) or config.data.identities '
                "(a CSV with the columns file, identity, or 'synthetic')"
            )
        method = Classifier(
            self._face_model(len(identities.class_names), config.dropout_rate),
            'fc8',
            self._optimiser(config.train, len(identities), NEW_LAYERS),
            label_smoothing=config.label_smoothing,
        )
        return self._stage(
            FACE_NET, config.train, method, identities, None, lambda fresh, nets: fresh, _no_weights(identities)
        )

    def _finetune(self) -> Stage:
        config = self._config.finetune
        model = self._face_model(self._num_classes, config.dropout_rate)
        method = self._classifier(model, 'fc8', config, NEW_LAYERS)
        return self._stage(
            'finetune', config, method, self._train, self._watched, self._adopt_face_net, self._class_weights()
        )

    def _stage1(self) -> Stage:
        config = self._config.stage1
        if config.layer not in LAYERS:
            raise UserError(f'config.stage1.layer is {config.layer!r}; choose one of {", ".join(LAYERS)}')
        train = self._train
        if config.unlabelled:
            if self._data.identities is None:
                raise UserError('config.stage1.unlabelled needs config.data.identities')
            train = unlabelled((train, self._data.identities))
        teacher = self._face_model(self._num_classes)
        method = FeatureRegression(
            self._features(),
            teacher,
            config.layer,
            self._optimiser(config, len(train), '$^'),
            p=config.p,
            reduction=config.reduction,
            standardise=config.standardise,
        )

        def frozen(nets: Nets) -> PyTree:
            variables = _variables(nets('finetune'))
            return {'teacher': variables, **self._moments(teacher, variables)}

        return self._stage('stage1', config, method, train, self._watched, lambda fresh, nets: fresh, frozen)

    def _stage2(self) -> Stage:
        config = self._config.stage2
        method = self._classifier(
            self._expression_net(self._config.expression_net.batch_norm), 'logits', config, 'head/.*'
        )
        return self._stage(
            'stage2',
            config,
            method,
            self._train,
            self._watched,
            lambda fresh, nets: attach_head(fresh, nets('stage1')),
            self._class_weights(),
        )

    def _scratch(self) -> Stage:
        config = self._config.scratch
        method = self._classifier(self._expression_net(batch_norm=True), 'logits', config, '$^')
        return self._stage(
            'scratch', config, method, self._train, self._watched, lambda fresh, nets: fresh, self._class_weights()
        )

    # What they are made of.

    @property
    def _num_classes(self) -> int:
        return len(self._data.expressions.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[H,W,C] of what the nets see."""
        data = self._config.data
        return (data.crop_size, data.crop_size, data.channels)

    def _face_model(self, num_classes: int, dropout_rate: float = 0.0) -> VGGFace:
        config = self._config.face_net
        return VGGFace(
            num_classes=num_classes,
            width=config.width,
            batch_norm=config.batch_norm,
            dropout_rate=dropout_rate,
            fc_features=config.fc_features,
            input_scale=config.input_scale,
            mean_rgb=tuple(config.get('mean_rgb', MEAN_RGB)),  # workdirs older than the key have the published mean
            image_size=config.get('image_size', 0),  # and take images as they are
            dtype=self._dtype,
        )

    def _target_shape(self) -> tuple[int, ...]:
        model = self._face_model(self._num_classes)
        image = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        shapes = jax.eval_shape(lambda key, x: model.init_with_output(key, x)[0], jax.random.PRNGKey(0), image)
        return tuple(shapes[self._config.stage1.layer].shape[1:])

    def _features(self) -> ExpressionFeatures:
        config = self._config.expression_net
        return ExpressionFeatures(
            features=tuple(config.features),
            target_shape=self._target_shape(),
            batch_norm=config.batch_norm,
            input_scale=config.input_scale,
            dtype=self._dtype,
        )

    def _expression_net(self, batch_norm: bool) -> ExpressionNet:
        config = self._config.expression_net
        return ExpressionNet(
            num_classes=self._num_classes,
            features=tuple(config.features),
            target_shape=self._target_shape(),
            hidden=config.hidden,
            dropout_rate=config.dropout_rate,
            batch_norm=batch_norm,
            input_scale=config.input_scale,
            dtype=self._dtype,
        )

    def _classifier(self, model: Any, output: str, config: ml_collections.ConfigDict, new_layers: str) -> Classifier:
        loss = self._config.loss
        optimiser = self._optimiser(config, len(self._train), new_layers)
        return Classifier(model, output, optimiser, label_smoothing=loss.label_smoothing, flip_test=loss.flip_test)

    def _optimiser(self, config: ml_collections.ConfigDict, examples: int, new_layers: str) -> optim.Optimiser:
        steps_per_epoch = _steps_per_epoch(examples, config.batch_size)
        return optim.Optimiser(
            kind=config.optimiser,
            learning_rate=config.learning_rate,
            total_steps=_last_step(config.epochs, steps_per_epoch),
            steps_per_epoch=steps_per_epoch,
            schedule=config.schedule,
            drop_epochs=tuple(config.drop_epochs),
            drop_factor=config.drop_factor,
            warmup_epochs=config.warmup_epochs,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            decay_mask=config.decay_mask,
            clip_norm=config.clip_norm,
            groups=(('new', new_layers, config.new_layers_multiplier), ('rest', '.*', 1.0)),
        )

    def _stage(
        self,
        name: str,
        config: ml_collections.ConfigDict,
        method: Any,
        train: Examples,
        watched: Examples | None,
        adopt: Callable[[PyTree, Nets], PyTree],
        frozen: Callable[[Nets], PyTree],
    ) -> Stage:
        model = method.student if isinstance(method, FeatureRegression) else method.model
        image = jnp.zeros((1, *self.image_shape), jnp.float32)
        steps_per_epoch = _steps_per_epoch(len(train), config.batch_size)
        if _last_step(config.epochs, steps_per_epoch) * config.batch_size >= 2**31:
            raise UserError(f'{name} would see more than 2^31 images; give it fewer epochs (config.{name}.epochs)')
        return Stage(
            name=name,
            fold='' if name == FACE_NET else self._fold.name,
            method=method,
            variables=lambda key: model.init(key, image),
            adopt=adopt,
            frozen=frozen,
            train=train,
            watched=watched,
            watched_part=self._watched_part,
            batch_size=config.batch_size,
            steps_per_epoch=steps_per_epoch,
            last_step=_last_step(config.epochs, steps_per_epoch),
        )

    def _adopt_face_net(self, fresh: PyTree, nets: Nets) -> PyTree:
        if self._config.face_net.weights:
            return self._adopt_file(fresh)
        return from_face_net(fresh, _variables(nets(FACE_NET)))

    def _adopt_file(self, fresh: PyTree, warn: bool = False) -> PyTree:
        face_net = self._config.face_net
        net = files.sound(face_net.weights, Wish(face_net.colour_order, face_net.layers))
        for line in (*net.notes, *files.unsound(net)) if warn else ():
            logging.warning('%s: %s', face_net.weights, line)
        self._check_input(net)
        return from_face_net(fresh, net.variables, convolutions_only=face_net.layers == CONVOLUTIONS_ONLY)

    def _check_input(self, net: Net) -> None:
        """Refuses a file whose net wants other images than the config makes."""
        face_net = self._config.face_net
        side = face_net.image_size or self._config.data.crop_size
        batch_norm = 'batch_stats' in net.variables
        if face_net.batch_norm != batch_norm:
            raise UserError(f'{face_net.weights} needs --config.face_net.batch_norm={batch_norm}')
        if net.mean_rgb is None:  # a bare file, of which nothing is known
            return
        mean = ','.join(f'{value:.4f}' for value in net.mean_rgb)
        if max(abs(own - told) for own, told in zip(face_net.mean_rgb, net.mean_rgb, strict=True)) > MEAN_TOLERANCE:
            raise UserError(f'{face_net.weights} wants RGB minus ({mean}); set --config.face_net.mean_rgb="({mean})"')
        if face_net.input_scale != net.input_scale:
            raise UserError(f'{face_net.weights} needs --config.face_net.input_scale={net.input_scale:g}')
        if face_net.layers != CONVOLUTIONS_ONLY and net.image_size and not _same_map(net.image_size, side):
            raise UserError(
                f'the fc6 of {face_net.weights} is for images of {net.image_size[0]}x{net.image_size[1]} and '
                f'it is given {side}x{side} (config.data.crop_size or config.face_net.image_size); '
                'take the convolutions alone: --config.face_net.layers=convolutions'
            )

    def check_weights(self) -> None:
        """Reads the face net's file, if one is named, holds it against the net, and warns of what is odd about it.

        Raises:
            UserError: when the file cannot be read or does not fit.
        """
        path = self._config.face_net.weights
        if path and 'finetune' in self.names():
            image = jnp.zeros((1, *self.image_shape), jnp.float32)
            model = self._face_model(self._num_classes)
            self._adopt_file(jax.eval_shape(model.init, jax.random.PRNGKey(0), image), warn=True)

    def _class_weights(self) -> Callable[[Nets], PyTree]:
        if self._config.loss.class_weights == 'none':
            return _no_weights(self._train)
        counts = np.bincount(self._train.labels, minlength=self._num_classes)
        weights = len(self._train) / (self._num_classes * np.maximum(counts, 1))
        return lambda nets: {'class_weights': weights.astype(np.float32)}

    def _moments(self, teacher: VGGFace, variables: PyTree) -> dict[str, np.ndarray]:
        """Mean and standard deviation of each channel of the target over the labelled training images."""
        outputs = engine.evaluate(
            TargetMoments(teacher, self._config.stage1.layer),
            parallel.replicate({}),
            parallel.broadcast({'teacher': variables}),
            self._train,
            batch_size=self._config.stage1.batch_size,
            crop=self._config.data.crop_size,
        )
        mean = outputs['mean'].mean(0, dtype=np.float64)
        variance = outputs['square'].mean(0, dtype=np.float64) - mean**2
        # A channel that never fires would be blown up by its own rounding noise: it keeps a tenth of the typical scale.
        floor = 0.1 * np.sqrt(max(float(variance.mean()), 1e-12))
        scale = np.maximum(np.sqrt(np.maximum(variance, 0)), floor)
        return {'mean': mean.astype(np.float32), 'scale': scale.astype(np.float32)}


def stage_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The stages that the config's methods need, each once, in order of need."""
    needed = dict.fromkeys(name for method in config.methods for name in METHODS[method])
    return tuple(name for name in needed if name != FACE_NET or not config.face_net.weights)


def open_sets(config: ml_collections.ConfigDict) -> Data:
    """Opens the sets that `config.data` names; identities only for training a face net, or when stage 1 wants them."""
    needs_face_net = any(FACE_NET in METHODS[method] for method in config.methods)
    need_identities = needs_face_net and (not config.face_net.weights or config.stage1.unlabelled)
    return open_data(_wanted(config.data), reading(config), need_identities=need_identities)


def open_labelled(settings: Mapping[str, Any], data_dir: str = '') -> Data:
    """Opens the labelled set of a run for looking at it, without what only training needs.

    Args:
        settings: what `config.json` holds.
        data_dir: where prepared sets are kept; '' for where the run kept them.

    Raises:
        UserError: where it is not there any more, or the settings are those of an older version.
    """
    config = ml_collections.ConfigDict(settings)
    if data_dir:
        config.data.data_dir = data_dir
    try:
        wanted, how = _wanted(config.data), reading(config)
    except AttributeError as error:
        raise UserError(f'the settings of the run are older than this program, which also wants {error}') from error
    return open_data(wanted, how, need_identities=False)


def _wanted(data: ml_collections.ConfigDict) -> Wanted:
    return Wanted(
        data.source,
        data.expressions,
        data.identities,
        data.manual_dir,
        Choice(
            data.classes,
            data.fold_rule,
            data.num_folds,
            data.fold_subjects,
            data.test_split,
            deal=not data.folds_file,
        ),
        data.extra,
        data.extra_manual_dir,
    )


def reading(config: ml_collections.ConfigDict) -> Reading:
    """How the config wants sets to be kept and read."""
    data = config.data
    folder = data.data_dir or str(workdir.cache('data'))
    return Reading(
        folder,
        data.stored_size,
        data.channels,
        data.in_memory_bytes,
        data.synthetic,
        data.get('faces', ''),  # workdirs older than these keys took images as they are
        data.get('no_face', 'keep'),
        report.preparing(),
    )


def augmentation(config: ml_collections.ConfigDict) -> Augmentation:
    """The augmentation that every stage of the run applies."""
    return Augmentation(crop=config.data.crop_size, **config.augment)


def ascent(config: ml_collections.ConfigDict) -> Ascent:
    """How `visualize` looks for the input that excites a neuron most."""
    return Ascent(**config.visualize.ascent)


def _steps_per_epoch(examples: int, batch_size: int) -> int:
    return max(1, round(examples / batch_size))


def _last_step(epochs: float, steps_per_epoch: int) -> int:
    return max(1, round(epochs * steps_per_epoch))


def _same_map(image_size: tuple[int, int], given: int) -> bool:
    return all(side // SMALLEST_SIDE == given // SMALLEST_SIDE for side in image_size)


def _variables(net: NetState) -> dict[str, PyTree]:
    return {'params': net.params, 'batch_stats': net.stats} if net.stats else {'params': net.params}


def _no_weights(examples: Examples) -> Callable[[Nets], PyTree]:
    ones = np.ones(len(examples.class_names), np.float32)
    return lambda nets: {'class_weights': ones}
