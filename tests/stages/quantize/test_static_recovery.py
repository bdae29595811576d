from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError
from quantizable import float_proto, images, initializers, logits, node_types, optimized, sqnr_db, write_float_model

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from stages.quantize.methods.static import StaticSettings, quantize_static

LEARNED = {"images": 16, "iterations": 40}


def compiled(
    model: OnnxModel, data: PreparedData, folder: Path, steps: dict[str, object], **changes: object
) -> OnnxModel:
    settings = StaticSettings.model_validate(
        {"images": 32, "activation_type": "uint8", "weight_type": "int8", "reduce_range": True, "recovery": steps}
        | changes
    )
    return quantize_static(model, "s", settings, data, folder / "s.onnx")


@pytest.mark.parametrize("graph_format", ["QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_step_in_every_format(
    graph_format: str, per_channel: bool, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    steps = {
        "equalization": True, "bias_correction": True, "first_layer_half_range": True, "learned_rounding": LEARNED,
    }  # fmt: skip
    result = compiled(
        float_model, data, tmp_path, steps, format=graph_format, per_channel=per_channel, reduce_range=False
    )
    assert [note.did.step for note in result.notes.recovery] == [
        "equalization", "first_layer_half_range", "learned_rounding", "bias_correction",
    ]  # fmt: skip
    constants = initializers(onnx.load_model(result.path))
    assert np.abs(constants["w1_quantized"].astype(int)).max() == 64
    assert np.abs(constants["w2_quantized"].astype(int)).max() == 127
    assert node_types(optimized(result.path, tmp_path))["QLinearConv"] == 7
    pixels = images(33, 9)
    assert sqnr_db(logits(float_model.path, pixels), logits(result.path, pixels)) > 25


def test_the_same_arguments_give_the_same_bytes(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    steps = {"equalization": True, "bias_correction": True, "learned_rounding": LEARNED}
    first, second = (compiled(float_model, data, tmp_path / name, steps) for name in ("first", "second"))
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.record_path.read_bytes() == second.record_path.read_bytes()


def test_without_steps_nothing_is_noted(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    result = compiled(float_model, data, tmp_path, {})
    assert result.notes.recovery == ()


def test_activations_that_do_nothing_do_not_spoil_a_step(data: PreparedData, tmp_path: Path) -> None:
    # A layer of zeros: its outputs are the bias everywhere, its channels have no range.
    dead = np.zeros((96, 48, 3, 3), dtype=np.float32)
    model = write_float_model(tmp_path / "fp32.onnx", float_proto({"w6": dead}))
    steps = {"equalization": True, "bias_correction": True, "learned_rounding": LEARNED}
    result = compiled(model, data, tmp_path, steps)
    constants = initializers(onnx.load_model(result.path))
    assert all(np.all(np.isfinite(value)) for value in constants.values() if value.dtype == np.float32)
    assert len(result.notes.recovery) == 3


def test_a_model_of_fixed_batches(data: PreparedData, tmp_path: Path) -> None:
    proto = float_proto()
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    result = compiled(model, data, tmp_path, {"equalization": True, "bias_correction": True})
    assert result.notes.recovery[1].logits_sqnr_db_after > 20


def test_kept_activations_need_qdq() -> None:
    with pytest.raises(ValidationError, match="keep_activations needs format QDQ"):
        StaticSettings.model_validate({"format": "QOperator", "recovery": {"keep_activations": True}})
