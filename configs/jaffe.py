"""JAFFE: leave one of the ten persons out.

Command:  python launch.py --config=configs/jaffe.py --workdir=runs/jaffe \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all); classes=7 (the default) or 6 (without neutral).
Expected: not in the paper
Time:     not measured on a GPU yet; floating-point operations for a fold with 190 training images (--mode=plan prints
          those of your data): fine-tune 8.9e14, stage 1 2.9e15, stage 2 1.9e14, scratch 1.9e14.
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
