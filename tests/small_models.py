"""Small ONNX models, built node by node, for the tests of the validation stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calibration_data.prepared import PreparedSplit
from foundation.artifacts import OnnxModel
from foundation.files import sha256_of_file
from onnx_files.preprocessing import Preprocessing

MEAN, STD = 0.5, 0.25


def build_model(
    path: Path, size: int = 8, channels: int = 1, classes: int = 3, seed: int = 0, input_type: str = "uint8"
) -> OnnxModel:
    """Write image → normalisation → Conv → Relu → GlobalAveragePool → Gemm → logits."""
    rng = np.random.default_rng(seed)
    weights = {
        "kernel": rng.standard_normal((4, channels, 3, 3)),
        "kernel_bias": rng.standard_normal(4),
        "head": rng.standard_normal((4, classes)),
        "head_bias": rng.standard_normal(classes),
    }
    nodes = [
        helper.make_node("Conv", ["normal", "kernel", "kernel_bias"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head", "head_bias"], ["logits"]),
    ]
    return save_model(path, nodes, weights, size, channels, classes, input_type)


def build_corner_model(path: Path, size: int = 8) -> OnnxModel:
    """Write a model whose class 0 reads the sum of the upper left 3×3 pixels and nothing else."""
    head = np.zeros((1, 1, size, size))
    head[0, 0, :3, :3] = 1.0
    nodes = [
        helper.make_node("Mul", ["normal", "corner"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axes"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "signs"], ["logits"]),
    ]
    weights = {"corner": head, "signs": np.array([[1.0, -1.0]]), "axes": np.array([2, 3], dtype=np.int64)}
    return save_model(path, nodes, weights, size, 1, 2, "uint8")


def save_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray],
    size: int,
    channels: int,
    classes: int,
    input_type: str,
) -> OnnxModel:
    """Put the contract's input, normalisation, output and metadata around nodes that read "normal"."""
    front = []
    tensors = {
        name: value if value.dtype == np.int64 else value.astype(np.float32) for name, value in weights.items()
    }
    if input_type == "uint8":
        tensors["scale"] = np.full((channels, 1, 1), 1 / (255 * STD), dtype=np.float32)
        tensors["shift"] = np.full((channels, 1, 1), -MEAN / STD, dtype=np.float32)
        front = [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["normal"]),
        ]
    else:
        front = [helper.make_node("Identity", ["image"], ["normal"])]
    kind = TensorProto.UINT8 if input_type == "uint8" else TensorProto.FLOAT
    graph = helper.make_graph(
        front + nodes,
        "classifier",
        [helper.make_tensor_value_info("image", kind, ["batch", channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    preprocessing = Preprocessing(input_type, (MEAN,) * channels, (STD,) * channels, size)
    helper.set_model_props(model, preprocessing.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return OnnxModel(path.stem, path, sha256_of_file(path), None)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., OnnxModel]:
    def make(name: str = "fp32", **options: object) -> OnnxModel:
        return build_model(tmp_path / "models" / f"{name}.onnx", **options)

    return make


@pytest.fixture
def corner_model(tmp_path: Path) -> OnnxModel:
    return build_corner_model(tmp_path / "models" / "corner.onnx")


@pytest.fixture
def make_split() -> Callable[..., PreparedSplit]:
    def make(n: int = 12, size: int = 8, channels: int = 1, classes: int = 3, seed: int = 0) -> PreparedSplit:
        rng = np.random.default_rng(seed)
        masks = np.zeros((n, size, size), dtype=bool)
        masks[:, :3, :3] = True
        return PreparedSplit(
            images=rng.integers(0, 256, (n, channels, size, size), dtype=np.uint8),
            labels=np.arange(n, dtype=np.int64) % classes,
            masks=masks,
            has_mask=np.ones(n, dtype=bool),
            mask_class=np.full(n, -1),
            image_ids=tuple(f"image-{i}" for i in range(n)),
            groups=tuple(f"group-{i}" for i in range(n)),
            subgroups=((),) * n,
            sha256=tuple(f"{i:064x}" for i in range(n)),
        )

    return make
