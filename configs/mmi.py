"""MMI: ten person-independent folds, three frames at the peak of every clip.

Command:  python launch.py --config=configs/mmi.py --workdir=runs/mmi \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: not in the paper; FMPN reports 82.74 on 208 of the clips, which a clips.csv chooses (docs/datasets.md)
Time:     not measured on a GPU yet; floating-point operations for a fold with 576 training images (--mode=plan prints
          those of your data): fine-tune 2.7e15, stage 1 8.8e15, stage 2 5.8e14, scratch 5.8e14.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's hyper-parameters on MMI, folds as in FMPN: contiguous blocks of persons."""
    method, _ = base.options(argument)
    config = base.get_config(method)
    config.data.source = 'mmi'
    config.data.num_folds = 10
    return config
