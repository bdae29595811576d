from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from quantizable import float_proto, images, initializers
from recovering import batches_of, minmax_calibration, qdq_writer

from onnx_files.loading import name_nodes
from onnx_files.probes import answers, sqnr_db
from stages.quantize.recovery.rounding import LearnedRoundingSettings, _apply, learn_rounding, unlike_integers

SETTINGS = LearnedRoundingSettings(images=32, iterations=100)


@pytest.fixture(scope="module")
def float_graph() -> onnx.ModelProto:
    proto = float_proto()
    name_nodes(proto)
    return proto


@pytest.mark.parametrize(("per_channel", "reduce_range"), [(True, False), (True, True), (False, False)])
def test_the_written_integers_are_the_learned_ones(
    per_channel: bool, reduce_range: bool, float_graph: onnx.ModelProto
) -> None:
    batches = batches_of(images(32, 4), 16)
    ranges = minmax_calibration(batches)(float_graph)
    write = qdq_writer(per_channel=per_channel, reduce_range=reduce_range)
    nearest = write(float_graph, ranges, {})
    learned = learn_rounding(float_graph, nearest, batches, SETTINGS)
    written = write(learned.model, ranges, {})

    assert learned.weights == sum(initializers(float_graph)[f"w{index}"].size for index in range(1, 9))
    assert 0.01 < learned.turned / learned.weights < 0.4
    assert unlike_integers(written, learned.integers) == {}
    # Up or down, never further; and the scales stay.
    before, after = initializers(nearest), initializers(written)
    for name, integers in learned.integers.items():
        exact = initializers(float_graph)[name] / _over_outputs(before[f"{name}_scale"], integers.ndim)
        assert np.max(np.abs(integers - exact)) < 1.001
        assert after[f"{name}_scale"] == pytest.approx(before[f"{name}_scale"], rel=1e-6)
    # What it is for, on images that it has not seen.
    unseen = batches_of(images(64, 11), 16)
    reference = answers(float_graph, unseen)
    gain = (sqnr_db(reference, answers(written, unseen)) or 0) - (sqnr_db(reference, answers(nearest, unseen)) or 0)
    assert gain > (1 if per_channel else 0)
    assert learned.error_db > 0.3


def _over_outputs(scale: np.ndarray, dimensions: int) -> np.ndarray:
    return scale if scale.ndim == 0 else scale.reshape(-1, *[1] * (dimensions - 1))


def test_the_same_seed_learns_the_same_integers(float_graph: onnx.ModelProto) -> None:
    batches = batches_of(images(8, 4), 4)
    written = qdq_writer(per_channel=True)(float_graph, minmax_calibration(batches)(float_graph), {})
    settings = LearnedRoundingSettings(images=6, iterations=30)
    told: list[tuple[int, int]] = []
    first = learn_rounding(float_graph, written, batches, settings, lambda *step: told.append(step))
    second = learn_rounding(float_graph, written, batches, settings)
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert told == [(index, 8) for index in range(1, 9)]


def test_two_weights_on_one_input_turn_apart() -> None:
    # Scale 1: to the nearest, 0.8 and 0.51 become 1 and 1, an answer of 2 for 1.31; 1 and 0 are nearer.
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[n, 3] image) => (float[n, 1] logits)'
        "{ logits = Gemm <transB = 1> (image, w) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[127, 0.8, 0.51]], dtype=np.float32), "w"))
    proto.graph.node[0].name = "head"
    pixels = np.tile(np.array([[0, 1, 1]], dtype=np.float32), (8, 1))  # 0 and 1 have integers of their own
    batches = batches_of(pixels, 8)
    written = qdq_writer(per_channel=True, reduce_range=False)(proto, minmax_calibration(batches)(proto), {})
    assert initializers(written)["w_quantized"].tolist() == [[127, 1, 1]]
    learned = learn_rounding(proto, written, batches, LearnedRoundingSettings(images=8, iterations=500))
    assert learned.integers["w"].tolist() == [[127, 1, 0]]
    assert learned.error_db == pytest.approx(20 * np.log10(0.69 / 0.31), abs=0.01)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 0, 2, 1], "strides": [2, 1]},
        {"group": 2, "dilations": [1, 2]},
        {"auto_pad": "VALID"},
        {},
    ],
)
def test_a_layer_is_computed_as_onnx_runtime_does(attributes: dict[str, object]) -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    groups = int(str(attributes.get("group", 1)))
    x = rng.normal(0, 1, (2, 4, 7, 9)).astype(np.float32)
    w, b = rng.normal(0, 1, (6, 4 // groups, 3, 3)).astype(np.float32), rng.normal(0, 1, 6).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", 1, None)], [value("y", 1, None)],
        [onnx.numpy_helper.from_array(w, "w"), onnx.numpy_helper.from_array(b, "b")],
    )  # fmt: skip
    proto = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = _apply(node, torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b)).numpy()
    assert found == pytest.approx(session.run(None, {"x": x})[0], abs=1e-5)


def test_other_integers_are_noticed(float_graph: onnx.ModelProto) -> None:
    batches = batches_of(images(4, 4), 4)
    written = qdq_writer(per_channel=True)(float_graph, minmax_calibration(batches)(float_graph), {})
    integers = initializers(written)["w2_quantized"].copy()
    assert unlike_integers(written, {"w2": integers}) == {}
    integers.ravel()[:3] += 1
    assert unlike_integers(written, {"w2": integers, "gone": integers}) == {"w2": 3, "gone": integers.size}
