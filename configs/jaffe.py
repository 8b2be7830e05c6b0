"""JAFFE: leave one of the ten persons out.

Command:  python launch.py --config=configs/jaffe.py --workdir=runs/jaffe \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all); classes=7 (the default) or 6 (without neutral).
Expected: not in the paper
Time:     47 min expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          a fold with 190 training images: fine-tune 62 s, stage 1 3.4 min, stage 2 13 s, scratch 13 s
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's hyper-parameters on JAFFE; ten folds of ten persons leave one out."""
    method, options = base.options(argument, classes=(7, 6))
    config = base.get_config(method)
    config.data.source = 'jaffe'
    config.data.channels = 1
    config.data.classes = options['classes']
    config.data.num_folds = 10
    return config
