"""One random net, written in every published form, comes back bit for bit; what is wrong is one clear line."""

import re

import h5py
import numpy as np
import pytest
import scipy.io
from safetensors.numpy import save_file

from fn2en_jax.errors import UserError
from fn2en_jax.models import vgg_face
from fn2en_jax.weights import canonical, files, keras
from fn2en_jax.weights.binary import Bytes
from fn2en_jax.weights.canonical import Wish
from tests import weight_files as writers

MADE = writers.net()
CANONICAL = writers.canonical(MADE)
NAMES = [f'Person_{n}' for n in (3, 1, 2, 0, 4)]


def state(naming, **options):
    return lambda path: writers.pytorch(path, writers.state(MADE, naming), **options)


def written(name, **options):
    return lambda path: getattr(writers, name)(path, MADE, **options)


def flat_hdf5(path):
    """What caffemodel2pytorch writes when it is asked for HDF5."""
    with h5py.File(path, 'w') as file:
        for name, array in writers.state(MADE, 'caffe').items():
            file[name] = array


RGB, BGR = Wish(colour_order='rgb'), Wish(colour_order='bgr')
THEANO = Wish(colour_order='rgb', theano_flipped=True)
PLAIN = Wish()
# name: (writer, what the user says, what the format is called, colours of its nets)
FORMS = {
    'mat-oxford': (written('matconvnet', names=NAMES), PLAIN, 'MatConvNet (simplenn)', 'rgb'),
    'mat-oxford-plain': (written('matconvnet', compressed=False), PLAIN, 'MatConvNet (simplenn)', 'rgb'),
    'mat-beta16': (written('matconvnet', form='beta16', names=NAMES), PLAIN, 'MatConvNet (simplenn)', 'rgb'),
    'mat-beta17': (written('matconvnet', form='beta17', names=NAMES), PLAIN, 'MatConvNet (simplenn)', 'rgb'),
    'mat-old': (written('matconvnet', form='old'), PLAIN, 'MatConvNet (simplenn)', 'rgb'),
    'mat-dag': (written('matconvnet', form='dag', names=NAMES), PLAIN, 'MatConvNet (DAG)', 'rgb'),
    'caffe-v1': (written('caffe'), PLAIN, 'Caffe (V1 layers)', 'bgr'),
    'caffe-v1-unpacked': (written('caffe', packed=False), PLAIN, 'Caffe (V1 layers)', 'bgr'),
    'caffe-new': (written('caffe', form='new', legacy=False), PLAIN, 'Caffe (new layers)', 'bgr'),
    'caffe-new-unpacked': (written('caffe', form='new', packed=False), PLAIN, 'Caffe (new layers)', 'bgr'),
    'caffe-double': (written('caffe', form='new', legacy=False, double=True), PLAIN, 'Caffe (new layers)', 'bgr'),
    'caffe-double-unpacked': (written('caffe', packed=False, double=True), PLAIN, 'Caffe (V1 layers)', 'bgr'),
    'caffe-v0': (written('caffe', form='V0'), PLAIN, 'Caffe (V0 layers)', 'bgr'),
    't7': (written('torch7'), PLAIN, 'Torch7', 'bgr'),
    't7-double': (written('torch7', double=True), PLAIN, 'Torch7', 'bgr'),
    't7-padded': (written('torch7', edit=writers.padded), PLAIN, 'Torch7', 'bgr'),
    't7-4d-nested': (written('torch7', flat=False, nested=True), PLAIN, 'Torch7', 'bgr'),
    'pth-dag': (state('dag'), RGB, 'PyTorch (zip), names conv1_1 ... fc8', 'rgb'),
    'pth-dag-stream': (state('dag', zipped=False), RGB, 'PyTorch (stream), names conv1_1 ... fc8', 'rgb'),
    'pth-dag-wrapped': (state('dag', wrap='state_dict'), RGB, 'PyTorch (zip), names conv1_1 ... fc8', 'rgb'),
    'pth-fer': (state('fer', zipped=False), PLAIN, 'PyTorch (stream), converted from MatConvNet', 'rgb'),
    'pth-caffe': (state('caffe'), PLAIN, 'PyTorch (zip), converted from Caffe', 'bgr'),
    'pth-prlz77': (state('prlz77'), PLAIN, 'PyTorch (zip), converted from Torch7', 'bgr'),
    'pth-pyvggface': (state('pyvggface', zipped=False), PLAIN, 'PyTorch (stream), converted from Torch7', 'bgr'),
    'pth-parallel': (state('parallel'), PLAIN, 'PyTorch (zip), converted from Torch7', 'bgr'),
    'keras2-rcmalli': (written('keras'), PLAIN, 'Keras (rcmalli)', 'bgr'),
    'keras1-rcmalli': (written('keras', version=1), PLAIN, 'Keras (rcmalli)', 'bgr'),
    'keras3-rcmalli': (written('keras', version=3), PLAIN, 'Keras (rcmalli)', 'bgr'),
    'keras2-full': (written('keras', full=True), PLAIN, 'Keras (rcmalli)', 'bgr'),
    'keras2-deepface': (written('keras', kind='deepface', automatic=True), PLAIN, 'Keras (deepface)', 'rgb'),
    'keras2-deepface-named': (written('keras', kind='deepface'), PLAIN, 'Keras (deepface)', 'rgb'),
    'keras3-full': (written('keras', version=3, full=True), PLAIN, 'Keras (rcmalli)', 'bgr'),
    'keras3-weights': (written('keras_3'), PLAIN, 'Keras (rcmalli)', 'bgr'),
    'keras3-weights-nested': (written('keras_3', nested=True), PLAIN, 'Keras (rcmalli)', 'bgr'),
    'keras3-weights-auto': (written('keras_3', kind='deepface', named=False), PLAIN, 'Keras (deepface)', 'rgb'),
    'keras3-weights-auto-dense': (
        written('keras_3', named=None, nested=True),
        BGR,
        'Keras, layers without names',
        'bgr',
    ),
    'h5-flat': (lambda path: flat_hdf5(path), PLAIN, 'HDF5, converted from Caffe', 'bgr'),
    'keras1-theano': (written('keras', kind='theano', version=1), THEANO, 'Keras 1 with Theano', 'rgb'),
    'keras1-theano-fc': (written('keras', kind='theano-fc', version=1), THEANO, 'Keras 1 with Theano', 'rgb'),
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_comes_back_bit_for_bit(form, tmp_path):
    write, wish, title, colours = FORMS[form]
    write(tmp_path / 'weights')
    net = files.read(str(tmp_path / 'weights'), wish)
    assert (net.format, net.colour_order) == (title, colours)
    assert net.mean_rgb == pytest.approx(writers.MEAN, abs=1e-5)
    assert net.image_size == (224, 224)
    assert list(net.variables['params']) == writers.LAYERS
    for layer, parts in CANONICAL.items():
        for part, array in parts.items():
            found = net.variables['params'][layer][part]
            assert found.dtype == np.float32
            assert found.flags.c_contiguous
            np.testing.assert_array_equal(found, array, err_msg=f'{layer} {part}')


@pytest.mark.parametrize('form', ['mat-oxford', 'mat-beta16', 'mat-beta17', 'mat-dag'])
def test_matconvnet_files_carry_class_names_in_their_own_order(form, tmp_path):
    FORMS[form][0](tmp_path / 'weights')
    assert files.read(str(tmp_path / 'weights')).class_names == tuple(NAMES)


@pytest.mark.parametrize('options', [{}, {'kind': 'deepface', 'named': False}])
def test_an_archive_of_keras_3_is_read_for_its_weights(options, tmp_path):
    path = tmp_path / 'a.keras'
    writers.keras_archive(path, MADE, **options)
    with Bytes(path) as file:
        assert keras.is_archive(file.read(0, 1024))
        net = keras.read_archive(file, PLAIN)
    np.testing.assert_array_equal(net.variables['params']['fc6']['kernel'], CANONICAL['fc6']['kernel'])
    np.testing.assert_array_equal(net.variables['params']['conv1_1']['kernel'], CANONICAL['conv1_1']['kernel'])
    for changed, at in ((path.read_bytes()[:20_000], None), (path.read_bytes(), 8), (path.read_bytes(), 6)):
        content = bytearray(changed)
        if at:  # every member compressed, or of a length that comes later
            content[:] = content.replace(
                b'PK\3\4\x14\0\0\0\0\0', b'PK\3\4\x14\0' + (b'\0\0\x08\0' if at == 8 else b'\x08\0\0\0')
            )
        path.write_bytes(content)
        with (
            Bytes(path) as file,
            pytest.raises(UserError, match=r'bytes at .* are needed|save_weights\(.x.weights.h5.\)'),
        ):
            keras.read_archive(file, PLAIN)
    writers.pytorch(path, writers.state(MADE, 'fer'))
    assert not keras.is_archive(path.read_bytes()[:1024])
    assert not keras.is_archive(b'PK\3\4')


def test_layers_inside_a_model_of_a_legacy_keras_file_are_read_by_their_paths(tmp_path):
    """One group for the model inside, whose list of weights is that of all its layers."""
    writers.keras(tmp_path / 'a', MADE, version=3)
    with h5py.File(tmp_path / 'a', 'a') as file:
        inner = [name.decode() for name in file.attrs['layer_names'] if name.startswith(b'conv')]
        group, paths = file.create_group('vgg'), []
        for name in inner:
            for part in ('kernel', 'bias'):
                paths.append(f'vgg/{name}/{part}')
                group[paths[-1]] = file[f'{name}/sequential/{name}/{part}'][()]
            del file[name]
        group.attrs['weight_names'] = np.array(paths, 'S')
        names = [name for name in file.attrs['layer_names'] if name.decode() not in inner]
        file.attrs['layer_names'] = np.array([b'vgg', *names])
    found = files.load(str(tmp_path / 'a'))['params']
    np.testing.assert_array_equal(found['conv5_3']['kernel'], CANONICAL['conv5_3']['kernel'])
    np.testing.assert_array_equal(found['fc8']['bias'], CANONICAL['fc8']['bias'])


def test_the_constants_are_those_of_the_net():
    assert canonical.BLOCKS == vgg_face.BLOCKS
    assert canonical.MEAN_RGB == vgg_face.MEAN_RGB


def test_an_average_image_becomes_its_mean_colour(tmp_path):
    image = np.zeros((4, 6, 3), np.float32) + np.array([10.0, 20, 30], np.float32)
    image[0] += 4
    writers.matconvnet(tmp_path / 'a.mat', MADE, image=image)
    assert files.read(str(tmp_path / 'a.mat')).mean_rgb == pytest.approx((11, 21, 31))


# ---------------------------------------------------------------------------------------------------------- ImageNet


@pytest.mark.parametrize('naming', ['torchvision', 'timm'])
@pytest.mark.parametrize('container', ['zip', 'stream', 'safetensors'])
def test_imagenet_nets_are_scaled_to_0_255(naming, container, tmp_path):
    arrays = writers.state(MADE, naming)
    path = tmp_path / 'a'
    if container == 'safetensors':
        save_file(dict(arrays), path)
    else:
        writers.pytorch(path, arrays, zipped=container == 'zip')
    net = files.read(str(path))
    assert net.mean_rgb == pytest.approx((123.675, 116.28, 103.53))
    expected = MADE['conv1_1'][0] / np.array([0.229, 0.224, 0.225])[:, None] / 255
    np.testing.assert_allclose(net.variables['params']['conv1_1']['kernel'], expected, rtol=1e-6)
    np.testing.assert_array_equal(net.variables['params']['fc6']['kernel'], CANONICAL['fc6']['kernel'])


def test_imagenet_features_without_a_classifier_are_taken_only_when_asked_for(tmp_path):
    arrays = writers.state(MADE, 'torchvision')
    arrays |= {name: array * np.nan for name, array in arrays.items() if name.startswith('classifier')}
    writers.pytorch(tmp_path / 'a.pth', arrays)
    with pytest.raises(UserError, match=r'classifier holds NaN.*--layers=convolutions'):
        files.read(str(tmp_path / 'a.pth'))
    net = files.load(str(tmp_path / 'a.pth'), Wish(layers='convolutions'))
    assert list(net['params']) == writers.CONVOLUTIONS
    np.testing.assert_array_equal(net['params']['conv1_1']['kernel'], MADE['conv1_1'][0])
    mean = files.read(str(tmp_path / 'a.pth'), Wish(layers='convolutions')).mean_rgb
    assert mean == pytest.approx((123.0, 117.0, 104.0), abs=1e-3)


@pytest.mark.parametrize(('naming', 'left_out'), [('torchvision', 'classifier'), ('timm', 'head')])
def test_imagenet_features_alone_are_taken_when_asked_for(naming, left_out, tmp_path):
    arrays = {name: array for name, array in writers.state(MADE, naming).items() if left_out not in name}
    writers.pytorch(tmp_path / 'a.pth', arrays)
    with pytest.raises(UserError, match=r'has no classifier.*--layers=convolutions'):
        files.read(str(tmp_path / 'a.pth'))
    net = files.read(str(tmp_path / 'a.pth'), Wish(layers='convolutions'))
    assert list(net.variables['params']) == writers.CONVOLUTIONS
    assert net.mean_rgb == pytest.approx((123.675, 116.28, 103.53))
    assert 'without the classifier' in net.notes[0]


# ----------------------------------------------------------------------------------------- what only the user can say


@pytest.mark.parametrize('zipped', [True, False])
def test_rgb_and_bgr_state_dicts_look_the_same_so_the_user_says_which(zipped, tmp_path):
    for name, bgr in (('rgb', False), ('bgr', True)):
        path = tmp_path / name
        writers.pytorch(path, writers.state(MADE, 'dag', bgr=bgr), zipped)
        with pytest.raises(UserError, match=r'vgg_face_dag.pth.*caffemodel2pytorch.*--colour_order=rgb'):
            files.read(str(path))
        for said in ('rgb', 'bgr'):
            kernel = files.read(str(path), Wish(colour_order=said)).variables['params']['conv1_1']['kernel']
            assert np.array_equal(kernel, MADE['conv1_1'][0]) == (said == name)


def test_who_contradicts_the_format_is_told_so(tmp_path):
    writers.caffe(tmp_path / 'a', MADE)
    net = files.read(str(tmp_path / 'a'), RGB)
    assert net.notes == ('nets in this format read BGR, and you say RGB: yours is taken',)
    assert files.read(str(tmp_path / 'a'), BGR).notes == ()
    with pytest.raises(UserError, match="colour order 'brg' is unknown"):
        files.read(str(tmp_path / 'a'), Wish(colour_order='brg'))


def test_a_4d_fc6_is_taken_for_rgb_and_that_is_said(tmp_path):
    writers.pytorch(tmp_path / 'a', writers.state(MADE, 'fer'))
    [note] = files.read(str(tmp_path / 'a')).notes
    assert 'so RGB is taken' in note
    assert '--colour_order=bgr' in note
    assert files.read(str(tmp_path / 'a'), RGB).notes == ()
    [note] = files.read(str(tmp_path / 'a'), BGR).notes
    assert 'you say BGR' in note


def test_turning_what_is_not_flipped_is_said(tmp_path):
    writers.caffe(tmp_path / 'a', MADE)
    assert 'turns nothing' in files.read(str(tmp_path / 'a'), Wish(theano_flipped=True)).notes[0]


@pytest.mark.parametrize('size', [(0, 0), (16, 16), (31, 32), (32, 10_001), (-32, -32)])
def test_images_that_no_vgg_reads_are_refused(size, tmp_path):
    writers.caffe(tmp_path / 'a', writers.net(side=(1, 1)))
    fails(tmp_path / 'a', 'pixels are no size of a VGG-16', Wish(image_size=size))


def test_layers_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="the layers 'conv' are unknown"):
        Wish(layers='conv')


