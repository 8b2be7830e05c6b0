"""RAF-DB, basic emotions: the official training and test parts of the aligned faces.

Command:  python launch.py --config=configs/rafdb.py --workdir=runs/rafdb \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: not in the paper
Time:     not measured on a GPU yet; floating-point operations for 12,271 training images (--mode=plan prints those of
          your data): fine-tune 5.7e16, stage 1 1.9e17, stage 2 1.2e16, scratch 1.2e16.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's hyper-parameters on RAF-DB."""
    method, _ = base.options(argument)
    config = base.get_config(method)
    config.data.source = 'rafdb'
    return config
