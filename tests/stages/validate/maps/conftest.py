"""A small classifier with its twins, and the same classifier in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from foundation.artifacts import OnnxModel
from stages.saliency_twin.grad_cam import build_grad_cam
from stages.saliency_twin.twin import build_twin
from stages.validate.maps.methods import ExplainedFiles

MEAN, STD = 0.5, 0.25


def with_twins(path: Path) -> ExplainedFiles:
    """Write both twins beside a model; `make_twin` would start a process for each to read it in."""
    model = onnx.load(path)
    twin, grad_cam = path.with_suffix(".saliency.onnx"), path.with_suffix(".gradcam.onnx")
    onnx.save(build_twin(model), twin)
    onnx.save(build_grad_cam(model), grad_cam)
    return ExplainedFiles(path, twin, grad_cam)


class Reference:
    """The classifier of `make_model` in torch, with the file's weights, in float64."""

    def __init__(self, path: Path) -> None:
        self.weights = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float64))
            for tensor in onnx.load(path).graph.initializer
        }

    def features(self, normal: Tensor) -> Tensor:
        return F.relu(F.conv2d(normal, self.weights["kernel"], self.weights["kernel_bias"], padding=1))

    def head(self, features: Tensor) -> Tensor:
        return features.mean((2, 3)) @ self.weights["head"] + self.weights["head_bias"]

    def logits(self, normal: Tensor) -> Tensor:
        return self.head(self.features(normal))

    def normal(self, gray: np.ndarray) -> Tensor:
        return (torch.from_numpy(np.asarray(gray, dtype=np.float64)) / 255 - MEAN) / STD

    def gradient(self, normal: Tensor, targets: np.ndarray) -> np.ndarray:
        """Of the target's logit with respect to the normalised image."""
        leaf = normal.clone().requires_grad_()
        chosen = self.logits(leaf).gather(1, torch.from_numpy(targets)[:, None]).sum()
        return torch.autograd.grad(chosen, leaf)[0].numpy()


@pytest.fixture
def twins() -> Callable[[Path], ExplainedFiles]:
    return with_twins


@pytest.fixture
def classifier(make_model: Callable[..., OnnxModel]) -> Callable[..., tuple[ExplainedFiles, Reference]]:
    def make(input_type: str = "uint8", channels: int = 3, size: int = 8) -> tuple[ExplainedFiles, Reference]:
        path = make_model(input_type, input_type=input_type, channels=channels, size=size).path
        return with_twins(path), Reference(path)

    return make
