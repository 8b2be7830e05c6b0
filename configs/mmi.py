"""MMI: ten person-independent folds, three frames at the peak of every clip.

Command:  python launch.py --config=configs/mmi.py --workdir=runs/mmi \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: not in the paper
Time:     not measured on a GPU yet; --mode=plan prints the floating-point operations of every stage.
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
