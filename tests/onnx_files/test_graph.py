from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from quantizable import float_proto, write_float_model

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.notes import Fp16Notes
from onnx_files.graph import GraphIndex, bounds_of, layers, normalisation_nodes
from onnx_files.loading import load
from onnx_files.publishing import publish
from stages.quantize.methods.fp16 import Fp16Settings

NOTES = Fp16Notes(
    constants=0,
    clipped_constants=0,
    raised_constants=0,
    tensors_with_changed_constants=(),
    float_islands={},
    logits_sqnr_db=None,
)


def test_the_normalisation_is_what_stands_before_the_first_layer(float_model: OnnxModel) -> None:
    proto = load(float_model)
    assert normalisation_nodes(proto) == ("Cast_0", "Mul_1", "Add_2")


def test_a_float_input_has_no_normalisation() -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (float[batch, 3, 8, 8] image) => (float[batch, 3, 8, 8] logits) '
        "{ a = Relu (image) logits = Relu (a) }"
    )
    assert normalisation_nodes(onnx.parser.parse_model(text)) == ()


def test_every_node_gets_a_name_of_its_own(tmp_path: Path) -> None:
    proto = float_proto()
    for node in proto.graph.node:
        node.name = "same"
    proto.graph.node[3].name = "Clip_4"  # the name that the next one would get
    names = [node.name for node in load(write_float_model(tmp_path / "m.onnx", proto)).graph.node]
    assert len(set(names)) == len(names) == 20


def test_shuffled_nodes_are_put_in_order(float_model: OnnxModel, tmp_path: Path) -> None:
    proto = load(float_model)
    nodes = [proto.graph.node[index] for index in np.random.default_rng(0).permutation(20)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    result = publish(proto, float_model, "v", Fp16Settings(), NOTES, tmp_path / "v.onnx")
    onnx.checker.check_model(onnx.load_model(result.path), full_check=True)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x89PNG\r\n\x1a\n" + bytes(64), b'{"a": 1}'])
def test_a_file_that_is_no_model_is_one_clear_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"model\.onnx: expected an ONNX model, found something else"):
        load(OnnxModel("fp32", path, "0" * 64, None))


def test_a_truncated_model_and_a_missing_one(float_model: OnnxModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(float_model.path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match="expected an ONNX model, found something else"):
        load(OnnxModel("fp32", path, "0" * 64, None))
    with pytest.raises(UsageError, match="found no file"):
        load(OnnxModel("fp32", tmp_path / "none.onnx", "0" * 64, None))


def test_weights_beside_the_file_are_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(float_proto(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = load(OnnxModel("fp32", path, "0" * 64, None))
    assert [to_array(w).tolist() for w in found.graph.initializer] == [
        to_array(w).tolist() for w in float_proto().graph.initializer
    ]


def test_layers_within_functions_of_the_model_are_found(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "theirs" : 1]>
        g (float[batch, 3, 8, 8] image) => (float[batch, 4, 8, 8] logits) { logits = theirs.Layer (image, w) }
        <opset_import: ["" : 21], domain: "theirs"> Layer (x, w) => (y) { c = Conv (x, w) y = Relu (c) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w"))
    model = write_float_model(tmp_path / "m.onnx", proto)
    assert [node.op_type for node in layers(load(model), model)] == ["Conv"]


def test_who_makes_and_who_reads_a_tensor(float_model: OnnxModel) -> None:
    index = GraphIndex.of(load(float_model).graph)
    assert index.producers["sum"].name == "Add_9"
    assert [node.name for node in index.readers["a1"]] == ["Conv_5", "Conv_8"]
    assert index.only_reader("a1") is None
    assert index.only_reader("logits") is None
    assert index.only_reader("c1") is index.nodes["Clip_4"]
    assert (index.constant("alpha"), index.constant("sum")) == (3.0, None)


def test_what_the_body_of_a_branch_reads_has_its_node_as_a_reader() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[1] x, bool yes) => (float[1] y) {
        a = Relu (x)
        y = If (yes) <then_branch = t () => (float[1] b) { b = Neg (a) }, else_branch = e () => (a) {}>
    }"""
    graph = onnx.parser.parse_model(text).graph
    index = GraphIndex.of(graph)
    assert [node.op_type for node in index.readers["a"]] == ["If"]


@pytest.mark.parametrize(
    ("node", "bounds"),
    [
        ("y = Relu (x)", (0.0, np.inf)),
        ("y = Clip (x, low)", (-1.0, np.inf)),
        ("y = Clip (x, , high)", (-np.inf, 6.0)),
        ("y = Clip (x, low, x)", (-1.0, np.inf)),
        ("y = Clip <min = 0.0, max = 6.0> (x)", (0.0, 6.0)),
        ("y = Neg (x)", (-np.inf, np.inf)),
    ],
)
def test_the_bounds_of_an_activation(node: str, bounds: tuple[float, float]) -> None:
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 10]> g (float[1] x) => (float[1] y) '
        f"{{ high = Constant <value_float = 6.0> () {node} }}"
    ).graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(-1, np.float32), "low"))
    assert bounds_of(graph.node[-1], GraphIndex.of(graph)) == bounds


def test_a_model_without_layers_has_nothing_to_quantize(tmp_path: Path) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (uint8[batch, 3, 8, 8] image) => (float[batch, 3, 8, 8] logits) '
        "{ logits = Cast <to = 1> (image) }"
    )
    model = write_float_model(tmp_path / "m.onnx", onnx.parser.parse_model(text))
    with pytest.raises(UsageError, match="found none to quantize"):
        layers(load(model), model)


def test_an_unwritable_target_is_an_error(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"here already")
    with pytest.raises(UsageError, match="could not be written"):
        publish(load(float_model), float_model, "v", Fp16Settings(), NOTES, blocked / "v.onnx")
    assert blocked.read_bytes() == b"here already"
