"""Opening a trained net from the workdir of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from fn2en_jax import checkpoint, engine, parallel, workdir
from fn2en_jax.data.examples import Examples
from fn2en_jax.data.folds import Fold
from fn2en_jax.data.sources import Data, Reading
from fn2en_jax.errors import UserError
from fn2en_jax.methods import METHODS
from fn2en_jax.methods.base import NetState
from fn2en_jax.stages import Stages, reading


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained net with what is needed to use it.

    Attributes:
        method: 'fn2en', 'finetune' or 'scratch'.
        fold: the fold it was trained for; 'all' for everything.
        class_names: K names; the order of its outputs.
        config: of its run.
        folder: where its checkpoints are.
    """

    method: str
    fold: str
    class_names: tuple[str, ...]
    config: ml_collections.ConfigDict
    folder: Path

    @property
    def reading(self) -> Reading:
        """How images must be read for it."""
        return reading(self.config)

    def logits(self, examples: Examples) -> np.ndarray:
        """Logits [N,K] for a set whose `class_names` are the net's own.

        Raises:
            UserError: when no checkpoint of the net is whole.
        """
        if examples.class_names != self.class_names:
            raise ValueError(f'the set has classes {examples.class_names}, the net {self.class_names}')
        everything = np.arange(len(examples))
        stages = Stages(self.config, Data(examples, None, {}), Fold(self.fold, everything, everything))
        stage = stages.build(METHODS[self.method][-1])
        outputs = engine.evaluate(
            stage.method,
            parallel.replicate(self._state(stage.template())),
            parallel.broadcast({'class_weights': np.ones(len(self.class_names), np.float32)}),
            examples,
            batch_size=stage.batch_size,
            crop=self.config.data.crop_size,
        )
        return outputs['logits']

    def _state(self, template: Any) -> NetState:
        checkpoints = checkpoint.Checkpoints(self.folder, read_only=True)
        try:
            found = checkpoints.newest(template)
        finally:
            checkpoints.close()
        if found is None:
            raise UserError(f'{self.folder} holds no whole checkpoint; run the training again to mend it')
        return found[1]


def find(folder: str, *, method: str = '', fold: str = '') -> Trained:
    """Finds one trained net in a workdir.

    Args:
        folder: the workdir of a finished run.
        method: which method's net; '' prefers FN2EN, then fine-tune, then scratch.
        fold: which fold's net; '' takes the only one, or the one trained on everything.

    Raises:
        UserError: when there is no such net, or several and none was named.
    """
    root = Path(folder)
    config = ml_collections.ConfigDict(workdir.read_json(root / 'config.json'))
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
    place = there[chosen, picked]
    facts = _facts(place)
    if facts['step'] < facts['last_step']:
        raise UserError(
            f'{place} is trained up to step {facts["step"]} of {facts["last_step"]}; finish it with launch.py first'
        )
    return Trained(chosen, picked, tuple(facts['class_names']), config, place)


def _facts(place: Path) -> dict[str, Any]:
    checkpoints = checkpoint.Checkpoints(place, read_only=True)
    try:
        facts = checkpoints.facts()
    finally:
        checkpoints.close()
    if facts is None:
        raise UserError(f'{place} holds no whole checkpoint; run the training again to mend it')
    return facts
