from __future__ import annotations

import resource

import pytest
from onnx import TensorProto, helper
from onnx.parser import parse_model

from foundation.errors import UsageError
from onnx_files import shapes
from onnx_files.shapes import with_shapes

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3, 8, 8] image) => (float[n, m] y) '


def shape_of(model, name):
    found = {
        value.name: value.type.tensor_type.shape.dim for value in with_shapes(model, values=True).graph.value_info
    }
    return [axis.dim_value for axis in found[name]]


def test_shapes_that_a_network_computes_are_followed():
    model = parse_model(
        HEAD + "<int64[1] zero = {0}, int64[1] rest = {-1}> { s = Shape (image) n = Gather (s, zero) "
        "t = Concat <axis = 0> (n, rest) x = Reshape (image, t) y = Relu (x) }"
    )
    assert shape_of(model, "x") == [1, 192]
    assert not model.graph.value_info


def test_a_vector_that_doubles_thirty_times_is_not_followed():
    # 8 GB, were it followed.
    model = parse_model(HEAD + "{ d0 = Shape (image) y = Flatten (image) }")
    nodes = [helper.make_node("Concat", [f"d{n}", f"d{n}"], [f"d{n + 1}"], axis=0) for n in range(30)]
    model.graph.node.extend(nodes)
    assert len(model.SerializeToString()) < 1500
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert shape_of(model, "d30") == [4 << 30]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_the_numbers_to_follow_are_counted_from_above():
    model = parse_model(
        HEAD + "<int64[3] three = {1, 2, 3}> "
        "{ s = Shape (image) t = Concat <axis = 0> (s, three, three) y = Flatten (image) }"
    )
    assert shapes._sizes_in(model) == 64 + 70


def test_a_graph_that_contradicts_itself_is_a_sentence():
    model = parse_model(HEAD + "{ y = Relu (image) }")
    model.graph.initializer.append(TensorProto(name="image", data_type=TensorProto.INT64, dims=[3]))
    with pytest.raises(UsageError, match="expected a graph whose tensors' types can be inferred"):
        with_shapes(model)
