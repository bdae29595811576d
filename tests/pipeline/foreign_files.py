"""Classifiers as other people's exporters write them, and folders of images without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

CLASSES = 5
IR_OF_OPSET = {9: 4, 11: 6, 13: 7, 17: 8, 21: 10}


def classifier(
    opset: int = 17,
    batch: int | str = "n",
    size: tuple[int | str, int | str] = (24, 24),
    channels: int | str = 3,
    layout: str = "NCHW",
    element_type: int = TensorProto.FLOAT,
    constant_nodes: bool = False,
    softmax: bool = False,
    changed: dict[str, np.ndarray] | None = None,
) -> ModelProto:
    """Convolution, batch norm, ReLU, depthwise convolution, ReLU, average, linear layer; 6,000 weights at random."""
    rng = np.random.default_rng(0)
    colours = channels if isinstance(channels, int) else 3
    weights = {
        "w1": rng.normal(0, 0.3, (32, colours, 3, 3)),
        "gamma": rng.uniform(0.5, 1.5, 32),
        "beta": rng.normal(0, 0.1, 32),
        "mean": rng.normal(0, 0.1, 32),
        "variance": rng.uniform(0.5, 1.5, 32),
        "w2": rng.normal(0, 0.4, (32, 1, 3, 3)),
        "b2": rng.normal(0, 0.1, 32),
        "w3": rng.normal(0, 0.2, (128, 32, 1, 1)),
        "w4": rng.normal(0, 0.3, (CLASSES, 128)),
        "b4": rng.normal(0, 0.1, CLASSES),
    } | (changed or {})
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    nodes = []
    image = "image"
    if element_type == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", [image], ["pixels"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", ["pixels", "slope"], ["scaled"]))
        tensors.append(numpy_helper.from_array(np.float32(1 / 128), "slope"))
        image = "scaled"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [image], ["channels_first"], perm=[0, 3, 1, 2]))
        image = "channels_first"
    if constant_nodes:
        nodes += [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors]
        tensors = []
    nodes += [
        helper.make_node("Conv", [image, "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "gamma", "beta", "mean", "variance"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=32),
        helper.make_node("Relu", ["c2"], ["a2"]),
        helper.make_node("Conv", ["a2", "w3"], ["c3"]),
        helper.make_node("Relu", ["c3"], ["a3"]),
        helper.make_node("GlobalAveragePool", ["a3"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "w4", "b4"], ["answers"], transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["answers"], ["probabilities"], axis=1))
    shape = [batch, channels, *size] if layout == "NCHW" else [batch, *size, channels]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("image", element_type, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [batch, CLASSES])],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_OF_OPSET[opset])


def write(model: ModelProto, path: Path) -> Path:
    onnx.save_model(model, path)
    return path


def write_images(folder: Path, n: int, seed: int = 0) -> Path:
    """Write n images of coloured patches, in two folders."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        inside = folder / ("first", "second")[index % 2]
        inside.mkdir(parents=True, exist_ok=True)
        patches = rng.integers(0, 256, (5, 6, 3)).repeat(6, axis=0).repeat(6, axis=1)
        pixels = np.clip(0.8 * patches + rng.integers(0, 50, patches.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(inside / f"{index:03}.png")
    return folder


def padded_pixels(folder: Path, names: tuple[str, ...]) -> np.ndarray:
    """Return some of these images, 36 × 30 pixels, as 24 × 24 with black above and below: uint8 [n, 3, 24, 24]."""
    found = []
    for name in names:
        square = np.zeros((24, 24, 3), np.uint8)
        square[2:22] = np.asarray(Image.open(folder / name).resize((24, 20), Image.Resampling.BILINEAR))
        found.append(square.transpose(2, 0, 1))
    return np.stack(found)
