"""The ratio of two times that were measured in the same rounds, with the percentile bootstrap over rounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import TAIL, Estimate


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
