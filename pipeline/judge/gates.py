"""Acceptance criteria: fixed in the configuration before the run, held against its measurements afterwards."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundation.files import JSON
from foundation.measurements import Measurement
from foundation.metrics import METRICS, row_name
from foundation.places import PLACE_NAME
from foundation.record import Verdict
from foundation.settings import Settings
from pipeline.judge.paired_runs import NOTHING_ACCEPTED, PairedRuns, against_accepted
from pipeline.judge.tested import worst_tested
from stages.validate.saliency import MethodName

WORST = "worst"
"""In place of a subgroup's name: each subgroup that the metric is measured of; "worst sex": each of that axis."""


class Gate(Settings):
    """One criterion; every measurement that fits it must hold."""

    metric: str = Field(description="a metric of the report: balanced_accuracy, size_bytes, saliency_spearman…")
    variant: str = Field(description="name of a variant")
    at_least: float | None = Field(None, description="lower bound")
    at_most: float | None = Field(None, description="upper bound")
    noninferior_to: Literal["fp32", "accepted"] | None = Field(
        None,
        description="in place of a bound: less than `margin` worse than fp32, or than itself in the accepted "
        "run, at error rate `alpha`",
    )
    equivalent_to: Literal["fp32", "accepted"] | None = Field(
        None,
        description="in place of a bound: within `margin` of fp32, or of the accepted run, at error rate `alpha`",
    )
    margin: float | None = Field(None, gt=0, description="of noninferior_to and equivalent_to, in the metric's unit")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="of noninferior_to and equivalent_to, one-sided error rate")
    confidence: Literal["point", "lower_bound"] = Field(
        "point",
        description="what a bound is held against: the estimate, or the worse end of its 95 % interval",
    )
    relative_to_fp32: Literal["difference", "ratio"] | None = Field(
        None, description="hold value − fp32's, or value / fp32's, against the bound instead of the value"
    )
    provider: str | None = Field(None, description="only measurements on this execution provider")
    threads: int | None = Field(None, ge=1, description="only measurements with this many threads")
    method: MethodName | None = Field(None, description="only saliency maps made this way")
    change: str | None = Field(
        None, description="images made worse, as `jpeg 3`, of a metric with `robust_`; null: every change must hold"
    )
    place: str | None = Field(
        None,
        pattern=PLACE_NAME,
        description="only measurements at this place, one of validation.places or the name of a device; null: here",
    )
    per: Literal["patient"] | None = Field(
        None, description="decisions about patients, of a metric with `_at_threshold`; null: about images"
    )
    subgroup: str | None = Field(
        None,
        description="only the images of this subgroup: `small lesions`, `medium lesions` or `large lesions` with a "
        "metric that needs masks, or one that the data set names with accuracy, balanced_accuracy, auroc_macro, "
        "sensitivity, specificity or auroc; `worst`: each of them must hold, `worst sex`: each of that axis; by "
        "default all images together",
    )

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if row_name(metric) not in METRICS:
            nearest = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(METRICS)}."
            raise ValueError(f"unknown metric {metric!r}; {hint}")
        return metric

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        given = [self.at_least, self.at_most, self.noninferior_to, self.equivalent_to]
        if sum(one is not None for one in given) != 1:
            raise ValueError("a gate needs exactly one of at_least, at_most, noninferior_to and equivalent_to")
        if self.tests_difference != (self.margin is not None):
            raise ValueError("a gate needs margin with noninferior_to or equivalent_to, and only there")
        if self.relative_to_fp32 is not None and (self.tests_difference or self.confidence != "point"):
            raise ValueError(
                "relative_to_fp32 holds estimates against each other; use noninferior_to: fp32 with a margin for a "
                "difference with an error rate"
            )
        if self.confidence != "point" and self.tests_difference:
            raise ValueError(
                "confidence belongs to at_least and at_most; noninferior_to and equivalent_to have alpha"
            )
        if METRICS[row_name(self.metric)].inputs == "place" and self.place is None:
            raise ValueError(f"{self.metric} holds a place against here; name the place")
        if "fp32" in (self.noninferior_to, self.equivalent_to) and self.variant == "fp32":
            raise ValueError("fp32 is what noninferior_to and equivalent_to compare with; name another variant")
        return self

    @property
    def tests_difference(self) -> bool:
        """Whether it is a test of a difference, with an error rate."""
        return self.noninferior_to is not None or self.equivalent_to is not None

    @property
    def asks_accepted(self) -> bool:
        """Whether it holds a variant against itself in the accepted run."""
        return "accepted" in (self.noninferior_to, self.equivalent_to)

    @property
    def identity(self) -> dict[str, JSON]:
        """What a digest of the criteria is taken over: a point gate's is what it was before there were others."""
        tested = ("noninferior_to", "equivalent_to", "margin", "alpha", "confidence", "per", "change", "place")
        values: dict[str, JSON] = self.model_dump(mode="json")
        return {key: value for key, value in values.items() if key not in tested or not self._is_default(key)}

    def _is_default(self, key: str) -> bool:
        return bool(getattr(self, key) == type(self).model_fields[key].default)

    @property
    def higher_is_better(self) -> bool:
        """The direction of its metric."""
        return METRICS[row_name(self.metric)].higher_is_better

    @property
    def limit(self) -> float:
        """The bound; of a test the difference that it must exclude."""
        if self.margin is not None:
            return -self.margin if self.higher_is_better else self.margin
        return self.at_least if self.at_least is not None else self.at_most or 0.0

    @property
    def name(self) -> str:
        """The criterion as one reads it."""
        where = [
            self.provider,
            f"{self.threads} thr." if self.threads else None,
            self.method,
            self._images,
            f"per {self.per}" if self.per else None,
            self.change,
            f"at {self.place}" if self.place else None,
        ]
        place = ", ".join(part for part in where if part)
        metric = f"{self.variant}: {self.metric}{f' ({place})' if place else ''}"
        if self.tests_difference:
            kind = "not inferior to" if self.noninferior_to else "equivalent to"
            other = "the accepted run" if self.asks_accepted else "fp32"
            return f"{metric} {kind} {other} by {self.margin:g} (α = {self.alpha:g})"
        relation = "≥" if self.at_least is not None else "≤"
        against = {"difference": " − fp32", "ratio": " / fp32", None: ""}[self.relative_to_fp32]
        bound = "" if self.confidence == "point" else " (95 % bound)"
        metric = f"{self.variant}: {self.metric}{against}{f' ({place})' if place else ''}"
        return f"{metric} {relation} {self.limit:g}{bound}"

    @property
    def _images(self) -> str | None:
        return f"{self.subgroup} subgroup" if self.asks_worst else self.subgroup

    @property
    def asks_worst(self) -> bool:
        """Whether each of several subgroups must hold."""
        return self.subgroup == WORST or (self.subgroup or "").startswith(f"{WORST} ")

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bound."""
        slack = 1e-9 * max(1.0, abs(self.limit))  # 0.88 − 0.90 is −0.02 and then some, in binary
        return value >= self.limit - slack if self.at_least is not None else value <= self.limit + slack


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
