"""CK+: ten person-independent folds, the last three frames of every sequence.

Command:  python launch.py --config=configs/ckplus.py --workdir=runs/ckplus \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all); classes=8 (the default: six, contempt, and the first frame as
          neutral), 7 (without neutral) or 6 (the basic ones).  --config=configs/ckplus.py:all,classes=6
Expected: the paper has FN2EN 96.8, fine-tune 89.9, scratch 88.7 (8 classes, 1,308 images); FN2EN 98.6 (6 classes, 927);
          FMPN reports 98.06 (7 classes, 981, fold_rule=blocks)
Time:     4.7 h expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          a fold with 1,176 training images: fine-tune 6.2 min, stage 1 21 min, stage 2 81 s, scratch 81 s

Persons are dealt to folds in ascending order of their IDs, step 10, over all 118 who have a label;
--config.data.fold_subjects=chosen deals only those who show one of the classes, --config.data.fold_rule=blocks
takes contiguous blocks.
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's settings on CK+."""
    method, options = base.options(argument, classes=(8, 7, 6))
    config = base.get_config(method)
    config.data.source = 'ckplus'
    config.data.classes = options['classes']
    config.data.num_folds = 10
    return config
