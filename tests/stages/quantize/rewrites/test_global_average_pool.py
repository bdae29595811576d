"""A mean over all positions becomes GlobalAveragePool, with the same answers, and no other mean does."""

import numpy as np
import onnx
import onnxruntime
import pytest
from quantizable import CLASSES, GRAPH, float_proto, images, logits, node_types, prepared_data, write_float_model

from stages.quantize.methods.static import StaticSettings, quantize_static
from stages.quantize.rewrites.global_average_pool import with_global_average_pool


def pooled(mean: str, opset: int = 21, shape: str = "2, 3, 4, 5") -> onnx.ModelProto:
    answers = "n, c" if "keepdims = 0" in mean else "n, c, h, w"
    return onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : {opset}]>
    network (float[{shape}] x) => (float[{answers}] y)
    <int64[2] axes = {{2, 3}}, int64[2] last = {{-1, -2}}, int64[1] one = {{3}}>
    {{ p = {mean}  y = Relu(p) }}""")


def answer(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("mean", "opset", "types"),
    [
        ("ReduceMean(x, axes)", 21, ["GlobalAveragePool", "Relu"]),
        ("ReduceMean <keepdims = 1> (x, last)", 18, ["GlobalAveragePool", "Relu"]),
        ("ReduceMean <keepdims = 0> (x, last)", 21, ["GlobalAveragePool", "Flatten", "Relu"]),
        ("ReduceMean <axes = [2, 3]> (x)", 17, ["GlobalAveragePool", "Relu"]),
        ("ReduceMean <axes = [-1, 2], keepdims = 0> (x)", 13, ["GlobalAveragePool", "Flatten", "Relu"]),
    ],
)
def test_the_mean_over_positions_stays_the_same(mean, opset, types):
    proto = pooled(mean, opset)
    rewritten = with_global_average_pool(proto)
    assert [node.op_type for node in rewritten.graph.node] == types
    onnx.checker.check_model(rewritten, full_check=True)
    x = np.random.default_rng(0).normal(1, 1, (2, 3, 4, 5)).astype(np.float32)
    expected = np.maximum(x.mean((2, 3), keepdims="Flatten" not in types), 0)
    np.testing.assert_allclose(answer(rewritten, x), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(answer(proto, x).shape, expected.shape)


@pytest.mark.parametrize(
    ("mean", "shape"),
    [
        ("ReduceMean(x, one)", "2, 3, 4, 5"),
        ("ReduceMean(x)", "2, 3, 4, 5"),
        ("ReduceMean(x, axes)", "2, 3, 4, 5, 6"),
        ("ReduceMax(x, axes)", "2, 3, 4, 5"),
    ],
)
def test_other_reductions_stay(mean, shape):
    proto = pooled(mean, shape=shape)
    assert with_global_average_pool(proto) == proto


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_static_file_pools_in_integers(tmp_path, form):
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    files = {}
    for name, mean in (("mean", "ReduceMean <keepdims = 1> (a7, axes)"), ("pool", "GlobalAveragePool (a7)")):
        proto = float_proto()
        graph = onnx.parser.parse_model(GRAPH.replace("GlobalAveragePool (a7)", mean)).graph
        del proto.graph.node[:]
        proto.graph.node.extend(graph.node)
        proto.graph.initializer.append(axes)
        source = write_float_model(tmp_path / f"{name}.onnx", proto)
        settings = StaticSettings(format=form, images=16)
        path = quantize_static(source, name, settings, prepared_data(), tmp_path / f"{name}-int8.onnx").path
        files[name] = onnx.load_model(path)
    assert node_types(files["mean"]) == node_types(files["pool"])
    assert "ReduceMean" not in node_types(files["mean"])
    pixels = images(16, 7)
    assert logits(files["mean"], pixels).shape == (16, len(CLASSES))
    np.testing.assert_array_equal(logits(files["mean"], pixels), logits(files["pool"], pixels))
