"""A run of seconds with every method and every stage, for tests that drive `launch.py` in real processes.

Argument: the method (fn2en, finetune, scratch), or all of them, the default.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'all') -> ml_collections.ConfigDict:
    config = base.get_config(argument)
    config.steps_per_dispatch = 2
    config.data.stored_size, config.data.crop_size = 36, 32
    config.data.synthetic.update(
        identity_persons=3, identity_images=6, train_persons=4, train_images=7, test_persons=2, test_images=7
    )
    config.augment.update(brightness=0.1, erase=0.2)
    config.face_net.update(width=1 / 32, fc_features=256, batch_norm=True, input_scale=1 / 64)
    config.expression_net.update(features=(4, 4, 4, 4, 4), hidden=8, batch_norm=True, input_scale=1 / 64)
    short = {'epochs': 4.0, 'batch_size': 8, 'learning_rate': 1e-2, 'drop_epochs': (2,)}
    config.face_net.train.update(short)
    config.finetune.update(short)
    config.stage1.update(short, optimiser='adamw', reduction='mean', standardise=True)
    config.stage2.update(short)
    config.scratch.update(short)
    config.checkpoint.every_seconds = 0.0  # every dispatch saves
    config.report.update(rows_per_stage=4, evals_per_stage=2)
    return config
