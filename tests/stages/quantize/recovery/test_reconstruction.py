"""Reconstruction: what is learned, that it is written, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from quantizable import float_proto, images
from recovering import batches_of, minmax_calibration, qdq_writer

from foundation.errors import UsageError
from onnx_files.loading import name_nodes
from onnx_files.probes import answers, runner, sqnr_db
from stages.quantize.recovery.reconstruction import ReconstructionSettings, reconstruct
from stages.quantize.recovery.rounding import unlike_integers
from stages.quantize.recovery.torch_graph import in_order, run_in_torch


@pytest.fixture(scope="module")
def float_graph() -> onnx.ModelProto:
    proto = float_proto()
    name_nodes(proto)
    return proto


def test_torch_answers_what_onnx_runtime_does_in_float_and_in_integers(float_graph: onnx.ModelProto) -> None:
    pixels = images(6, 1)
    batches = batches_of(pixels, 6)
    written = qdq_writer(per_channel=True)(float_graph, minmax_calibration(batches)(float_graph), {})
    for graph, close in ((float_graph, 1e-5), (written, 0.05)):  # integers at a tie may be the neighbours
        found = run_in_torch(in_order(graph), {"image": torch.from_numpy(pixels)}, {})["logits"].numpy()
        expected = runner(graph, ["logits"])({"image": pixels})["logits"]
        assert np.abs(found - expected).max() < close * np.abs(expected).max()


def test_answers_of_images_that_were_not_learned_from_are_nearer(float_graph: onnx.ModelProto) -> None:
    batches, others = batches_of(images(48, 1), 16), batches_of(images(32, 2), 16)
    write, ranges = qdq_writer(per_channel=True), minmax_calibration(batches)(float_graph)
    before = write(float_graph, ranges, {})
    steps: list[tuple[int, int]] = []
    settings = ReconstructionSettings(images=48, iterations=40)
    found = reconstruct(
        float_graph, before, ranges, batches, settings, lambda done, total: steps.append((done, total))
    )
    after = write(found.model, found.ranges, {})
    assert unlike_integers(after, found.integers) == {}
    assert steps == [(done, 40) for done in range(1, 41)]
    assert 0 < found.turned < found.weights == sum(value.size for value in found.integers.values())
    expected = answers(float_graph, others)
    levels = [sqnr_db(expected, answers(graph, others)) for graph in (before, after)]
    assert levels[1] > levels[0] + 1
    assert found.error_db > 1
    again = reconstruct(float_graph, before, ranges, batches, settings)
    assert again.model.SerializeToString(deterministic=True) == found.model.SerializeToString(deterministic=True)


def test_what_brings_images_that_were_not_learned_from_no_nearer_is_not_taken(float_graph: onnx.ModelProto) -> None:
    pixels = images(16, 1)
    pixels[np.arange(16) % 4 == 1] = 0  # those that judge are black: what is learned of others can but disturb
    batches = batches_of(pixels, 16)
    write, ranges = qdq_writer(per_channel=True), minmax_calibration(batches)(float_graph)
    before = write(float_graph, ranges, {})
    found = reconstruct(float_graph, before, ranges, batches, ReconstructionSettings(images=16, iterations=20))
    assert (found.turned, found.error_db) == (0, 0.0)
    assert found.weights == sum(value.size for value in found.integers.values())
    after = write(found.model, found.ranges, {})
    assert after.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


def test_after_another_rounding_the_unrounded_network_still_says_what_to_answer(float_graph: onnx.ModelProto) -> None:
    batches, others = batches_of(images(48, 1), 16), batches_of(images(32, 2), 16)
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(float_graph)
    for tensor in spoilt.graph.initializer:  # as a rounding of few bits leaves them
        if len(tensor.dims) == 4:
            values = onnx.numpy_helper.to_array(tensor)
            step = np.abs(values).max() / 3
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.rint(values / step) * step, tensor.name))
    write, ranges = qdq_writer(per_channel=True), minmax_calibration(batches)(spoilt)
    before, settings = write(spoilt, ranges, {}), ReconstructionSettings(images=48, iterations=40)
    expected = answers(float_graph, others)
    after = []
    for teacher in (None, float_graph):
        found = reconstruct(spoilt, before, ranges, batches, settings, teacher=teacher)
        after.append(sqnr_db(expected, answers(write(found.model, found.ranges, {}), others)) or 0.0)
    assert after[1] > after[0] + 1


def test_a_single_image_cannot_be_learned_from_and_judge(float_graph: onnx.ModelProto) -> None:
    batches = batches_of(images(1, 1), 1)
    ranges = minmax_calibration(batches)(float_graph)
    written = qdq_writer(per_channel=True)(float_graph, ranges, {})
    with pytest.raises(UsageError, match="two calibration images or more, found one"):
        reconstruct(float_graph, written, ranges, batches, None)


def test_an_operator_that_is_not_covered_is_named(float_graph: onnx.ModelProto) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(float_graph)
    proto.graph.node.append(onnx.helper.make_node("Erf", ["a2"], ["e"], name="erf"))
    with pytest.raises(UsageError, match=r"expected a network of Add, .*, found Erf in `erf`"):
        in_order(proto)


def test_a_batch_of_a_fixed_size_is_refused(float_graph: onnx.ModelProto) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(float_graph)
    batches = batches_of(images(4, 1), 4)
    ranges = minmax_calibration(batches)(proto)
    written = qdq_writer(per_channel=True)(proto, ranges, {})
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    with pytest.raises(UsageError, match="any number of images at once, found one of 4"):
        reconstruct(proto, written, ranges, batches, ReconstructionSettings(iterations=1))