@pytest.mark.parametrize(('kind', 'version', 'backend'), [('theano', 1, ''), ('deepface', 2, 'theano')])
def test_flipped_kernels_need_a_flag_and_colours(kind, version, backend, tmp_path):
    writers.keras(tmp_path / 'a', MADE, kind=kind, version=version, backend=backend)
    with pytest.raises(UserError, match='--theano_flipped'):
        files.read(str(tmp_path / 'a'), RGB)
    with pytest.raises(UserError, match='--colour_order=rgb'):
        files.read(str(tmp_path / 'a'), Wish(theano_flipped=True))


def test_convolutions_alone_are_taken_only_when_asked_for(tmp_path):
    writers.keras(tmp_path / 'a', MADE, kind='notop')
    with pytest.raises(UserError, match=r'missing: fc6/kernel, .*fc8/bias; .*--layers=convolutions'):
        files.read(str(tmp_path / 'a'))
    net = files.read(str(tmp_path / 'a'), Wish(layers='convolutions'))
    assert (list(net.variables['params']), net.layers, net.image_size) == (writers.CONVOLUTIONS, 'convolutions', None)
    np.testing.assert_array_equal(net.variables['params']['conv1_1']['kernel'], MADE['conv1_1'][0])
    assert len(net.notes) == 1
    assert re.search('taken for those of rcmalli, which read BGR .* --colour_order=rgb', net.notes[0])
    assert files.read(str(tmp_path / 'a'), Wish('bgr', 'convolutions')).notes == ()
    writers.caffe(tmp_path / 'b', MADE)
    whole = files.read(str(tmp_path / 'b'), Wish(layers='convolutions'))
    assert list(whole.variables['params']) == writers.CONVOLUTIONS


