from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from quantizable import float_proto, images, initializers, logits, sqnr_db, write_float_model

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from stages.quantize.methods.fp16 import Fp16Settings, quantize_fp16


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
    # Not looked at on images: the layer would be an island of float32, with the constants as they are.
    result = quantize_fp16(model, "fp16", Fp16Settings(images=0), data, tmp_path / "fp16.onnx")
    assert result.notes.clipped_constants == 9
    assert result.notes.raised_constants == 2
    assert result.notes.tensors_with_changed_constants == ("w7",)
    stored = initializers(onnx.load_model(result.path))["w7"]
    assert float(stored.max()) == 65504.0
    assert float(stored[1, 0, 0, 0]) == pytest.approx(-(2.0**-24))


def overflowing() -> onnx.ModelProto:
    """Return the network with c6 a hundred thousand times as large, and c7 as much smaller again."""
    constants = initializers(float_proto())
    return float_proto({
        "w6": (1e5 * constants["w6"]).astype(np.float32),
        "b6": (1e5 * constants["b6"]).astype(np.float32),
        "alpha": np.array(1e6, dtype=np.float32),
        "w7": (1e-3 * constants["w7"]).astype(np.float32),
        "w8": (1e-2 * constants["w8"]).astype(np.float32),
    })  # fmt: skip


def test_nodes_that_overflow_are_islands_of_float32(data: PreparedData, tmp_path: Path) -> None:
    model = write_float_model(tmp_path / "fp32.onnx", overflowing())
    result = quantize_fp16(model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx")
    # c6 makes what is beyond 65504, the Clip behind it makes the same, and c7 reads it.
    assert set(result.notes.float_islands) == {"Conv_13", "Clip_14", "Conv_15"}
    assert min(result.notes.float_islands.values()) > 65504
    pixels = images(33, 9)
    assert sqnr_db(logits(model.path, pixels), logits(result.path, pixels)) > 50
    assert result.notes.logits_sqnr_db > 50
    # Without islands, infinity spoils it.
    blind = quantize_fp16(model, "fp16", Fp16Settings(images=0), data, tmp_path / "blind.onnx")
    assert blind.notes.float_islands == {}
    assert not sqnr_db(logits(model.path, pixels), logits(blind.path, pixels)) > 20


def test_between_two_nodes_of_float32_nothing_is_rounded(data: PreparedData, tmp_path: Path) -> None:
    model = write_float_model(tmp_path / "fp32.onnx", overflowing())
    proto = onnx.load_model(quantize_fp16(model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx").path)
    makers = {node.output[0]: node for node in proto.graph.node}
    nodes = {node.name: node for node in proto.graph.node}
    assert makers[nodes["Clip_14"].input[0]].name == "Conv_13"
    assert makers[nodes["Conv_15"].input[0]].name == "Clip_14"
    # Cast, Mul, Add, and only then a Cast to float16.
    assert makers[nodes["Mul_1"].input[0]].name == "Cast_0"
    assert makers[nodes["Add_2"].input[0]].name == "Mul_1"
    casts = [node for node in proto.graph.node if node.op_type == "Cast"]
    # The image; behind the normalisation, before and behind the island; the logits.
    assert len(casts) == 5
    dtypes = {name: value.dtype for name, value in initializers(proto).items()}
    assert dtypes["w6"] == dtypes["w7"] == np.float32
    assert dtypes["w5"] == dtypes["w8"] == np.float16


def test_logits_beyond_float16_stay_float32(data: PreparedData, tmp_path: Path) -> None:
    constants = initializers(float_proto())
    large = {name: (1e6 * constants[name]).astype(np.float32) for name in ("w8", "b8")}
    model = write_float_model(tmp_path / "fp32.onnx", float_proto(large))
    pixels = images(33, 9)
    assert np.abs(logits(model.path, pixels)).max() > 65504
    result = quantize_fp16(model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx")
    assert sqnr_db(logits(model.path, pixels), logits(result.path, pixels)) > 50


def test_an_activation_that_is_not_finite_is_an_error(data: PreparedData, tmp_path: Path) -> None:
    weight = np.full((96, 96, 3, 3), 1e38, dtype=np.float32)
    model = write_float_model(tmp_path / "fp32.onnx", float_proto({"w7": weight}))
    with pytest.raises(StageError, match="expected finite activations on the training images, found inf in `c7`"):
        quantize_fp16(model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx")
    assert not (tmp_path / "fp16.onnx").exists()


def test_a_model_of_fixed_batches_is_looked_at_in_them(data: PreparedData, tmp_path: Path) -> None:
    proto = float_proto()
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    result = quantize_fp16(model, "fp16", Fp16Settings(), data, tmp_path / "fp16.onnx")
    assert result.notes.logits_sqnr_db > 50
