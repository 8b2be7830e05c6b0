"""TFD: the five official folds of 48 x 48 grey images, each watched on its validation part.

Command:  python launch.py --config=configs/tfd.py --workdir=runs/tfd \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all).
Expected: the paper has FN2EN 88.9, fine-tune 86.7, scratch 82.5
Time:     4.1 h expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          a fold with 2,925 training images: fine-tune 16 min, stage 1 33 min, stage 2 15 s, scratch 15 s
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's settings on TFD; the smaller expression net's widths are our choice."""
    method, _ = base.options(argument)
    config = base.get_config(method)
    config.data.source = 'tfd'
    # 48 x 48 pixels: three convolutions, whose 5 x 5 map the transposed convolution enlarges to the 7 x 7 of the face
    # net, which sees the same crop enlarged to its own 224 pixels. 42 is to 48 as 224 is to 256.
    config.data.channels = 1
    config.data.stored_size, config.data.crop_size = 48, 42
    config.face_net.image_size = 224
    config.expression_net.features = (64, 128, 256)
    return config
