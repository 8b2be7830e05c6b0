"""Opening a trained net from the workdir of a run."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from configs import base
from fn2en_jax import checkpoint, config_checks, engine, net_settings, parallel, workdir
from fn2en_jax.data.augmentation import centre_crop
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data, Reading
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.methods.base import NetState
from fn2en_jax.methods.classifier import Classifier
from fn2en_jax.stages import FACE_NET, Stage, Stages, reading
from fn2en_jax.types import Array, PyTree
from fn2en_jax.weights.binary import shown


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained net with what is needed to use it.

    Attributes:
        method: 'fn2en', 'finetune' or 'scratch'; 'face_net' for the net that learned persons; 'stage1' for the
            features before they saw labels.
        fold: the fold it was trained for; 'all' for everything.
        class_names: K names; the order of its outputs.
        config: of its run.
        place: the folder of its checkpoints, or the file it came in.
        read: template of its state -> the state, without that of an optimiser; UserError where `place` is damaged.
        faces: how the faces it was trained on were cut out of their images: 'align', 'box' or 'none'.
        provenance: what a net in a file tells of how it was made; {} in a workdir, whose results.json tells it.
    """

    method: str
    fold: str
    class_names: tuple[str, ...]
    config: ml_collections.ConfigDict
    place: Path
    read: Callable[[NetState], NetState]
    faces: str = 'none'
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def reading(self) -> Reading:
        """How images must be read for it, faces cut out as in its training."""
        return dataclasses.replace(reading(self.config), faces=self.faces)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[S,S,C] of the faces that it takes, as they are stored: uint8, before the centre crop."""
        data = self.config.data
        return (data.stored_size, data.stored_size, data.channels)

    @property
    def classifier(self) -> Classifier:
        """The net without its weights: the Linen module `model`, which of its activations are the logits, and whether
        they are averaged with those of the mirror image."""
        return self._stage(self._one_image()).method

    def probabilities(self) -> Callable[[PyTree, Array], Array]:
        """The whole net as a pure function, for compiling and exporting.

        Returns:
            (variables as from `variables()`, faces uint8 [B,S,S,C]) -> probabilities float32 [B,K]. It crops the
            centre, subtracts the mean, and averages with the mirror image where the config says so.
        """
        classifier, crop = self.classifier, self.config.data.crop_size

        def apply(variables: PyTree, faces: Array) -> Array:
            return jax.nn.softmax(classifier.logits(variables, centre_crop(faces, crop)))

        return apply

    def logits(self, examples: Examples) -> np.ndarray:
        """Logits [N,K] for a set whose `class_names` are the net's own.

        Raises:
            UserError: when no checkpoint of the net is whole.
        """
        if examples.class_names != self.class_names:
            raise ValueError(f'the set has classes {examples.class_names}, the net {self.class_names}')
        stage = self._stage(examples)
        outputs = engine.evaluate(
            stage.method,
            parallel.replicate(self.read(stage.template())),
            parallel.broadcast({'class_weights': np.ones(len(self.class_names), np.float32)}),
            examples,
            batch_size=stage.batch_size,
            crop=self.config.data.crop_size,
        )
        return outputs['logits']

    @property
    def model(self) -> Any:
        """Its Linen module, which returns activations by name (see `VGGFace` and `ExpressionNet`)."""
        return self._stage(self._one_image()).method.model

    def variables(self) -> dict[str, PyTree]:
        """Its parameters, and with batch norm its statistics: {'params': ..., 'batch_stats': ...}, host arrays.

        Raises:
            UserError: when no checkpoint of the net is whole.
        """
        state = jax.device_get(self.read(self._stage(self._one_image()).template()))
        return {'params': state.params, 'batch_stats': state.stats} if state.stats else {'params': state.params}

    def _stage(self, examples: Examples) -> Stage:
        """The stage that trains it, as it would be on these examples."""
        ids = np.arange(len(examples))
        stages = Stages(self.config, Data(examples, examples, {}), Fold(self.fold, ids, ids))
        return stages.build(METHODS.get(self.method, (self.method,))[-1])

    def _one_image(self) -> Examples:
        """A set of one blank image, for what wants to know the shapes and classes only."""
        size, channels = self.config.data.stored_size, self.config.data.channels
        image = np.zeros((1, size, size, channels), np.uint8)
        return Examples(image, np.zeros(1, np.int32), self.class_names, ('',), ('',))


def find(folder: str, *, method: str = '', fold: str = '') -> Trained:
    """Finds one trained net in a workdir.

    Args:
        folder: the workdir of a finished run.
        method: which method's net; '' prefers FN2EN, then fine-tune, then scratch. 'face_net' is the net that learned
            persons, which all folds share.
        fold: which fold's net; '' takes the only one, or the one trained on everything.

    Raises:
        UserError: when there is no such net, or several and none was named.
    """
    root = Path(folder)
    if root.is_file():
        raise UserError(f'{folder} is a file; a workdir is the folder of a run')
    config = _config(root)
    if method == FACE_NET:
        return _finished(FACE_NET, '', config, root / FACE_NET)
    there = {
        (name, place.parent.name): place
        for name, stages in METHODS.items()
        for place in sorted(root.glob(f'*/{stages[-1]}'))
    }
    if not there:
        raise UserError(f'{folder} holds no trained net; train one with launch.py --workdir={folder}')
    methods = [name for name in METHODS if any(name == key[0] for key in there)]
    chosen = method or methods[0]
    if chosen not in methods:
        raise UserError(f'{folder} holds no net of the method {chosen!r}; it holds {", ".join(methods)}')
    names = [key[1] for key in there if key[0] == chosen]
    picked = fold or ('all' if 'all' in names else names[0])
    if picked not in names or (len(names) > 1 and not fold and 'all' not in names):
        raise UserError(f'{folder} holds nets of the folds {", ".join(names)}; choose one with --fold=NAME')
    return _finished(chosen, picked, config, there[chosen, picked])


def _config(root: Path) -> ml_collections.ConfigDict:
    """Raises UserError when no net can be built from it."""
    found = workdir.read_json(root / 'config.json')
    if keys := net_settings.lacking(found):
        more = f' and {len(keys) - 3} more keys' if len(keys) > 3 else ''
        raise UserError(
            f'{root}: its config.json lacks {", ".join(keys[:3])}{more}; it is of another version of this program, or '
            'damaged'
        )
    if keys := net_settings.odd(found, config_checks.plain(base.get_config())):
        value = json.dumps(dict(workdir.flatten(found))[keys[0]])
        raise UserError(f'{root}: {keys[0]} in its config.json cannot be {shown(value)}; the file is damaged')
    return ml_collections.ConfigDict(found)


def of_stage(folder: str, fold: str, stage: str) -> Trained | None:
    """The net that a stage of a fold left, such as 'stage1' or 'scratch'; None where there was no such stage.

    Raises:
        UserError: when the stage is not finished.
    """
    root = Path(folder)
    config = _config(root)
    place = root / stage if stage == FACE_NET else root / fold / stage
    methods = {stages[-1]: method for method, stages in METHODS.items()}
    return _finished(methods.get(stage, stage), fold, config, place) if place.is_dir() else None


def _finished(method: str, fold: str, config: ml_collections.ConfigDict, place: Path) -> Trained:
    if not place.is_dir():
        raise UserError(f'{place.parent} holds no net of the stage {place.name!r}')
    facts = _facts(place)
    if facts['step'] < facts['last_step']:
        raise UserError(
            f'{place} is trained up to step {facts["step"]} of {facts["last_step"]}; finish it with launch.py first'
        )
    if not net_settings.is_names(facts['class_names']):
        raise UserError(f'{place} has no sound class names; it is damaged, or of an older version: train it again')
    faces = facts['preprocessing'].get('faces', 'none')  # checkpoints older than the key are of images as they are
    read = functools.partial(_newest, place)
    return Trained(method, fold, tuple(facts['class_names']), config, place, read, faces)


def _newest(place: Path, template: NetState) -> NetState:
    checkpoints = checkpoint.Checkpoints(place, read_only=True)
    try:
        found = checkpoints.newest(template)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f'{place} holds no whole checkpoint; run the training again to mend it')
    return found[1]._replace(opt_state=())


def _facts(place: Path) -> dict[str, Any]:
    checkpoints = checkpoint.Checkpoints(place, read_only=True)
    try:
        facts = checkpoints.facts()
    finally:
        checkpoints.close()
    if facts is None:
        raise UserError(f'{place} holds no whole checkpoint; run the training again to mend it')
    return facts
