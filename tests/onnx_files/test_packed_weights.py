"""Packed weights are the weights, once ONNX Runtime has unpacked them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_files.packed_weights import pack_weights, packing_of


def model_of(weight):
    """A graph that gives the dequantized weight."""
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array(1.0, dtype=np.float32), "scale"),
        numpy_helper.from_array(np.array(0, dtype=np.int8), "zero"),
    ]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, weight.shape)
    node = helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["out"])
    graph = helper.make_graph([node], "weight", [], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def unpacked(model):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["out"], {})[0]


GRIDS = {
    "two's complement": np.arange(-8, 8),
    "its mirror image": np.arange(-7, 9),
    "16 odd levels": np.arange(-15, 16, 2),
    "4 odd levels": np.arange(-3, 4, 2),
    "ternary": np.arange(-1, 2),
    "LSQ at 2 bits": np.arange(-2, 2),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (5, 3), (3, 1, 3, 3)])
def test_what_is_packed_comes_out_again(grid, shape):
    weight = np.random.default_rng(0).choice(GRIDS[grid], shape).astype(np.int8)
    model = model_of(weight)
    pack_weights(model)
    assert "weight" not in [initializer.name for initializer in model.graph.initializer]
    assert np.array_equal(unpacked(model), weight)


@pytest.mark.parametrize(
    ("grid", "bits"), [("two's complement", 4), ("16 odd levels", 4), ("4 odd levels", 2), ("LSQ at 2 bits", 2)]
)
def test_bytes_per_weight_are_those_of_the_bits(grid, bits):
    weight = np.random.default_rng(0).choice(GRIDS[grid], (64, 32, 3, 3)).astype(np.int8)
    model = model_of(weight)
    pack_weights(model)
    (packed,) = (i for i in model.graph.initializer if i.name.endswith("packed"))
    assert len(packed.raw_data) == weight.size * bits // 8


def test_channels_of_either_sign_are_packed_each_from_its_own_end():
    weight = np.stack([np.arange(-8, 8), np.arange(-7, 9)]).astype(np.int8)
    packing = packing_of(weight)
    assert packing.offset.ravel().tolist() == [-8, -7]
    assert (packing.values == np.arange(16)).all()


def test_more_than_sixteen_steps_stay_in_int8():
    weight = np.arange(17, dtype=np.int8).reshape(1, 17)
    assert packing_of(weight) is None
    model = model_of(weight)
    before = model.SerializeToString()
    pack_weights(model)
    assert model.SerializeToString() == before


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_int8_weight_keeps_its_value(data):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    low = data.draw(st.integers(-128, 127))
    high = data.draw(st.integers(low, min(127, low + 20)))
    values = data.draw(st.lists(st.integers(low, high), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    weight = np.array(values, dtype=np.int8).reshape(shape)
    model = model_of(weight)
    pack_weights(model)
    assert np.array_equal(unpacked(model), weight)
