"""Differences between two files on the same images: paired by image, units varying together.

Every function returns a `PairedDifference`, which holds what an interval or a bound at another error rate needs;
`bounds` computes it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foundation.measurements import PairedDifference
from stages.validate.intervals.estimates import (
    ROUNDING,
    TAIL,
    Interval,
    normal_quantile,
    normal_tail,
    t_quantile,
    t_tail,
)
from stages.validate.intervals.groups import come_in_groups, squared_error, too_few, unit_count
from stages.validate.intervals.proportions import Decisions, degrees_correction
from stages.validate.intervals.ranks import Area, area_error
from stages.validate.intervals.resampling import bootstrap_error

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

NO_SCATTER = "both files score every image alike, so the sample shows no scatter"
RARE_RESAMPLES = "most resamples lack a class or label that is counted"


def tango_interval(gained: float, lost: float, n: float, tail: float = TAIL) -> Interval:
    """Return the score interval of a paired difference of proportions (Tango 1998, Statistics in Medicine 17:891).

    Args:
        gained: pairs of which only the first is right, 0 to n; may be a fraction, of an effective sample size.
        lost: pairs of which only the second is right.
        n: all pairs, positive.
        tail: probability on either side.

    Returns:
        Bounds of first − second, each in −1…1.
    """
    # Mirrored, the lower bound of one is the upper bound of the other.
    return -_upper_by_score(lost, gained, n, tail), _upper_by_score(gained, lost, n, tail)


def _upper_by_score(gained: float, lost: float, n: float, tail: float) -> float:
    """Return the largest difference that a score test at this tail does not reject."""
    z, seen = normal_quantile(tail), (gained - lost) / n
    inside, outside = seen, 1.0
    for _ in range(60):
        middle = (inside + outside) / 2
        variance = _constrained_variance(gained, lost, n, middle)
        if n * (middle - seen) <= z * np.sqrt(variance):
            inside = middle
        else:
            outside = middle
    return inside


def _constrained_variance(gained: float, lost: float, n: float, difference: float) -> float:
    """Return n·(2q + δ(1 − δ)) with q the likeliest share of losses where the true difference is δ."""
    linear = -gained - lost + (2 * n - gained + lost) * difference
    root = np.sqrt(max(linear**2 + 8 * n * lost * difference * (1 - difference), 0.0))
    losses = (root - linear) / (4 * n)
    return float(max(n * (2 * losses + difference * (1 - difference)), 0.0))


def mcnemar_exact(gained: int, lost: int) -> float:
    """Return the two-sided p of McNemar's exact test: of so many discordant pairs each goes either way by chance."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def mcnemar_mid_p(lost: int, changed: int) -> float:
    """Return the one-sided mid-p of McNemar's test: of so many changed pairs each is lost or gained by chance.

    Args:
        lost: 0 to changed.
        changed: pairs.
    """
    from scipy.special import bdtrc

    more, at_least = bdtrc(lost, changed, 0.5), bdtrc(lost - 1, changed, 0.5) if lost else 1.0
    return float(more + at_least) / 2


def paired_shares(first: Decisions, second: Decisions) -> PairedDifference:
    """Return the difference of two files' shares of right decisions.

    Tango's interval on an effective sample size. Without groups and strata that is the number of pairs. Else the
    variance between units replaces that of independent pairs, as in `proportions.share_interval`; a mean of strata
    counts as the one proportion that is as sure, so that a class of few images weighs as it does in the metric.
    """
    change = np.where(first.asked, first.values - second.values, 0.0)
    strata, units = len(first.totals), first.unit_count
    gained, lost = (
        float((np.square(np.where(sign * change > 0, change, 0.0)).sum(axis=(1, 2)) / first.totals).mean())
        for sign in (1, -1)
    )
    value = float(first.shares.mean() - second.shares.mean())
    simple = strata == 1 and not first.are_clustered
    most = first.harmonic_size
    least = min(most, float(units))
    effective = most
    if not simple:
        variance = Decisions(np.where(first.asked, change, np.nan), first.units).squared_error
        independent = (gained + lost - value**2) / most
        effective = most * min(1.0, independent / variance) if variance > 0 else least
    found = PairedDifference(
        value + 0.0,
        None,
        "tango",
        n=int(first.asked.any(axis=(0, 1)).sum()),
        units=units,
        gained=gained,
        lost=lost,
        effective_n=effective,
        least_effective_n=effective if simple else least,
    )
    if simple:
        counts = (round(share * most) for share in (gained, lost))
        found = replace(found, mcnemar_p=mcnemar_exact(*counts))
    return _with_interval(found, first.too_few)


