"""Both nets as ONNX graphs under onnxruntime, against the nets themselves."""

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from fn2en_jax import onnx_graph
from tests import trained_nets

# Crops are 32 pixels, stored faces 36. With `features` convolutions the student's last map is 32 >> features wide, and
# is adapted to the teacher's map of the layer.
NETS = {
    'grey, averaged with the mirror image, a vector target': (
        'scratch',
        {'data__channels': 1, 'loss__flip_test': True, 'stage1__layer': 'fc6'},
    ),
    'an adapter from 1 to 4 pixels, without batch norm': (
        'fn2en',
        {'stage1__layer': 'pool3', 'expression_net__batch_norm': False},
    ),
    'an adapter from 3 to 4 pixels': (
        'fn2en',
        {
            'expression_net__features': (4, 4, 4, 4),
            'stage1__layer': 'pool4',
            'face_net__image_size': 72,
            'data__crop_size': 50,
            'data__stored_size': 53,
        },
    ),
    'an adapter from 5 to 2 pixels, odd sizes': (
        'fn2en',
        {
            'expression_net__features': (4, 4, 6),
            'stage1__layer': 'pool4',
            'data__crop_size': 45,
            'data__stored_size': 48,
        },
    ),
    'the face net, enlarging grey': (
        'finetune',
        {'data__channels': 1, 'face_net__image_size': 70, 'loss__flip_test': True},
    ),
    'the net that learned persons, without batch norm, shrinking': (
        'face_net',
        {
            'names': ('Ann', 'Bob', 'Cy'),
            'loss__flip_test': True,
            'face_net__batch_norm': False,
            'face_net__image_size': 32,
            'data__crop_size': 47,
            'data__stored_size': 48,
            'face_net__mean_rgb': (90.0, 120.0, 150.0),
        },
    ),
}


def built(net):
    variables, crop = net.variables(), net.config.data.crop_size
    metadata = {'class_names': ','.join(net.class_names)}
    return onnx_graph.build(net.classifier, variables, image_shape=net.image_shape, crop=crop, metadata=metadata)


def session(proto):
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=['CPUExecutionProvider'])


@pytest.mark.parametrize('case', NETS)
def test_the_graph_computes_what_the_net_computes(case):
    method, settings = NETS[case]
    net = trained_nets.make(method, **settings)
    images, run = trained_nets.faces(net, 6), session(built(net))
    expected = trained_nets.probabilities(net, images)
    found = np.concatenate([run.run(None, {'faces': batch})[0] for batch in (images[:1], images[1:])])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)
    # A net that says the same of every image would pass whatever the graph does before its last layers.
    assert np.ptp(expected, axis=0).max() > 0.01


def test_the_graph_says_what_goes_in_and_out():
    net = trained_nets.make('scratch')
    proto = built(net)
    run = session(proto)
    (into,), (out,) = run.get_inputs(), run.get_outputs()
    assert (into.name, into.type, into.shape) == ('faces', 'tensor(uint8)', ['batch', 36, 36, 3])
    assert (out.name, out.type, out.shape) == ('probabilities', 'tensor(float)', ['batch', 7])
    assert run.get_modelmeta().custom_metadata_map == {'class_names': ','.join(net.class_names)}
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [('', 17)]


def test_resizing_is_that_of_the_net():
    draw = np.random.default_rng(0).uniform(0, 255, (2, 9, 9, 3)).astype(np.float32)
    for side in (9, 14, 5):
        graph = onnx_graph._Graph({})
        name = graph.resized('x', (9, 9), side)
        info = onnx.helper.make_tensor_value_info
        proto = onnx.helper.make_model(
            onnx.helper.make_graph(
                graph.nodes,
                'resize',
                [info('x', onnx.TensorProto.FLOAT, [2, 3, 9, 9])],
                [info(name, onnx.TensorProto.FLOAT, [2, 3, side, side])],
                graph.constants,
            ),
            opset_imports=[onnx.helper.make_opsetid('', 17)],
            ir_version=8,
        )
        found = session(proto).run(None, {'x': draw.transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(found, jax.image.resize(draw, (2, side, side, 3), 'bilinear'), rtol=1e-5, atol=1e-3)


def test_another_dtype_is_no_graph():
    with pytest.raises(ValueError, match='only float32 nets'):
        built(trained_nets.make('scratch', dtype='bfloat16'))
