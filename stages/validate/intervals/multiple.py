"""Several differences asked at once: the p of each, and what stays of it when the others are asked too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.measurements import PairedDifference
from stages.validate.intervals.estimates import ROUNDING
from stages.validate.intervals.paired import mcnemar_mid_p, tail_at_zero

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


def loss_p(difference: PairedDifference, higher_is_better: bool) -> tuple[float, float] | None:
    """Return the p of a loss from one night to the next, and the smallest that so many changed answers could have.

    Independent answers that changed were lost or gained with the same probability where nothing got worse: McNemar's
    mid-p (Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91), because a score's normal
    distribution finds three losses of three already significant. Other differences take `one_sided_p`, and could have
    any.

    Args:
        difference: this run's number less the accepted one's.
        higher_is_better: of the metric.

    Returns:
        None where the difference has no interval.
    """
    usual = one_sided_p(difference, higher_is_better)
    if usual is None:
        return None
    if difference.mcnemar_p is None:  # images in groups, a mean over classes, or no shares
        return usual, 0.0
    counts = [round((share or 0.0) * difference.n) for share in (difference.gained, difference.lost)]
    worse = counts[1] if higher_is_better else counts[0]
    return mcnemar_mid_p(worse, sum(counts)), 0.5 ** (sum(counts) + 1)


def holm(p_values: Sequence[float], least: Sequence[float] | None = None) -> tuple[float, ...]:
    """Return p-values corrected for there being several (Holm 1979, Scandinavian Journal of Statistics 6:65).

    Rejecting those at most α errs, in any of them, with probability at most α, however they depend on each other.
    What could not be as small as a p, whatever happened, does not make that p more likely by chance, and is not
    counted (Tarone 1990, Biometrics 46:515).

    Args:
        p_values: of each.
        least: the smallest that each could have been; None: any could be 0.
    """
    given = np.asarray(p_values, dtype=np.float64)
    smallest = np.zeros_like(given) if least is None else np.asarray(least, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    ranked, lowest = given[order], smallest[order] * (1 - ROUNDING)
    counts = [max(1, np.count_nonzero(lowest[place:] <= p)) for place, p in enumerate(ranked)]
    stepped = np.maximum.accumulate(ranked * np.array(counts))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(stepped, 1.0)
    return tuple(corrected.tolist())
