"""Trains and evaluates facial-expression recognisers with FaceNet2ExpNet and its baselines.

    python launch.py --config=configs/demo.py --workdir=runs/demo
    python launch.py --config=configs/demo.py:scratch --workdir=runs/scratch --config.scratch.epochs=10
    python launch.py --config=configs/demo.py --workdir=runs/demo --mode=plan

The text after the colon names the method: fn2en, finetune, scratch or all. Any key of the config can be set as
--config.KEY=VALUE; configs/base.py explains them all. The same command continues a run that was stopped or killed.
"""

import shlex
import sys

from absl import flags
from ml_collections import config_flags

from fn2en_jax import commands

CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, with the method after a colon.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder for checkpoints, results and plots.')
MODE = flags.DEFINE_enum('mode', 'train', ['train', 'plan'], 'plan: check, say what would be done, train nothing.')


def main() -> None:
    from fn2en_jax import engine, experiment

    if not WORKDIR.value or CONFIG.value is None:
        raise commands.UserError('--config=FILE and --workdir=FOLDER are needed; see --help')
    try:
        experiment.run(CONFIG.value, WORKDIR.value, MODE.value, command=shlex.join(['python', *sys.argv]))
    except engine.Interrupted as interrupted:
        raise commands.Stopped(interrupted) from interrupted


if __name__ == '__main__':
    sys.exit(commands.run(main, sys.argv, __doc__))
