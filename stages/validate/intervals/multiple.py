"""Several differences asked at once: the p of each, and what stays of it when the others are asked too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.measurements import PairedDifference
from stages.validate.intervals.paired import tail_at_zero

_SMALLEST_P = 2e-9


def two_sided_p(difference: PairedDifference) -> float | None:
    """Return the smallest error rate at which the two-sided interval of a difference excludes 0.

    It is that interval's own p, groups included: what it finds significant at .05, the 95 % interval shows too.

    Returns:
        None where the difference has no interval; 0 stands for less than 2e-9.
    """
    tail = tail_at_zero(difference)
    if tail is None:
        return None
    return 2 * tail if 2 * tail >= _SMALLEST_P else 0.0


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
