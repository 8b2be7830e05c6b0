"""The embedded default: rendered faces, small nets, minutes on two CPU cores.

Command:  python launch.py --config=configs/demo.py --workdir=runs/demo
Argument: the method (fn2en, finetune, scratch), or all of them, the default.

All three methods share augmentation, label smoothing and the averaging of mirrored test images. Stage 1 also sees the
pictures of the face net's set, without their labels.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'all') -> ml_collections.ConfigDict:
    """Small nets on rendered faces."""
    config = base.get_config(argument)
    config.data.stored_size, config.data.crop_size = 56, 48
    config.data.synthetic.train_persons = 30
    config.augment.update(brightness=0.1, contrast=0.2)
    config.loss.update(label_smoothing=0.1, flip_test=True)
    config.face_net.update(width=0.25, fc_features=1024, batch_norm=True, input_scale=1 / 64, dropout_rate=0.25)
    config.face_net.label_smoothing = 0.1
    config.expression_net.update(features=(16, 32, 64, 128, 128), batch_norm=True, input_scale=1 / 64)
    adamw = base.small_set(batch_size=32)
    config.face_net.train.update(adamw, epochs=12.0)
    config.finetune.update(adamw, epochs=45.0, dropout_rate=0.25)
    config.stage1.update(adamw, epochs=8.0, reduction='mean', standardise=True, unlabelled=True)
    config.stage2.update(adamw, epochs=90.0)
    config.scratch.update(adamw, epochs=160.0)
    config.report.evals_per_stage = 2
    return config
