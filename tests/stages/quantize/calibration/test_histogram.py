"""Histograms of a stream: numpy's own on all values at once, whatever came first."""

from __future__ import annotations

import numpy as np
import pytest

from stages.quantize.calibration.histogram import BINS_PER_SIDE, Histogram


def test_bins_are_numpys() -> None:
    drawn = np.random.default_rng(0).normal(0, 1, 200_000).astype(np.float32)
    histogram = Histogram(float(drawn.min()), float(drawn.max()))
    histogram.add(histogram.count(drawn))
    reach = float(np.abs(drawn).max())
    for bins_per_side in (4096, 1024, 256):
        merged = histogram.distribution().merged(BINS_PER_SIDE // bins_per_side)
        expected, edges = np.histogram(drawn, 2 * bins_per_side, range=(-reach, reach))
        assert np.abs(merged.counts - expected).sum() <= 20  # values that lie on an edge of float32
        assert merged.edges == pytest.approx(edges, abs=1e-6)


def test_zeros_lie_above_the_middle() -> None:
    drawn = np.array([0.0] * 7 + [-3.3, 5.1], dtype=np.float32)
    histogram = Histogram(float(drawn.min()), float(drawn.max()))
    histogram.add(histogram.count(drawn))
    counts = histogram.distribution().counts
    assert counts[BINS_PER_SIDE] == 7
    assert counts[-1] == 1


@pytest.mark.parametrize("beyond", [1.001, 1.7, 5.0, 40.0, 3e4])
def test_later_values_beyond_the_bins_get_bins_of_their_own(beyond: float) -> None:
    first = np.linspace(-1, 1, 999, dtype=np.float32)
    later = np.array([beyond, -0.5 * beyond], dtype=np.float32)
    histogram = Histogram(-1.0, 1.0)
    histogram.add(histogram.count(first))
    histogram.add_tails(later)
    found = histogram.distribution()
    assert (found.lowest, found.highest) == (min(-1.0, float(later[1])), float(later[0]))
    assert found.counts.sum() == 1001
    assert found.counts[found.edges[:-1] >= 0.999 * beyond - found.width].sum() >= 1
    assert found.counts[len(found.counts) // 2 :].sum() == np.count_nonzero(first >= 0) + 1
    assert len(found.counts) <= 2 * 16 * BINS_PER_SIDE
    # As many bins as ONNX Runtime's merging of a later batch makes of its 512.
    merged = found.merged(16)
    if beyond < 10:
        assert len(merged.counts) == 512 + 2 * (int((beyond - 1) // (1 / 256)) + 1)


def test_values_after_nothing_but_zeros() -> None:
    histogram = Histogram(0.0, 0.0)
    histogram.add(histogram.count(np.zeros(5, dtype=np.float32)))
    histogram.add_sample(np.zeros(3, dtype=np.float32), 30)
    histogram.add_tails(np.array([2.0, 1.0], dtype=np.float32))
    found = histogram.distribution()
    assert (found.lowest, found.highest, found.counts.sum()) == (0.0, 2.0, 37.0)
    assert found.counts[len(found.counts) // 2] == 35  # the zeros are no outliers: a percentile counts them
    assert found.width == 2 / BINS_PER_SIDE


def test_a_sample_stands_for_all() -> None:
    histogram = Histogram(-1.0, 1.0)
    histogram.add_sample(np.linspace(-0.9, 0.9, 100, dtype=np.float32), 12_345)
    histogram.add_tails(np.array([1.0, 5.0], dtype=np.float32))
    counts = histogram.distribution().counts
    assert counts.sum() == pytest.approx(12_347)
    assert counts[len(counts) // 2 :].sum() == pytest.approx(12_345 / 2 + 2)


def test_the_outermost_value_belongs_to_the_last_bin() -> None:
    histogram = Histogram(-3.3, 11.727325439453125)
    histogram.add_tails(np.array([11.727325439453125, -3.3], dtype=np.float32))
    counts = histogram.distribution().counts
    assert len(counts) == 2 * BINS_PER_SIDE
    assert (counts[-1], counts.sum()) == (1, 2)