def test_layers_without_names_and_classifier_do_not_tell_their_colours(tmp_path):
    writers.keras(
        tmp_path / 'a', MADE, kind='notop', edit=lambda found: [(f'conv2d_{n}', a) for n, (_, a) in enumerate(found)]
    )
    wish = Wish(layers='convolutions')
    with pytest.raises(UserError, match='cannot tell the colour order'):
        files.read(str(tmp_path / 'a'), wish)


def test_a_flat_hdf5_file_tells_its_colours_by_its_shapes_or_not_at_all(tmp_path):
    with h5py.File(tmp_path / 'a', 'w') as file:
        for name, array in writers.state(MADE, 'dag').items():
            file[name] = array
    with pytest.raises(UserError, match=r'HDF5, .*cannot tell the colour order.*caffemodel2pytorch'):
        files.read(str(tmp_path / 'a'))
    kernel = files.load(str(tmp_path / 'a'), RGB)['params']['conv1_1']['kernel']
    np.testing.assert_array_equal(kernel, MADE['conv1_1'][0])


def test_layers_of_keras_3_without_names_in_several_models_have_no_order(tmp_path):
    writers.keras_3(tmp_path / 'a', MADE, kind='deepface', named=False, nested=True)
    fails(tmp_path / 'a', 'in models inside each other, so their order cannot be told')
    with h5py.File(tmp_path / 'b', 'w') as file:
        file['layers/conv2d/vars'] = 1.0
    fails(tmp_path / 'b', 'holds no Keras weights')
    names = [f'block{n[4]}_conv{n[6]}' for n in writers.CONVOLUTIONS] + ['fc1', 'fc2', 'predictions']
    writers.keras_3(tmp_path / 'c', MADE, edit=lambda found: [(n, a) for n, (_, a) in zip(names, found, strict=True)])
    fails(tmp_path / 'c', r'missing: conv1_1/kernel.*surplus: layers/conv2d/vars/0')


