from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError
from quantizable import (
    CLIP,
    float_proto,
    images,
    initializers,
    logits,
    node_types,
    optimized,
    prepared_data,
    sqnr_db,
    write_float_model,
)

from calibration_data.prepared import PreparedData, PreparedSplit
from foundation.artifacts import OnnxModel
from foundation.errors import StageError, UsageError
from foundation.sealed_files import write_sealed
from onnx_files.graph import layers
from onnx_files.loading import load
from stages.quantize.methods.static import StaticSettings, quantize_static

CONVOLUTIONS = 7
SETTINGS = StaticSettings(images=40, activation_type="uint8", weight_type="int8", reduce_range=True)


def change(**changes: object) -> StaticSettings:
    return SETTINGS.model_validate(SETTINGS.model_dump() | changes)


def quantized(model: OnnxModel, data: PreparedData, folder: Path, settings: StaticSettings) -> onnx.ModelProto:
    return onnx.load_model(quantize_static(model, "static-int8", settings, data, folder / "static-int8.onnx").path)


def activations_of(tensor: str, count: int) -> np.ndarray:
    """Run the float graph up to a tensor, on all training images."""
    proto = float_proto()
    onnx.helper.set_model_props(proto, {})
    proto.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([tensor], {"image": prepared_data(train=count).train.images})[0])


