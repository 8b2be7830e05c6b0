"""RAF-DB, basic emotions: the official training and test parts of the aligned faces.

Command:  python launch.py --config=configs/rafdb.py --workdir=runs/rafdb \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: not in the paper
Time:     not measured on a GPU yet; --mode=plan prints the floating-point operations of every stage.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's hyper-parameters on RAF-DB."""
    method, _ = base.options(argument)
    config = base.get_config(method)
    config.data.source = 'rafdb'
    return config
