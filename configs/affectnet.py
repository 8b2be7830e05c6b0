"""AffectNet: trained on its training part, tested on its validation part.

Command:  python launch.py --config=configs/affectnet.py --workdir=runs/affectnet \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all); classes=8 (the default) or 7 (without contempt); edition=csv (the
          default) or npy.  --config=configs/affectnet.py:fn2en,classes=7,edition=npy
Expected: not in the paper; FMPN reports 61.52 on a split and seven classes of its own
Time:     7.2 h expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          287,651 training images: fine-tune 3.1 h, stage 1 3.4 h, stage 2 40 min, scratch 81 min
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's rates, with shorter stages, since an epoch here has three hundred times the images of CK+; and every
    class counts the same in the loss, as in the validation part, which has as many images of each.
    """
    method, options = base.options(argument, classes=(8, 7), edition=('csv', 'npy'))
    config = base.get_config(method)
    config.data.source = 'affectnet' if options['edition'] == 'csv' else 'affectnet_npy'
    config.data.classes = options['classes']
    config.loss.class_weights = 'balanced'  # contempt has a thirty-fifth of the images of happiness
    config.finetune.update(epochs=6.0, drop_epochs=(4,))
    config.stage1.update(epochs=12.0, drop_epochs=(8,))
    config.stage2.update(epochs=6.0, drop_epochs=(4,))
    config.scratch.update(epochs=12.0, drop_epochs=(8,))
    return config