def test_the_size_of_the_image_is_told_where_the_map_is_not_square(tmp_path):
    made = writers.net(side=(2, 3))
    writers.caffe(tmp_path / 'a', made)
    with pytest.raises(UserError, match='of another shape: fc6 blob 0'):
        files.read(str(tmp_path / 'a'))
    net = files.read(str(tmp_path / 'a'), Wish(image_size=(64, 96)))
    np.testing.assert_array_equal(net.variables['params']['fc6']['kernel'], writers.canonical(made)['fc6']['kernel'])


def test_an_imagenet_net_does_not_pass_for_a_face_net(tmp_path):
    """Oxford's VGG-16 for ImageNet has the same layers in the same form, and another mean."""
    made = writers.net(side=(1, 1), classes=1000)
    writers.caffe(tmp_path / 'a', made)
    for wish in (PLAIN, Wish(layers='convolutions')):
        with pytest.raises(UserError, match=r'1000 classes .* --mean=R,G,B'):
            files.read(str(tmp_path / 'a'), wish)
    assert files.read(str(tmp_path / 'a'), Wish(mean_rgb=(1.0, 2.0, 3.0))).mean_rgb == (1, 2, 3)
    names = [f'block{n[4]}_conv{n[6]}' for n in writers.CONVOLUTIONS] + ['fc1', 'fc2', 'predictions']
    writers.keras(tmp_path / 'b', MADE, edit=lambda found: [(n, a) for n, (_, a) in zip(names, found, strict=True)])
    fails(tmp_path / 'b', r'missing: conv1_1/kernel.*surplus: block1_conv1/kernel:0')


