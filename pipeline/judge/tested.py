"""Gates with an error rate: an interval's bound decides, and where it cannot, the images that would are named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from foundation.measurements import Measurement, PairedDifference
from foundation.record import Verdict
from pipeline.judge.gate import Gate
from stages.validate.intervals.estimates import Interval
from stages.validate.intervals.paired import bounds
from stages.validate.intervals.sample_size import deciding_factor

Status = Literal["passed", "failed", "inconclusive", "missing"]
_WORST_FIRST: tuple[Status, ...] = ("missing", "failed", "inconclusive", "passed")


def worst_tested(gate: Gate, fitting: Sequence[Measurement]) -> Verdict:
    """Return the worst verdict on the measurements that fit a gate with an error rate.

    Args:
        gate: with noninferior_to, equivalent_to or a confidence.
        fitting: at least one.
    """
    verdicts = [_of_difference(gate, one) if gate.tests_difference else _of_bound(gate, one) for one in fitting]
    good = 1.0 if gate.higher_is_better else -1.0
    return min(verdicts, key=lambda one: (_WORST_FIRST.index(one.status), good * (one.value or 0.0)))


def _of_difference(gate: Gate, found: Measurement) -> Verdict:
    """Judge a difference by its one-sided bound: beyond the margin on the good side, on the bad side, or neither."""
    difference = found.difference
    if found.value is None or difference is None:
        why = found.reason or f"it has no paired difference from {_other(gate)}"
        return Verdict(gate.name, "missing", None, gate.limit, f"not measured: {why}", found)
    limits = bounds(difference, gate.alpha)
    if limits is None:
        why = difference.no_interval or "it has no interval"
        return Verdict(gate.name, "inconclusive", difference.value, gate.limit, f"cannot be told: {why}", found)
    claim = _Claim(gate.margin or 0.0, gate.higher_is_better, gate.equivalent_to is not None)
    status = claim.status(limits)
    confidence = f"{1 - gate.alpha:.4g}".removeprefix("0.")
    detail = (
        f"difference from {_other(gate)} {difference.value:+.4g}, one-sided .{confidence} bounds {limits[0]:+.4g} "
        f"and {limits[1]:+.4g}, {_counted(difference)}"
    )
    if status == "inconclusive":
        detail = f"{_what_decides(difference, gate.alpha, claim)}; {detail}"
    return Verdict(gate.name, status, difference.value, gate.limit, detail, found)


def _other(gate: Gate) -> str:
    return "the accepted run" if gate.asks_accepted else "fp32"


@dataclass(frozen=True)
class _Claim:
    """What is to be shown of a difference.

    Attributes:
        margin: positive, in the metric's unit.
        higher_is_better: the direction of the metric.
        both_sides: whether it must be excluded on both sides (two one-sided tests; Schuirmann 1987).
    """

    margin: float
    higher_is_better: bool
    both_sides: bool

    def status(self, limits: Interval) -> Literal["passed", "failed", "inconclusive"]:
        """Return what the bounds of a difference show."""
        low, high = limits if self.higher_is_better else (-limits[1], -limits[0])
        if low > -self.margin and (high < self.margin or not self.both_sides):
            return "passed"
        if high < -self.margin or (self.both_sides and low > self.margin):
            return "failed"
        return "inconclusive"


def _what_decides(difference: PairedDifference, alpha: float, claim: _Claim) -> str:
    factor = deciding_factor(difference, alpha, lambda limits: claim.status(limits) != "inconclusive")
    grouped = difference.units < difference.n
    what, seen = ("patients", difference.units) if grouped else ("images", difference.n)
    if factor is None:
        return f"cannot be told with these {seen} {what}, nor with a thousand times as many that differ alike"
    return f"cannot be told with these {seen} {what}; about {_rounded(seen * factor)} would tell"


def _of_bound(gate: Gate, found: Measurement) -> Verdict:
    """Judge a value by its 95 % interval: all of it within the limit, all beyond, or neither."""
    if found.value is None:
        why = found.reason or "no reason given"
        return Verdict(gate.name, "missing", None, gate.limit, f"not measured: {why}", found)
    if found.ci95 is None:
        why = found.remarks.get("no_interval", "it has no interval")
        return Verdict(gate.name, "inconclusive", found.value, gate.limit, f"cannot be told: {why}", found)
    worse, better = found.ci95 if gate.at_least is not None else (found.ci95[1], found.ci95[0])
    detail = f"95 % {found.ci95[0]:.4g} to {found.ci95[1]:.4g}" + (f", n = {found.n}" if found.n else "")
    if gate.holds(worse):
        return Verdict(gate.name, "passed", found.value, gate.limit, detail, found)
    if not gate.holds(better):
        return Verdict(gate.name, "failed", found.value, gate.limit, detail, found)
    # An interval shrinks with the root of the sample, towards the estimate.
    distance, end = abs(found.value - gate.limit), worse if gate.holds(found.value) else better
    needed = "cannot be told with these images"
    if distance and found.n:
        needed += f"; about {_rounded(found.n * ((found.value - end) / distance) ** 2)} would tell"
    return Verdict(gate.name, "inconclusive", found.value, gate.limit, f"{needed}; {detail}", found)


def _counted(difference: PairedDifference) -> str:
    images = f"n = {difference.n}"
    return images if difference.units == difference.n else f"{images} images of {difference.units} groups"


def _rounded(images: float) -> str:
    """Return a number of images that claims no more than two digits."""
    digits = max(0, math.floor(math.log10(max(images, 1.0))) - 1)
    return f"{math.ceil(images / 10**digits) * 10**digits:,}"
