from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray


def _session(source: Path | onnx.ModelProto, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    content = source.SerializeToString() if isinstance(source, onnx.ModelProto) else str(source)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def session() -> Callable[..., onnxruntime.InferenceSession]:
    """Return what opens a file or a graph on one thread."""
    return _session


@pytest.fixture(scope="session")
def pixels() -> Callable[[int, int, int], NDArray[np.uint8]]:
    """Return what draws images of patches with black and white margins: [n, channels, size, size]."""

    def draw(n: int, channels: int, size: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(5)
        images = rng.integers(0, 256, (n, channels, size // 4, size // 4), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
        images[:, :, :2], images[:, :, -2:] = 0, 255
        return images

    return draw
