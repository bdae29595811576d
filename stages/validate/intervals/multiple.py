"""Several differences asked at once: the p of each, and what stays of it when the others are asked too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.measurements import PairedDifference
from stages.validate.intervals.paired import bounds

_SMALLEST_TAIL = 1e-9


def two_sided_p(difference: PairedDifference) -> float | None:
    """Return the smallest error rate at which the two-sided interval of a difference excludes 0.

    It is that interval's own p, groups included: what it finds significant at .05, the 95 % interval shows too.

    Returns:
        None where the difference has no interval; 0 stands for less than 2e-9.
    """
    if difference.no_interval is not None:
        return None

    def excludes_zero(tail: float) -> bool:
        found = bounds(difference, tail)
        return found is not None and not found[0] <= 0.0 <= found[1]

    if difference.value == 0.0 or not excludes_zero(0.5 - _SMALLEST_TAIL):
        return 1.0
    low, high = _SMALLEST_TAIL, 0.5 - _SMALLEST_TAIL  # 0 lies inside at `low`, outside at `high`
    if excludes_zero(low):
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        if excludes_zero(middle):
            high = middle
        else:
            low = middle
    return 2 * high


def one_sided_p(difference: PairedDifference, higher_is_better: bool) -> float | None:
    """Return the p of a loss: the smallest error rate at which the one-sided bound of a difference shows one.

    Returns:
        None where the difference has no interval.
    """
    both = two_sided_p(difference)
    if both is None:
        return None
    return both / 2 if (difference.value < 0) == higher_is_better and difference.value != 0 else 1.0 - both / 2


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values corrected for there being several (Holm 1979, Scandinavian Journal of Statistics 6:65).

    Rejecting those at most α errs, in any of them, with probability at most α, however they depend on each other.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(stepped, 1.0)
    return tuple(corrected.tolist())
