"""From the distribution of a tensor's values to the range that its integers span: percentile, entropy, mean error.

Percentile and entropy are ONNX Runtime's, bin for bin, so that its figures are the reference. Its entropy search adds
up every candidate's bins in Python and in single precision, which decides between candidates that are almost equal;
here all are taken from cumulative sums at once, in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stages.quantize.calibration.histogram import BINS_PER_SIDE, Distribution

Range = tuple[float, float]
"""Lowest and highest value."""

PERCENTILE_BINS_PER_SIDE = 1024
"""ONNX Runtime's default, 2048 bins."""
ENTROPY_BINS_PER_SIDE = 256
"""For 128 levels. ONNX Runtime's default of 64 leaves one candidate, the whole range."""
_ENTROPY_LEVELS = 128
_SMOOTHING = 1e-4
_MSE_CANDIDATES = 256  # for each end


def percentile_range(distribution: Distribution, percentile: float) -> Range:
    """Return the range that leaves (100 − percentile)/2 percent of the values out at either end.

    Args:
        distribution: of the tensor's values.
        percentile: above 50, at most 100.

    The ends are lower edges of bins, as ONNX Runtime takes them.
    """
    if distribution.width == 0:
        return distribution.lowest, distribution.highest
    binned = distribution.merged(BINS_PER_SIDE // PERCENTILE_BINS_PER_SIDE)
    cumulative = np.cumsum(binned.counts / binned.counts.sum())
    left_out = (100.0 - percentile) / 200.0
    low = binned.edges[min(int(np.searchsorted(cumulative, left_out)), len(cumulative))]
    high = binned.edges[min(int(np.searchsorted(cumulative, 1.0 - left_out)), len(cumulative))]
    return _within(distribution, float(low), float(high))


def entropy_range(distribution: Distribution) -> Range:
    """Return the range whose 128 levels tell least less than the values themselves (Kullback-Leibler divergence).

    The candidates are symmetric about zero and end at the extremes; TensorRT's method (Migacz, GTC 2017, s7310) as
    ONNX Runtime computes it.
    """
    if distribution.width == 0:
        return distribution.lowest, distribution.highest
    binned = distribution.merged(BINS_PER_SIDE // ENTROPY_BINS_PER_SIDE)
    counts = np.rint(binned.counts)
    half = len(counts) // 2
    reach = _ENTROPY_LEVELS // 2 + int(np.argmin(_divergences(counts)))
    low, high = binned.edges[half - reach], binned.edges[min(half + reach + 1, len(counts))]
    return _within(distribution, float(low), float(high))


@dataclass(frozen=True)
class _Candidates:
    """Where each candidate range lies among the bins, and which of its 128 levels a bin belongs to.

    Attributes:
        start, end: int64 [candidates, 1], the range's first bin and the one behind its last.
        inside: bool [candidates, bins].
        first: int64 [candidates, 128], each level's first bin.
        merged: int64 [candidates, 1], bins in a level.
        level: int64 [candidates, bins], within all of the candidates' levels; `levelled` says where there is one.
        levelled: bool [candidates, bins].
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    inside: NDArray[np.bool_]
    first: NDArray[np.int64]
    merged: NDArray[np.int64]
    level: NDArray[np.int64]
    levelled: NDArray[np.bool_]


@lru_cache(maxsize=4)
def _candidates(bins: int) -> _Candidates:
    half, place = bins // 2, np.arange(bins)
    reaches = np.arange(_ENTROPY_LEVELS // 2, half + 1)[:, None]
    start, end = half - reaches, np.minimum(half + reaches + 1, bins)
    inside = (place >= start) & (place < end)
    merged = (end - start) // _ENTROPY_LEVELS
    level = (place - start) // merged
    levelled = inside & (level < _ENTROPY_LEVELS)
    row = np.arange(len(reaches))[:, None] * _ENTROPY_LEVELS
    first = start + merged * np.arange(_ENTROPY_LEVELS)
    return _Candidates(start, end, inside, first, merged, np.where(levelled, level + row, 0), levelled)


def _divergences(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each candidate's divergence; candidate r reaches r + 64 bins below the middle and one more above it."""
    at = _candidates(len(counts))
    below = np.append(0.0, np.cumsum(counts))
    rows = np.arange(len(at.start))[:, None]
    reference = counts * at.inside
    reference[rows, at.start] += below[at.start]
    reference[rows, at.end - 1] += below[-1] - below[at.end]

    levels = below[at.first + at.merged] - below[at.first]
    levels[:, -1:] += below[at.end] - below[at.first[:, -1:] + at.merged]  # what is left over
    filled_below = np.pad(np.cumsum(reference != 0, axis=1), ((0, 0), (1, 0)))
    filled = filled_below[rows, at.first + at.merged] - filled_below[rows, at.first]
    # Whole numbers, and nothing in the bins after the last level: so it is there, and the minimum depends on it.
    shares = np.where(filled > 0, levels // np.maximum(filled, 1), 0.0)
    quantized = shares.ravel()[at.level] * at.levelled

    p, q = _smoothed(reference, at.inside), _smoothed(quantized, at.inside)
    divergences = np.sum(p * np.log(p / q, where=at.inside, out=np.zeros_like(p)), axis=1)
    return np.where(np.any(quantized, axis=1), divergences, np.inf)


def _smoothed(counts: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    # Empty bins get a little, which the others give; the sum stays.
    filled = counts != 0
    filleds = np.maximum(np.count_nonzero(filled, axis=1, keepdims=True), 1)
    empties = np.count_nonzero(inside, axis=1, keepdims=True) - filleds
    smoothed = np.where(filled, counts - _SMOOTHING * empties / filleds, _SMOOTHING)
    return np.asarray(smoothed / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def mse_range(distribution: Distribution, levels: int = 256) -> Range:
    """Return the range around zero with the least expected squared error of its integers.

    Args:
        distribution: of the tensor's values.
        levels: number of integers.

    Values beyond the range err by their distance to it; those within by a uniform rounding error, Δ²/12 with
    Δ = (highest − lowest) / (levels − 1); zero, which is an integer itself, by nothing. Both ends are searched
    together, over `_MSE_CANDIDATES` fractions of each extreme.
    """
    if distribution.width == 0:
        return distribution.lowest, distribution.highest
    half = len(distribution.counts) // 2
    centers = distribution.edges[:-1] + distribution.width / 2
    fractions = np.arange(1, _MSE_CANDIDATES + 1) / _MSE_CANDIDATES
    highs = max(distribution.highest, 0.0) * fractions if distribution.highest > 0 else np.zeros(1)
    lows = min(distribution.lowest, 0.0) * fractions if distribution.lowest < 0 else np.zeros(1)
    positive, negative = distribution.counts[half:], distribution.counts[:half][::-1]
    beyond_high = _clipping_errors(positive, centers[half:], highs, distribution.width)
    beyond_low = _clipping_errors(negative, -centers[:half][::-1], -lows, distribution.width)
    above = _mass_below(positive, highs, distribution.width)
    below = _mass_below(negative, -lows, distribution.width)
    step = (highs[None, :] - lows[:, None]) / (levels - 1)
    errors = beyond_low[:, None] + beyond_high[None, :] + (below[:, None] + above[None, :]) * step**2 / 12
    row, column = np.unravel_index(int(np.argmin(errors)), errors.shape)
    return _within(distribution, float(lows[row]), float(highs[column]))


def _clipping_errors(
    counts: NDArray[np.float64], centers: NDArray[np.float64], bounds: NDArray[np.float64], width: float
) -> NDArray[np.float64]:
    # Σ c (x − b)² over the bins above b, from the sums of c, c·x and c·x² above each bin.
    moments = [
        np.append(np.cumsum((counts * power)[::-1])[::-1], 0.0)
        for power in (np.ones_like(centers), centers, centers**2)
    ]
    first = np.minimum(np.rint(bounds / width).astype(np.int64), len(counts))
    zeroth, linear, square = (moment[first] for moment in moments)
    return np.asarray(square - 2 * bounds * linear + bounds**2 * zeroth)


def _mass_below(counts: NDArray[np.float64], bounds: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    # Without the bin at zero, which holds what a ReLU has cut.
    cumulative = np.append(0.0, np.cumsum(counts)) - counts[0]
    last = np.minimum(np.rint(bounds / width).astype(np.int64), len(counts))
    return np.asarray(np.maximum(cumulative[last], 0.0))


def _within(distribution: Distribution, low: float, high: float) -> Range:
    return max(low, distribution.lowest), min(high, distribution.highest)
