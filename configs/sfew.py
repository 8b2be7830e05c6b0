"""SFEW 2.0: trained on its training part, tested on its validation part.

Command:  python launch.py --config=configs/sfew.py --workdir=runs/sfew \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all); faces=aligned (the distributor's, the default) or frames (whole
          frames, in which faces are detected and aligned); extra=fer2013 (or ferplus) adds FER2013 to the training
          part, with --config.data.extra_manual_dir=PATH.  --config=configs/sfew.py:fn2en,extra=fer2013
Expected: the paper has FN2EN 48.19, fine-tune 41.23, scratch 39.55; with FER2013, FN2EN 55.15
Time:     22 min expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          891 training images: fine-tune 4.8 min, stage 1 16 min, stage 2 63 s, scratch 63 s
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's settings on SFEW."""
    method, options = base.options(argument, faces=('aligned', 'frames'), extra=('', 'fer2013', 'ferplus'))
    config = base.get_config(method)
    config.data.source = 'sfew' if options['faces'] == 'aligned' else 'sfew_frames'
    config.data.extra = options['extra']
    return config
