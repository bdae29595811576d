from __future__ import annotations

import numpy as np
import onnx
import pytest
from quantizable import float_proto, images, initializers
from recovering import batches_of, minmax_calibration, qdq_writer

from onnx_files.loading import name_nodes
from onnx_files.probes import answers, runner, sqnr_db
from stages.quantize.recovery.bias_correction import correct_biases


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    name_nodes(proto)
    return proto


def shifted(proto: onnx.ModelProto, name: str, by: float) -> onnx.ModelProto:
    """Return a graph with a constant moved."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            moved = onnx.numpy_helper.to_array(tensor) + np.float32(by)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, name))
    return copy


def test_a_shift_that_was_put_in_comes_out_where_it_was() -> None:
    # Stands for a quantized graph: one layer answers 0.25 too much, so every later layer's mean moves too, but only
    # the first is to be corrected.
    proto = named(float_proto())
    batches = batches_of(images(20, 4), 8)
    result = correct_biases(proto, shifted(proto, "b3", 0.25), batches)
    c3 = next(node.name for node in proto.graph.node if node.output[0] == "c3")
    assert result.shifts[c3] == pytest.approx(np.full(48, 0.25), abs=1e-4)
    others = [np.max(np.abs(shift)) for name, shift in result.shifts.items() if name != c3]
    assert len(others) == 7
    assert max(others) < 1e-4
    constants = initializers(result.model)
    assert constants[f"{c3}/corrected_bias"] == pytest.approx(initializers(proto)["b3"] - 0.25, abs=1e-4)
    assert "b3" not in constants


@pytest.mark.parametrize("per_channel", [True, False])
def test_means_of_the_quantized_layers_become_those_of_the_float_layers(per_channel: bool) -> None:
    proto = named(float_proto())
    batches = batches_of(images(48, 4), 16)
    ranges, write = minmax_calibration(batches)(proto), qdq_writer(per_channel=per_channel)
    written = write(proto, ranges, {})
    corrected = correct_biases(proto, written, batches)
    rewritten = write(corrected.model, ranges, {})
    layer_names = [node.name for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]

    def means(graph: onnx.ModelProto) -> list[np.ndarray]:
        outputs = {node.name: node.output[0] for node in graph.graph.node}
        tensors = [outputs[name] for name in layer_names]
        run = runner(graph, tensors)
        values = [run(feeds) for feeds in batches()]
        stacked = [np.concatenate([value[tensor] for value in values]) for tensor in tensors]
        return [value.mean(axis=(0, 2, 3)) if value.ndim == 4 else value.mean(axis=0) for value in stacked]

    # Those without an activation behind them: c3, c4 and the logits.
    before = [np.abs(a - b).mean() for a, b in zip(means(proto), means(written), strict=True)]
    after = [np.abs(a - b).mean() for a, b in zip(means(proto), means(rewritten), strict=True)]
    for index in (2, 3, 7):
        assert after[index] < 0.5 * before[index]
    assert after[7] < 0.25 * before[7]
    reference = answers(proto, batches)
    gain = (sqnr_db(reference, answers(rewritten, batches)) or 0) - (
        sqnr_db(reference, answers(written, batches)) or 0
    )
    assert gain > 0.3


def test_a_layer_without_a_bias_gets_one_and_a_shared_one_is_not_changed() -> None:
    proto = named(float_proto())
    for node in proto.graph.node:
        if node.output[0] == "c7":
            del node.input[2:]
        if node.output[0] == "c3":
            node.input[2] = "b2"
    result = correct_biases(proto, shifted(proto, "w8", 0.01), batches_of(images(8, 4), 8))
    inputs = {node.output[0]: list(node.input) for node in result.model.graph.node}
    constants = initializers(result.model)
    assert constants[inputs["c7"][2]].shape == (96,)
    assert inputs["c2"][2] != inputs["c3"][2]
    onnx.checker.check_model(result.model, full_check=True)


def test_nothing_to_correct_changes_nothing() -> None:
    proto = named(float_proto())
    other = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 21]> g (uint8[n, 2] image) => (uint8[n, 2] y) { y = Identity (image) }'
    )
    result = correct_biases(proto, other, batches_of(images(4, 4)))
    assert result.shifts == {}
    assert result.model == proto
