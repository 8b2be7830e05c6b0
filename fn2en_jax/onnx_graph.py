"""The two nets as ONNX graphs, written layer by layer with the `onnx` package alone.

Activations are [N,C,H,W] between the convolutions, as ONNX has them; kernels are turned once, here. All is float32.
What is averaged over mirror images goes through the graph as one batch of twice the size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fn2en_jax.methods.classifier import Classifier
from fn2en_jax.models.expression_net import MEAN_GREY, ExpressionNet
from fn2en_jax.models.vgg_face import BLOCKS, MEAN_RGB, VGGFace

OPSET, IR_VERSION = 17, 8  # of 2022: old enough for the runtimes in use
INPUT, OUTPUT = 'faces', 'probabilities'
_EPSILON = 1e-5  # of both nets' batch normalisation
_BACKWARDS = np.iinfo(np.int64).min  # an end of `Slice` that lies before the first element


def build(
    classifier: Classifier,
    variables: Mapping[str, Any],
    *,
    image_shape: Sequence[int],
    crop: int,
    metadata: Mapping[str, str],
) -> Any:
    """The net with its preprocessing as an `onnx.ModelProto`: faces uint8 [batch,S,S,C] -> probabilities [batch,K].

    Args:
        classifier: around a `VGGFace` or an `ExpressionNet` that computes in float32.
        variables: 'params' and, with batch norm, 'batch_stats'; host arrays.
        image_shape: [S,S,C] of the faces.
        crop: side of the central part that the net sees, pixels.
        metadata: texts that travel with the model.

    Raises:
        ValueError: for a net of another dtype or kind.
    """
    import onnx

    model = classifier.model
    if jnp.dtype(model.dtype) != jnp.float32 or not isinstance(model, (VGGFace, ExpressionNet)):
        raise ValueError(f'only float32 nets of the two kinds become ONNX, not {type(model).__name__} in {model.dtype}')
    graph = _Graph(variables)
    x = graph.input(image_shape, crop)
    if classifier.flip_test:
        mirrored = graph.cut(x, start=-1, end=_BACKWARDS, axis=2, step=-1)
        x = graph.add('Concat', [x, mirrored], 'both', axis=0)
    size = (crop, crop)
    logits = _face_net(graph, model, x, size) if isinstance(model, VGGFace) else _expression_net(graph, model, x, size)
    if classifier.flip_test:
        pairs = graph.add('Reshape', [logits, graph.whole([2, -1, model.num_classes])], 'pairs')
        logits = graph.add('ReduceMean', [pairs], 'logits', axes=[0], keepdims=0)
    graph.add('Softmax', [logits], OUTPUT, axis=-1)
    finished = onnx.helper.make_graph(
        graph.nodes,
        type(model).__name__,
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ['batch', *image_shape])],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ['batch', model.num_classes])],
        graph.constants,
    )
    proto = onnx.helper.make_model(
        finished,
        opset_imports=[onnx.helper.make_opsetid('', OPSET)],
        ir_version=IR_VERSION,
        producer_name='fn2en_jax',
    )
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _face_net(graph: '_Graph', model: VGGFace, x: str, size: tuple[int, int]) -> str:
    """Logits of images [N,H,W,C] of this size in 0..255; see `VGGFace`."""
    if graph.channels == 1:
        x = graph.add('Concat', [x, x, x], 'rgb', axis=3)
    x = graph.normalised(x, model.mean_rgb, model.input_scale)
    if model.image_size:
        x, size = graph.resized(x, size, model.image_size), (model.image_size, model.image_size)
    for block, (_, depth) in enumerate(BLOCKS, start=1):
        for index in range(1, depth + 1):
            name = f'conv{block}_{index}'
            x = graph.convolution(x, name)
            x = graph.rectified(x, name, model.batch_norm)
        x = graph.pool(x, f'pool{block}')
    x = graph.flat(x)
    for name in ('fc6', 'fc7'):
        x = graph.rectified(graph.dense(x, name), name, model.batch_norm)
    return graph.dense(x, 'fc8')


def _expression_net(graph: '_Graph', model: ExpressionNet, x: str, size: tuple[int, int]) -> str:
    """Logits of images [N,H,W,C] of this size in 0..255; see `ExpressionNet`."""
    mean = MEAN_RGB if graph.channels == 3 else (MEAN_GREY,)
    x = graph.normalised(x, mean, model.input_scale)
    for index in range(1, len(model.features) + 1):
        name = f'features/conv{index}'
        x = graph.rectified(graph.convolution(x, name), name, model.batch_norm)
        x = graph.pool(x, f'features/pool{index}')
    last = (size[0] >> len(model.features), size[1] >> len(model.features))
    if len(model.target_shape) == 1:
        x = graph.dense(graph.flat(x), 'features/bridge')
    else:
        x = graph.convolution(x, 'features/bridge')
        x = graph.flat(_adapted(graph, x, last, tuple(model.target_shape[:2])))
    x = graph.rectified(graph.dense(x, 'head/fc1'), 'head/fc1', model.batch_norm)
    return graph.dense(x, 'head/fc2')


def _adapted(graph: '_Graph', x: str, source: tuple[int, ...], size: tuple[int, ...]) -> str:
    """The map brought to the target's size, as `expression_net` does: strides follow from the two sizes."""
    if source == size:
        return x
    name = 'features/adapter'
    if all(t <= s for t, s in zip(size, source, strict=True)):
        strides = [s // t for t, s in zip(size, source, strict=True)]
        return graph.convolution(x, name, strides=strides, pads=[0, 0, 0, 0])
    strides = [-(-t // s) for t, s in zip(size, source, strict=True)]
    kernel, bias = graph.leaf(name, 'kernel'), graph.leaf(name, 'bias')
    # ONNX's transposed convolution is the gradient of a convolution: flipped, [in,out,h,w].
    weights = graph.constant(kernel[::-1, ::-1].transpose(2, 3, 0, 1), f'{name}/kernel')
    x = graph.add('ConvTranspose', [x, weights, graph.constant(bias, f'{name}/bias')], name, strides=strides)
    for axis, (s, t, n, window) in enumerate(zip(source, size, strides, kernel.shape[:2], strict=True), start=2):
        before = ((s - 1) * n + window - t) // 2
        x = graph.cut(x, start=before, end=before + t, axis=axis)
    return x


class _Graph:
    """Nodes and constants so far; every method adds to them and returns the name of its result."""

    def __init__(self, variables: Mapping[str, Any]):
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.channels = 0
        self._variables = variables
        self._count = 0

    def add(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node with one output, which has the node's name."""
        import onnx

        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: Any, name: str = '') -> str:
        """An array that travels in the file."""
        import onnx

        self._count += not name
        name = name or f'constant{self._count}'
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def whole(self, numbers: Sequence[int]) -> str:
        """A constant vector of int64, as shapes and places are."""
        return self.constant(np.array(numbers, np.int64))

    def leaf(self, layer: str, part: str, collection: str = 'params') -> np.ndarray:
        """A variable of the net: layer 'features/conv1', part 'kernel'."""
        tree: Any = self._variables[collection]
        for name in (*layer.split('/'), part):
            tree = tree[name]
        return np.asarray(tree, np.float32)

    def cut(self, x: str, *, start: int, end: int, axis: int, step: int = 1) -> str:
        """x[start:end:step] along one axis."""
        places = [self.whole([number]) for number in (start, end, axis, step)]
        self._count += 1
        return self.add('Slice', [x, *places], f'slice{self._count}')

    def input(self, image_shape: Sequence[int], crop: int) -> str:
        """The central part of the faces, float32 [N,crop,crop,C] in 0..255."""
        import onnx

        self.channels = image_shape[2]
        x, start = INPUT, (image_shape[0] - crop) // 2
        for axis in (1, 2):
            x = self.cut(x, start=start, end=start + crop, axis=axis)
        return self.add('Cast', [x], 'crop', to=onnx.TensorProto.FLOAT)

    def normalised(self, x: str, mean: Sequence[float], scale: float) -> str:
        """(x - mean) * scale of images [N,H,W,C], as [N,C,H,W]."""
        mean_array = np.asarray(mean, np.float32).reshape(1, 1, 1, -1)
        x = self.add('Sub', [x, self.constant(mean_array, 'mean')], 'centred')
        x = self.add('Mul', [x, self.constant(np.float32(scale), 'input_scale')], 'scaled')
        return self.add('Transpose', [x], 'image', perm=[0, 3, 1, 2])

    def resized(self, x: str, size: tuple[int, int], side: int) -> str:
        """Bilinear resampling to side x side, as the two products with matrices of weights that it is.

        The matrices are those of `jax.image.resize` (half-pixel centres, smoothed first where it shrinks), so that no
        runtime's own notion of resizing comes in.
        """
        rows, columns = (np.asarray(jax.image.resize(jnp.eye(s), (side, s), 'bilinear')) for s in size)
        x = self.add('MatMul', [self.constant(rows, 'resize/rows'), x], 'resized/rows')
        return self.add('MatMul', [x, self.constant(columns.T, 'resize/columns')], 'resized')

    def convolution(self, x: str, layer: str, **attributes: Any) -> str:
        """A convolution with bias; unless told otherwise with stride 1 and zero padding to the same size."""
        kernel = self.leaf(layer, 'kernel')
        around = [side // 2 for side in kernel.shape[:2]]
        weights = self.constant(kernel.transpose(3, 2, 0, 1), f'{layer}/kernel')
        bias = self.constant(self.leaf(layer, 'bias'), f'{layer}/bias')
        return self.add('Conv', [x, weights, bias], layer, **{'pads': around * 2, **attributes})

    def dense(self, x: str, layer: str) -> str:
        """A fully-connected layer of [N,F]."""
        weights, bias = (self.constant(self.leaf(layer, part), f'{layer}/{part}') for part in ('kernel', 'bias'))
        return self.add('Gemm', [x, weights, bias], layer)

    def rectified(self, x: str, layer: str, batch_norm: bool) -> str:
        """ReLU, after batch normalisation where the net has it."""
        if batch_norm:
            name = f'{layer}_bn'
            parts = (('scale', 'params'), ('bias', 'params'), ('mean', 'batch_stats'), ('var', 'batch_stats'))
            values = [self.constant(self.leaf(name, part, kind), f'{name}/{part}') for part, kind in parts]
            x = self.add('BatchNormalization', [x, *values], name, epsilon=_EPSILON)
        return self.add('Relu', [x], f'{layer}/relu')

    def pool(self, x: str, name: str) -> str:
        """2x2 max pooling; a last odd row or column is left out."""
        return self.add('MaxPool', [x], name, kernel_shape=[2, 2], strides=[2, 2])

    def flat(self, x: str) -> str:
        """Maps [N,C,H,W] as vectors in the order H, W, C."""
        self._count += 1
        moved = self.add('Transpose', [x], f'map{self._count}', perm=[0, 2, 3, 1])
        return self.add('Flatten', [moved], f'vector{self._count}', axis=1)
