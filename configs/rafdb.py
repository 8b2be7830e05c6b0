"""RAF-DB, basic emotions: the official training and test parts of the aligned faces.

Command:  python launch.py --config=configs/rafdb.py --workdir=runs/rafdb \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: not in the paper
Time:     5 h expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          12,271 training images: fine-tune 66 min, stage 1 3.7 h, stage 2 14 min, scratch 14 min
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's hyper-parameters on RAF-DB."""
    method, _ = base.options(argument)
    config = base.get_config(method)
    config.data.source = 'rafdb'
    return config
