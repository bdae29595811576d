from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mobilenet import mobilenet_v2, spread_channels
from quantizable import initializers
from recovering import batches_of, noise_images

from onnx_files.probes import answers, sqnr_db
from stages.quantize.recovery.equalization import equalize, find_pairs

CHAIN = """
<ir_version: 10, opset_import: ["" : 21]>
chain (float[batch, 3, 6, 6] image) => (float[batch, 2] logits) {
    c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    a1 = ACTIVATION
    c2 = Conv <pads = [1, 1, 1, 1], group = 4> (a1, w2, b2)
    a2 = Relu (c2)
    c3 = Conv (a2, w3, b3)
    pooled = GlobalAveragePool (c3)
    features = Flatten (pooled)
    logits = Gemm <transB = 1> (features, w4, b4)
}
"""
SHAPES = {"w1": (8, 3, 3, 3), "w2": (8, 2, 3, 3), "w3": (5, 8, 1, 1), "w4": (2, 5)}


def chain(seed: int, activation: str = "Relu (c1)", spread: float = 4.0) -> onnx.ModelProto:
    """Return layers of one input channel per group, two per group, one pixel, and a linear one."""
    rng = np.random.default_rng(seed)
    proto = onnx.parser.parse_model(CHAIN.replace("ACTIVATION", activation))
    constants: dict[str, np.ndarray] = {"zero": np.array(0.0), "six": np.array(6.0)} if "six" in activation else {}
    for name, shape in SHAPES.items():
        channel = np.exp(rng.uniform(-spread / 2, spread / 2, (shape[0], *[1] * (len(shape) - 1))))
        constants[name] = channel * rng.normal(0, 0.5, shape)
        constants[name.replace("w", "b")] = rng.normal(0, 0.5, shape[0])
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    )
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def floats(n: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (n, 3, 6, 6)).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), activation=st.sampled_from(["Relu (c1)", "Clip (c1, zero, six)", "Identity (c1)"]))
def test_the_function_stays_the_same(seed: int, activation: str) -> None:
    proto = chain(seed, activation)
    calibration = batches_of(floats(16))
    result = equalize(proto, "keep", calibration)
    before, after = answers(proto, calibration), answers(result.model, calibration)
    assert np.max(np.abs(before - after)) <= 1e-5 * np.max(np.abs(before))
    assert len(result.pairs) == 3


def test_both_ranges_of_a_channel_become_equal() -> None:
    # Equation 11 and its optimum: r₁ = r₂ for every channel.
    result = equalize(chain(3), "keep", batches_of(floats(2)))
    assert [(pair.first, pair.second) for pair in result.pairs] == [
        ("Conv_0", "Conv_2"), ("Conv_2", "Conv_4"), ("Conv_4", "Gemm_7"),
    ]  # fmt: skip
    w = initializers(result.model)
    made = [np.abs(w["w1"]).max(axis=(1, 2, 3)), np.abs(w["w2"]).max(axis=(1, 2, 3)), np.abs(w["w3"]).max((1, 2, 3))]
    # Four groups of two inputs and two outputs each: outputs 2g and 2g + 1 read inputs 2g and 2g + 1.
    grouped = np.abs(w["w2"]).max(axis=(2, 3)).reshape(4, 2, 2).max(axis=1).ravel()
    read = [grouped, np.abs(w["w3"]).max(axis=(0, 2, 3)), np.abs(w["w4"]).max(axis=0)]
    for first, second in zip(made, read, strict=True):
        assert first == pytest.approx(second, rel=5e-3)
    original = initializers(chain(3))
    spread = np.abs(original["w1"]).max(axis=(1, 2, 3))
    assert spread.max() / spread.min() > 3 * made[0].max() / made[0].min()


