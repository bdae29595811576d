from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError
from quantizable import float_proto, images, logits, node_types, optimized, sqnr_db, write_float_model

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from stages.quantize.four_bits import GREATEST, four_bit_overrides, least_losing_steps
from stages.quantize.methods.static import StaticSettings, quantize_static

ROUNDING = {"compensated_rounding": {"images": 32}}


def compiled(model: OnnxModel, data: PreparedData, folder: Path, **changes: object) -> OnnxModel:
    settings = {"images": 32, "activation_type": "uint8", "weight_type": "int8", "reduce_range": False} | changes
    return quantize_static(model, "s", StaticSettings.model_validate(settings), data, folder / "s.onnx")


def test_half_the_bytes_run_on_the_same_kernels(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    eight, four = (compiled(float_model, data, tmp_path / str(bits), bits=bits) for bits in (8, 4))
    assert four.size_bytes < 0.65 * eight.size_bytes
    assert (eight.notes.bits, four.notes.bits) == (8, 4)
    assert node_types(optimized(four.path, tmp_path)) == node_types(optimized(eight.path, tmp_path))
    # What ONNX Runtime unpacks: sixteen steps at most, and 255 in the first layer.
    greatest = [
        int(np.abs(onnx.numpy_helper.to_array(tensor)).max())
        for tensor in optimized(four.path, tmp_path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert sorted(greatest) == [GREATEST] * 6 + [127]


@pytest.mark.parametrize("per_channel", [True, False])
def test_chosen_integers_lose_a_third_of_what_the_nearest_lose(
    per_channel: bool, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    pixels = images(64, 9)
    reference = logits(float_model.path, pixels)
    nearest, chosen = (
        sqnr_db(
            reference,
            logits(
                compiled(float_model, data, tmp_path / name, bits=4, per_channel=per_channel, recovery=steps).path,
                pixels,
            ),
        )
        for name, steps in (("nearest", {}), ("chosen", ROUNDING))
    )
    assert chosen > nearest + 10 * np.log10(3)


def test_steps_lose_least_of_all_that_are_tried() -> None:
    # One weight of 1 beside many of 0.1: a step of 1/7 loses them, one that cuts the greatest keeps them.
    rng = np.random.default_rng(0)
    weight = np.stack([np.append(rng.uniform(-0.3, 0.3, 400), 1.0), rng.uniform(-1, 1, 401)]).astype(np.float32)
    steps = least_losing_steps(weight, 0)
    assert steps.shape == (2,)

    def loss(row: int, step: float) -> float:
        return float(np.sum((np.clip(np.rint(weight[row] / step), -7, 7) * step - weight[row]) ** 2))

    for row in range(2):
        greatest = float(np.abs(weight[row]).max())
        best = min(np.linspace(0.4, 1, 500) * greatest / 7, key=lambda step, row=row: loss(row, step))
        assert loss(row, steps[row]) < 1.01 * loss(row, best)
        assert np.rint(greatest / steps[row]) >= 7  # one integer at least is the greatest
    assert steps[0] < 0.8 / 7
    # One step for both, and a channel of nothing.
    assert least_losing_steps(weight, None).shape == (1,)
    assert least_losing_steps(np.zeros((1, 3), np.float32), 0).tolist() == [1.0]


def test_a_weight_that_a_float_layer_reads_too_keeps_eight_bits() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[n, 3] image) => (float[n, 3] c)'
        "{ a = MatMul (image, u) b = MatMul (a, v) e = Gemm <transB = 1> (b, w) d = Gemm <transB = 1> (e, w)"
        " c = MatMul (d, x) }"
    )
    rng = np.random.default_rng(0)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.normal(0, 1, (3, 3)).astype(np.float32), name) for name in "uvwx"
    )
    for node in proto.graph.node:
        node.name = node.output[0]

    def few(*excluded: str) -> dict[str, int]:
        found = four_bit_overrides(proto, proto.graph.node[0], per_channel=True, excluded=excluded)
        return {name: channels[0]["axis"] for name, channels in found.items()}

    assert few() == {"v": 1, "w": 0, "x": 1}
    assert few("d", "c") == {"v": 1}


def test_an_opset_without_four_bits_is_refused(data: PreparedData, tmp_path: Path) -> None:
    proto = float_proto()
    proto.opset_import[0].version = 17
    proto.ir_version = 8
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    with pytest.raises(UsageError, match="expected opset 21 or later for weights of 4 bits, found 17"):
        compiled(model, data, tmp_path, bits=4)


def test_four_bits_need_signed_weights_in_qdq() -> None:
    for changed in ({"format": "QOperator"}, {"weight_type": "uint8"}):
        with pytest.raises(ValidationError, match="bits 4 needs format QDQ and signed weights"):
            StaticSettings.model_validate({"bits": 4, **changed})
