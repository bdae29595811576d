"""Divisions and hard sigmoids are written as products, sums and clips: the same answers, and integers throughout."""

import numpy as np
import onnx
import onnxruntime
import pytest
from quantizable import GRAPH, float_proto, images, logits, node_types, prepared_data, write_float_model

from stages.quantize.methods.static import StaticSettings, quantize_static
from stages.quantize.rewrites.integer_elementwise import with_integer_elementwise


def network(expression: str, opset: int = 17, element: str = "float") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : {opset}]>
    network ({element}[2, 3] x) => ({element}[2, 3] y)
    <float six = {{6}}, float[3] each = {{2, -4, 0.5}}, float[3] holed = {{2, 0, 1}}, float tiny = {{1e-39}},
     int64 two = {{2}}>
    {{ a = Abs(x)  y = {expression} }}""")


def answer(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


X = np.array([[-7.0, -2.9, 0.0], [1.0, 2.95, 9.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("expression", "types", "expected"),
    [
        ("Div(x, six)", ["Abs", "Mul"], X / 6),
        ("Div(x, each)", ["Abs", "Mul"], X / np.float32([2, -4, 0.5])),
        ("HardSigmoid(x)", ["Abs", "Mul", "Add", "Clip"], np.clip(0.2 * X + 0.5, 0, 1)),
        ("HardSigmoid<alpha = 0.3, beta = 0.1>(x)", ["Abs", "Mul", "Add", "Clip"], np.clip(0.3 * X + 0.1, 0, 1)),
        ("HardSwish(x)", ["Abs", "Mul", "Add", "Clip", "Mul"], X * np.clip(X / 6 + 0.5, 0, 1)),
    ],
)
def test_the_answers_stay_the_same(expression, types, expected):
    proto = network(expression)
    rewritten = with_integer_elementwise(proto)
    assert [node.op_type for node in rewritten.graph.node] == types
    onnx.checker.check_model(rewritten, full_check=True)
    np.testing.assert_allclose(answer(rewritten, X), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(answer(proto, X), expected, rtol=1e-6, atol=1e-6)
    names = [node.name for node in rewritten.graph.node if node.op_type != "Abs" and node.name]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "expression",
    ["Div(six, x)", "Div(x, a)", "Div(x, holed)", "Div(x, tiny)", "Mul(x, six)"],
)
def test_what_has_no_constant_divisor_or_one_without_a_reciprocal_stays(expression):
    proto = network(expression)
    assert with_integer_elementwise(proto) == proto


def test_whole_numbers_are_divided_as_whole_numbers():
    proto = network("Div(x, two)", element="int64")
    assert with_integer_elementwise(proto) == proto
    assert answer(with_integer_elementwise(proto), np.array([[7, 8, 9], [1, 2, 3]])).tolist() == [
        [3, 4, 4],
        [0, 1, 1],
    ]


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_static_file_computes_a_hard_swish_in_integers(tmp_path, form):
    proto = float_proto()
    text = GRAPH.replace("GlobalAveragePool (a7)", "GlobalAveragePool (swish)")
    assert text != GRAPH
    graph = onnx.parser.parse_model(text).graph
    place = next(number for number, node in enumerate(graph.node) if node.op_type == "GlobalAveragePool")
    added = onnx.parser.parse_graph(
        "g (float[n, 8, 4, 4] a7) => (float[n, 8, 4, 4] swish)"
        " <float three = {3}, float zero_ = {0}, float six = {6}>"
        " { moved = Add(a7, three) gate = Clip(moved, zero_, six) gated = Mul(a7, gate) swish = Div(gated, six) }"
    )
    nodes = [*graph.node[:place], *added.node, *graph.node[place:]]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(added.initializer)
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"node{number}"
    source = write_float_model(tmp_path / "float.onnx", proto)
    made = quantize_static(
        source, "static", StaticSettings(format=form, images=16), prepared_data(), tmp_path / "int8.onnx"
    )
    assert "Div" not in node_types(onnx.load_model(made.path))
    session_options = onnxruntime.SessionOptions()
    session_options.optimized_model_filepath = str(tmp_path / "run.onnx")
    session_options.log_severity_level = 4
    onnxruntime.InferenceSession(made.path, session_options, providers=["CPUExecutionProvider"])
    kernels = [node.op_type for node in onnx.load_model(tmp_path / "run.onnx").graph.node]
    assert kernels.count("QLinearMul") == 2
    assert not {"Mul", "Div", "Add", "Clip"} & set(kernels[kernels.index("QLinearMul") :])
    pixels = images(16, 7)
    expected, found = logits(onnx.load_model(source.path), pixels), logits(onnx.load_model(made.path), pixels)
    assert 10 * np.log10(np.sum(expected**2) / np.sum((found - expected) ** 2)) > 20
