"""A file that came out worse than the one it was made from says so, and each of its outputs is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_files import CLASSES, classifier, write, write_images
from onnx import TensorProto, helper

from foundation.progress import Silent
from pipeline.one_file.compile_file import CompiledFile, compile_file
from pipeline.one_file.options import request_for


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 24)


def compiled(model: onnx.ModelProto, images: Path, folder: Path, **options: object) -> CompiledFile:
    path = write(model, folder / "theirs.onnx")
    values = {"images": images, "mean": "0.5", "std": "0.25", "limit": 8, **options}
    return compile_file(request_for(path, values), Silent())


def small() -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(0, 0.3, (CLASSES, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["answers"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 24, 24])],
        [helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["n", CLASSES])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_file_that_grew_says_so(images: Path, tmp_path: Path) -> None:
    found = compiled(small(), images, tmp_path)
    (sentence,) = found.worse
    assert sentence.startswith(f"It is larger than the float file: {found.compiled.size_bytes:,} bytes after")
    assert found.as_json()["worse"] == [sentence]


def test_a_file_that_is_smaller_and_agrees_says_nothing(images: Path, tmp_path: Path) -> None:
    assert compiled(classifier(), images, tmp_path, method="weight-only").worse == ()


def test_an_output_before_a_relu_keeps_what_is_below_zero_and_is_compared_too(images: Path, tmp_path: Path) -> None:
    model = classifier()
    model.graph.output.append(helper.make_tensor_value_info("c3", TensorProto.FLOAT, ["n", 128, 12, 12]))
    found = compiled(model, images, tmp_path, answer_output="answers")
    assert found.agreement is not None
    assert found.agreement.outputs_db.keys() == {"answers", "c3"}
    assert found.agreement.outputs_db["c3"] > 30


def test_labels_have_no_decibels_and_probabilities_beside_them_stay_float(images: Path, tmp_path: Path) -> None:
    model = classifier(softmax=True)
    model.graph.node.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    found = compiled(model, images, tmp_path)
    assert found.agreement is not None
    assert found.agreement.outputs_db.keys() == {"probabilities"}
    readers = {name for node in onnx.load_model(found.compiled.path).graph.node for name in node.input
               if node.op_type == "QuantizeLinear"}  # fmt: skip
    assert "probabilities" not in readers
