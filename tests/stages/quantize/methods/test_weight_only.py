from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from quantizable import float_proto, images, initializers, logits, node_types, optimized, sqnr_db, write_float_model

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from stages.quantize.methods.weight_only import WeightOnlySettings, block_of, quantize_weight, quantize_weights_only


def compiled(model: OnnxModel, data: PreparedData, folder: Path, **changes: object) -> OnnxModel:
    return quantize_weights_only(model, "w", WeightOnlySettings.model_validate(changes), data, folder / "w.onnx")


@pytest.mark.parametrize(("bits", "size", "quality_db"), [(8, 0.28, 33), (4, 0.185, 9)])
def test_size_and_quality(
    bits: int, size: float, quality_db: float, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    result = compiled(float_model, data, tmp_path, bits=bits)
    assert result.size_bytes < size * float_model.size_bytes
    pixels = images(33, 9)
    assert sqnr_db(logits(float_model.path, pixels), logits(result.path, pixels)) > quality_db
    # w1, w4, w5 and w8 have 432, 768, 432 and 384 weights.
    assert len(result.notes.float_layers) == 4
    assert len(result.notes.layers) == 4


@pytest.mark.parametrize("bits", [8, 4])
def test_it_runs_the_float_graph(bits: int, float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    # ONNX Runtime multiplies the integers out as it loads the file: the same operators run as in the float file.
    result = compiled(float_model, data, tmp_path, bits=bits)
    (tmp_path / "float").mkdir()
    assert node_types(optimized(result.path, tmp_path)) == node_types(optimized(float_model.path, tmp_path / "float"))


@pytest.mark.parametrize("bits", [8, 4])
def test_the_file_computes_with_what_was_rounded(
    bits: int, float_model: OnnxModel, data: PreparedData, tmp_path: Path
) -> None:
    result = compiled(float_model, data, tmp_path, bits=bits, smallest_layer=0)
    chosen = WeightOnlySettings.model_validate({"bits": bits})
    weights = {name: value for name, value in initializers(float_proto()).items() if name.startswith("w")}
    restored = {}
    for name, weight in weights.items():
        rounded = quantize_weight(weight.astype(np.float32), 0, chosen)
        restored[name] = rounded.restored().reshape(weight.shape).astype(np.float32)
    reference = write_float_model(tmp_path / "reference.onnx", float_proto(restored))
    pixels = images(4, 9)
    assert np.array_equal(logits(reference.path, pixels), logits(result.path, pixels))
    power, noise = np.sum(weights["w7"] ** 2), np.sum((weights["w7"] - restored["w7"]) ** 2)
    assert result.notes.weight_sqnr_db["w7"] == pytest.approx(10 * np.log10(power / noise), abs=0.01)


def test_four_bits_are_stored_as_int4_in_blocks(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    proto = onnx.load_model(compiled(float_model, data, tmp_path, bits=4).path)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    assert tensors["w7_integers"].data_type == onnx.TensorProto.INT4
    assert list(tensors["w7_integers"].dims) == [96, 27, 32]  # 96 · 9 inputs in blocks of 32
    assert len(tensors["w7_integers"].raw_data) == 96 * 96 * 9 // 2
    assert list(tensors["w7_scale"].dims) == [96, 27, 1]


@settings(max_examples=50, deadline=None)
@given(
    weight=npst.arrays(np.float32, (3, 4, 2, 2), elements=st.floats(-100, 100, width=32)),
    bits=st.sampled_from([8, 4]),
    block_size=st.sampled_from([0, 4, 8, 16]),
)
def test_rounding_stays_within_half_a_step_or_a_whole_one_and_searching_never_hurts(
    weight: np.ndarray, bits: int, block_size: int
) -> None:
    errors = {}
    for clipping in ("max", "mse"):
        chosen = WeightOnlySettings.model_validate({"bits": bits, "block_size": block_size, "clipping": clipping})
        result = quantize_weight(weight, 0, chosen)
        limit = 127 if bits == 8 else 8
        assert np.abs(result.integers.astype(int)).max() <= limit
        error = weight.reshape(result.integers.shape) - result.restored()
        errors[clipping] = float(np.sum(error.astype(np.float64) ** 2))
        if clipping == "max":  # at 4 bits some are rounded the other way
            farthest = 0.5 if bits == 8 else 1.0
            assert np.all(np.abs(error) <= farthest * np.abs(result.scale) * (1 + 1e-4) + 1e-30)
    if bits == 8:
        assert errors["mse"] <= errors["max"] * (1 + 1e-6) + 1e-30


@pytest.mark.parametrize("output_axis", [0, 1])
def test_errors_of_four_bits_cancel_out_in_every_block(output_axis: int) -> None:
    weight = np.random.default_rng(1).standard_normal((96, 96)).astype(np.float32)
    result = quantize_weight(weight, output_axis, WeightOnlySettings(bits=4, clipping="max"))
    exact = weight.reshape(result.integers.shape) / result.scale + result.zero
    along = 2 if output_axis == 0 else 1
    assert result.integers.shape == ((96, 3, 32) if output_axis == 0 else (3, 32, 96))
    assert np.abs((exact - result.integers).sum(axis=along)).max() <= 0.5 + 1e-4
    assert np.abs((exact - np.rint(exact)).sum(axis=along)).max() > 2  # of what is rounded to the nearest
    assert np.any(result.integers != np.rint(exact))


def test_four_bits_lie_where_the_weights_do() -> None:
    weight = np.linspace(-0.5, 1.0, 16, dtype=np.float32)[
        None
    ]  # steps of a tenth: sixteen integers hold them exactly
    result = quantize_weight(weight, 0, WeightOnlySettings(bits=4, block_size=0))
    assert result.scale.item() == pytest.approx(0.1)
    assert result.zero is not None
    assert result.zero.item() == -3
    assert result.integers[0].tolist() == list(range(-8, 8))
    assert result.restored() == pytest.approx(weight, abs=1e-6)


def test_a_zero_of_each_block_keeps_more_of_uneven_weights() -> None:
    """Sixteen levels over [−0.2, 1] lose 10·log₁₀(12·15²/1.2²) dB of a power; over [−1, 1] 4.4 dB more."""
    weight = np.random.default_rng(0).uniform(-0.2, 1, (64, 256)).astype(np.float32)
    weight[:, ::32], weight[:, 1::32] = -0.2, 1.0  # so that each block spans all of it
    error = weight - quantize_weight(weight, 0, WeightOnlySettings(bits=4)).restored().reshape(weight.shape)
    assert float(np.mean(error**2)) < 1.35 * (1.2 / 15) ** 2 / 12


def test_a_network_of_relus_keeps_more_than_by_rounding_to_the_nearest() -> None:
    """Inputs that are never negative: 15.5 dB by the nearest integer of -7…7, over 12 such networks."""
    quality = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        expected = found = np.abs(random.normal(0.5, 0.3, (64, 512)))
        for size, outputs in ((512, 256), (256, 256), (256, 10)):
            weight = random.normal(0, size**-0.5, (size, outputs)).astype(np.float32)
            rounded = quantize_weight(weight, 1, WeightOnlySettings(bits=4))
            expected = np.maximum(expected @ weight, 0 if outputs > 10 else -np.inf)
            found = np.maximum(found @ rounded.restored().reshape(weight.shape), 0 if outputs > 10 else -np.inf)
        quality.append(sqnr_db(expected, found))
    assert np.mean(quality) > 17


def test_searched_clips_help_four_bits() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    sqnr = {}
    for clipping in ("max", "mse"):
        chosen = WeightOnlySettings.model_validate({"bits": 4, "block_size": 0, "clipping": clipping})
        result = quantize_weight(weight, 0, chosen)
        sqnr[clipping] = sqnr_db(weight, result.restored())
    # The optimum of a uniform quantizer of 16 levels on a normal variable is 20.22 dB (Max, 1960), with other levels
    # than symmetric integers have.
    assert 19.0 < sqnr["mse"] < 20.22
    assert sqnr["mse"] > sqnr["max"] + 0.5


@pytest.mark.parametrize(
    ("weights", "largest", "block"),
    [(864, 32, 32), (27, 32, 27), (144, 32, 24), (49, 32, 49), (97, 32, 97), (9, 32, 9)],
)
def test_blocks_are_equal_and_not_too_small(weights: int, largest: int, block: int) -> None:
    assert block_of(weights, largest) == block


def test_a_model_of_small_layers_is_an_error(float_model: OnnxModel, data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a layer of 100000 weights or more, found at most 82944.*smallest_layer"):
        compiled(float_model, data, tmp_path, smallest_layer=100_000)


def test_four_bits_in_an_old_opset_are_an_error(data: PreparedData, tmp_path: Path) -> None:
    proto = float_proto()
    proto.opset_import[0].version = 18
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    with pytest.raises(UsageError, match="expected opset 21 or later for weights of 4 bits, found 18"):
        compiled(model, data, tmp_path, bits=4)
    assert compiled(model, data, tmp_path, bits=8).size_bytes < 0.28 * model.size_bytes


def test_a_weight_of_two_layers_is_stored_once(data: PreparedData, tmp_path: Path) -> None:
    proto = float_proto({"w7": np.random.default_rng(0).normal(0, 0.03, (96, 96, 3, 3)).astype(np.float32)})
    reader = next(node for node in proto.graph.node if node.output[0] == "c7")
    second = onnx.helper.make_node("Conv", ["a7", "w7", "b7"], ["c8"], pads=[1, 1, 1, 1])
    position = list(proto.graph.node).index(reader) + 2
    proto.graph.node.insert(position, second)
    next(node for node in proto.graph.node if node.op_type == "GlobalAveragePool").input[0] = "c8"
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    stored = initializers(onnx.load_model(compiled(model, data, tmp_path).path))
    assert [name for name in stored if name.startswith("w7")] == ["w7_scale", "w7_integers"]


def test_a_linear_layer_and_a_transposed_convolution(data: PreparedData, tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    small (uint8[batch, 3, 20, 20] image) => (float[batch, 4] logits) {
        pixels = Cast <to = 1> (image)
        c1 = ConvTranspose (pixels, w1)
        pooled = GlobalAveragePool (c1)
        features = Flatten (pooled)
        logits = MatMul (features, w2)
    }
    """
    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(0, 0.1, (3, 64, 3, 3)), "w2": rng.normal(0, 0.1, (64, 4))}
    proto = onnx.parser.parse_model(text)
    for name, value in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    onnx.helper.set_model_props(proto, {entry.key: entry.value for entry in float_proto().metadata_props})
    model = write_float_model(tmp_path / "fp32.onnx", proto)
    for bits, quality_db in ((8, 35), (4, 10)):
        result = compiled(model, data, tmp_path, bits=bits, smallest_layer=0)
        stored = initializers(onnx.load_model(result.path))
        assert stored["w1_scale"].shape == (1, 64, 1, 1)
        assert stored["w2_scale"].shape == ((2, 1, 4) if bits == 4 else (1, 4))  # in blocks along the sum
        assert sqnr_db(logits(model.path, images(8, 1)), logits(result.path, images(8, 1))) > quality_db


def test_a_channel_too_small_for_a_scale_is_zero() -> None:
    # float32 ends at 1.4e-45; a 127th of these weights is nothing, and a division by it would be one too.
    weight = np.full((2, 4), 1e-44, dtype=np.float32)
    weight[0, 0], weight[1] = 0, 1
    result = quantize_weight(weight, 0, WeightOnlySettings(bits=8))
    assert result.integers.tolist() == [[0] * 4, [127] * 4]
    assert result.restored() == pytest.approx(np.array([[0.0] * 4, [1.0] * 4]), rel=1e-6)
