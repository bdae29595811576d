"""The bootstrap: a statistic's values in samples that are drawn again from the sample itself (Efron 1979).

Images of one patient resemble each other. Where the data name groups of images, whole groups are drawn, the "units"
below (cluster bootstrap; Davison and Hinkley 1997, Bootstrap Methods and their Application, 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
TAIL = (1.0 - CONFIDENCE) / 2.0

ROUNDING = 1e-12
"""What weighted sums of equal values may differ by, relative to their size."""

_CHUNK_ELEMENTS = 1_000_000
"""Resampling weights held at once (8 MB of float64), whatever the number of images."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Key = TypeVar("Key")
Statistic = Callable[[Floats], Floats]
"""From resampling weights [b, n] to one value per resample, [b]."""


def units_of(groups: Sequence[str]) -> Indices:
    """Return the number of each image's group, int64 [n], counted in the order in which groups first appear."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def come_in_groups(units: Indices) -> bool:
    """Return whether a group has more than one image, so that groups must be drawn instead of images."""
    return len(np.unique(units)) < len(units)


def strata_of(labels: Indices, units: Indices) -> Indices:
    """Return the strata in which groups can be drawn: the labels, or a single stratum where groups mix them."""
    _, first = np.unique(units, return_index=True)
    return labels if bool((labels == labels[first][units]).all()) else np.zeros_like(labels)


def resampling_weights(strata: Indices, resamples: int, seed: int, units: Indices | None = None) -> Iterator[Floats]:
    """Yield how often each image is drawn in each bootstrap resample, in chunks of bounded memory.

    Args:
        strata: int64 [n]; draws with replacement stay inside a stratum, so each keeps its size. All equal: plain.
        resamples: how many resamples in all.
        seed: of the generator.
        units: int64 [n], the groups that are drawn as wholes, see `units_of`; None where each image is its own. A
            stratum keeps its number of groups, and a group must lie in one stratum.

    Yields:
        float64 [b, n]; without groups each row sums to n.
    """
    n = len(strata)
    rng = np.random.default_rng(seed)
    in_groups = units is not None and come_in_groups(units)
    drawn_strata = strata
    if units is not None and in_groups:
        _, first = np.unique(units, return_index=True)
        drawn_strata = strata[first]
    members = [np.flatnonzero(drawn_strata == stratum) for stratum in np.unique(drawn_strata)]
    rows = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        weights = np.zeros((count, len(drawn_strata)))
        for indices in members:
            size = len(indices)
            drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
            weights[:, indices] = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        yield weights[:, units] if in_groups else weights


def resampled(
    statistics: Mapping[Key, Statistic],
    strata: Indices,
    resamples: int,
    seed: int,
    units: Indices | None = None,
) -> dict[Key, Floats]:
    """Return each statistic's value in every resample, float64 [resamples]; all see the same resamples.

    Args:
        statistics: from weights [b, n] to values [b], NaN where a resample leaves one undefined.
        strata: int64 [n], see `resampling_weights`.
        resamples: at least 1000 for an interval worth printing.
        seed: of the resampling.
        units: int64 [n], see `resampling_weights`.
    """
    parts: dict[Key, list[Floats]] = {key: [] for key in statistics}
    if parts:
        for weights in resampling_weights(strata, resamples, seed, units):
            for key, statistic in statistics.items():
                parts[key].append(statistic(weights))
    return {key: np.concatenate(values) for key, values in parts.items()}


def percentile_interval(draws: Floats) -> tuple[float, float] | None:
    """Return the plain percentile bootstrap interval of a statistic.

    Where every resample gives the same value (two classes that are separated perfectly, maps that are identical),
    there is none: the sample shows no scatter, and an interval of no width would claim that there is none. Resamples
    that leave the statistic undefined, because they lack a rare label, are left out; where most do, there is none.

    Args:
        draws: float64 [resamples], the statistic in every resample; NaN where it is undefined.
    """
    values = draws[~np.isnan(draws)]
    if mostly_undefined(draws) or np.ptp(values) <= ROUNDING * max(1.0, float(np.abs(values).max())):
        return None
    low, high = np.quantile(values, [TAIL, 1.0 - TAIL])
    return float(low), float(high)


def basic_interval(value: float, draws: Floats) -> tuple[float, float] | None:
    """Return the basic bootstrap interval of a share (Davison and Hinkley 1997, eq. 5.6), widened to hold the value.

    It turns the percentile interval round the estimate, and with it the bias that resampling adds. A resample counts
    some positive images twice, which flatters average precision; a mean over labels keeps that bias while its scatter
    shrinks, so that percentile intervals of it miss the truth in up to half of the samples.

    Args:
        value: the statistic itself, 0 to 1.
        draws: float64 [resamples], as in `percentile_interval`.
    """
    interval = percentile_interval(draws)
    if interval is None:
        return None
    low, high = 2 * value - interval[1], 2 * value - interval[0]
    return max(0.0, min(low, value)), min(1.0, max(high, value))


def mostly_undefined(draws: Floats) -> bool:
    """Return whether more than half of the resamples leave a statistic undefined."""
    return bool(np.isnan(draws).mean() > 0.5)


def bootstrap_interval(
    statistic: Statistic, strata: Indices, resamples: int, seed: int, units: Indices | None = None
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of one statistic; see `resampled` and `percentile_interval`."""
    return percentile_interval(resampled({0: statistic}, strata, resamples, seed, units)[0])