def test_channels_at_a_clips_bound_stay_as_they_are() -> None:
    proto = chain(7, "Clip (c1, zero, six)")
    calibration = batches_of(floats(16))
    clipped = {tensor: value for tensor, value in initializers(proto).items() if tensor == "w1"}
    images = next(iter(calibration()))["image"]
    import torch

    before = torch.nn.functional.conv2d(
        torch.from_numpy(images),
        *(torch.from_numpy(initializers(proto)[name].copy()) for name in ("w1", "b1")),
        padding=1,
    )
    at_bound = (before.amax((0, 2, 3)) >= 6).numpy()
    assert 0 < at_bound.sum() < 8
    result = equalize(proto, "keep", calibration)
    assert result.kept_channels == at_bound.sum()
    unchanged = np.all(initializers(result.model)["w1"] == clipped["w1"], axis=(1, 2, 3))
    assert np.array_equal(unchanged, at_bound)
    # Scaled up no further than stays below the bound by half as much again.
    after = torch.nn.functional.conv2d(
        torch.from_numpy(images),
        *(torch.from_numpy(initializers(result.model)[name].copy()) for name in ("w1", "b1")),
        padding=1,
    ).amax((0, 2, 3))
    peak = np.maximum(before.amax((0, 2, 3)).numpy(), 4.0)
    assert np.all(after.numpy()[~at_bound] <= peak[~at_bound] + 1e-4)


def test_replacing_a_clip_changes_what_was_clipped() -> None:
    proto = chain(7, "Clip (c1, zero, six)")
    calibration = batches_of(floats(16))
    result = equalize(proto, "replace", calibration)
    assert [node.op_type for node in result.model.graph.node][1] == "Relu"
    assert result.kept_channels == 0
    assert (sqnr_db(answers(proto, calibration), answers(result.model, calibration)) or 0) < 60
    onnx.checker.check_model(result.model, full_check=True)


def test_what_is_read_twice_or_put_out_is_no_pair() -> None:
    network = mobilenet_v2(32, activation="Clip")
    pairs = find_pairs(network.graph)
    # Stem, depthwise, narrowing; sixteen blocks of widening, depthwise, narrowing; the last convolution and the head.
    assert len([pair for pair in pairs if pair.clip]) == 2 + 16 * 2 + 1
    # Narrowing and widening where no shortcut begins or ends: behind the first block and before the last convolution.
    assert [(pair.first, pair.second) for pair in pairs if not pair.clip] == [("c2", "c3"), ("c50", "c51")]


def test_a_model_without_pairs_is_left_alone() -> None:
    proto = chain(1)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("a1", 1, None))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("a2", 1, None))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("pooled", 1, None))
    result = equalize(proto, "keep", batches_of(floats(2)))
    assert result.pairs == ()
    assert result.largest_factor == 1
    assert result.model.SerializeToString() == proto.SerializeToString()


def test_dead_channels_are_left_alone() -> None:
    proto = chain(2)
    for tensor in proto.graph.initializer:
        if tensor.name == "w2":
            weight = onnx.numpy_helper.to_array(tensor).copy()
            weight[3] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, "w2"))
    result = equalize(proto, "keep", batches_of(floats(2)))
    assert all(np.all(np.isfinite(value)) for value in initializers(result.model).values())
    assert not initializers(result.model)["w2"][3].any()


def test_a_hard_mobilenet_is_the_same_function() -> None:
    calibration = batches_of(noise_images(8, 32))
    plain = mobilenet_v2(32)
    hard = spread_channels(plain, 100)
    assert (sqnr_db(answers(plain, calibration), answers(hard, calibration)) or np.inf) > 100
    assert (
        sqnr_db(answers(hard, calibration), answers(equalize(hard, "keep", calibration).model, calibration)) or 0
    ) > 100


def test_what_a_branch_reads_is_no_pair() -> None:
    # The branches name a1, a2 and w2 though no input of `If` does; other values there would be another function.
    plain = "{ t3 = Conv (a2, w3, b3) }"
    again = "{ e2 = Conv <pads = [1, 1, 1, 1], group = 4> (a1, w2, b2) e3 = Conv (e2, w3, b3) }"
    branches = f"If (bright) <then_branch = yes () => (float[b, 5, 6, 6] t3) {plain}, "
    branches += f"else_branch = no () => (float[b, 5, 6, 6] e3) {again}>"
    text = CHAIN.replace("ACTIVATION", "Relu (c1)").replace("Conv (a2, w3, b3)", branches)
    text = text.replace(
        "    c3 =", "    mean = ReduceMean <keepdims = 0> (image)\n    bright = Greater (mean, zero)\n    c3 ="
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(chain(3).graph.initializer)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    calibration = batches_of(floats(8), size=1)
    result = equalize(proto, "keep", calibration)
    assert result.pairs == ()
    assert np.array_equal(answers(proto, calibration), answers(result.model, calibration))