def test_automatic_names_with_matrices_do_not_tell_their_colours(tmp_path):
    def automatic(layers):
        return [(f'conv2d_{n}' if n < 13 else f'dense_{n}', arrays) for n, (_, arrays) in enumerate(layers)]

    writers.keras(tmp_path / 'a', MADE, edit=automatic)
    with pytest.raises(UserError, match='cannot tell the colour order'):
        files.read(str(tmp_path / 'a'))
    found = files.load(str(tmp_path / 'a'), BGR)['params']
    np.testing.assert_array_equal(found['fc6']['kernel'], CANONICAL['fc6']['kernel'])
    np.testing.assert_array_equal(found['conv1_1']['kernel'], CANONICAL['conv1_1']['kernel'])


def test_another_mean_is_the_users_word(tmp_path):
    writers.caffe(tmp_path / 'a', MADE)
    assert files.read(str(tmp_path / 'a'), Wish(mean_rgb=(1.0, 2.0, 3.0))).mean_rgb == (1, 2, 3)


# ------------------------------------------------------------------------------------------------------ what is wrong


def fails(path, match, wish=PLAIN):
    with pytest.raises(UserError, match=match) as caught:
        files.load(str(path), wish)
    message = str(caught.value)
    assert '\n' not in message
    assert message.isprintable()
    assert message.startswith((str(path), 'there is no file'))
    return message


def changed(**changes):
    return {name: value for name, value in {**MADE, **changes}.items() if value is not None}


