"""A small float network in the form of our exports, and data for it; built without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration_data.prepared import PreparedData, PreparedSplit
from foundation.artifacts import OnnxModel
from foundation.files import sha256_of_file
from onnx_files.preprocessing import Preprocessing

SIZE = 20
CLASSES = ("a", "b", "c", "d")
CLIP = 3.0
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)

# A residual block with a learned clip, a depthwise convolution, a strided one and a linear head: 153,000 weights.
GRAPH = f"""
<ir_version: 10, opset_import: ["" : 21]>
residual (uint8[batch, 3, {SIZE}, {SIZE}] image) => (float[batch, {len(CLASSES)}] logits) {{
    pixels = Cast <to = 1> (image)
    scaled = Mul (pixels, slope)
    normalised = Add (scaled, offset)
    c1 = Conv <pads = [1, 1, 1, 1]> (normalised, w1, b1)
    a1 = Clip (c1, zero, alpha)
    c2 = Conv <pads = [1, 1, 1, 1]> (a1, w2, b2)
    a2 = Relu (c2)
    c3 = Conv <pads = [1, 1, 1, 1]> (a2, w3, b3)
    shortcut = Conv (a1, w4, b4)
    sum = Add (c3, shortcut)
    a3 = Clip (sum, zero, alpha)
    c5 = Conv <pads = [1, 1, 1, 1], group = 48> (a3, w5, b5)
    a5 = Relu (c5)
    c6 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (a5, w6, b6)
    a6 = Clip (c6, zero, alpha)
    c7 = Conv <pads = [1, 1, 1, 1]> (a6, w7, b7)
    a7 = Relu (c7)
    pooled = GlobalAveragePool (a7)
    features = Flatten (pooled)
    logits = Gemm <transB = 1> (features, w8, b8)
}}
"""
SHAPES = {
    "w1": (16, 3, 3, 3),
    "w2": (48, 16, 3, 3),
    "w3": (48, 48, 3, 3),
    "w4": (48, 16, 1, 1),
    "w5": (48, 1, 3, 3),
    "w6": (96, 48, 3, 3),
    "w7": (96, 96, 3, 3),
    "w8": (len(CLASSES), 96),
}


def float_proto(changed: dict[str, NDArray[np.float32]] | None = None) -> onnx.ModelProto:
    """Return the float network; `changed` replaces weights by name."""
    rng = np.random.default_rng(0)
    slope = 1 / (255 * np.array(STD))
    constants = {
        "slope": slope.reshape(1, 3, 1, 1),
        "offset": -(np.array(MEAN) / np.array(STD)).reshape(1, 3, 1, 1),
        "zero": np.array(0.0),
        "alpha": np.array(CLIP),
    }
    for name, shape in SHAPES.items():
        fan_in = int(np.prod(shape[1:]))
        constants[name] = rng.normal(0, np.sqrt(2 / fan_in), shape)
        constants[name.replace("w", "b")] = rng.uniform(-0.1, 0.1, shape[0])
    constants |= changed or {}
    proto = onnx.parser.parse_model(GRAPH)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value, dtype=np.float32), name) for name, value in constants.items()
    )
    metadata = {
        **Preprocessing("uint8", MEAN, STD, SIZE).to_metadata(),
        "edgeproof.classes": json.dumps(CLASSES),
        "edgeproof.variant": "fp32",
        "edgeproof.parent_sha256": "0" * 64,
        "edgeproof.tools": json.dumps({"torch": "2.13.0"}),
    }
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_float_model(path: Path, proto: onnx.ModelProto) -> OnnxModel:
    """Write a float file with its artifact."""
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return OnnxModel("fp32", path, sha256_of_file(path), "0" * 64)


def images(n: int, seed: int) -> NDArray[np.uint8]:
    """Return n images, each of large patches and a little noise."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (n, 3, SIZE // 4, SIZE // 4)).repeat(4, axis=2).repeat(4, axis=3)
    return np.clip(0.8 * patches + rng.integers(0, 50, (n, 3, SIZE, SIZE)), 0, 255).astype(np.uint8)


def prepared_data(train: int = 40, validation: int = 33, labels: NDArray[np.int64] | None = None) -> PreparedData:
    """Return data for the network; `labels` are those of the validation split."""
    splits = {
        "train": _split("train", images(train, 1), None),
        "validation": _split("validation", images(validation, 2), labels),
        "test": _split("test", images(8, 3), None),
    }
    return PreparedData("patches", CLASSES, MEAN, STD, True, (), "0" * 64, **splits)


def _split(name: str, pixels: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> PreparedSplit:
    n = len(pixels)
    names = tuple(f"{name}-{index}" for index in range(n))
    return PreparedSplit(
        images=pixels,
        labels=np.arange(n, dtype=np.int64) % len(CLASSES) if labels is None else labels,
        masks=np.zeros((n, SIZE, SIZE), dtype=np.bool_),
        has_mask=np.zeros(n, dtype=np.bool_),
        mask_class=np.full(n, -1),
        image_ids=names,
        groups=names,
        subgroups=((),) * n,
        sha256=names,
    )


def logits(model: onnx.ModelProto | Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run a model on the CPU provider with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": pixels})[0])


def sqnr_db(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the signal to quantization noise ratio in dB."""
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - other) ** 2)))


def initializers(proto: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Return a graph's constants by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def node_types(proto: onnx.ModelProto) -> dict[str, int]:
    """Count a graph's operators."""
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def optimized(path: Path, folder: Path) -> onnx.ModelProto:
    """Return the graph as ONNX Runtime runs it on the CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that an optimized graph is for this machine only
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load_model(folder / "optimized.onnx")
