from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from quantizable import float_proto, images, initializers
from recovering import batches_of, minmax_calibration, qdq_writer

from foundation.errors import UsageError
from onnx_files.loading import name_nodes
from onnx_files.probes import Onward, answers, runner, sqnr_db
from stages.quantize.recovery.compensation import CompensatedRounding, CompensatedRoundingSettings, compensate
from stages.quantize.recovery.moments import moments, wanted_answers
from stages.quantize.recovery.rounding import unlike_integers

SETTINGS = CompensatedRoundingSettings(images=64)


@pytest.fixture(scope="module")
def float_graph() -> onnx.ModelProto:
    proto = float_proto()
    name_nodes(proto)
    return proto


def compensated(
    proto: onnx.ModelProto, pixels: NDArray[np.generic], **types: bool
) -> tuple[onnx.ModelProto, CompensatedRounding, onnx.ModelProto]:
    """Return the graph rounded to the nearest, what was chosen instead, and the graph written from that."""
    batches = batches_of(pixels, 16)
    ranges, write = minmax_calibration(batches)(proto), qdq_writer(**types)
    nearest = write(proto, ranges, {})
    chosen = compensate(proto, nearest, batches, SETTINGS)
    return nearest, chosen, write(chosen.model, ranges, {})


def linear(weight: NDArray[np.float32], operator: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[n, {len(weight)}] image) => (float[n, k] logits)'
        f"{{ logits = {operator} (image, w) }}"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto.graph.node[0].name = "head"
    return proto


@pytest.mark.parametrize(("per_channel", "reduce_range"), [(True, False), (True, True), (False, False)])
def test_the_written_integers_are_the_chosen_ones_and_answer_better(
    per_channel: bool, reduce_range: bool, float_graph: onnx.ModelProto
) -> None:
    nearest, chosen, written = compensated(
        float_graph, images(48, 4), per_channel=per_channel, reduce_range=reduce_range
    )
    assert chosen.weights == sum(initializers(float_graph)[f"w{index}"].size for index in range(1, 9))
    assert 0.01 < chosen.turned / chosen.weights < 0.4
    assert chosen.error_db > 1
    assert unlike_integers(written, chosen.integers) == {}
    before, after = initializers(nearest), initializers(written)
    for name in chosen.integers:
        assert after[f"{name}_scale"] == pytest.approx(before[f"{name}_scale"], rel=1e-6)
    assert not {f"b{index}" for index in range(1, 9)} & after.keys()  # the old biases are gone
    # What it is for, on images that it has not seen.
    unseen = batches_of(images(64, 11), 16)
    reference = answers(float_graph, unseen)
    gain = (sqnr_db(reference, answers(written, unseen)) or 0) - (sqnr_db(reference, answers(nearest, unseen)) or 0)
    assert gain > 2


@pytest.mark.parametrize("operator", ["Gemm", "MatMul", "Gemm <transB = 1>"])
def test_a_linear_layer_loses_less_than_by_nearest_integers(operator: str) -> None:
    # Inputs of few directions: what one weight loses the others make up for. They are whole numbers that eight bits
    # hold as they are, so that only the weights lose anything.
    rng = np.random.default_rng(0)
    pixels = np.rint(15 * rng.normal(0, 1, (512, 6)) @ rng.normal(0, 1, (6, 32))).clip(-128, 127).astype(np.float32)
    pixels[0, :2] = -128, 127
    weight = rng.normal(0, 0.1, (32, 32)).astype(np.float32)
    proto = linear(weight, operator)
    nearest, _, written = compensated(proto, pixels[:256], per_channel=True, reduce_range=True)
    unseen = batches_of(pixels[256:], 64)
    reference = answers(proto, unseen)
    before, after = (sqnr_db(reference, answers(graph, unseen)) or 0 for graph in (nearest, written))
    assert after > before + 6


