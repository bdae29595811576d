"""Other people's files in the quantizers' form: the same answers, weights as constants, opset 13 or more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign_files import classifier, write
from onnx import ModelProto, TensorProto, helper, numpy_helper

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from onnx_files import limits
from onnx_files.canonical import prepare_foreign_model
from onnx_files.graph import layers
from onnx_files.image_input import ImageInput, image_input

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def prepared(model: ModelProto, tmp_path: Path) -> ModelProto:
    return prepare_foreign_model(write(model, tmp_path / "model.onnx"), tmp_path / "prepared.onnx")


def answers(model: ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


@pytest.mark.parametrize("opset", [9, 11, 13, 21])
def test_answers_stay_and_weights_become_constants(opset: int, tmp_path: Path) -> None:
    model = classifier(opset, constant_nodes=True)
    found = prepared(model, tmp_path)
    images = np.random.default_rng(1).normal(0, 1, (3, 3, 24, 24)).astype(np.float32)
    assert np.allclose(answers(found, images), answers(model, images), atol=1e-5)
    assert max(entry.version for entry in found.opset_import if entry.domain == "") == max(opset, 13)
    weighted = layers(found, OnnxModel("", tmp_path, "", None))
    assert [node.op_type for node in weighted] == ["Conv", "Conv", "Conv", "Gemm"]
    assert not [node for node in found.graph.node if node.op_type in ("BatchNormalization", "Constant")]
    onnx.checker.check_model(found, full_check=True)


def test_weights_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = classifier(9)
    model.ir_version = 3  # where every weight had to be listed
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    found = prepared(model, tmp_path)
    assert [value.name for value in found.graph.input] == ["image"]


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    model = classifier(21)
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("theirs", "Rectify", ["x"], ["y"], body, [helper.make_opsetid("", 21)])
    )
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Rectify", "theirs"
    assert {node.op_type for node in prepared(model, tmp_path).graph.node} >= {"Conv", "Relu"}


@pytest.mark.skipif(not LIGHT.is_dir(), reason="this onnx package has no light models")
def test_weights_that_a_node_computes_become_constants(tmp_path: Path) -> None:
    # 15 KB of opset 9, IR 3, whose weights are ConstantOfShape nodes.
    found = prepare_foreign_model(LIGHT / "light_squeezenet.onnx", tmp_path / "prepared.onnx")
    assert len(layers(found, OnnxModel("", tmp_path, "", None))) == 26
    expected = ImageInput("data_0", "float32", 1, "NCHW", 3, 224, 224)
    assert image_input(found, tmp_path) == expected


def test_operators_that_nobody_knows_are_named(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node[2].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UsageError, match=r"expected operators of ONNX or of ONNX Runtime, found com\.example:Relu"):
        prepared(model, tmp_path)
    model.graph.node[2].domain = model.opset_import[1].domain = "com.microsoft"
    with pytest.raises(UsageError, match=r"expected a model that ONNX Runtime .* can run, found one that it refuses"):
        prepared(model, tmp_path)
    model.graph.node[2].domain, model.graph.node[2].op_type = "", "Rectify"
    with pytest.raises(UsageError, match=r"expected an ONNX model, found something else .*Rectify"):
        prepared(model, tmp_path)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = classifier(changed={"w3": np.ones((128, 31, 1, 1))})
    with pytest.raises(UsageError, match="expected a model that ONNX Runtime"):
        prepared(model, tmp_path)


def test_a_file_that_exhausts_the_child_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 16 GB of zeros out of a few bytes.
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ],
        "bomb",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
        [numpy_helper.from_array(np.array([4_000_000_000], np.int64), "size")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(UsageError, match="expected a model that ONNX Runtime"):
        prepared(model, tmp_path)
    monkeypatch.setattr(limits, "TIME_LIMIT_S", 0.01)
    with pytest.raises(UsageError, match=r"loaded into ONNX Runtime within 0\.01 s"):
        prepared(classifier(), tmp_path)


# --- the input ---


def described(tmp_path: Path, layout: str | None = None, **form: object) -> ImageInput:
    return image_input(classifier(**form), tmp_path / "model.onnx", layout)  # type: ignore[arg-type]


def test_the_layout_is_read_where_the_shape_leaves_one(tmp_path: Path) -> None:
    assert described(tmp_path, batch=4) == ImageInput("image", "float32", 4, "NCHW", 3, 24, 24)
    assert described(tmp_path, layout=None, size=("h", "w")).height is None
    form = {"layout": "NHWC"}
    assert image_input(classifier(**form), tmp_path) == ImageInput("image", "float32", None, "NHWC", 3, 24, 24)
    assert described(tmp_path, element_type=TensorProto.UINT8).element_type == "uint8"


@pytest.mark.parametrize("form", [{"size": (24, 3)}, {"channels": "c"}])
def test_a_layout_that_cannot_be_read_is_asked_for(form: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Give --layout NCHW or --layout NHWC"):
        described(tmp_path, **form)
    assert described(tmp_path, "NCHW", **form).layout == "NCHW"


def test_inputs_that_are_no_image_are_refused(tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(UsageError, match=match):
            image_input(model, tmp_path / "model.onnx")

    model = classifier(element_type=TensorProto.DOUBLE)
    refused("expected an input of type float32 or uint8, found `image` of type double")
    model = classifier(channels=4)
    refused(r"found `image` of shape \[batch, 4, 24, 24\]")
    for size in (0, -1):
        model = classifier(size=(24, size))
        refused(rf"expected axes of length 1 or more, found `image` of shape \['\?', 3, 24, {size}\]")
    model = classifier()
    model.graph.input[0].type.tensor_type.shape.dim.pop()
    refused("expected an input of four axes .*, found `image` with 3")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    refused("expected an input of four axes, found `image` of unknown shape")
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))
    refused("expected a model with one input, the image; found image, age")
    del model.graph.input[:]
    refused("expected a model with one input, the image; found none")
