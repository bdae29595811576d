"""Intervals: what a number from a finite sample may be worth.

Every interval here is two-sided at 95 %. Proportions get Wilson's, percentiles the distribution-free one from order
statistics, everything else the plain percentile bootstrap over images with a fixed seed, where that is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_TAIL = (1.0 - CONFIDENCE) / 2.0
_Z = NormalDist().inv_cdf(1.0 - _TAIL)

_ROUNDING = 1e-12
"""What weighted sums of equal values may differ by, relative to their size."""

_CHUNK_ELEMENTS = 1_000_000
"""Resampling weights held at once (8 MB of float64), whatever the number of images."""

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From resampling weights [b, n] to one value per resample, [b]."""


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval (None where there is no sound one) and the size of the sample behind both."""

    value: float
    ci95: tuple[float, float] | None
    n: int


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927; no continuity correction).

    Args:
        successes: 0 to n. A fraction is allowed: for a mean of n values in 0…1 the interval is then conservative,
            because such a mean varies at most as much as a proportion of the same size.
        n: at least 1.

    Returns:
        Lower and upper bound, each in 0…1.
    """
    if n < 1 or not 0.0 <= successes <= n:
        raise ValueError(f"expected 0 ≤ successes ≤ n with n ≥ 1, got {successes} of {n}")
    share = successes / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)))
    # At 0 and n the bound is the proportion itself; rounding must not put it a hair inside.
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    upper = 1.0 if successes == n else min(1.0, centre + half)
    return lower, upper


def mean_of_proportions_interval(successes: NDArray[np.int64], totals: NDArray[np.int64]) -> tuple[float, float]:
    """Return the interval of the unweighted mean of independent proportions, as balanced accuracy is one.

    MOVER with Wilson's limits (Zou and Donner 2008, Statistics in Medicine 27:1693): unlike a bootstrap it keeps its
    width when every image of every class was answered correctly.

    Args:
        successes: int64 [k], 0 to totals.
        totals: int64 [k], each at least 1.
    """
    shares = successes / totals
    limits = np.array([wilson_interval(int(s), int(t)) for s, t in zip(successes, totals, strict=True)])
    mean = float(shares.mean())
    below = float(np.sqrt(np.square(shares - limits[:, 0]).sum())) / len(shares)
    above = float(np.sqrt(np.square(limits[:, 1] - shares).sum())) / len(shares)
    return max(0.0, mean - below), min(1.0, mean + above)


def resampling_weights(strata: NDArray[np.int64], resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often each image is drawn in each bootstrap resample, in chunks of bounded memory.

    Args:
        strata: int64 [n]; draws with replacement stay inside a stratum, so each keeps its size. All equal: plain.
        resamples: how many resamples in all.
        seed: of the generator.

    Yields:
        float64 [b, n]; each row sums to n.
    """
    n = len(strata)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    rows = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        weights = np.zeros((count, n))
        for indices in members:
            size = len(indices)
            drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
            weights[:, indices] = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        yield weights


def bootstrap_interval(
    statistic: Statistic, strata: NDArray[np.int64], resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the plain percentile bootstrap interval of a statistic.

    Where every resample gives the same value (two classes that are separated perfectly, maps that are identical),
    there is none: the sample shows no scatter, and an interval of no width would claim that there is none.

    Args:
        statistic: from weights [b, n] to values [b]; it must be finite for every resample.
        strata: int64 [n], see `resampling_weights`.
        resamples: at least 1000 for an interval worth printing.
        seed: of the resampling.
    """
    values = np.concatenate([statistic(weights) for weights in resampling_weights(strata, resamples, seed)])
    if np.ptp(values) <= _ROUNDING * max(1.0, float(np.abs(values).max())):
        return None
    low, high = np.quantile(values, [_TAIL, 1.0 - _TAIL])
    return float(low), float(high)


def mean_estimate(values: NDArray[np.floating], resamples: int, seed: int) -> Estimate:
    """Return the mean of one value per image with its bootstrap interval over the images."""
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    interval = bootstrap_interval(lambda weights: weights @ data / n, np.zeros(n, np.int64), resamples, seed)
    return Estimate(float(data.mean()), interval, n)


def smallest_sample(quantile: float) -> int:
    """Return the fewest observations for which a quantile's interval exists on both sides (6 for p50, 36 for p90)."""
    sizes = [np.log(_TAIL) / np.log(share) for share in (quantile, 1.0 - quantile)]
    return int(np.floor(max(sizes))) + 1


def quantile_estimate(values: NDArray[np.floating], quantile: float) -> Estimate | None:
    """Return a quantile with its distribution-free interval, or None where the sample is too small to have one.

    The quantile is the observation of rank ⌈n·q⌉; the interval lies between the observations whose ranks leave at
    most 2.5 % of Binomial(n, q) on either side (David and Nagaraja, Order Statistics, 7.1). It assumes independent
    observations: a disturbance that lasts for many queries makes the true uncertainty larger.

    Args:
        values: [n] observations.
        quantile: inside 0…1.
    """
    from scipy.stats import binom

    n = len(values)
    if n < smallest_sample(quantile):
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    lower_rank = int(binom.ppf(_TAIL, n, quantile))
    upper_rank = int(binom.ppf(1.0 - _TAIL, n, quantile)) + 1
    value = float(np.quantile(ordered, quantile, method="inverted_cdf"))
    return Estimate(value, (float(ordered[lower_rank - 1]), float(ordered[upper_rank - 1])), n)


def paired_ratio_estimate(
    numerator: NDArray[np.floating], denominator: NDArray[np.floating], resamples: int, seed: int
) -> Estimate:
    """Return the median ratio of two series that were measured in the same rounds, with its bootstrap interval.

    Resampling whole rounds keeps each pair together, so that what slowed a round down for both cancels out.

    Args:
        numerator: [rounds], positive.
        denominator: [rounds], positive, of the same rounds.
        resamples: number of bootstrap resamples.
        seed: of the resampling.
    """
    ratios = np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
    rounds = len(ratios)
    drawn = np.random.default_rng(seed).integers(0, rounds, (resamples, rounds))
    medians = np.median(ratios[drawn], axis=1)
    low, high = np.quantile(medians, [_TAIL, 1.0 - _TAIL])
    return Estimate(float(np.median(ratios)), (float(low), float(high)), rounds)
