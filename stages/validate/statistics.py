"""Intervals: what a number from a finite sample may be worth.

Every interval here is two-sided at 95 %. Proportions get Wilson's, percentiles the distribution-free one from order
statistics, everything else the plain percentile bootstrap over images with a fixed seed, where that is sound (see
`resampling`). Where images come in groups, a proportion's interval takes the effective sample size.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from stages.validate.resampling import ROUNDING, TAIL, come_in_groups, percentile_interval, resampled

_Z = NormalDist().inv_cdf(1.0 - TAIL)

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval (None where there is no sound one) and the size of the sample behind both."""

    value: float
    ci95: tuple[float, float] | None
    n: int


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927; no continuity correction).

    Args:
        successes: 0 to n. A fraction is allowed: for a mean of n values in 0…1 the interval is then conservative,
            because such a mean varies at most as much as a proportion of the same size.
        n: at least 1; an effective sample size may be a fraction.

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


def effective_wilson_interval(share: float, n: int, units: int, draws: Floats) -> tuple[float, float]:
    """Return Wilson's interval of a share whose images come in groups, on the effective sample size.

    n is replaced by share·(1−share) over the variance between resamples of whole groups (Korn and Graubard 1998,
    Survey Methodology 24:193; with Wilson's interval Dean and Pagano 2015, J. Survey Statistics and Methodology
    3:484), at most n. A share of 0 or 1 shows no variance; there each group counts as one image.

    Args:
        share: 0 to 1.
        n: images.
        units: groups that they come from.
        draws: float64 [resamples], the share in resamples of groups; NaN where a resample has no such image.
    """
    variance = float(np.nanvar(draws))
    effective = share * (1 - share) / variance if variance > ROUNDING else float(units)
    effective = min(max(effective, 1.0), float(n))
    return wilson_interval(share * effective, effective)


def share_interval(share: float, n: int, units: Indices, draws: Floats) -> tuple[float, float]:
    """Return Wilson's interval of a mean of n values in 0…1, on the effective sample size if they form groups."""
    if come_in_groups(units):
        return effective_wilson_interval(share, n, len(np.unique(units)), draws)
    return wilson_interval(min(share * n, n), n)


def mean_estimate(
    values: NDArray[np.floating],
    resamples: int,
    seed: int,
    units: Indices,
    *,
    is_share: bool = False,
    wilson: bool = False,
) -> Estimate:
    """Return the mean of one value per image with its interval over the images, or over their groups.

    Args:
        values: [n].
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        units: int64 [n], see `resampling.units_of`.
        is_share: whether the values lie in 0…1; then Wilson's interval stands in where no resample differs.
        wilson: whether to take Wilson's interval in any case.
    """
    data = np.asarray(values, dtype=np.float64)
    n, mean = len(data), float(np.mean(values, dtype=np.float64))
    plain = np.zeros(n, np.int64)
    draws = resampled({0: lambda weights: weights @ data / weights.sum(axis=1)}, plain, resamples, seed, units)[0]
    interval = None if wilson else percentile_interval(draws)
    if interval is None and (is_share or wilson):
        interval = share_interval(mean, n, units, draws)
    return Estimate(mean, interval, n)


def smallest_sample(quantile: float) -> int:
    """Return the fewest observations for which a quantile's interval exists on both sides (6 for p50, 36 for p90)."""
    sizes = [np.log(TAIL) / np.log(share) for share in (quantile, 1.0 - quantile)]
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
    lower_rank = int(binom.ppf(TAIL, n, quantile))
    upper_rank = int(binom.ppf(1.0 - TAIL, n, quantile)) + 1
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
    low, high = np.quantile(medians, [TAIL, 1.0 - TAIL])
    return Estimate(float(np.median(ratios)), (float(low), float(high)), rounds)
