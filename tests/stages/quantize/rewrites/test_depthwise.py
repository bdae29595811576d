"""PReLU and batch norm of images become convolutions of one weight a channel, with the same answers."""

import numpy as np
import onnx
import onnxruntime
import pytest
from quantizable import GRAPH, float_proto, images, logits, prepared_data, write_float_model

from stages.quantize.methods.static import StaticSettings, quantize_static
from stages.quantize.rewrites.depthwise import with_depthwise_convolutions

X = np.random.default_rng(0).normal(0, 2, (2, 3, 4, 5)).astype(np.float32)
SLOPES = np.float32([0.25, -0.5, 0.0])


def network(expression: str, opset: int = 17, shape: str = "2, 3, 4, 5", **constants: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : {opset}]>
    network (float[{shape}] x) => (float[{shape}] y) {{ a = Relu(x)  bent = {expression}  y = Relu(bent) }}""")
    for number, node in enumerate(proto.graph.node):
        node.name = f"node{number}"
    named = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in named.items())
    return proto


def answer(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("slopes", [SLOPES.reshape(3, 1, 1), SLOPES.reshape(1, 3, 1, 1), np.float32([0.3])])
def test_a_prelu_is_a_line_and_a_bent_one(slopes):
    proto = network("PRelu(x, s)", s=slopes)
    rewritten = with_depthwise_convolutions(proto)
    assert [node.op_type for node in rewritten.graph.node] == ["Relu", "Conv", "Conv", "Relu", "Add", "Relu"]
    onnx.checker.check_model(rewritten, full_check=True)
    assert len({node.name for node in rewritten.graph.node}) == 6
    each = np.broadcast_to(slopes.reshape(-1), 3).reshape(1, 3, 1, 1)
    expected = np.maximum(np.where(X < 0, each * X, X), 0)
    np.testing.assert_allclose(answer(rewritten, X), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer(proto, X), expected, rtol=1e-5, atol=1e-6)


def normalised(**changed: np.ndarray) -> onnx.ModelProto:
    values = {"g": [1, -2, 0.5], "b": [0.1, 0.2, -3], "m": [0.5, -1, 2], "v": [1, 4, 0.25]} | changed
    return network("BatchNormalization<epsilon = 0.75>(a, g, b, m, v)", **values)


def test_a_batch_norm_behind_a_relu_is_a_convolution():
    proto = normalised()
    rewritten = with_depthwise_convolutions(proto)
    assert [node.op_type for node in rewritten.graph.node] == ["Relu", "Conv", "Relu"]
    onnx.checker.check_model(rewritten, full_check=True)
    given = ([1, -2, 0.5], [0.1, 0.2, -3], [0.5, -1, 2], [1, 4, 0.25])
    g, b, m, v = (np.reshape(value, (1, 3, 1, 1)) for value in given)
    expected = np.maximum((np.maximum(X, 0) - m) / np.sqrt(v + 0.75) * g + b, 0)
    np.testing.assert_allclose(answer(rewritten, X), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "proto",
    [
        network("PRelu(x, s)", s=np.float32([0.5, 1.0, 0.2]).reshape(3, 1, 1)),  # bends the other way from 1 on
        network("PRelu(x, s)", s=np.full(5, 0.2)),  # a slope of each column
        network("PRelu(x, s)", s=np.full((3, 4, 5), 0.2)),
        network("PRelu(x, a)"),
        network("PRelu(x, s)", shape="2, 3", s=np.full(3, 0.2)),
        normalised(v=[1, -0.75, 1]),  # divides by zero
    ],
    ids=["steep", "columns", "pixels", "computed", "features", "infinite"],
)
def test_others_stay(proto):
    assert with_depthwise_convolutions(proto) == proto


@pytest.mark.parametrize("neighbour", ["node0", "node2"])
def test_what_stands_beside_a_layer_in_float_stays(neighbour):
    assert with_depthwise_convolutions(normalised(), (neighbour,)) == normalised()
    assert with_depthwise_convolutions(normalised(), ("another",)) != normalised()


def bent(tmp_path):
    """Write the usual network with a PReLU in place of its last ReLU."""
    graph = onnx.parser.parse_model(GRAPH.replace("a7 = Relu (c7)", "a7 = PRelu (c7, slopes)")).graph
    proto = float_proto()
    del proto.graph.node[:]
    proto.graph.node.extend(graph.node)
    (w7,) = [tensor for tensor in proto.graph.initializer if tensor.name == "w7"]
    slopes = np.linspace(-0.2, 0.6, w7.dims[0], dtype=np.float32).reshape(-1, 1, 1)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(slopes, "slopes"))
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"node{number}"
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    return write_float_model(tmp_path / "float.onnx", proto), len(layers)


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_static_file_bends_in_integers_and_counts_the_layers_of_the_model(tmp_path, form):
    source, layers = bent(tmp_path)
    made = quantize_static(source, "s", StaticSettings(format=form, images=16), prepared_data(), tmp_path / "i.onnx")
    assert (made.notes.layers, made.notes.float_layers) == (layers, ())
    proto = onnx.load_model(made.path)
    assert "PRelu" not in {node.op_type for node in proto.graph.node}
    pixels = images(16, 7)
    expected, found = logits(onnx.load_model(source.path), pixels), logits(proto, pixels)
    assert 10 * np.log10(np.sum(expected**2) / np.sum((found - expected) ** 2)) > 20


def test_with_one_scale_for_all_channels_the_prelu_stays(tmp_path):
    source, _ = bent(tmp_path)
    settings = StaticSettings(per_channel=False, images=16)
    made = quantize_static(source, "s", settings, prepared_data(), tmp_path / "i.onnx")
    assert "PRelu" in {node.op_type for node in onnx.load_model(made.path).graph.node}
