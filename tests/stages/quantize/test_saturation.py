"""What saturates on x86 without VNNI: by hand, by exact integers, and on such a processor itself, emulated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stages.quantize.saturation import saturating_layers

QEMU = shutil.which("qemu-x86_64")
SIZE = 6

# Of each layer: output channels, input channels, groups, kernel, step, dilation, and the least and largest |weight|.
CONVOLUTIONS = {
    "three-channels": (8, 3, 1, 3, 1, 1, (90, 127)),
    "five-channels": (4, 5, 1, 3, 2, 1, (90, 127)),
    "pointwise": (8, 6, 1, 1, 1, 1, (90, 127)),
    "grouped": (8, 8, 4, 3, 1, 1, (90, 127)),
    "one-channel-groups": (12, 6, 6, 3, 1, 1, (90, 127)),
    "dilated": (4, 4, 1, 3, 1, 2, (90, 127)),
    "depthwise": (8, 8, 8, 3, 1, 1, (90, 127)),
    "seven-bits": (8, 6, 1, 3, 1, 1, (40, 64)),
}
NAMED = set(CONVOLUTIONS) - {"depthwise", "seven-bits"} | {"linear"}


def graph(node: onnx.NodeProto, shape: list[int | str], constants: dict[str, NDArray[np.generic]]) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, shape)
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, None)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph([node], "layer", [x], [y], tensors), opset_imports=opsets, ir_version=8
    )


def integers(weight: NDArray[np.int8], zero_point: int, scale: float) -> dict[str, NDArray[np.generic]]:
    """Constants under which the output is 128 + sum · scale."""
    one, channels = np.float32(1), weight.shape[0]
    zeros = np.zeros(channels, np.int8)
    scales = {"xs": one, "xz": np.uint8(zero_point), "w": weight, "ws": np.ones(channels, np.float32), "wz": zeros}
    return {**scales, "ys": np.float32(1 / scale), "yz": np.uint8(128)}


def convolution(
    weight: NDArray[np.int8], zero_point: int = 0, scale: float = 1e-5, **attributes: object
) -> onnx.ModelProto:
    inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"]
    node = helper.make_node("QLinearConv", inputs, ["y"], name="layer_quant", **attributes)
    channels = weight.shape[1] * int(attributes.get("group", 1))  # type: ignore[call-overload]
    return graph(node, ["n", channels, "h", "w_"], integers(weight, zero_point, scale))


def signed(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> NDArray[np.int8]:
    """Weights of one sign for each output channel, so that neighbours add up."""
    signs = rng.choice([-1, 1], (shape[0], *[1] * (len(shape) - 1)))
    return (rng.integers(low, high + 1, shape) * signs).astype(np.int8)


def test_a_pair_by_hand() -> None:
    # One position: 200·100 + 200·100 = 40,000 saturates, 100·100 + 100·100 does not.
    model = convolution(np.array([100, 100, 10, 10], np.int8).reshape(1, 4, 1, 1))
    bright, dim = np.full((1, 4, 1, 1), 200, np.uint8), np.full((1, 4, 1, 1), 100, np.uint8)
    (layer,) = saturating_layers(model, [{"x": np.concatenate([bright, dim, dim])}, {"x": bright}])
    assert layer.layer == "layer"
    assert layer.images == 4
    assert layer.weight_pairs_at_risk == 0.5
    assert layer.largest_sum == 255 * 200
    assert layer.saturated_sums == 2 / 8
    assert layer.changed_outputs == 2 / 4


def test_the_bounds_are_those_of_sixteen_bits() -> None:
    def named(*weights: int) -> bool:
        model = convolution(np.array(weights, np.int8).reshape(1, len(weights), 1, 1))
        return bool(saturating_layers(model, [{"x": np.zeros((1, len(weights), 1, 1), np.uint8)}]))

    assert not named(64, 64)  # 32,640: why seven bits are safe
    assert not named(64, 64, 64)
    assert named(65, 64)  # 32,895
    assert not named(-64, -64)
    assert named(-65, -64)
    assert not named(127, -127)  # opposite signs
    assert not named(0, 127, 127, 0)  # neighbours are steps 2i and 2i + 1


def test_channels_run_faster_than_kernel_positions() -> None:
    # Of two channels at two positions, only (channel 0, channel 1) at one position are neighbours.
    along_channels, along_kernel = np.zeros((2, 1, 2, 1, 2), np.int8)
    along_channels[0, :, 0, 0] = 127
    along_kernel[0, 0, 0, :] = 127
    batch = [{"x": np.full((1, 2, 3, 3), 255, np.uint8)}]
    assert saturating_layers(convolution(along_channels), batch)
    assert not saturating_layers(convolution(along_kernel), batch)


def test_padding_counts_as_the_zero_point() -> None:
    weight = np.full((1, 2, 1, 1), 100, np.int8)
    batch = [{"x": np.zeros((1, 2, 1, 1), np.uint8)}]
    for zero_point, share in ((0, 0.0), (200, 8 / 9)):  # eight of the nine positions lie in the padding
        (layer,) = saturating_layers(convolution(weight, zero_point, pads=[1, 1, 1, 1]), batch)
        assert layer.saturated_sums == share


def test_of_a_large_layer_few_positions_are_counted_and_not_one_column_of_them() -> None:
    stripes = np.zeros((1, 2, 64, 64), np.uint8)
    stripes[..., ::2] = 255
    (layer,) = saturating_layers(convolution(np.full((1, 2, 1, 1), 100, np.int8)), [{"x": stripes}])
    assert layer.saturated_sums * 64 == int(layer.saturated_sums * 64)
    assert 0.3 < layer.saturated_sums < 0.7


def test_a_linear_layer_of_an_images_parts_counts_images() -> None:
    # Three parts of one image: one bright, two dark.
    weight = np.array([[100, 100]], np.int8)
    inputs = ["parts", "xs", "xz", "w", "ws", "wz", "", "ys", "yz"]
    node = helper.make_node("QGemm", inputs, ["y"], name="linear", domain="com.microsoft", transB=1)
    model = graph(node, ["n", 3, 2], {**integers(weight, 0, 1e-5), "shape": np.array([-1, 2])})
    model.graph.node.insert(0, helper.make_node("Reshape", ["x", "shape"], ["parts"]))
    parts = np.array([[[200, 200], [0, 0], [0, 0]]], np.uint8)
    (layer,) = saturating_layers(model, [{"x": parts}, {"x": parts}])
    assert layer.images == 2
    assert layer.saturated_sums == 1 / 3


def test_a_safe_file_is_not_run() -> None:
    def never() -> object:
        raise AssertionError("run for nothing")
        yield

    assert saturating_layers(convolution(np.full((1, 2, 1, 1), 64, np.int8)), never()) == ()  # type: ignore[arg-type]


# --- on a processor without VNNI ---


def layers_and_images() -> dict[str, tuple[onnx.ModelProto, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Each layer with images and what exact integers answer."""
    rng = np.random.default_rng(0)
    layers = {}
    for name, (outputs, inputs, groups, kernel, stride, dilation, (low, high)) in CONVOLUTIONS.items():
        weight = signed(rng, (outputs, inputs // groups, kernel, kernel), low, high)
        scale = 100 / (255 * high * weight[0].size)
        attributes = {
            "strides": [stride] * 2,
            "dilations": [dilation] * 2,
            "pads": [kernel // 2] * 4,
            "group": groups,
        }
        pixels = rng.integers(140, 256, (2, inputs, SIZE, SIZE)).astype(np.uint8)
        model = convolution(weight, zero_point=150, scale=scale, **attributes)
        exact = exact_convolution(pixels, weight, 150, scale, kernel // 2, stride, dilation, groups)
        layers[name] = (model, pixels, exact)
    weight = signed(rng, (5, 33), 90, 127)
    scale = 100 / (255 * 127 * 33)
    inputs_of_gemm = ["x", "xs", "xz", "w", "ws", "wz", "", "ys", "yz"]
    node = helper.make_node("QGemm", inputs_of_gemm, ["y"], name="linear", domain="com.microsoft", transB=1)
    features = rng.integers(140, 256, (3, 33)).astype(np.uint8)
    sums = (features.astype(np.int64) - 150) @ weight.T.astype(np.int64)
    layers["linear"] = (graph(node, ["n", 33], integers(weight, 150, scale)), features, requantized(sums, scale))
    return layers


def exact_convolution(
    pixels: NDArray[np.uint8], weight: NDArray[np.int8], zero_point: int, scale: float, pad: int, stride: int,
    dilation: int, groups: int,
) -> NDArray[np.uint8]:  # fmt: skip
    import torch

    centred = torch.from_numpy(pixels.astype(np.float64) - zero_point)  # exact: integers far below 2**53
    kernel = torch.from_numpy(weight.astype(np.float64))
    sums = torch.nn.functional.conv2d(centred, kernel, None, stride, pad, dilation, groups)
    return requantized(sums.numpy().astype(np.int64), scale)


def requantized(sums: NDArray[np.int64], scale: float) -> NDArray[np.uint8]:
    multiplier = np.float32(1) / np.float32(1 / scale)
    return np.clip(np.rint(sums.astype(np.float32) * multiplier) + 128, 0, 255).astype(np.uint8)


ON_THE_PROCESSOR = """
import sys
from pathlib import Path
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
for path in Path(sys.argv[1]).glob("*.onnx"):
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: np.load(path.with_suffix(".npy"))}
    np.save(path.with_suffix(".answer.npy"), session.run(None, feed)[0])
"""


def run_on_haswell(folder: Path) -> None:
    """Run every `NAME.onnx` of a folder on `NAME.npy` with AVX2 and without VNNI."""
    command = [str(QEMU), "-cpu", "Haswell", sys.executable, "-c", ON_THE_PROCESSOR, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_named_are_the_layers_that_can_saturate() -> None:
    found = {name: saturating_layers(model, [{"x": x}]) for name, (model, x, _) in layers_and_images().items()}
    assert {name for name, layers in found.items() if layers} == NAMED
    assert all(layers[0].changed_outputs > 0.2 for layers in found.values() if layers)


@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (Debian: qemu-user) is not installed")
def test_a_processor_without_vnni_is_wrong_in_the_named_layers_and_exact_in_the_others(tmp_path: Path) -> None:
    layers = layers_and_images()
    for name, (model, pixels, _) in layers.items():
        onnx.save_model(model, tmp_path / f"{name}.onnx")
        np.save(tmp_path / f"{name}.npy", pixels)
    run_on_haswell(tmp_path)
    for name, (model, pixels, exact) in layers.items():
        answer = np.load(tmp_path / f"{name}.answer.npy")
        wrong = float(np.mean(answer != exact))
        found = saturating_layers(model, [{"x": pixels}])
        if name in NAMED:
            # What saturates by little is rounded away; what does not saturate is right.
            assert 0.9 * found[0].changed_outputs <= wrong <= found[0].changed_outputs, name
        else:
            assert wrong == 0, name