def paired_areas(first: Area, second: Area, units: Indices) -> PairedDifference:
    """Return the difference of two areas under the ROC curve of the same images (DeLong; Obuchowski with groups).

    Where both files rank all images alike, a changed rank in as many units as the rarer class has was not seen, which
    leaves room for a difference as no changed answer in so many pairs does.
    """
    error = area_error(first.influence - second.influence, units)
    count = unit_count(units)
    found = PairedDifference(
        first.value - second.value, None, "delong", len(units), count, standard_error=error, degrees=first.rarer - 1
    )
    if not np.isfinite(error) or first.rarer < 2:
        return replace(found, standard_error=None, no_interval="a class has a single image or group")
    if error <= ROUNDING:
        rarer = float(first.rarer)
        found = replace(found, method="tango", standard_error=None, degrees=None, gained=0.0, lost=0.0)
        found = replace(found, effective_n=rarer, least_effective_n=rarer)
    return _with_interval(found, too_few(units) if come_in_groups(units) else "")


def paired_means(first: Floats, second: Floats, units: Indices) -> PairedDifference:
    """Return the difference of two means of one value per image [n], by Student's t over the units."""
    change = first - second
    return paired_influence(float(change.mean()), (change - change.mean()) / len(change), units)


def paired_draws(value: float, first: Floats, second: Floats, units: Indices) -> PairedDifference:
    """Return the difference of two statistics from their values in the same resamples [resamples]."""
    return _by_error(value, bootstrap_error(first - second, unit_count(units)), "bootstrap_t", units)


def paired_influence(value: float, influence: Floats, units: Indices) -> PairedDifference:
    """Return the difference of two estimates of the same images from the difference of their influences [n]."""
    return _by_error(value, float(np.sqrt(squared_error(influence, units))), "cluster_t", units)


def bounds(difference: PairedDifference, tail: float) -> Interval | None:
    """Return the bounds that a difference exceeds on either side with the given probability.

    Returns:
        None where it has no interval.
    """
    if difference.no_interval is not None:
        return None
    if difference.standard_error is not None:
        assert difference.degrees is not None
        half = t_quantile(tail, difference.degrees) * difference.standard_error
        return difference.value - half, difference.value + half
    evidence = (difference.gained, difference.lost, difference.effective_n, difference.least_effective_n)
    gained, lost, most, least = (part or 0.0 for part in evidence)
    if most == least and difference.n == difference.units == round(most, 6):  # of one stratum, up to its rounding
        return tango_interval(gained * most, lost * most, most, tail)
    correction = degrees_correction(difference.units, tail)
    most, least = most * correction, least * correction
    low, high = tango_interval(gained * most, lost * most, most, tail)
    # Few changes tell little of how alike a unit's changes are: they leave as much room as none in so many units.
    room_below, room_above = tango_interval(0.0, 0.0, least, tail)
    return (min(low, room_below) if low < 0 else low), (max(high, room_above) if high > 0 else high)


def tail_at_zero(difference: PairedDifference) -> float | None:
    """Return the tail at which one of the `bounds` of a difference is 0, at most 0.5.

    The variance of Tango's score is the discordance itself where no difference is held against it; the correction of
    an effective sample size for its degrees of freedom puts Student's t in place of the normal distribution.

    Returns:
        None where it has no interval.
    """
    if difference.no_interval is not None:
        return None
    if difference.value == 0.0:
        return 0.5
    if difference.standard_error is not None:
        assert difference.degrees is not None
        return t_tail(abs(difference.value) / difference.standard_error, difference.degrees)
    evidence = (difference.gained, difference.lost, difference.effective_n, difference.least_effective_n)
    gained, lost, most, least = (part or 0.0 for part in evidence)
    discordance = gained + lost
    score = abs(gained - lost) * float(np.sqrt(most / discordance)) if discordance else 0.0
    if most == least == difference.n == difference.units:
        return normal_tail(score)
    return t_tail(score, difference.units - 1)


def _by_error(value: float, error: float, method: str, units: Indices) -> PairedDifference:
    count = unit_count(units)
    found = PairedDifference(
        value,
        None,
        "cluster_t" if method == "cluster_t" else "bootstrap_t",
        n=len(units),
        units=count,
        standard_error=error,
        degrees=count - 1,
    )
    if not np.isfinite(error):
        return replace(found, standard_error=None, no_interval=RARE_RESAMPLES)
    if error <= ROUNDING:
        return replace(found, no_interval=NO_SCATTER)
    return _with_interval(found, too_few(units))


def _with_interval(difference: PairedDifference, why_not: str) -> PairedDifference:
    if why_not:
        return replace(difference, no_interval=why_not)
    return replace(difference, ci95=bounds(difference, TAIL))
