"""The embedded default: rendered faces, small nets, minutes on two CPU cores.

Command:  python launch.py --config=configs/demo.py --workdir=runs/demo
Argument: the method (fn2en, finetune, scratch), or all of them, the default.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'all') -> ml_collections.ConfigDict:
    config = base.get_config(argument)
    config.data.stored_size, config.data.crop_size = 56, 48
    config.face_net.update(width=0.125, fc_features=2048, batch_norm=True, input_scale=1 / 64)
    config.expression_net.update(
        features=(16, 32, 64, 128, 128), hidden=64, batch_norm=True, input_scale=1 / 64
    )
    config.face_net.train.update(epochs=12.0, learning_rate=0.05, schedule='cosine', warmup_epochs=1.0)
    config.finetune.update(epochs=20.0, learning_rate=0.01, schedule='cosine', batch_size=32)
    config.stage1.update(epochs=40.0, batch_size=32, optimiser='adamw', learning_rate=1e-3, schedule='cosine')
    config.stage2.update(epochs=30.0, batch_size=32, learning_rate=0.01, schedule='cosine')
    config.scratch.update(epochs=40.0, batch_size=32, learning_rate=0.02, schedule='cosine')
    return config
