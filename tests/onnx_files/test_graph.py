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
from onnx_files.graph import layers, load, normalisation_nodes
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
        load(OnnxModel("fp32", path, "0" * 64, "fp32", None))


def test_a_truncated_model_and_a_missing_one(float_model: OnnxModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(float_model.path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match="expected an ONNX model, found something else"):
        load(OnnxModel("fp32", path, "0" * 64, "fp32", None))
    with pytest.raises(UsageError, match="found no file"):
        load(OnnxModel("fp32", tmp_path / "none.onnx", "0" * 64, "fp32", None))


def test_weights_beside_the_file_are_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(float_proto(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = load(OnnxModel("fp32", path, "0" * 64, "fp32", None))
    assert [to_array(w).tolist() for w in found.graph.initializer] == [
        to_array(w).tolist() for w in float_proto().graph.initializer
    ]


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
