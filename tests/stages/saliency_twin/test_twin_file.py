"""The twin as a file: its name, its metadata, its bytes, and the files that it is not made from."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

from foundation.errors import UsageError
from stages.saliency_twin.twin_file import TWIN_OF_KEY, make_twin


@pytest.fixture
def model(tmp_path):
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[batch, 3, 4, 4] image) => (float[batch, 48] logits)'
        " { r = Relu(image)\n logits = Flatten(r) }"
    )
    onnx.helper.set_model_props(proto, {"edgeproof.classes": '["a"]'})
    path = tmp_path / "fp32.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_the_twin_stands_beside_its_model_and_says_whose_it_is(model):
    twin = make_twin(model, None, None, None)
    assert twin == model.with_name("fp32.saliency.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(twin).metadata_props}
    assert metadata == {
        "edgeproof.classes": '["a"]', TWIN_OF_KEY: hashlib.sha256(model.read_bytes()).hexdigest()
    }  # fmt: skip
    onnx.checker.check_model(onnx.load(twin), full_check=True)
    assert {node.domain for node in onnx.load(twin).graph.node} == {""}


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    first, second = (make_twin(model, tmp_path / name, "image", "logits") for name in ("a.onnx", "b.onnx"))
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UsageError, match="expected another file than the model"):
        make_twin(model, model, None, None)


def test_what_is_no_self_contained_model_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "notes.onnx").write_text("no model")
    with pytest.raises(UsageError, match=r"notes\.onnx: expected an ONNX model, found something else"):
        make_twin(tmp_path / "notes.onnx", None, None, None)
    with pytest.raises(UsageError, match="found no file"):
        make_twin(tmp_path / "absent.onnx", None, None, None)

    proto = onnx.load(model)
    weight = onnx.numpy_helper.from_array(np.zeros((1,), np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "../elsewhere.bin")
    weight.ClearField("raw_data")
    proto.graph.initializer.append(weight)
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(proto.SerializeToString())
    with pytest.raises(UsageError, match="expected an ONNX model, found something else"):
        make_twin(outside, None, None, None)

    assert not list(tmp_path.glob("*.saliency.onnx"))
