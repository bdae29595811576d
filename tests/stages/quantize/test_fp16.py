from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from quantizable import float_proto, images, initializers, logits, sqnr_db, write_float_model

from calibration_data.prepared import PreparedData
from pipeline.artifacts import OnnxModel
from stages.quantize.fp16 import Fp16Settings, quantize_fp16


def test_half_the_size_and_the_same_answers(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    result = quantize_fp16(float_model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx")
    assert 0.49 < result.size_bytes / float_model.size_bytes < 0.52
    pixels = images(33, 9)
    assert sqnr_db(logits(float_model.path, pixels), logits(result.path, pixels)) > 55


def test_weights_are_float16_and_the_normalisation_is_not(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    proto = onnx.load_model(quantize_fp16(float_model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx").path)
    dtypes = {name: value.dtype for name, value in initializers(proto).items()}
    assert {dtypes[name] for name in ("slope", "offset")} == {np.dtype(np.float32)}
    assert {dtypes[f"w{index}"] for index in range(1, 9)} == {np.dtype(np.float16)}


def test_constants_that_float16_cannot_hold_are_counted(data: PreparedData, tmp_path: Path) -> None:
    weight = np.full((96, 96, 3, 3), 0.01, dtype=np.float32)
    weight[0, 0] = 70000.0  # nine above 65504
    weight[1, :2, 0, 0] = -1e-9  # two below the least positive number
    model = write_float_model(tmp_path / "fp32.onnx", float_proto({"w7": weight}))
    result = quantize_fp16(model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx")
    assert result.notes["clipped_constants"] == 9
    assert result.notes["raised_constants"] == 2
    assert result.notes["tensors_with_changed_constants"] == ["w7"]
    stored = initializers(onnx.load_model(result.path))["w7"]
    assert float(stored.max()) == 65504.0
    assert float(stored[1, 0, 0, 0]) == pytest.approx(-(2.0**-24))
