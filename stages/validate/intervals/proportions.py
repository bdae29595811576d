"""Proportions and means of proportions: Wilson's interval, on the effective sample size where images form groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import TAIL, Interval, normal_quantile, t_quantile
from stages.validate.intervals.groups import come_in_groups, squared_error, too_few, unit_count

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def wilson_interval(successes: float, n: float, tail: float = TAIL) -> Interval:
    """Return Wilson's score interval of a proportion (Wilson 1927; no continuity correction).

    Args:
        successes: 0 to n. A fraction is allowed: for a mean of n values in 0…1 the interval is then conservative,
            because such a mean varies at most as much as a proportion of the same size.
        n: positive; an effective sample size may be a fraction.
        tail: probability on either side.

    Returns:
        Lower and upper bound, each in 0…1.
    """
    if n <= 0 or not 0.0 <= successes <= n:
        raise ValueError(f"expected 0 ≤ successes ≤ n with n > 0, got {successes} of {n}")
    z, share = normal_quantile(tail), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    # At 0 and n the bound is the proportion itself; rounding must not put it a hair inside.
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    upper = 1.0 if successes == n else min(1.0, centre + half)
    return lower, upper


def mean_of_proportions_interval(successes: NDArray[np.number], totals: NDArray[np.number]) -> Interval:
    """Return the interval of the unweighted mean of independent proportions, as balanced accuracy is one.

    MOVER with Wilson's limits (Zou and Donner 2008, Statistics in Medicine 27:1693): unlike a bootstrap it keeps its
    width when every image of every class was answered correctly.

    Args:
        successes: [k], 0 to totals.
        totals: [k], positive.
    """
    shares = successes / totals
    pairs = zip(successes.tolist(), totals.tolist(), strict=True)
    limits = np.array([wilson_interval(min(hits, total), total) for hits, total in pairs])
    mean = float(shares.mean())
    below = float(np.sqrt(np.square(shares - limits[:, 0]).sum())) / len(shares)
    above = float(np.sqrt(np.square(limits[:, 1] - shares).sum())) / len(shares)
    return max(0.0, mean - below), min(1.0, mean + above)


@dataclass(frozen=True)
class Decisions:
    """Decisions about images, each right (1) or not (0), whose mean of shares is a metric.

    Attributes:
        values: float64 [strata, decisions per image, n], NaN where an image is not asked; the metric is the mean over
            the strata of the mean of each stratum's values.
        units: int64 [n].
    """

    values: Floats
    units: Indices

    @cached_property
    def asked(self) -> NDArray[np.bool_]:
        """Which decisions there are."""
        return np.asarray(~np.isnan(self.values))

    @cached_property
    def totals(self) -> Floats:
        """Decisions of each stratum, float64 [k]."""
        return np.asarray(self.asked.sum(axis=(1, 2)), dtype=np.float64)

    @cached_property
    def shares(self) -> Floats:
        """The mean of each stratum, float64 [k]."""
        return np.asarray(np.nansum(self.values, axis=(1, 2)) / self.totals)

    @cached_property
    def asked_units(self) -> Indices:
        """The unit of each image that is asked at all."""
        return self.units[self.asked.any(axis=(0, 1))]

    @cached_property
    def unit_count(self) -> int:
        """How many units are asked."""
        return unit_count(self.asked_units)

    @property
    def are_clustered(self) -> bool:
        """Whether a unit has more than one decision, so that decisions are not independent."""
        return self.unit_count < int(self.asked.sum())

    @property
    def harmonic_size(self) -> float:
        """The number of decisions that one proportion would need to be as sure as the mean of these."""
        return float(len(self.totals) ** 2 / (1.0 / self.totals).sum())

    @property
    def squared_error(self) -> float:
        """Variance of the mean between units."""
        centred = np.where(self.asked, self.values - self.shares[:, None, None], 0.0)
        influence = (centred.sum(axis=1) / self.totals[:, None]).sum(axis=0) / len(self.totals)
        chosen = self.asked.any(axis=(0, 1))
        return squared_error(influence[chosen], self.asked_units)

    @property
    def too_few(self) -> str:
        """Why there is no interval: groups, but fewer than it takes; "" otherwise."""
        return too_few(self.asked_units) if come_in_groups(self.asked_units) else ""


def share_interval(decisions: Decisions) -> Interval | None:
    """Return the interval of a mean of shares, on the effective sample size where decisions are clustered.

    The design effect is the variance between units over the one that independent decisions would have, at least 1, so
    that the effective sample size is at most the number of decisions; it is multiplied by (z/t)² with g − 1 degrees
    of freedom (Korn and Graubard 1998, Survey Methodology 24:193; Dean and Pagano 2015, J. Survey Statistics and
    Methodology 3:484). Where every decision is right nothing tells how alike a unit's decisions are; there each unit
    counts as one. And since decisions that are wrong make nobody surer, an interval never ends short of where the one
    of all right ends (and likewise of none right): one n is that of units in both.

    Returns:
        None where images come in too few groups.
    """
    shares, totals = decisions.shares, decisions.totals
    if not decisions.are_clustered:
        return mean_of_proportions_interval(shares * totals, totals)
    if decisions.too_few or decisions.unit_count < 2:
        return None
    strata, count = len(totals), decisions.unit_count
    independent = float((shares * (1 - shares) / totals).sum()) / strata**2
    all_or_none = max(1.0, decisions.harmonic_size / count)
    effect = max(1.0, decisions.squared_error / independent) if independent > 0 else all_or_none
    correction = degrees_correction(count, TAIL)
    sizes, least = totals * correction / effect, totals * correction / all_or_none
    low, high = mean_of_proportions_interval(shares * sizes, sizes)
    lowest = mean_of_proportions_interval(least, least)[0]
    highest = mean_of_proportions_interval(np.zeros(strata), least)[1]
    return min(low, lowest), max(high, highest)


def degrees_correction(units: int, tail: float) -> float:
    """Return (z/t)², what an effective sample size is multiplied by because g units tell their scatter inexactly."""
    return float((normal_quantile(tail) / t_quantile(tail, units - 1)) ** 2)
