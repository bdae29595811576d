"""Percentile, entropy and mean squared error on histograms, against ONNX Runtime and brute force."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.quantize.calibration.histogram import Distribution, Histogram
from stages.quantize.calibration.range_search import entropy_range, mse_range, percentile_range


def values(kind: str, count: int = 20_000) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    drawn = {
        "normal": lambda: rng.normal(0, 1, count),
        "relu": lambda: np.maximum(rng.normal(0, 1, count), 0),
        "relu6": lambda: np.clip(rng.normal(0, 4, count), 0, 6),
        "laplace": lambda: rng.laplace(0.3, 1, count),
        "negative": lambda: -rng.exponential(1, count),
        "far from zero": lambda: rng.uniform(2, 3, count),
        "outlier": lambda: np.append(rng.normal(0, 1, count - 1), 40.0),
    }
    return drawn[kind]().astype(np.float32)


KINDS = ("normal", "relu", "relu6", "laplace", "negative", "far from zero", "outlier")


def distribution(drawn: NDArray[np.float32]) -> Distribution:
    histogram = Histogram(float(drawn.min()), float(drawn.max()))
    histogram.add(histogram.count(drawn))
    return histogram.distribution()


def of_onnxruntime(drawn: NDArray[np.float32], method: str, percentile: float = 99.9) -> tuple[float, float]:
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector(method, False, 512 if method == "entropy" else 2048, 128, percentile, "same")
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"x": drawn})
        low, high = collector.compute_collection_result()["x"][:2]
    return float(low), float(high)


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_onnxruntimes(kind: str) -> None:
    drawn = values(kind)
    for percentile in (99.9, 99.0, 80.0):
        expected = of_onnxruntime(drawn, "percentile", percentile)
        assert percentile_range(distribution(drawn), percentile) == pytest.approx(expected, rel=1e-6, abs=1e-6)


# Not of a lone outlier: there ONNX Runtime's minimum is one of float32's rounding.
@pytest.mark.parametrize("kind", KINDS[:-1])
def test_entropy_is_onnxruntimes(kind: str) -> None:
    drawn = values(kind)
    assert entropy_range(distribution(drawn)) == pytest.approx(of_onnxruntime(drawn, "entropy"), rel=1e-6)


def test_entropy_cuts_a_lone_outlier_off() -> None:
    low, high = entropy_range(distribution(values("outlier")))
    assert low == values("outlier").min()
    assert high < 20
    assert of_onnxruntime(values("outlier"), "entropy")[1] < 20


@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_as_good_as_brute_force(kind: str) -> None:
    drawn = values(kind, 6000).astype(np.float64)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero = np.rint(-low / scale)
        integers = np.clip(np.rint(drawn / scale) + zero, 0, 255)
        return float(np.mean((drawn - (integers - zero) * scale) ** 2))

    lows = np.linspace(0, min(drawn.min(), 0), 33)[1:] if drawn.min() < 0 else [0.0]
    highs = np.linspace(0, max(drawn.max(), 0), 33)[1:] if drawn.max() > 0 else [0.0]
    best = min(error(low, high) for low in lows for high in highs)
    low, high = mse_range(distribution(drawn.astype(np.float32)))
    assert error(min(low, 0.0), max(high, 0.0)) <= 1.02 * best


def test_mse_cuts_an_outlier_off_and_keeps_what_fits() -> None:
    # With h as the highest value, the outlier's loss is (40 − h)² and the rounding of the 20,000 others' 20,000 Δ²/12
    # with Δ = (h + 4) / (levels − 1): at 256 levels all of the range is worth it, at 16 it is not.
    outlier = distribution(values("outlier"))
    assert mse_range(outlier, 256)[1] > 38
    assert mse_range(outlier, 16)[1] < 10
    assert mse_range(distribution(values("relu6"))) == (0.0, 6.0)


def test_mse_of_few_levels_is_narrower() -> None:
    normal = distribution(values("normal"))
    assert mse_range(normal, 16)[1] < 0.8 * mse_range(normal, 256)[1]
    # The best uniform quantizer of a Gaussian with 16 levels: steps of 0.3352 σ (Max, 1960, table II).
    assert mse_range(normal, 16)[1] == pytest.approx(7.5 * 0.3352, rel=0.1)


@pytest.mark.parametrize("constant", [0.0, 3.5, -2.0])
def test_constant_values_have_their_own_range(constant: float) -> None:
    same = distribution(np.full(100, constant, dtype=np.float32))
    for low, high in (percentile_range(same, 99.9), entropy_range(same), mse_range(same)):
        assert min(low, 0.0) == pytest.approx(min(constant, 0.0), rel=0.01)
        assert max(high, 0.0) == pytest.approx(max(constant, 0.0), rel=0.01)


@settings(max_examples=40, deadline=None)
@example([4.078198920724515e-41], 51.0)  # subnormal: the reciprocal of a bin's width is beyond float32
@example([1e-45, -3e-45, 2e-40], 99.0)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=60), st.floats(50.5, 100))
def test_every_range_lies_within_the_extremes(drawn: list[float], percentile: float) -> None:
    array = np.array(drawn, dtype=np.float32)
    counted = distribution(array)
    for low, high in (percentile_range(counted, percentile), entropy_range(counted), mse_range(counted)):
        assert np.isfinite(low)
        assert np.isfinite(high)
        assert low >= float(array.min())
        assert high <= float(array.max())
