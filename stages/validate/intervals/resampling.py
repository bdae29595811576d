"""The bootstrap: a statistic's values in samples that are drawn again from the sample itself (Efron 1979).

Images of one patient resemble each other. Where the data name groups of images, whole groups are drawn, the "units"
below (cluster bootstrap; Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import SCALES, TAIL, Interval, ScaleName, interval_on_scale, t_quantile
from stages.validate.intervals.sums import Sums

_CHUNK_ELEMENTS = 2_000_000
"""Weights, or sums, held at once (16 MB of float64), whatever the number of images."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Key = TypeVar("Key")


def unit_weights(units: int, resamples: int, seed: int, widest: int = 1) -> Iterator[NDArray[np.float32]]:
    """Yield how often each of the units is drawn in each bootstrap resample, in chunks of bounded memory.

    Args:
        units: how many there are; as many are drawn, with replacement.
        resamples: how many resamples in all.
        seed: of the generator; the draws do not depend on how many a chunk holds.
        widest: values that the caller makes of a resample, which the bound counts too.

    Yields:
        float32 [units, b], whole numbers, each column summing to units.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_ELEMENTS // max(units, widest))
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, units, (min(rows, resamples - start), units))
        weights = np.empty(drawn.shape, np.float32)
        for row, numbers in zip(weights, drawn, strict=True):
            row[:] = np.bincount(numbers, minlength=units)
        yield np.ascontiguousarray(weights.T)


def resampled(statistics: Mapping[Key, Sums], units: Indices, resamples: int, seed: int) -> dict[Key, Floats]:
    """Return each statistic's values in every resample, float64 [resamples] or [m, resamples]; all see the same ones.

    Args:
        statistics: of the same n images.
        units: int64 [n], see `groups.units_of`; whole units are drawn.
        resamples: at least 1000 for an interval worth printing.
        seed: of the resampling.
    """
    if not statistics:
        return {}
    _, numbered = np.unique(units, return_inverse=True)
    by_unit = {key: sums.by_unit(numbered) for key, sums in statistics.items()}
    widest = max(sums.terms.shape[0] for sums in by_unit.values())
    parts: dict[Key, list[Floats]] = {key: [] for key in by_unit}
    for weights in unit_weights(int(numbered.max()) + 1, resamples, seed, widest):
        for key, sums in by_unit.items():
            parts[key].append(sums(weights))
    return {key: np.concatenate(values, axis=-1) for key, values in parts.items()}


def bootstrap_error(draws: Floats, units: int) -> float:
    """Return a statistic's standard error from its resamples, times √(g/(g−1)); NaN where most are undefined.

    Resamples of g units vary about as g−1 would: with few units the plain standard deviation is too small.

    Args:
        draws: float64 [resamples], NaN where a resample leaves it undefined, because it lacks a rare label.
        units: the number of units that were drawn from.
    """
    if mostly_undefined(draws) or units < 2:
        return float("nan")
    return float(np.nanstd(draws)) * float(np.sqrt(units / (units - 1)))


def bootstrap_t_interval(value: float, draws: Floats, units: int, scale: ScaleName) -> Interval | None:
    """Return the interval of a statistic by its bootstrapped standard error, on a scale, with t of g−1 degrees.

    It is centred on the estimate less the bias that resampling shows, and widened to hold the estimate. A resample
    counts some positive images twice, which flatters average precision as a small sample does; a mean over labels
    keeps that bias while its scatter shrinks: percentile intervals miss the truth in up to half of the samples.

    Args:
        value: the statistic itself.
        draws: float64 [resamples], see `bootstrap_error`.
        units: the number of units that were drawn from.
        scale: to compute on.

    Returns:
        None where resamples show no scatter (an interval of no width would claim that there is none), leave the
        statistic undefined, or where it lies at an end of the scale.
    """
    error = bootstrap_error(draws, units)
    if np.isnan(error):
        return None
    centre = 2 * value - float(np.nanmean(draws))
    if not SCALES[scale].holds(np.array(centre)):
        centre = value
    interval = interval_on_scale(centre, error, t_quantile(TAIL, units - 1), scale)
    return interval and (min(value, interval[0]), max(value, interval[1]))


def mostly_undefined(draws: Floats) -> bool:
    """Return whether more than half of the resamples leave a statistic undefined."""
    return bool(np.isnan(draws).mean() > 0.5)
