"""Real photographs: a CSV of labelled faces, and a CSV of other faces with names for the face net.

Command:  python launch.py --config=configs/faces.py --config.data.expressions=expressions.csv \
              --config.data.identities=identities.csv --workdir=runs/faces
Argument: the method (fn2en, finetune, scratch), or all of them, the default.

Small nets for small sets, grey pictures. All three methods share augmentation, class weights, label smoothing and the
averaging of mirrored test images. Stage 1 also sees the unlabelled faces of the face net's set.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'all') -> ml_collections.ConfigDict:
    """The three methods on photographs of a user."""
    config = base.get_config(argument)
    config.data.source = 'csv'
    config.data.channels = 1
    config.data.stored_size, config.data.crop_size = 60, 48
    config.augment.update(rotate=10.0, zoom=0.1, brightness=0.15, contrast=0.25)
    config.loss.update(class_weights='balanced', label_smoothing=0.1, flip_test=True)
    config.face_net.update(width=0.25, batch_norm=True, dropout_rate=0.25, input_scale=1 / 64)
    config.face_net.label_smoothing = 0.1
    config.expression_net.update(features=(16, 32, 64, 128, 128), batch_norm=True, input_scale=1 / 64)
    adamw = base.small_set()
    config.face_net.train.update(adamw, epochs=50.0)
    config.finetune.update(adamw, epochs=45.0)
    config.stage1.update(adamw, epochs=16.0, reduction='mean', standardise=True, unlabelled=True)
    config.stage2.update(adamw, epochs=120.0)
    config.scratch.update(adamw, epochs=120.0)
    config.report.evals_per_stage = 4
    return config
