"""MMI: ten person-independent folds, three frames at the peak of every clip.

Command:  python launch.py --config=configs/mmi.py --workdir=runs/mmi \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: not in the paper; FMPN reports 82.74 on 208 of the clips, which a clips.csv chooses (docs/datasets.md)
Time:     2.3 h expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          a fold with 576 training images: fine-tune 3.1 min, stage 1 10 min, stage 2 40 s, scratch 40 s
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
