"""What exporters leave undone is done before anybody looks at a graph, and nothing is done to one in order."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

from onnx_files.preparation import mended, prepared


def parsed(body: str, output: str = "float[N, 3] y", **constants: np.ndarray) -> ModelProto:
    lines = "\n".join(body.split("  "))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> of (float[N, 4] x) => ({output}) {{ {lines} }}'
    )
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype(np.float32)


def answers(model: ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": weights(2, 4)})[0]
    assert isinstance(found, np.ndarray)
    return found


def test_nodes_are_put_in_order_and_an_output_gets_its_shape() -> None:
    model = parsed("t = Tanh(x)  y = MatMul(t, w)", w=weights(4, 3))
    ordered = model.SerializeToString()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    found = mended(model)
    onnx.checker.check_model(found)
    assert [node.op_type for node in found.graph.node] == ["Tanh", "MatMul"]
    assert [size.dim_param or size.dim_value for size in found.graph.output[0].type.tensor_type.shape.dim] == ["N", 3]
    assert found.SerializeToString() == ordered


def test_a_size_of_minus_one_is_an_open_size() -> None:
    model = parsed("y = MatMul(x, w)", w=weights(4, 3))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    size = mended(model).graph.input[0].type.tensor_type.shape.dim[0]
    assert not size.HasField("dim_value")


def test_a_graph_in_order_is_left_as_it_is() -> None:
    model = parsed("h = Gemm <transB = 1> (x, w, b)  y = Gemm(h, v, c)", w=weights(4, 4), b=weights(4),
                   v=weights(4, 3), c=weights(3))  # fmt: skip
    before = model.SerializeToString()
    assert not prepared(mended(model))
    assert model.SerializeToString() == before


@pytest.mark.parametrize("bias", [np.float32(0.7), weights(1), weights(1, 3)])
def test_a_gemms_bias_and_factors_take_the_plain_form(bias: np.ndarray) -> None:
    model = parsed("y = Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", w=weights(4, 3), b=np.asarray(bias))
    before = answers(model)
    assert prepared(model)
    by_name = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    (node,) = model.graph.node
    assert by_name[node.input[2]] == (3,)
    assert len(by_name) == 2  # what nobody reads any more is gone
    assert answers(model) == pytest.approx(before, rel=1e-6)


def test_a_weight_that_is_read_along_both_axes_is_there_twice() -> None:
    model = parsed("h = Gemm <transB = 1> (x, w, b)  t = MatMul(h, w)  y = MatMul(t, v)", w=weights(4, 4),
                   b=weights(4), v=weights(4, 3))  # fmt: skip
    before = answers(model)
    assert prepared(model)
    first, second, _ = model.graph.node
    assert first.input[1] != second.input[1]
    assert np.array_equal(answers(model), before)


def test_names_that_a_quantizer_makes_of_others_are_free() -> None:
    model = parsed("t = MatMul(x, w)  s = Mul(t, w_scale)  y = Add(s, x_QuantizeLinear)", w=weights(4, 3),
                   w_scale=weights(3), x_QuantizeLinear=weights(3))  # fmt: skip
    before = answers(model)
    assert prepared(model)
    assert {tensor.name for tensor in model.graph.initializer} == {
        "w", "w_scale/of_model", "x_QuantizeLinear/of_model",
    }  # fmt: skip
    assert np.array_equal(answers(model), before)


def test_sparse_weights_become_dense() -> None:
    model = parsed("y = MatMul(x, w)")
    dense = np.zeros((4, 3), np.float32)
    dense[1, 2], dense[3, 0] = 2, -1
    values = numpy_helper.from_array(np.array([2, -1], np.float32), "w")
    for places in (np.array([5, 9]), np.array([[1, 2], [3, 0]])):
        del model.graph.initializer[:]
        indices = numpy_helper.from_array(places, "places")
        model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4, 3]))
        found = mended(model)
        assert not found.graph.sparse_initializer
        np.testing.assert_array_equal(numpy_helper.to_array(found.graph.initializer[0]), dense)


def test_weights_that_an_old_file_does_not_list_are_those_of_a_newer_one() -> None:
    model = parsed("y = MatMul(x, w)", w=weights(4, 3))
    model.ir_version = 3
    onnx.checker.check_model(mended(model))
    assert model.ir_version == 4


@pytest.mark.parametrize("opset", [18, 20])
def test_the_group_normalisation_that_was_taken_back_is_written_out(opset: int) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": {opset}]> of (float[N, 4, H] x) => (float[N, 4, H] y)'
        " { y = GroupNormalization <num_groups = 2, epsilon = 0.01> (x, s, b) }"
    )
    scale, bias = np.array([0.5, 2], np.float32), np.array([1, -1], np.float32)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for value, name in ((scale, "s"), (bias, "b"))
    )
    onnx.checker.check_model(mended(model), full_check=True)
    x = weights(2, 4, 5)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    groups = x.reshape(2, 2, -1)
    even = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 0.01)
    expected = (even * scale[:, None] + bias[:, None]).reshape(x.shape)
    np.testing.assert_allclose(np.asarray(session.run(None, {"x": x})[0]), expected, atol=1e-5)
