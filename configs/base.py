"""Every key of a run, its default and its unit. The defaults are the paper's, with a full-size face net.

A dataset's file starts from `get_config` and overrides a few keys; any key can be set on the command line:
`--config.stage1.epochs=100`. Durations are in epochs, one epoch being round(examples / batch_size) steps.
"""

import ml_collections

METHODS = ('fn2en', 'finetune', 'scratch')


def methods(argument: str) -> tuple[str, ...]:
    """The methods to run for the text after the colon of `--config=FILE:ARGUMENT`; 'all' for every one."""
    return METHODS if argument == 'all' else (argument,)


def options(argument: str, **known: tuple) -> tuple[str, dict]:
    """Divides 'fn2en,classes=6' into the method and the options of a dataset's file.

    Args:
        argument: the text after the colon.
        **known: the values of every option of the file, its default first.

    Returns:
        The method ('fn2en' if none is named), and the value of every option.

    Raises:
        ValueError: for an option or a value that the file does not know, an option given twice, or a second method.
    """
    method, chosen = '', {name: values[0] for name, values in known.items()}
    given: set[str] = set()
    for part in filter(None, argument.split(',')):
        name, equals, text = part.partition('=')
        if not equals:
            if method:
                raise ValueError(f'two methods after the colon, {method} and {name}; use all, or config.methods')
            method = name
        elif name not in known:
            raise ValueError(f'unknown option {name!r} after the colon; there are {", ".join(known) or "none"}')
        elif name in given:
            raise ValueError(f'{name} is given twice after the colon')
        else:
            given.add(name)
            values = {str(value): value for value in known[name]}
            if text not in values:
                raise ValueError(f'{part} after the colon; use {" or ".join(filter(None, values))}')
            chosen[name] = values[text]
    return method or 'fn2en', chosen


def stage(**overrides) -> ml_collections.ConfigDict:
    """How one stage trains."""
    config = ml_collections.ConfigDict()
    config.epochs = 50.0
    config.batch_size = 64  # over all devices
    config.optimiser = 'sgd'  # 'sgd' as in Caffe, or 'adamw'
    config.learning_rate = 1e-4
    config.schedule = 'step'  # 'step', 'cosine' or 'constant'
    config.drop_epochs = ()  # 'step': the epochs after which the rate is multiplied by drop_factor
    config.drop_factor = 0.1
    config.warmup_epochs = 0.0
    config.momentum = 0.9  # Adam's b1 with 'adamw'
    config.weight_decay = 5e-4  # in the gradient with 'sgd', decoupled with 'adamw'
    config.decay_mask = 'all'  # 'all' parameters decay, or 'kernels' only
    config.clip_norm = 0.0  # largest global gradient norm; 0: no clipping
    config.new_layers_multiplier = 1.0  # rate of the random layers on top of trained ones, relative to the rest
    config.update(overrides)
    return config


def small_set(**overrides) -> dict:
    """AdamW as it suits small nets on small sets: what `demo.py` and `faces.py` share in every stage."""
    return {
        'optimiser': 'adamw',
        'learning_rate': 2e-3,
        'weight_decay': 0.05,
        'decay_mask': 'kernels',
        'schedule': 'cosine',
        'warmup_epochs': 1.0,
        'new_layers_multiplier': 1.0,
        **overrides,
    }