@pytest.mark.parametrize("graph_format", ["QDQ", "QOperator"])
def test_a_quarter_of_the_size_and_close_logits(
    graph_format: str, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    result = quantize_static(float_model, "s", change(format=graph_format), data, tmp_path / "s.onnx")
    assert result.size_bytes <= 0.30 * float_model.size_bytes
    pixels = images(33, 9)
    assert sqnr_db(logits(float_model.path, pixels), logits(result.path, pixels)) > 25


@pytest.mark.parametrize("graph_format", ["QDQ", "QOperator"])
def test_every_convolution_runs_as_qlinearconv(
    graph_format: str, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    result = quantize_static(float_model, "s", change(format=graph_format), data, tmp_path / "s.onnx")
    counts = node_types(optimized(result.path, tmp_path))
    assert counts["QLinearConv"] == CONVOLUTIONS
    assert counts["QGemm"] == 1
    assert "Conv" not in counts
    assert counts["Cast"] == counts["Mul"] == counts["Add"] == 1  # the normalisation alone is left in float
    assert result.notes.float_layers == ()
    assert result.notes.layers == CONVOLUTIONS + 1


def test_minmax_scales_and_zero_points_are_those_of_the_float_activations(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    constants = initializers(quantized(float_model, data, tmp_path, SETTINGS))
    normalised = activations_of("normalised", 40)
    low, high = float(normalised.min()), float(normalised.max())
    scale = (high - low) / 255
    assert constants["normalised_scale"] == pytest.approx(scale, rel=1e-6)
    assert int(constants["normalised_zero_point"]) == round(-low / scale)
    # The clip disappears into the range of what it lets through.
    clipped = float(activations_of("a1", 40).max())
    assert clipped == CLIP
    assert constants["a1_scale"] == pytest.approx(CLIP / 255, rel=1e-6)
    assert int(constants["a1_zero_point"]) == 0


def test_percentile_cuts_the_tails(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    settings = change(calibration="percentile", percentile=98.0)
    constants = initializers(quantized(float_model, data, tmp_path, settings))
    normalised = activations_of("normalised", 40)
    low, high = np.percentile(normalised, [1.0, 99.0])
    bin_width = 2 * np.abs(normalised).max() / 2048
    assert float(constants["normalised_scale"]) * 255 == pytest.approx(high - low, abs=3 * float(bin_width))


def test_entropy_differs_from_the_whole_range(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    # With ONNX Runtime's own 128 bins it could not: there is one candidate, the whole range.
    whole = initializers(quantized(float_model, data, tmp_path, SETTINGS))
    searched = initializers(quantized(float_model, data, tmp_path, change(calibration="entropy")))
    scales = [name for name in whole if name.endswith("_scale") and name in searched and not name.startswith("w")]
    assert sum(float(np.max(searched[name])) < 0.95 * float(np.max(whole[name])) for name in scales) >= 2


def test_per_channel_has_one_scale_per_output_channel(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    per_channel = initializers(quantized(float_model, data, tmp_path, SETTINGS))
    assert per_channel["w6_scale"].shape == (96,)
    weight = initializers(float_proto())["w6"]
    assert per_channel["w6_scale"] == pytest.approx(np.abs(weight).max(axis=(1, 2, 3)) / 64, rel=1e-6)
    per_tensor = initializers(quantized(float_model, data, tmp_path, change(per_channel=False)))
    assert per_tensor["w6_scale"].size == 1


def test_reduced_range_keeps_weights_within_seven_bits(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    weights = [f"w{index}_quantized" for index in range(1, 8)]
    reduced = initializers(quantized(float_model, data, tmp_path, SETTINGS))
    assert max(int(np.abs(reduced[name].astype(int)).max()) for name in weights) == 64
    full = initializers(quantized(float_model, data, tmp_path, change(reduce_range=False)))
    assert max(int(np.abs(full[name].astype(int)).max()) for name in weights) == 127


@pytest.mark.parametrize(
    ("activation", "weight", "dtypes"),
    [("uint8", "int8", (np.uint8, np.int8)), ("uint8", "uint8", (np.uint8,) * 2), ("int8", "int8", (np.int8,) * 2)],
)
def test_types_are_those_asked_for(
    activation: str,
    weight: str,
    dtypes: tuple[type, type],
    float_model: OnnxModel,
    data: PreparedData,
    tmp_path: Path,
) -> None:
    settings = change(activation_type=activation, weight_type=weight, reduce_range=False)
    constants = initializers(quantized(float_model, data, tmp_path, settings))
    assert (constants["a1_zero_point"].dtype, constants["w6_quantized"].dtype) == dtypes
    assert len({int(zero) for zero in np.ravel(constants["w6_zero_point"])}) == 1  # QLinearConv wants one for all


def handles(split: PreparedSplit) -> set[str]:
    """Return what images are called where their names must not be told."""
    return {f"sha256:{digest[:12]}" for digest in split.sha256}


def test_calibration_images_come_from_the_training_split(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    result = quantize_static(
        float_model, "s", change(images=20), data, tmp_path / "s.onnx", lambda done, total: seen.append((done, total))
    )
    chosen = result.notes.calibration_images
    assert len(set(chosen)) == 20
    assert set(chosen) <= handles(data.train)
    assert seen == [(done, 20) for done in range(1, 21)]


def test_of_too_few_images_all_are_taken(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    result = quantize_static(float_model, "s", change(images=41), data, tmp_path / "s.onnx")
    assert sorted(result.notes.calibration_images) == sorted(handles(data.train))


@pytest.mark.parametrize("calibration", ["minmax", "moving_average", "percentile", "entropy", "mse"])
def test_an_activation_that_overflows_is_an_error(calibration: str, data: PreparedData, tmp_path: Path) -> None:
    weight = np.full((96, 96, 3, 3), 1e38, dtype=np.float32)
    model = write_float_model(tmp_path / "fp32.onnx", float_proto({"w7": weight}))
    with pytest.raises(StageError, match="expected finite activations on the calibration images, found"):
        quantized(model, data, tmp_path, change(calibration=calibration))


def test_a_weight_that_is_not_a_number_is_an_error(data: PreparedData, tmp_path: Path) -> None:
    weight = np.ones((96, 96, 3, 3), dtype=np.float32)
    weight[3, 1] = np.nan
    model = write_float_model(tmp_path / "fp32.onnx", float_proto({"w7": weight}))
    with pytest.raises(UsageError, match="expected finite weights, found 9 that are not in `w7`"):
        quantized(model, data, tmp_path, SETTINGS)


def test_a_data_set_of_another_form_is_an_error(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    grey = replace(data, train=replace(data.train, images=data.train.images[:, :1]))
    with pytest.raises(UsageError, match=r"expected images of shape \[3, 20, 20\].*found \[1, 20, 20\]"):
        quantized(float_model, grey, tmp_path, SETTINGS)


def test_a_second_variant_finds_the_ranges_of_the_first(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    first = quantize_static(float_model, "a", change(calibration="mse"), data, tmp_path / "a.onnx")
    (cached,) = (tmp_path / "ranges").iterdir()
    changed = json.loads(cached.read_text())
    changed["ranges"]["a2"] = [0.0, 51.0]
    write_sealed(cached, changed)  # with its digest: another edit would not be taken
    second = quantize_static(
        float_model, "b", change(calibration="mse", per_channel=False), data, tmp_path / "b.onnx"
    )
    assert initializers(onnx.load_model(second.path))["a2_scale"] == pytest.approx(51 / 255)
    assert initializers(onnx.load_model(first.path))["a2_scale"] < 51 / 255
    quantize_static(float_model, "c", change(calibration="mse", images=39), data, tmp_path / "c.onnx")
    assert len(list((tmp_path / "ranges").iterdir())) == 2


@pytest.mark.parametrize("calibration", ["minmax", "moving_average", "percentile", "entropy", "mse"])
def test_constant_activations_get_a_scale(calibration: str, data: PreparedData, tmp_path: Path) -> None:
    # Biases that push every value of the first ReLU below zero: what follows is constant.
    dead = {"b2": np.full(48, -1e3, dtype=np.float32)}
    model = write_float_model(tmp_path / "fp32.onnx", float_proto(dead))
    result = quantize_static(model, "s", change(calibration=calibration), data, tmp_path / "s.onnx")
    scale = initializers(onnx.load_model(result.path))["a2_scale"]
    assert np.isfinite(scale)
    assert scale > 0
    pixels = images(5, 9)
    assert sqnr_db(logits(model.path, pixels), logits(result.path, pixels)) > 12


def test_unsigned_channels_in_qoperator_are_refused() -> None:
    with pytest.raises(ValidationError, match="per-channel weights as int8"):
        StaticSettings(format="QOperator", weight_type="uint8")


@pytest.mark.parametrize(
    ("target", "types"),
    [
        ("x86-vnni", ("uint8", "int8", False)),
        ("x86-avx2", ("uint8", "int8", True)),
        ("arm64", ("int8", "int8", False)),
    ],
)
def test_a_target_decides_the_types_and_what_may_saturate(target, types, tmp_path):
    model = write_float_model(tmp_path / "fp32.onnx", float_proto())
    settings = StaticSettings(target=target, images=8)
    notes = quantize_static(model, "v", settings, prepared_data(), tmp_path / "v.onnx").notes
    assert (notes.activation_type, notes.weight_type, notes.reduce_range) == types
    at_risk = {layer.layer for layer in notes.saturation}
    if target != "arm64":  # whose file x86 runs partly in types of its own
        assert bool(at_risk) is (target == "x86-vnni")
    compiled = onnx.load_model(tmp_path / "v.onnx")
    (depthwise,) = [node.name for node in compiled.graph.node if any("w5_" in name for name in node.input[1:2])
                    and node.op_type == "Conv"]  # fmt: skip
    assert depthwise not in at_risk


def test_for_an_npu_the_answers_are_integers_too_and_no_operator_is_added(tmp_path):
    model = write_float_model(tmp_path / "fp32.onnx", float_proto())
    deviations = {}
    for activation, largest in (("uint8", 2**8), ("uint16", 2**16)):
        settings = StaticSettings(target="qnn-htp", activation_type=activation, images=8)
        path = tmp_path / f"{activation}.onnx"
        compiled = quantize_static(model, activation, settings, prepared_data(), path)
        assert compiled.notes.activation_type == activation
        graph = onnx.load_model(path).graph
        (last,) = [node for node in graph.node if graph.output[0].name in node.output]
        assert last.op_type == "DequantizeLinear"
        assert "SpaceToDepth" not in {node.op_type for node in graph.node}
        answers = logits(path, images(8, 5))
        assert len(np.unique(answers)) <= largest
        deviations[activation] = float(np.square(answers - logits(model.path, images(8, 5))).mean())
    assert deviations["uint16"] < deviations["uint8"]


def test_sixteen_bits_have_no_operators_of_their_own() -> None:
    with pytest.raises(ValidationError, match="QOperator has no operators of 16 bits"):
        StaticSettings(format="QOperator", activation_type="uint16", per_channel=False)


def test_answers_behind_the_last_layer_stay_in_float(tmp_path):
    proto = float_proto()
    proto.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["probabilities"]))
    proto.graph.output[0].name = "probabilities"
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    compiled = quantize_static(model, "v", StaticSettings(images=8), prepared_data(), tmp_path / "v.onnx")
    answers = logits(compiled.path, images(8, 5))
    steps = answers * 256
    assert np.abs(steps - np.rint(steps)).max() > 0.1  # not rounded to 256 steps
    assert np.abs(answers - logits(model.path, images(8, 5))).max() < 0.1


def test_named_layers_stay_in_float_and_the_record_says_so(
    float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    names = [node.name for node in layers(load(float_model), float_model)]
    settings = change(float_layers=(names[1], names[3]))
    model = quantize_static(float_model, "static-int8", settings, data, tmp_path / "static-int8.onnx")
    plain = quantize_static(float_model, "plain", SETTINGS, data, tmp_path / "plain.onnx")
    assert model.notes.float_layers == (names[1], names[3])
    assert plain.notes.float_layers == ()
    float_weights, plainly_float = (
        sum(array.ndim == 4 and array.dtype == np.float32 for array in initializers(onnx.load_model(path)).values())
        for path in (model.path, plain.path)
    )
    assert float_weights == plainly_float + 2
    with pytest.raises(
        UsageError, match=r"float_layers: expected names of layers of .*found 'nonsense'; did you mean"
    ):
        quantize_static(float_model, "x", change(float_layers=("nonsense",)), data, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()
