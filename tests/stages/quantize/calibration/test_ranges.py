"""Ranges of activations against ONNX Runtime's own calibrators, and what must not change them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from quantizable import CLIP, float_proto, images

from foundation.errors import StageError, UsageError
from foundation.sealed_files import write_sealed
from onnx_files.preprocessing import Preprocessing
from stages.quantize.calibration import range_collection, ranges
from stages.quantize.calibration.range_search import Range
from stages.quantize.calibration.ranges import LEARNED_CLIPS_KEY, Calibration, find_ranges
from stages.quantize.methods.static import quantized_operators

METHODS = ("minmax", "moving_average", "percentile", "entropy", "mse")
PIXELS = Preprocessing("uint8", (0.5,) * 3, (0.25,) * 3, 20)

CHAIN = """
<ir_version: 10, opset_import: ["" : 21]>
chain (uint8[batch, 3, 20, 20] image) => (float[batch, 5] logits) {
    pixels = Cast <to = 1> (image)
    c1 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (pixels, w1, b1)
    a1 = Relu (c1)
    m1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a1)
    s1 = Sigmoid (m1)
    c2 = Conv <pads = [1, 1, 1, 1]> (s1, w2, b2)
    features = Flatten (c2)
    logits = Gemm (features, w3, b3)
}
"""
GATES = """
<ir_version: 10, opset_import: ["" : 21]>
gates (uint8[batch, 3, 20, 20] image) => (float[batch, 24] logits) {
    pixels = Cast <to = 1> (image)
    c1 = Conv <pads = [1, 1, 1, 1]> (pixels, w1, b1)
    c2 = Conv <pads = [1, 1, 1, 1], group = 12> (c1, w2, b2)
    gate = Sigmoid (c2)
    gated = Mul (c1, gate)
    left = Relu (gated)
    both = Concat <axis = 1> (left, c2)
    pooled = GlobalAveragePool (both)
    logits = Flatten (pooled)
}
"""


def with_weights(text: str, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    proto = onnx.parser.parse_model(text)
    for name, shape in shapes.items():
        spread = 0.1 if len(shape) == 1 else 2 / np.sqrt(np.prod(shape[1:]))
        scale = 1 / 255 if name == "w1" else 1.0
        values = (scale * rng.normal(0.1, spread, shape)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def models() -> dict[str, onnx.ModelProto]:
    chain = {"w1": (10, 3, 3, 3), "b1": (10,), "w2": (7, 10, 3, 3), "b2": (7,), "w3": (175, 5), "b3": (5,)}
    gates = {"w1": (12, 3, 3, 3), "b1": (12,), "w2": (12, 1, 3, 3), "b2": (12,)}
    return {
        "residual": float_proto(),
        "chain": with_weights(CHAIN, chain),
        "gates": with_weights(GATES, gates),
    }


def found(
    proto: onnx.ModelProto, pixels: NDArray[np.uint8], calibration: Calibration, cache: Path | None = None
) -> dict[str, Range]:
    return find_ranges(proto, pixels, PIXELS, "image", quantized_operators(), calibration, cache)


def of_onnxruntime(
    proto: onnx.ModelProto, pixels: NDArray[np.uint8], calibration: Calibration, folder: Path
) -> tuple[dict[str, Range], dict[str, Range]]:
    """Return ONNX Runtime's ranges and the extremes, one image at a time; and with its writer's changes to them."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    method, options = {
        "minmax": (CalibrationMethod.MinMax, {}),
        "moving_average": (CalibrationMethod.MinMax, {"moving_average": True}),
        "percentile": (CalibrationMethod.Percentile, {"symmetric": False, "percentile": calibration.percentile}),
        "entropy": (CalibrationMethod.Entropy, {"num_bins": 512}),
    }[calibration.method]

    class Reader:
        def __init__(self) -> None:
            self.feeds = iter([{"image": pixels[index : index + 1]} for index in range(len(pixels))])

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(self.feeds, None)

    def ranges_of(method: CalibrationMethod, options: dict[str, object]) -> dict[str, Range]:
        onnx.save_model(proto, folder / "float.onnx")
        calibrator = create_calibrator(
            folder / "float.onnx",
            list(quantized_operators()),
            str(folder / "augmented.onnx"),
            method,
            extra_options=options,
        )
        calibrator.collect_data(Reader())
        values = {name: data.range_value for name, data in calibrator.compute_data().items()}
        for node in proto.graph.node:  # the writer's adjust_tensor_ranges
            readers = [reader for reader in proto.graph.node if node.input[0] in reader.input]
            if node.op_type in ("Relu", "Clip") and len(readers) == 1 and node.output[0] in values:
                values[node.input[0]] = values[node.output[0]]
        return {name: (np.asarray(low).item(), np.asarray(high).item()) for name, (low, high) in values.items()}

    return ranges_of(method, options), ranges_of(CalibrationMethod.MinMax, {})