def test_each_output_of_a_depthwise_convolution_comes_near_the_best_of_all_integers() -> None:
    # Two weights a channel, one of them the greatest: all choices for the other can be tried.
    rng = np.random.default_rng(1)
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[n, 4, 6, 6] image) => (float[n, 4, 6, 5] logits)'
        "{ logits = Conv <group = 4, kernel_shape = [1, 2]> (image, w) }"
    )
    weight = np.concatenate([np.ones((4, 1, 1, 1)), rng.uniform(-0.9, 0.9, (4, 1, 1, 1))], axis=3).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto.graph.node[0].name = "depthwise"
    pixels = (rng.normal(0, 1, (64, 4, 6, 1)) + 0.3 * rng.normal(0, 1, (64, 4, 6, 6))).astype(np.float32)
    _, chosen, _ = compensated(proto, pixels, per_channel=True, reduce_range=True)
    found = chosen.integers["w"]
    assert found[:, 0, 0, 0].tolist() == [64] * 4
    x, w = torch.from_numpy(pixels), torch.from_numpy(weight)
    wanted = torch.nn.functional.conv2d(x, w, groups=4)
    for channel in range(4):
        losses = {}
        for integer in range(-64, 65):
            tried = torch.tensor([[[[64.0, float(integer)]]]]) / 64
            answer = torch.nn.functional.conv2d(x[:, channel : channel + 1], tried)
            difference = answer - wanted[:, channel : channel + 1]
            losses[integer] = float((difference - difference.mean()).square().sum())
        best = min(losses, key=losses.__getitem__)
        assert abs(int(found[channel, 0, 0, 1]) - best) <= 1


def test_a_shift_of_the_mean_is_taken_out_of_the_bias(float_graph: onnx.ModelProto) -> None:
    pixels = images(64, 4)
    _, _, written = compensated(float_graph, pixels, per_channel=True, reduce_range=False)
    batches = batches_of(pixels, 16)
    difference = answers(written, batches) - answers(float_graph, batches)
    spread = answers(float_graph, batches).std(axis=0)
    assert np.max(np.abs(difference.mean(axis=0)) / spread) < 0.003


def test_nothing_stored_as_integers_is_refused(float_graph: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match=r"found none\. Leave recovery out"):
        compensate(float_graph, float_graph, batches_of(images(4, 4)), SETTINGS)


def test_the_same_images_give_the_same_bytes_and_every_layer_is_told(float_graph: onnx.ModelProto) -> None:
    batches = batches_of(images(8, 4), 4)
    written = qdq_writer(per_channel=True)(float_graph, minmax_calibration(batches)(float_graph), {})
    told: list[tuple[int, int]] = []
    first = compensate(float_graph, written, batches, SETTINGS, lambda *step: told.append(step))
    second = compensate(float_graph, written, batches, SETTINGS)
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert told == [(index, 8) for index in range(1, 9)]


def test_few_images_are_looked_at_from_both_sides(float_graph: onnx.ModelProto) -> None:
    # A network that sees the mirrored images in place of the images learns from the same two halves; without mirror
    # images it would not.
    pixels = images(6, 4)
    mirrored = np.ascontiguousarray(pixels[..., ::-1])
    ranges = minmax_calibration(batches_of(pixels, 6))(float_graph)
    nearest = qdq_writer(per_channel=True)(float_graph, ranges, {})

    def turned(seen: NDArray[np.uint8], **settings: object) -> int:
        chosen = CompensatedRoundingSettings.model_validate(settings)
        return compensate(float_graph, nearest, batches_of(seen, 6), chosen).turned

    assert (
        turned(np.concatenate([pixels, mirrored]), images=12) == turned(pixels, images=12) != turned(pixels, images=6)
    )


def test_moments_are_those_of_torchs_own_patches(float_graph: onnx.ModelProto) -> None:
    # c6: 48 channels, 3 × 3, stride 2, padded; its 100 positions are few enough to be taken all.
    node = next(node for node in float_graph.graph.node if node.output[0] == "c6")
    batches = batches_of(images(12, 4), 5)
    count, wanted = wanted_answers(float_graph, [node], batches, 0)
    first, second = moments(Onward(float_graph, batches).values("a5"), node, (96, 48, 3, 3), wanted[0], 0)
    found = first + second
    run = runner(float_graph, ["a5", "c6"])
    values = [run(feeds) for feeds in batches()]
    read, answer = (torch.from_numpy(np.concatenate([value[name] for value in values])) for name in ("a5", "c6"))
    patches = torch.nn.functional.unfold(read, 3, padding=1, stride=2).mT.reshape(-1, 432).double()
    targets = answer.flatten(2).mT.reshape(-1, 96).double()
    assert (count, found.samples) == (1, 12 * 100)
    assert found.xx[0].numpy() == pytest.approx(torch.cov(patches.T, correction=0).numpy(), abs=1e-5)
    both = torch.cov(torch.cat([targets, patches], 1).T, correction=0)
    assert found.yx[0].numpy() == pytest.approx(both[:96, 96:].numpy(), abs=1e-5)
    assert found.yy == pytest.approx(float(both.diagonal()[:96].sum()), rel=1e-5)
    # The error of the layer itself is none.
    constants = initializers(float_graph)
    weight = torch.tensor(constants["w6"]).reshape(1, 96, 432).double()
    assert found.error(weight, torch.tensor(constants["b6"])[None].double()) < 1e-6 * found.yy
