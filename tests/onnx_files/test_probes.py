from __future__ import annotations

import numpy as np
import onnx
import pytest
from quantizable import float_proto, images, node_types
from recovering import batches_of

from onnx_files import probes
from onnx_files.preprocessing import Preprocessing
from onnx_files.probes import (
    Feeds,
    Memory,
    Onward,
    answers,
    channel_peaks,
    image_batches,
    recalling,
    runner,
    sqnr_db,
    upstream,
)


def test_only_what_a_tensor_needs_is_computed() -> None:
    part = upstream(float_proto(), ["a2"])
    assert node_types(part) == {"Cast": 1, "Mul": 1, "Add": 1, "Conv": 2, "Clip": 1, "Relu": 1}
    assert {tensor.name for tensor in part.graph.initializer} == {
        "slope", "offset", "zero", "alpha", "w1", "b1", "w2", "b2",
    }  # fmt: skip
    found = runner(float_proto(), ["a2", "logits"])({"image": images(3, 1), "another": np.zeros(1)})
    assert found["a2"].shape == (3, 48, 20, 20)
    assert found["logits"].shape == (3, 4)


def test_batches_change_no_answer_and_no_peak() -> None:
    pixels = images(10, 1)
    whole, parts = (answers(float_proto(), batches_of(pixels, size)) for size in (10, 3))
    assert whole == pytest.approx(parts, rel=1e-5, abs=1e-6)
    peaks, peaks_of_parts = (channel_peaks(float_proto(), ["c1"], batches_of(pixels, size)) for size in (10, 3))
    expected = runner(float_proto(), ["c1"])({"image": pixels})["c1"].max(axis=(0, 2, 3))
    assert peaks["c1"] == pytest.approx(expected, rel=1e-6)
    assert peaks_of_parts["c1"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("opset", [13, 18])
def test_peaks_in_the_form_of_the_graphs_opset(opset: int) -> None:
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[n, 2, 2, 2] image) => (float[n, 2, 2, 2] y)'
        "{ y = Neg (image) }"
    )
    pixels = np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2)
    assert channel_peaks(proto, ["y"], batches_of(pixels, 1))["y"].tolist() == [0.0, -4.0]


def test_sqnr() -> None:
    reference = np.array([3.0, 4.0])
    assert sqnr_db(reference, reference + np.array([0.5, 0.0])) == pytest.approx(20.0)
    assert sqnr_db(reference, reference) is None
    assert sqnr_db(reference, np.array([np.nan, 4.0])) is None


@pytest.mark.parametrize(
    ("pixels", "size", "expected"), [(20, None, [16, 4]), (512, None, [1] * 20), (20, 8, [8, 8, 4])]
)
def test_batches_are_as_large_as_memory_allows(pixels: int, size: int | None, expected: list[int]) -> None:
    stored = np.zeros((2, 3, pixels, pixels), dtype=np.uint8)
    preprocessing = Preprocessing("uint8", (0.0,) * 3, (1.0,) * 3, pixels)
    batches = image_batches(float_proto(), stored, [0, 1] * 10, preprocessing, "image", size)
    assert [len(feeds["image"]) for feeds in batches()] == expected


def test_fixed_batches_are_filled_up_with_the_first_images() -> None:
    proto = float_proto()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    stored = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * np.ones((1, 3, 20, 20), dtype=np.uint8)
    preprocessing = Preprocessing("uint8", (0.0,) * 3, (1.0,) * 3, 20)
    batches = image_batches(proto, stored, [5, 1, 0, 2, 3, 4], preprocessing, "image")
    assert [feeds["image"][:, 0, 0, 0].tolist() for feeds in batches()] == [[5, 1, 0, 2], [3, 4, 5, 1]]


def test_a_graph_that_is_remembered_is_run_once_for_each_batch_and_another_graph_is_not_taken_for_it() -> None:
    proto, memory = float_proto(), Memory()
    (feeds,) = batches_of(images(2, 1), 2)()
    first = recalling(proto, ["c1"], memory)(0, feeds)["c1"]
    assert recalling(proto, ["c1"], memory)(0, {})["c1"] is first
    assert np.array_equal(first, runner(proto, ["c1"])(feeds)["c1"])
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    other.graph.node[0].name = "another"
    with pytest.raises(KeyError):  # it has to run, and is fed nothing
        recalling(other, ["c1"], memory)(0, {})


def test_running_onward_gives_what_running_from_the_front_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[n, 4] image) => (float[n, 4] y)
    <float s = {0.1}, uint8 z = {128}, float[4] one = {1, 2, 3, 4}>
    { a = Mul (image, one)  q = QuantizeLinear (a, s, z)  d = DequantizeLinear (q, s, z)
      b = Neg (d)  c = Add (b, d)  e = Add (c, a)  y = Neg (e) }
    """
    proto = onnx.parser.parse_model(text)
    pixels = np.random.default_rng(0).normal(0, 3, (5, 4)).astype(np.float32)
    asked: list[int] = []

    def counted(graph: onnx.ModelProto, tensors: list[str], known: Feeds | None = None) -> object:
        asked.append(len(upstream(graph, tensors, known).graph.node))
        return runner(graph, tensors, known)

    monkeypatch.setattr(probes, "runner", counted)
    onward = Onward(proto, batches_of(pixels, 2))
    for tensor in ("d", "b", "c", "e"):
        found = np.concatenate(list(onward.values(tensor)))
        assert np.array_equal(found, runner(proto, [tensor])({"image": pixels})[tensor])
    assert asked == [3, 2, 2, 1]  # Mul, Quantize and Dequantize; then Dequantize again and one node each; then one