def get_config(argument: str = 'fn2en') -> ml_collections.ConfigDict:
    """The paper's settings; `argument` names the method, or 'all'."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.methods = methods(argument)
    config.fold = 'all'  # 'all', the name of one fold, or 'none': train once on everything and test nothing
    config.dtype = 'float32'  # of the computation: 'float32' or 'bfloat16'; parameters are float32
    config.steps_per_dispatch = 50  # training steps the device makes without the host
    config.compilation_cache = ''  # where compiled steps are kept; '' is ~/.cache/fn2en_jax/xla, 'none' is nowhere

    data = config.data = ml_collections.ConfigDict()
    data.source = 'synthetic'  # 'synthetic', 'csv', 'folder', or a published set: python -m fn2en_jax.datasets
    data.expressions = ''  # csv: file, expression[, subject][, fold | split]; folder: one sub-folder per class
    data.identities = ''  # csv: file, identity, for training the face net; 'synthetic' for rendered persons
    data.data_dir = ''  # where prepared sets are kept; '' is ~/.cache/fn2en_jax/data
    data.in_memory_bytes = 4 << 30  # larger sets stay on disk and stream from the host
    data.num_folds = 5  # folds made when the data brings none
    data.folds_file = ''  # folds of yours, in the form of a workdir's folds.json
    data.faces = ''  # 'align', 'box', 'none'; '': what a published set needs, and nothing for your own photographs
    data.no_face = 'keep'  # 'keep' the centre of an image in which no face is found, or 'drop' it
    # Published sets; the zero values are the set's own protocol.
    data.manual_dir = ''  # the folder with the licensee's download; needed until the set is prepared
    data.classes = 0  # how many: 6, 7 or 8 of CK+
    data.fold_rule = ''  # 'step' or 'blocks' over ascending persons, or 'official'
    data.fold_subjects = 'all'  # whose IDs are dealt to folds: 'all', or 'chosen', who show one of the classes
    data.test_split = ''  # 'validation' or 'test'
    data.extra = ''  # another published set that joins the training part, such as 'fer2013'
    data.extra_manual_dir = ''
    data.channels = 3  # 1: grey, 3: RGB
    data.stored_size = 256  # pixels; faces are kept at this side
    data.crop_size = 224  # pixels; what the nets see
    # The synthetic sets: persons and images of each, for identities, for training and for testing expressions.
    data.synthetic = ml_collections.ConfigDict()
    data.synthetic.seed = 0
    data.synthetic.identity_persons = 200
    data.synthetic.identity_images = 20
    data.synthetic.train_persons = 60
    data.synthetic.train_images = 7
    data.synthetic.test_persons = 100
    data.synthetic.test_images = 14

    augment = config.augment = ml_collections.ConfigDict()
    augment.flip = True
    augment.rotate = 0.0  # degrees
    augment.zoom = 0.0  # relative
    augment.brightness = 0.0  # of 255
    augment.contrast = 0.0  # relative
    augment.erase = 0.0  # largest side of an erased rectangle, relative to the crop

    loss = config.loss = ml_collections.ConfigDict()
    loss.class_weights = 'none'  # 'balanced': every class counts the same, whatever its number of images
    loss.label_smoothing = 0.0  # for expressions, in all methods
    loss.flip_test = False  # average the logits of a test image and its mirror image, in all methods

    face = config.face_net = ml_collections.ConfigDict()
    face.weights = ''  # a weight file in any published form, local or gs://; '': trained on data.identities
    face.colour_order = ''  # 'rgb' or 'bgr', for a weight file that cannot tell
    face.layers = 'all'  # of the weight file: 'all', or 'convolutions' to start fc6 and fc7 anew
    face.mean_rgb = (129.1863, 104.7624, 93.5940)  # subtracted from images of 0..255; that of the weight file
    face.image_size = 0  # pixels; enlarges smaller images to what a trained net wants; 0: the crop as it is
    face.width = 1.0  # multiplies every number of channels
    face.fc_features = 4096  # before `width`
    face.batch_norm = False
    face.dropout_rate = 0.5  # while it learns persons
    face.input_scale = 1.0  # multiplies the mean-subtracted image; 1 for published weights
    face.label_smoothing = 0.0
    face.train = stage(learning_rate=1e-2, drop_epochs=(30, 40))

    net = config.expression_net = ml_collections.ConfigDict()
    net.features = (64, 128, 256, 512, 512)
    net.hidden = 256
    net.dropout_rate = 0.5
    net.batch_norm = False  # of FN2EN's student; the scratch baseline always has it
    net.input_scale = 1.0

    # VGG fine-tune: the paper gives no rates; 1e-3 for the new layer and 1e-4 for the rest.
    config.finetune = stage(drop_epochs=(20,), new_layers_multiplier=10.0)
    config.finetune.dropout_rate = 0.5

    # Stage 1. 1e-7 belongs to the *sum* over 7*7*512 features; see losses.feature_regression.
    config.stage1 = stage(epochs=300.0, learning_rate=1e-7, drop_epochs=(100,))
    config.stage1.layer = 'pool5'  # pool1 ... pool5, fc6, fc7 or fc8
    config.stage1.p = 2.0
    config.stage1.reduction = 'sum'  # 'sum' or 'mean' over features
    config.stage1.standardise = False  # regress channels of zero mean and unit variance
    config.stage1.unlabelled = False  # the identity images join stage 1 (beyond the paper)

    config.stage2 = stage(drop_epochs=(20,))
    config.scratch = stage(learning_rate=1e-2, drop_epochs=(20,))

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.keep = 2  # per stage
    config.checkpoint.every_seconds = 60.0

    # python -m fn2en_jax.visualize
    show = config.visualize = ml_collections.ConfigDict()
    show.batch_size = 64  # over all devices
    show.top_images = 9  # that excite a neuron most, shown one by one
    show.mean_images = 30  # of which the mean is shown
    show.cam_images = 8  # test images under Grad-CAM
    show.cam_side = 5  # pixels; Grad-CAM takes the last map of at least this side
    show.map_images = 4  # test images whose maps are shown beside the teacher's
    show.map_channels = 8
    # The input that excites a class neuron most. Lengths are parts of the image's side.
    show.ascent = ml_collections.ConfigDict()
    show.ascent.steps = 150
    show.ascent.step_size = 24.0  # grey levels, root mean square; at the beginning
    show.ascent.last_step_size = 6.0  # and at the end
    show.ascent.copies = 4  # of an image, over which the gradient is averaged
    show.ascent.jitter = 0.05  # by which copies are moved to either side
    show.ascent.mirror = True  # every second copy
    show.ascent.blur = 0.03  # standard deviation at the beginning
    show.ascent.last_blur = 0.01  # and at the end
    show.ascent.decay = 0.01  # per step, towards the starting colour
    show.ascent.chroma = 0.15  # the part of the gradient's colour that is followed
    show.ascent.noise = 20.0  # grey levels, at the start
    # Linear probes of expression and identity.
    show.probe = ml_collections.ConfigDict()
    show.probe.repeats = 3  # dealings into halves
    show.probe.grid = 3  # maps are averaged over grid x grid regions
    show.probe.components = 128  # principal components that a probe reads

    config.report = ml_collections.ConfigDict()
    config.report.rows_per_stage = 40  # points of a learning curve
    config.report.evals_per_stage = 8  # evaluations on the test fold while training; they only draw curves
    config.report.faces = True  # pictures of mistakes on the page; most sets forbid publishing most of their faces
    return config