def wide(name):
    kernel, bias = MADE[name]
    return np.concatenate([kernel, kernel], 2), bias


BROKEN = {
    'missing': (changed(conv3_2=None), 'missing: conv3_2/kernel, conv3_2/bias'),
    'mis-shaped': (
        changed(conv4_1=wide('conv4_1')),
        r'of another shape: .*(conv4_1|module).*\(3, 3, 16, 32\) is needed',
    ),
    'NaN': (
        changed(fc7=(MADE['fc7'][0] * np.nan, MADE['fc7'][1])),
        'params/fc7/kernel holds values that are not finite',
    ),
    'infinite': (
        changed(conv1_2=(MADE['conv1_2'][0], MADE['conv1_2'][1] + np.float32(np.inf))),
        'conv1_2/bias holds .* not finite',
    ),
}
WRITERS = {
    'mat': lambda path, made: writers.matconvnet(path, made),
    'dag': lambda path, made: writers.matconvnet(path, made, form='dag'),
    'caffe': lambda path, made: writers.caffe(path, made),
    'keras': lambda path, made: writers.keras(path, {**MADE, **made}),
}


@pytest.mark.parametrize('broken', BROKEN)
@pytest.mark.parametrize('form', ['mat', 'dag', 'caffe', 'pth'])
def test_a_wrong_tensor_is_named(form, broken, tmp_path):
    made, match = BROKEN[broken]
    path = tmp_path / 'a'
    if form == 'pth':
        arrays = {}
        for name, (kernel, bias) in writers.for_bgr(made).items():
            arrays |= {f'{name}.weight': writers.oihw(kernel), f'{name}.bias': bias}
        writers.pytorch(path, arrays)
    else:
        WRITERS[form](path, made)
    fails(path, match)


def test_missing_and_misshaped_torch7_modules_are_named(tmp_path):
    writers.torch7(tmp_path / 'a', MADE, edit=lambda modules: [*modules[:2], *modules[3:]])
    fails(tmp_path / 'a', 'missing: conv5_3/kernel')
    writers.torch7(tmp_path / 'b', {**MADE, 'conv4_1': wide('conv4_1')})
    fails(tmp_path / 'b', r'of another shape: module 18 \(nn.SpatialConvolutionMM\) weight')


def norms(entries, count):
    return {f'{name}.running_mean': np.ones(count, np.float32) for name in entries}


def test_batch_norm_is_no_vgg_face(tmp_path):
    writers.pytorch(tmp_path / 'a', writers.state(MADE, 'fer') | norms(['bn1_1'], 4))
    fails(tmp_path / 'a', r'surplus: bn1_1\.running_mean')
    shifted = {f'features.{3 * n}.weight': array for n, array in enumerate(writers.state(MADE, 'fer').values())}
    writers.pytorch(tmp_path / 'b', shifted | norms(['features.1'], 4) | {'classifier.6.bias': np.ones(5, np.float32)})
    fails(tmp_path / 'b', r'missing: .*surplus: .*')
    bn = (b'nn.SpatialBatchNormalization', {b'weight': np.ones(4, np.float32), b'bias': np.ones(4, np.float32)})
    writers.torch7(tmp_path / 'c', MADE, edit=lambda modules: [modules[0], bn, *modules[1:]])
    fails(tmp_path / 'c', r'surplus: module 2 \(nn.SpatialBatchNormalization\)')
    layer = writers.simple_layer('bn1', 'bnorm', (np.ones((4, 1), np.float32), np.ones(4, np.float32)), True, False)
    writers.matconvnet(tmp_path / 'd', MADE, edit=lambda layers: [*layers, layer])
    fails(tmp_path / 'd', 'surplus: bn1 weights 1')
    writers.keras(tmp_path / 'e', MADE, edit=lambda layers: [*layers, ('bn1', [np.ones(4, 'f'), np.ones(4, 'f')])])
    fails(tmp_path / 'e', 'surplus: bn1/kernel:0')


def test_duplicates_are_refused(tmp_path):
    writers.caffe(tmp_path / 'a', MADE, edit=lambda out: out + out)
    fails(tmp_path / 'a', 'kernel of conv1_1 is there twice')
    arrays = writers.state(MADE, 'dag')
    writers.pytorch(tmp_path / 'b', {**arrays, 'module.fc7.bias': arrays['fc7.bias']})
    fails(tmp_path / 'b', r'bias of fc7 is there twice \(fc7.bias and module.fc7.bias\)', RGB)
    writers.matconvnet(tmp_path / 'c', MADE, edit=lambda layers: [*layers, layers[0]])
    fails(tmp_path / 'c', 'kernel of conv1_1 is there twice')


