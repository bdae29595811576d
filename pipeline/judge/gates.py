"""Acceptance criteria held against a run's measurements, after they were fixed in its configuration."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from foundation.measurements import Measurement
from foundation.record import Verdict
from pipeline.judge.gate import WORST, Gate
from pipeline.judge.paired_runs import NOTHING_ACCEPTED, PairedRuns, against_accepted
from pipeline.judge.tested import worst_tested


def judge(
    gates: Sequence[Gate], measurements: Sequence[Measurement], accepted: PairedRuns = NOTHING_ACCEPTED
) -> tuple[Verdict, ...]:
    """Return one verdict per gate.

    Args:
        gates: the criteria.
        measurements: of the run.
        accepted: how its answers differ from the accepted run's, or why that is not known.

    A gate is missing where no measurement fits it or one that fits has no value; it fails where one does not hold;
    with an error rate it is inconclusive where the bounds of one do not tell. The verdict shows the worst.
    """
    held = against_accepted(measurements, accepted)
    verdicts = []
    for gate in gates:
        if gate.asks_accepted and accepted.why_not is not None:
            verdicts.append(Verdict(gate.name, "missing", None, gate.limit, f"not compared: {accepted.why_not}"))
        else:
            verdicts.append(_judge_one(gate, held if gate.asks_accepted else measurements))
    return tuple(verdicts)


def _judge_one(gate: Gate, measurements: Sequence[Measurement]) -> Verdict:
    fitting = [m for m in measurements if m.variant == gate.variant and _fits(gate, m)]
    if not fitting:
        return Verdict(gate.name, "missing", None, gate.limit, _why_nothing_fits(gate, measurements))
    if gate.asks_worst:
        return _judge_subgroups(gate, fitting, measurements)
    return _judge_fitting(gate, fitting, measurements)


def _judge_subgroups(gate: Gate, fitting: Sequence[Measurement], measurements: Sequence[Measurement]) -> Verdict:
    """Judge every subgroup that has a number, by name, and tell which have none.

    That each must hold needs no correction for their being several: the claim is false if it is of a single one, and
    that one's test errs with its own rate (intersection-union test; Berger 1982, Technometrics 24:295).
    """
    told = [m for m in fitting if m.value is not None]
    silent = sorted({str(m.where.subgroup) for m in fitting if m.value is None})
    verdict = _judge_fitting(gate, told or fitting, measurements)
    judged = verdict.measurement
    worst = f"worst of {len(told)} subgroups is {judged.where.subgroup}: " if told and judged else ""
    untold = f"; not judged, with too few images: {', '.join(silent)}" if told and silent else ""
    return replace(verdict, detail=f"{worst}{verdict.detail}{untold}")


def _judge_fitting(gate: Gate, fitting: Sequence[Measurement], measurements: Sequence[Measurement]) -> Verdict:
    if gate.tests_difference or gate.confidence != "point":
        return worst_tested(gate, fitting)
    held = []
    for measurement in fitting:
        against = _baseline(gate, measurement, measurements)
        value, why_not = _value(gate, measurement, against)
        if value is None:
            return Verdict(gate.name, "missing", None, gate.limit, why_not, measurement, against)
        held.append((value, measurement, against))
    pick = min if gate.at_least is not None else max
    worst, measurement, against = pick(held, key=lambda one: one[0])
    status: Literal["passed", "failed"] = "passed" if gate.holds(worst) else "failed"
    itself = f"{gate.variant} itself: " if gate.relative_to_fp32 else ""
    return Verdict(gate.name, status, worst, gate.limit, itself + _detail(measurement), measurement, against)


def _why_nothing_fits(gate: Gate, measurements: Sequence[Measurement]) -> str:
    """Return why a gate has no measurement; the name of a class, a label or a subgroup may be mistyped."""
    of_variant = [m for m in measurements if m.variant == gate.variant]
    family, slash, _ = gate.metric.partition("/")
    wanted, known = None, set[str]()
    if slash and all(m.metric != gate.metric for m in of_variant):
        wanted, known = gate.metric, {m.metric for m in of_variant if m.metric.startswith(f"{family}/")}
    elif gate.subgroup is not None:
        named = (m.where.subgroup for m in of_variant if m.metric == gate.metric)
        wanted, known = gate.subgroup, {name for name in named if name is not None}
    nearest = difflib.get_close_matches(wanted, sorted(known), n=1) if wanted else []
    return "not measured in this run" + (
        f"; did you mean {nearest[0]!r}?" if nearest and nearest[0] != wanted else ""
    )


def _fits(gate: Gate, measurement: Measurement) -> bool:
    where = measurement.where
    return (
        measurement.metric == gate.metric
        and _is_asked(gate, where.subgroup)
        and where.per == gate.per
        and where.place == gate.place
        and gate.change in (None, where.change)
        and gate.provider in (None, where.provider)
        and gate.threads in (None, where.threads)
        and gate.method in (None, where.method)
    )


def _is_asked(gate: Gate, subgroup: str | None) -> bool:
    if not gate.asks_worst:
        return subgroup == gate.subgroup
    axis = (gate.subgroup or "").removeprefix(WORST).strip()
    return subgroup is not None and (not axis or subgroup.startswith(f"{axis}:"))


def _baseline(gate: Gate, found: Measurement, measurements: Sequence[Measurement]) -> Measurement | None:
    """Return fp32's measurement at the same place; None where there is none, or the gate holds the value itself."""
    if gate.relative_to_fp32 is None:
        return None
    same = (m for m in measurements if (m.metric, m.variant, m.where) == (found.metric, "fp32", found.where))
    return next(same, None)


def _value(gate: Gate, found: Measurement, baseline: Measurement | None) -> tuple[float | None, str]:
    if found.value is None:
        return None, f"not measured: {found.reason or 'no reason given'}"
    if gate.relative_to_fp32 is None:
        return found.value, ""
    if baseline is None or baseline.value is None:
        return None, "not measured for fp32, which it is held against"
    if gate.relative_to_fp32 == "difference":
        # Equal sums differ in their last bit; adding 0.0 turns the −0.0 that rounding may leave into 0.0.
        return round(found.value - baseline.value, 12) + 0.0, ""
    if baseline.value == 0:
        return None, "fp32's value is 0, so there is no ratio"
    return found.value / baseline.value, ""


def _detail(measurement: Measurement) -> str:
    unit = "" if measurement.unit == "share" else f" {measurement.unit}"
    value = measurement.value or 0.0
    parts = [f"{value:.0f}{unit}" if measurement.unit == "bytes" else f"{value:.4g}{unit}"]
    if measurement.ci95:
        parts.append(f"95 % {measurement.ci95[0]:.4g} to {measurement.ci95[1]:.4g}")
    if measurement.n is not None:
        parts.append(f"n = {measurement.n}")
    if "too_rare" in measurement.remarks:
        rare = ", ".join(measurement.remarks["too_rare"])
        parts.append(f"over {measurement.remarks['labels']} labels, too few images of {rare}")
    return ", ".join(parts)
