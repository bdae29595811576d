from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from quantizable import float_proto, images, initializers, logits, node_types, optimized, sqnr_db

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from stages.quantize.methods.dynamic import DynamicSettings, quantize_dynamic, store_convolutions_as_int8

CONVOLUTIONS = 7


def test_a_quarter_of_the_size_and_close_logits(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    result = quantize_dynamic(float_model, "d", DynamicSettings(), data, tmp_path / "d.onnx")
    assert result.size_bytes <= 0.30 * float_model.size_bytes
    pixels = images(33, 9)
    assert sqnr_db(logits(float_model.path, pixels), logits(result.path, pixels)) > 30


def test_convolutions_run_in_float_and_linear_layers_in_integers(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    result = quantize_dynamic(float_model, "d", DynamicSettings(), data, tmp_path / "d.onnx")
    counts = node_types(onnx.load_model(result.path))
    assert counts["MatMulInteger"] == 1
    assert counts["Conv"] == CONVOLUTIONS
    assert "ConvInteger" not in counts
    assert len(result.notes.convolutions_in_float_arithmetic) == CONVOLUTIONS
    assert len(result.notes.linear_layers) == 1
    # At load the weights become constants: nothing of the decoding is left to do for an image.
    assert node_types(optimized(result.path, tmp_path))["Cast"] == 1


@pytest.mark.parametrize(("per_channel", "scales"), [(True, (96, 1, 1, 1)), (False, (1, 1, 1, 1))])
def test_weights_are_within_half_a_step(per_channel: bool, scales: tuple[int, ...]) -> None:
    proto = float_proto()
    weight = initializers(proto)["w7"]
    assert len(store_convolutions_as_int8(proto, per_channel)) == CONVOLUTIONS
    constants = initializers(proto)
    integers, scale = constants["w7_int8"], constants["w7_scale"]
    assert integers.dtype == np.int8
    assert int(np.abs(integers.astype(int)).max()) == 127
    assert scale.shape == scales
    assert np.all(np.abs(weight - scale * integers) <= scale / 2 * (1 + 1e-5))


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = np.random.default_rng(0).normal(size=(96, 96, 3, 3)).astype(np.float32)
    weight[5] = 0
    proto = float_proto({"w7": weight})
    store_convolutions_as_int8(proto, per_channel=True)
    constants = initializers(proto)
    assert not constants["w7_int8"][5].any()
    assert float(constants["w7_scale"][5].item()) == 1.0


def test_linear_weights_have_seven_bits_where_eight_would_saturate(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    largest = {}
    for reduce_range in (True, False):
        settings = DynamicSettings(reduce_range=reduce_range)
        result = quantize_dynamic(float_model, "d", settings, data, tmp_path / "d.onnx")
        constants = initializers(onnx.load_model(result.path))
        # ONNX Runtime 1.32 calls it w8_Transposed_quantized.
        (weight,) = [value for name, value in constants.items() if re.fullmatch(r"w8_(\w+_)?quantized", name)]
        largest[reduce_range] = int(np.abs(weight.astype(int)).max())
    assert largest == {True: 64, False: 127}