def test_other_files_are_told_by_their_content(tmp_path):
    strangers = {
        b'\x1f\x8b rest': 'gzip archive',
        b'version https://git-lfs.github.com/spec/v1\n': 'Git LFS pointer',
        b'<!DOCTYPE html>': 'web page',
        b'4\n1\n3\nV 1\n': 'text form',
        b'\x80\x02}q\x00.': 'a pickle, but not what torch.save writes',
        b'\x93NUMPY': 'NumPy array',
        b'hello': 'no weight file of a known form',
        b'': 'no weight file of a known form',
        b'\x0a\x03abc': 'no weight file of a known form',
        b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(512)
        + b'\x89HDF\r\n\x1a\n': 'version 7.3; save it again .* -v7',
        b'\0' * 257 + b'ustar': 'tar archive',
    }
    for content, match in strangers.items():
        (tmp_path / 'a').write_bytes(content)
        fails(tmp_path / 'a', match)
    fails(tmp_path / 'none', 'there is no file')
    with pytest.raises(UserError, match='only local files and gs://'):
        files.read('https://example.org/a')


@pytest.mark.parametrize('form', FORMS)
def test_truncated_files_are_refused(form, tmp_path):
    path = tmp_path / 'a'
    FORMS[form][0](path)
    whole = path.read_bytes()
    for share in (0.001, 0.3, 0.7, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        fails(path, '.', FORMS[form][1])


def test_version_1_of_rcmalli_is_refused_by_its_name(tmp_path):
    path = tmp_path / 'rcmalli_vggface_th_weights_th_ordering.h5'
    writers.keras(path, MADE)
    fails(path, 'version 1 of rcmalli')


def test_two_average_colours_are_none(tmp_path):
    writers.matconvnet(tmp_path / 'a', MADE, image=np.ones((1, 1, 2), np.float32))
    fails(tmp_path / 'a', 'three channels are needed')


def simple_edits(**changes):
    return lambda layers: [{**layer, **changes} if layer['name'] == 'relu1_1' else layer for layer in layers]


def test_matlab_layers_with_numbers_in_place_of_cells_and_texts(tmp_path):
    path = tmp_path / 'a'
    for nothing in (np.zeros((0, 0)), np.empty((0, 0), object)):  # [] and {} of a layer without weights
        writers.matconvnet(path, MADE, edit=simple_edits(weights=nothing))
        assert list(files.load(str(path))['params']) == writers.LAYERS
    numbers = np.arange(3.0)
    writers.matconvnet(path, MADE, edit=simple_edits(weights=np.ones((2, 2))))
    fails(path, 'surplus: relu1_1 weights 1')
    for weights in (writers.cell([numbers, numbers]), np.ones((2, 2))):
        writers.matconvnet(path, MADE, edit=simple_edits(name=numbers, type=numbers, weights=weights))
        fails(path, 'surplus: a layer without a name weights 1')
    dag = writers.dag(MADE)
    dag['layers'][0, 0]['name'] = dag['layers'][0, 0]['type'] = numbers
    scipy.io.savemat(path, dag, appendmat=False)
    fails(path, 'missing: conv1_1/kernel, conv1_1/bias; surplus: a layer without a name weights 1')


def module(place, **changes):
    """An edit of Torch7's modules, counted from 1."""
    changes = {key.encode(): value for key, value in changes.items()}
    return lambda found: [(k, f | changes) if n == place else (k, f) for n, (k, f) in enumerate(found, 1)]


def margin(place, **sides):
    pads = {b'pad_l': 1, b'pad_r': 1, b'pad_t': 1, b'pad_b': 1} | {key.encode(): n for key, n in sides.items()}
    return lambda found: [*found[: place - 1], (b'nn.SpatialZeroPadding', pads), *found[place - 1 :]]


def mat_layer(name, **changes):
    return lambda layers: [{**layer, **changes} if layer['name'] == name else layer for layer in layers]


def said(name, **changes):
    return lambda form, layer: writers.caffe_geometry(form, layer, **changes if layer == name else {})


GEOMETRY = {
    't7-stride': ('torch7', {'edit': module(1, dH=2)}, r'module 1 \(.*MM\) has a stride of 2 where VGG-16 has 1'),
    't7-padding': ('torch7', {'edit': module(3, padW=0)}, r'module 3 .* has a padding of 0 where VGG-16 has 1'),
    't7-odd': ('torch7', {'edit': module(3, kW=b'3')}, r'module 3 .* has a kernel of nan where VGG-16 has 3'),
    't7-pool': ('torch7', {'edit': module(5, kW=3, dW=3)}, r'module 5 .* has a kernel of 3 where VGG-16 has 2'),
    't7-padded-twice': ('torch7', {'edit': margin(1)}, r'module 2 .* has a padding of 2 where VGG-16 has 1'),
    't7-margin': ('torch7', {'edit': margin(2)}, r'module 2 \(nn.SpatialZeroPadding\) pads what is not convolved next'),
    't7-lopsided': ('torch7', {'edit': lambda found: margin(1, pad_t=9)(module(1, padW=0, padH=0)(found))},
                    r'module 2 .* has a padding of 9'),
    'mat-stride': ('matconvnet', {'edit': mat_layer('conv2_1', stride=2.0)}, 'conv2_1 has a stride of 2 where'),
    'mat-pad': ('matconvnet', {'edit': mat_layer('conv2_1', pad=np.zeros(4))}, 'conv2_1 has a padding of 0 where'),
    'mat-fc': ('matconvnet', {'edit': mat_layer('fc6', pad=3.0)}, 'fc6 has a padding of 3 where VGG-16 has 0'),
    'mat-pool': ('matconvnet', {'edit': mat_layer('pool2', pool=np.array([3.0, 3]))}, 'pool2 has a kernel of 3 where'),
    'mat-mean': ('matconvnet', {'edit': mat_layer('pool2', method='avg')}, 'pool2 does not pool by the maximum'),
    'caffe-v1-pad': ('caffe', {'said': said('conv3_1', pad=0)}, 'conv3_1 has a padding of 0 where VGG-16 has 1'),
    'caffe-stride': ('caffe', {'form': 'new', 'said': said('conv3_1', stride=2)}, 'conv3_1 has a stride of 2 where'),
    'caffe-v1-pool': ('caffe', {'said': lambda form, name: writers.caffe_geometry(form, name, 0, 3, 2, pools=True)},
                      'conv1_1 has a kernel of 3 where VGG-16 has 2'),
    'caffe-mean': ('caffe', {'said': lambda form, name: writers.field(19, writers.integer(1, 1))},
                   'conv1_1 does not pool by the maximum'),
}  # fmt: skip


@pytest.mark.parametrize('case', GEOMETRY)
def test_a_net_that_steps_or_pads_otherwise_is_refused_where_the_file_says_so(case, tmp_path):
    writer, options, match = GEOMETRY[case]
    getattr(writers, writer)(tmp_path / 'a', MADE, **options)
    fails(tmp_path / 'a', match)


def test_blocks_of_a_dag_say_how_it_pads(tmp_path):
    dag = writers.dag(MADE)
    for name, change, match in (
        ('conv4_2', {'pad': 2.0}, 'conv4_2 has a padding of 2 where VGG-16 has 1'),
        ('pool5', {'poolSize': [2.0, 3]}, 'pool5 has a kernel of 3 where VGG-16 has 2'),
    ):
        layer = next(layer for layer in dag['layers'][0] if layer['name'] == name)
        layer['block'] = layer['block'] | change
        scipy.io.savemat(tmp_path / 'a', dag, appendmat=False)
        fails(tmp_path / 'a', match)
        layer['block'] = {}


@pytest.mark.parametrize(
    'head', [writers.field(3, b'data') + writers.integer(4, 1), writers.integer(5, 1), writers.field(8, b'\x08\1'), b'']
)
def test_a_caffe_model_need_not_begin_with_a_name(head, tmp_path):
    writers.caffe(tmp_path / 'a', MADE, form='new', legacy=False, head=head)
    np.testing.assert_array_equal(files.load(str(tmp_path / 'a'))['params']['conv1_1']['kernel'], MADE['conv1_1'][0])
    for text in (b' a line of text\n', b'(a, b)\n', b'2 by 2\n', b'8', b'Before it'):
        (tmp_path / 'b').write_bytes(text)
        fails(tmp_path / 'b', 'no weight file of a known form')


@pytest.mark.parametrize(
    'head', [writers.field(1, b'VGG_FA{x'), writers.field(3, b'images{') + writers.field(1, b'VGG')]
)
def test_a_caffe_model_is_told_from_safetensors_whatever_its_ninth_byte(head, tmp_path):
    writers.caffe(tmp_path / 'a', MADE, head=head)
    assert files.read(str(tmp_path / 'a')).format == 'Caffe (V1 layers)'


def test_an_archive_of_keras_3_is_told_from_one_of_torch(tmp_path):
    writers.keras_archive(tmp_path / 'a', MADE)
    assert files.read(str(tmp_path / 'a')).format == 'Keras (rcmalli)'
