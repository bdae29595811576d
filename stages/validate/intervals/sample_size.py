"""How many images decide: from the discordance that was seen, or planned before anything was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from foundation.measurements import PairedDifference
from stages.validate.intervals.estimates import Interval, normal_quantile
from stages.validate.intervals.paired import bounds, tango_interval

MOST = 1000.0
"""Times as many images as there are; beyond that nobody collects them."""


def deciding_factor(difference: PairedDifference, tail: float, decided: Callable[[Interval], bool]) -> float | None:
    """Return how many times as many images would decide if they showed the same difference and discordance.

    Args:
        difference: as it was seen.
        tail: probability beyond a bound.
        decided: whether bounds decide.

    Returns:
        None where a thousand times as many would not.
    """

    def decides(factor: float) -> bool:
        found = bounds(_scaled(difference, factor), tail)
        return found is not None and decided(found)

    return _least(decides)


def _scaled(difference: PairedDifference, factor: float) -> PairedDifference:
    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    error, degrees = difference.standard_error, difference.degrees
    return replace(
        difference,
        n=round(difference.n * factor),
        units=round(difference.units * factor),
        effective_n=times(difference.effective_n),
        least_effective_n=times(difference.least_effective_n),
        standard_error=None if error is None else error / math.sqrt(factor),
        degrees=None if degrees is None else max(1, round(degrees * factor)),
    )


def _least(decides: Callable[[float], bool]) -> float | None:
    low, high = 1.0, 2.0
    while not decides(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 0.01 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def pairs_for_noninferiority(margin: float, discordance: float, alpha: float, power: float) -> int:
    """Return how many independent pairs show non-inferiority with this power where the files are equally good.

    From the score test's variances at the margin and at no difference (Nam 1997, Biometrics 53:1422); where hardly a
    pair differs, at least as many as leave less than the margin when none does.

    Args:
        margin: largest loss that counts as none, as a share.
        discordance: share of the pairs that differ, half of them for the better.
        alpha: one-sided error rate.
        power: 0.8 or 0.9.
    """
    # The likeliest share of losses under the hypothesis δ = −margin, in the limit of many pairs.
    linear = -discordance - 2 * margin
    root = math.sqrt(max(linear**2 - 4 * discordance * margin * (1 + margin), 0.0))
    at_margin = math.sqrt((root - linear) / 2 - margin * (1 + margin))
    needed = (
        normal_quantile(alpha) * at_margin + normal_quantile(1 - power) * math.sqrt(discordance)
    ) ** 2 / margin**2
    n = math.ceil(needed)
    while tango_interval(0.0, 0.0, n, alpha)[0] <= -margin:
        n = math.ceil(n * 1.01) + 1
    return n


def images_for_share(limit: float, expected: float, tail: float, power: float) -> int:
    """Return how many independent images put the bound of a share beyond a limit with this power.

    Args:
        limit: of the gate.
        expected: the true share, on the right side of the limit.
        tail: probability beyond the bound.
        power: 0.8 or 0.9.
    """
    at_limit, at_truth = (math.sqrt(share * (1 - share)) for share in (limit, expected))
    reach = normal_quantile(tail) * at_limit + normal_quantile(1 - power) * at_truth
    return math.ceil((reach / (expected - limit)) ** 2)
