"""What times from fresh processes are worth: the process is the unit, its rounds and queries are not.

Two processes of one file differ by a per cent or two for as long as they live, because memory lies elsewhere; more
queries of the same process do not average that out. So every figure is first one number per process, and its interval
is a t interval over the processes.

How many processes there are is decided once, from the spread of the first few, by Stein's two stages (1945, Annals of
Mathematical Statistics 16:243): the interval keeps the spread and the degrees of freedom of the first stage, so its
coverage does not depend on the number that the spread asked for. Stopping as soon as an interval looks narrow would
stop where the spread happens to be underestimated.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.estimates import TAIL, Estimate

Floats = NDArray[np.float64]


def log_ratios(reference_ms: Floats, durations_ms: Floats) -> Floats:
    """Return each process's log of the reference's time over the file's: the mean over its rounds.

    Both files answered a block of queries in each round, side by side; a round's ratio is that of its two medians, so
    what slowed the round down for both cancels out.

    Args:
        reference_ms: [processes, rounds, queries], positive.
        durations_ms: [processes, rounds, queries], positive, of the same rounds.

    Returns:
        float64 [processes].
    """
    ratios = np.median(reference_ms, axis=2) / np.median(durations_ms, axis=2)
    return np.asarray(np.log(ratios).mean(axis=1), dtype=np.float64)


def mean_estimate(values: Floats, first: int) -> Estimate:
    """Return the mean over processes with its interval.

    Args:
        values: [processes], one number of each.
        first: processes of the first stage, 2 to all; their spread is the interval's.
    """
    half = _critical(first) * float(np.std(values[:first], ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return Estimate(mean, (mean - half, mean + half), len(values))


def geometric_estimate(logs: Floats, first: int) -> Estimate:
    """Return the geometric mean over processes with its interval.

    Args:
        logs: [processes], the logarithm of one number of each.
        first: as `mean_estimate` takes it.
    """
    found = mean_estimate(logs, first)
    assert found.ci95 is not None
    return Estimate(math.exp(found.value), (math.exp(found.ci95[0]), math.exp(found.ci95[1])), found.n)


def processes_needed(logs: Floats, half_width: float) -> int:
    """Return how many processes make the interval of a geometric mean narrow enough (Stein's second stage).

    Args:
        logs: [processes] of the first stage.
        half_width: as a fraction of the value, such as 0.02.
    """
    spread = _critical(len(logs)) * float(np.std(logs, ddof=1)) / math.log1p(half_width)
    return max(len(logs), math.ceil(spread**2))


def smallest_sample(quantile: float) -> int:
    """Return the fewest queries that have one beyond the quantile on either side in 97.5 of 100 samples.

    6 for p50, 36 for p90, 368 for p99: with fewer the sample's own extreme would stand for the percentile.
    """
    sizes = [math.log(TAIL) / math.log(share) for share in (quantile, 1.0 - quantile)]
    return math.floor(max(sizes)) + 1


def percentile_estimate(durations_ms: Floats, quantile: float, first: int) -> Estimate | None:
    """Return a percentile of all queries with its interval over processes, or None where n cannot carry it.

    The interval is the jackknife's that leaves out one process at a time, on the logarithm, with t: queries of one
    process are no independent sample, so their number alone does not say where the percentile of the next processes
    lies (Shao and Wu 1989, Annals of Statistics 17:1176, for leaving out a fixed share). Far out in the tail it jumps
    from one observation to the next and may see no scatter; so it is at least as wide as the distribution-free one
    from order statistics (David and Nagaraja, Order Statistics, 7.1).

    Args:
        durations_ms: [processes, queries], positive.
        quantile: inside 0…1.
        first: processes of the first stage; they give t its degrees of freedom.
    """
    processes, queries = durations_ms.shape
    if durations_ms.size < smallest_sample(quantile):
        return None
    value = _percentile(durations_ms, quantile)
    left_out = np.log([_percentile(np.delete(durations_ms, one, axis=0), quantile) for one in range(processes)])
    variance = (processes - 1) / processes * float(np.square(left_out - left_out.mean()).sum())
    half = _critical(first) * math.sqrt(variance)
    low, high = order_statistics(durations_ms, quantile)
    return Estimate(
        value, (min(low, value * math.exp(-half)), max(high, value * math.exp(half))), processes * queries
    )


def order_statistics(durations_ms: Floats, quantile: float) -> tuple[float, float]:
    """Return the observations whose ranks leave at most 2.5 % of Binomial(n, q) on either side."""
    from scipy.stats import binom

    ordered = np.sort(durations_ms, axis=None)
    lower = int(binom.ppf(TAIL, len(ordered), quantile)) - 1
    upper = int(binom.ppf(1.0 - TAIL, len(ordered), quantile))
    return float(ordered[lower]), float(ordered[upper])


def _percentile(durations_ms: Floats, quantile: float) -> float:
    return float(np.quantile(durations_ms, quantile, method="inverted_cdf"))


def _critical(first: int) -> float:
    """Return the t quantile that belongs to the spread of so many processes."""
    from scipy.stats import t

    return float(t.ppf(1.0 - TAIL, first - 1))