@pytest.fixture(params=("residual", "chain", "gates"))
def proto(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return models()[request.param]


def test_minmax_is_onnxruntimes_to_the_last_bit(proto: onnx.ModelProto, tmp_path: Path) -> None:
    pixels = images(9, 1)
    expected, _ = of_onnxruntime(proto, pixels, Calibration("minmax"), tmp_path)
    assert found(proto, pixels, Calibration("minmax")) == expected


def test_the_moving_average_is_the_mean_of_each_images_extremes(proto: onnx.ModelProto, tmp_path: Path) -> None:
    pixels = images(9, 1)
    expected, _ = of_onnxruntime(proto, pixels, Calibration("moving_average"), tmp_path)
    averaged = found(proto, pixels, Calibration("moving_average"))
    assert averaged.keys() == expected.keys()
    for name, ends in expected.items():
        assert averaged[name] == pytest.approx(ends, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("calibration", [Calibration("percentile", 99.0), Calibration("entropy")], ids=str)
def test_percentile_and_entropy_are_onnxruntimes_within_a_bin(
    calibration: Calibration, proto: onnx.ModelProto, tmp_path: Path
) -> None:
    pixels = images(12, 1)
    expected, extremes = of_onnxruntime(proto, pixels, calibration, tmp_path)
    searched = found(proto, pixels, calibration)
    assert searched.keys() == expected.keys()
    bins_per_side = 1024 if calibration.method == "percentile" else 256
    for name, ends in expected.items():
        bin_width = max(map(abs, extremes[name])) / bins_per_side
        assert searched[name] == pytest.approx(ends, abs=1.001 * bin_width), name
    if calibration.method == "percentile":
        assert any(searched[name][1] < 0.95 * extremes[name][1] for name in searched)


@pytest.mark.parametrize("method", METHODS)
def test_neither_order_nor_batches_change_a_range(method: str, proto: onnx.ModelProto) -> None:
    pixels = images(24, 1)
    calibration = Calibration(method)  # type: ignore[arg-type]
    forwards = found(proto, pixels, calibration)
    assert found(proto, np.random.default_rng(0).permutation(pixels), calibration) == forwards
    twenty_one = found(proto, pixels[:21], calibration)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    for name, ends in found(fixed, pixels[:21], calibration).items():  # the last batch is filled up
        assert ends == pytest.approx(twenty_one[name], rel=1e-5, abs=1e-6), name


def test_an_image_in_a_batch_that_is_filled_up_counts(tmp_path: Path) -> None:
    proto = models()["chain"]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    pixels = np.zeros((5, 3, 20, 20), dtype=np.uint8)
    pixels[4] = 255
    lowest, highest = found(proto, pixels, Calibration("minmax"))["pixels"]
    assert (lowest, highest) == (0, 255)


def test_later_images_move_the_tails_and_the_extremes_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, pixels = models()["residual"], images(40, 1)
    whole = found(proto, pixels, Calibration("percentile", 100.0))
    exact = found(proto, pixels, Calibration("percentile", 99.9))
    monkeypatch.setattr(range_collection, "COUNTED_WHOLE", 4)
    monkeypatch.setattr(range_collection, "SAMPLED_VALUES", 0)
    # 100 %: the last bin's lower edge, whose width depends on the first images.
    for name, ends in found(proto, pixels, Calibration("percentile", 100.0)).items():
        assert ends == pytest.approx(whole[name], abs=max(map(abs, whole[name])) / 400), name
    for name, ends in found(proto, pixels, Calibration("percentile", 99.9)).items():
        assert ends == pytest.approx(exact[name], abs=max(map(abs, whole[name])) / 400), name


def test_the_sampling_error_is_the_one_that_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, pixels = models()["residual"], images(60, 1)
    names = ["normalised", "a2", "a5"]
    bounds = {"a2": 0.0, "a5": 0.0}
    order = list(range(len(pixels)))
    feeds = range_collection.ImageFeeds(pixels, order, PIXELS, "image", 1)
    monkeypatch.setattr(range_collection, "PILOT_IMAGES", 2)
    monkeypatch.setattr(range_collection, "SAMPLED_VALUES", 0)  # so the least of each image
    sampled = range_collection.collect_distributions(proto, names, bounds, 0.0005, feeds, lambda done, total: None)
    monkeypatch.setattr(range_collection, "SAMPLED_VALUES", 10**9)
    exact = range_collection.collect_distributions(proto, names, bounds, 0.0005, feeds, lambda done, total: None)
    for name in names:
        one, other = sampled[name].merged(64), exact[name].merged(64)
        assert (sampled[name].lowest, sampled[name].highest) == (exact[name].lowest, exact[name].highest)
        total = other.counts.sum()
        assert one.counts.sum() == pytest.approx(total)
        assert total == {"normalised": 1200, "a2": 19200, "a5": 19200}[name] * 60
        share, n = other.counts / total, 60 * 512
        assert np.all(np.abs(one.counts - other.counts) / total <= 5 * np.sqrt(share / n))


@pytest.mark.parametrize("calibration", ["percentile", "entropy", "mse"])
def test_memory_holds_no_more_than_a_few_images(calibration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    count = range_collection._Collector._count

    def watch(self: range_collection._Collector) -> None:
        held.append(sum(len(part.tail) + len(part.sample) for part in self._parts))
        count(self)

    monkeypatch.setattr(range_collection._Collector, "_count", watch)
    found(models()["chain"], images(100, 2), Calibration(calibration))  # type: ignore[arg-type]
    assert len(held) >= 6  # tensors
    # One image more than what is counted together: all of its largest tensor, in its tail and in its sample.
    assert 50_000 < max(held) <= range_collection.COUNTED_AT_A_TIME + 2 * 1200


def test_learned_clips_are_taken_as_they_are() -> None:
    proto, pixels = float_proto({"alpha": np.array(50.0)}), images(3, 1)
    observed = found(proto, pixels, Calibration("minmax"))
    assert observed["a1"][1] < 50
    onnx.helper.set_model_props(proto, {LEARNED_CLIPS_KEY: "true"})
    for method in METHODS:
        learned = found(proto, pixels, Calibration(method))  # type: ignore[arg-type]
        assert learned["a1"] == learned["c1"] == (0.0, 50.0)
        assert learned["a2"][1] < 50  # a ReLU has learned nothing
    assert found(float_proto(), pixels, Calibration("minmax"))["a1"] == (0.0, CLIP)


def test_ranges_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto, pixels = models()["chain"], images(6, 1)
    first = found(proto, pixels, Calibration("entropy"), tmp_path)
    assert first == found(proto, pixels, Calibration("entropy"))
    ran: list[object] = []
    monkeypatch.setattr(
        ranges,
        "collect_distributions",
        lambda *rest: ran.append(rest) or range_collection.collect_distributions(*rest),
    )
    assert found(proto, pixels[::-1], Calibration("entropy"), tmp_path) == first
    assert ran == []
    found(proto, pixels, Calibration("percentile", 99.0), tmp_path)
    found(proto, pixels, Calibration("percentile", 98.0), tmp_path)
    found(proto, pixels[:5], Calibration("entropy"), tmp_path)
    changed = models()["chain"]
    changed.graph.initializer[1].raw_data = np.full(10, 0.5, dtype=np.float32).tobytes()
    found(changed, pixels, Calibration("entropy"), tmp_path)
    assert len(ran) == 4
    (tmp_path / next(path.name for path in tmp_path.iterdir())).write_text('{"ranges": {"a1"')
    found(proto, pixels, Calibration("entropy"), tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_an_edited_cache_is_found_anew_and_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto, pixels = models()["chain"], images(4, 1)
    right = found(proto, pixels, Calibration(), tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    kept = json.loads(written)
    assert (kept["key"], kept["ranges"]) == (path.stem, {name: list(ends) for name, ends in right.items()})
    edited = {**kept, "ranges": {**kept["ranges"], "a1": [-9.0, 9.0]}}
    contents = [json.dumps(edited), json.dumps({key: kept[key] for key in ("format", "ranges")}), "[]", "\0", "["]
    for content in contents:
        path.write_text(content)
        assert found(proto, pixels, Calibration(), tmp_path) == right
        assert path.read_bytes() == written
    write_sealed(path, {**kept, "key": "0" * 64})  # whole, and that of other images
    assert found(proto, pixels, Calibration(), tmp_path) == right
    assert path.read_bytes() == written
    monkeypatch.setattr(ranges, "collect_extremes", None)
    assert found(proto, pixels, Calibration(), tmp_path) == right


def test_infinite_activations_of_a_later_image_are_refused() -> None:
    proto = models()["chain"]
    weights = next(tensor for tensor in proto.graph.initializer if tensor.name == "w1")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full((10, 3, 3, 3), 1e36, dtype=np.float32), "w1"))
    pixels = np.zeros((40, 3, 20, 20), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(40)  # all differ
    pixels[7] = 255
    for method in METHODS:
        with pytest.raises(StageError, match=r"expected finite activations on the calibration images, found .* in `"):
            found(proto, pixels, Calibration(method))  # type: ignore[arg-type]


def test_no_images_are_refused() -> None:
    with pytest.raises(UsageError, match="expected calibration images, found none"):
        found(models()["chain"], images(1, 1)[:0], Calibration())


def test_a_graph_without_float_activations_is_refused() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (uint8[n, 3, 20, 20] image) => (int32[n, 3, 20, 20] y)'
        " { y = Cast <to = 6> (image) }"
    )
    with pytest.raises(UsageError, match="expected float activations between the nodes to quantize, found none"):
        found(proto, images(1, 1), Calibration())
