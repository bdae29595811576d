"""A file that came out worse than the one it was made from says so, and each of its outputs is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_files import CLASSES, classifier, write, write_images
from onnx import TensorProto, helper
from onnx.parser import parse_model

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.progress import Silent
from onnx_files.answers import AnswerForm
from onnx_files.preprocessing import Preprocessing
from pipeline.one_file.agreement import measure_agreement
from pipeline.one_file.compile_file import compile_file
from pipeline.one_file.options import request_for
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.speed import Speed


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 24)


@pytest.fixture(scope="module")
def in_integers(images: Path, tmp_path_factory: pytest.TempPathFactory) -> CompiledFile:
    return compiled(classifier(), images, tmp_path_factory.mktemp("static"))


def compiled(model: onnx.ModelProto, images: Path, folder: Path, **options: object) -> CompiledFile:
    path = write(model, folder / "theirs.onnx")
    values = {"images": images, "method": "static", "mean": "0.5", "std": "0.25", "limit": 8, **options}
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


def side_output(folder: Path, name: str, factor: str) -> Path:
    """Write a model whose second output is the image times a factor."""
    model = parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 1, 2, 2] image)'
        " => (float[n, 4] answers, float[n, 1, 2, 2] side)"
        f" <float factor = {{{factor}}}> {{ answers = Flatten (image) side = Mul (answers, factor) }}"
    )
    onnx.save(model, folder / name)
    return folder / name


@pytest.mark.parametrize(("factor", "decibels"), [("1", None), ("0", 0.0), ("-1", -6.02), ("0.9", 20.0)])
def test_an_output_without_any_signal_left_counts_as_worse(
    tmp_path: Path, factor: str, decibels: float | None
) -> None:
    """Deviation of the whole signal is 0 dB, of twice the signal −6.02, of a tenth 20."""
    reference, changed = side_output(tmp_path, "float.onnx", "1"), side_output(tmp_path, "small.onnx", factor)
    pixels = np.arange(1, 9, dtype=np.uint8).reshape(2, 1, 2, 2)
    form = AnswerForm("answers", "logits", 4, 4)
    found = measure_agreement(reference, changed, pixels, Preprocessing("float32", (0.0,), (1.0,), 2), form)
    assert found is not None
    assert found.outputs_db["side"] == (None if decibels is None else pytest.approx(decibels, abs=0.01))
    small_file = OnnxModel("small", changed, "", None)
    result = CompiledFile(small_file, reference, 10**6, 1, None, 0, 0, None, None, found, Speed(None, None, 0))
    assert [sentence.startswith("side: less than 10 dB") for sentence in result.worse] == [True] * (
        decibels in (0, -6.02)
    )


def test_an_output_that_is_no_number_is_refused_by_name(tmp_path: Path) -> None:
    reference, changed = side_output(tmp_path, "float.onnx", "1"), side_output(tmp_path, "small.onnx", "3e38")
    pixels = np.full((1, 1, 2, 2), 200, dtype=np.uint8)
    form = AnswerForm("answers", "logits", 4, 4)
    with pytest.raises(UsageError, match=r"found NaN or infinity for `side`\. Its numbers overflow"):
        measure_agreement(reference, changed, pixels, Preprocessing("float32", (0.0,), (0.01,), 2), form)


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


@pytest.mark.parametrize(
    ("method", "advice"),
    [("weight-only", "Try --method fp16, which makes no integers."), ("fp16", "Keep the float file.")],
)
def test_nobody_is_sent_to_the_method_that_made_the_file(
    images: Path, tmp_path: Path, method: str, advice: str
) -> None:
    found = compiled(classifier(), images, tmp_path, method=method)
    assert found.agreement is not None
    told = replace(found, agreement=replace(found.agreement, outputs_db={"answers": 3.0})).worse
    assert len(told) == 1
    assert told[0].endswith(advice)


@pytest.mark.parametrize(
    ("decibels", "share", "same_class", "said"),
    [
        (19.9, "10%", (0.90, 1.0), "and 24 images do not show that 95% keep their class. "),
        (14.0, "20%", (0.96, 0.99), "though 96.0% or more keep their class. "),
        (10.0, "32%", None, ". "),
    ],
)
def test_a_deviation_that_is_not_shown_to_matter_is_told_without_counting_as_worse(
    in_integers: CompiledFile,
    decibels: float,
    share: str,
    same_class: tuple[float, float] | None,
    said: str,
) -> None:
    """20 dB are a deviation of a tenth, 14 of a fifth, 10 of a third."""
    assert in_integers.agreement is not None
    assert in_integers.doubts == ()
    outputs_db = {"answers": decibels}
    noisy = replace(in_integers.agreement, images=24, same_class_ci95=same_class, outputs_db=outputs_db)
    told = replace(in_integers, agreement=noisy)
    assert told.worse == ()
    (sentence,) = told.doubts
    assert f"is {share} as large as they are" in sentence
    assert said in sentence
    assert sentence.endswith("Try --method weight-only or fp16, which round no activation.")
    assert told.as_json()["doubts"] == [sentence]


@pytest.mark.parametrize("decibels", [9.9, 20.0, None])
def test_what_is_worse_or_near_is_not_in_doubt(in_integers: CompiledFile, decibels: float | None) -> None:
    assert in_integers.agreement is not None
    agreement = replace(in_integers.agreement, outputs_db={"answers": decibels})
    assert replace(in_integers, agreement=agreement).doubts == ()
