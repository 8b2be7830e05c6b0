"""Oulu-CASIA, visible light, strong: ten person-independent folds, the last three frames of every sequence.

Command:  python launch.py --config=configs/oulu_casia.py --workdir=runs/oulu_casia \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: the paper has FN2EN 87.71, fine-tune 83.26, scratch 76.87
Time:     5.2 h expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          a fold with 1,296 training images: fine-tune 6.9 min, stage 1 23 min, stage 2 90 s, scratch 90 s
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's settings on Oulu-CASIA."""
    method, _ = base.options(argument)
    config = base.get_config(method)
    config.data.source = 'oulu_casia'
    config.data.num_folds = 10
    return config
