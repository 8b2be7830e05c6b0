"""FER2013: trained on Training, watched on PublicTest, tested on PrivateTest; with the FER+ labels on request.

Command:  python launch.py --config=configs/fer2013.py --workdir=runs/fer2013 \
              --config.data.manual_dir=PATH --config.face_net.weights=vgg_face.safetensors
Argument: the method (fn2en, finetune, scratch, all); labels=fer2013 (the default) or ferplus;
          --config.data.test_split=validation tests on PublicTest instead.
Expected: not in the paper, which only adds FER2013 to SFEW
Time:     8 h expected on one NVIDIA Tesla P100, from a published throughput (docs/datasets.md), not measured;
          28,709 training images: fine-tune 2.6 h, stage 1 5.4 h, stage 2 2.4 min, scratch 2.4 min
"""

import ml_collections

from configs import base


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """48 x 48 grey images, treated as those of TFD."""
    method, options = base.options(argument, labels=('fer2013', 'ferplus'))
    config = base.get_config(method)
    config.data.source = options['labels']
    # 48 x 48 pixels: three convolutions, whose 5 x 5 map the transposed convolution enlarges to the 7 x 7 of the face
    # net, which sees the same crop enlarged to its own 224 pixels. 42 is to 48 as 224 is to 256.
    config.data.channels = 1
    config.data.stored_size, config.data.crop_size = 48, 42
    config.face_net.image_size = 224
    config.expression_net.features = (64, 128, 256)
    return config
