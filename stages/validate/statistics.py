"""Intervals of times: percentiles, and ratios of what was measured in the same rounds.

Percentiles get the distribution-free interval from order statistics, ratios the percentile bootstrap over rounds with
a fixed seed, both two-sided at 95 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import TAIL, Estimate


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
