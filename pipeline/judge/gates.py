"""Acceptance criteria: fixed in the configuration before the run, held against its measurements afterwards."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundation.errors import ExitCode
from foundation.record import Measurement, Verdict
from foundation.settings import Settings
from stages.validate import METRICS, row_name
from stages.validate.saliency import MethodName


class Gate(Settings):
    """One criterion; every measurement that fits it must hold."""

    metric: str = Field(description="a metric of the report: balanced_accuracy, size_bytes, saliency_spearman…")
    variant: str = Field(description="name of a variant")
    at_least: float | None = Field(None, description="lower bound")
    at_most: float | None = Field(None, description="upper bound")
    relative_to_fp32: Literal["difference", "ratio"] | None = Field(
        None, description="hold value − fp32's, or value / fp32's, against the bound instead of the value"
    )
    provider: str | None = Field(None, description="only measurements on this execution provider")
    threads: int | None = Field(None, ge=1, description="only measurements with this many threads")
    method: MethodName | None = Field(None, description="only saliency maps made this way")
    subgroup: str | None = Field(
        None,
        description="only the images of this subgroup: `small lesions`, `medium lesions` or `large lesions` with a "
        "metric that needs masks, or one that the data set names with accuracy; by default all images together",
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
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a gate needs exactly one of at_least and at_most")
        return self

    @property
    def limit(self) -> float:
        """The bound."""
        return self.at_least if self.at_least is not None else self.at_most or 0.0

    @property
    def name(self) -> str:
        """The criterion as one reads it."""
        relation = "≥" if self.at_least is not None else "≤"
        against = {"difference": " − fp32", "ratio": " / fp32", None: ""}[self.relative_to_fp32]
        where = [self.provider, f"{self.threads} thr." if self.threads else None, self.method, self.subgroup]
        place = ", ".join(part for part in where if part)
        return f"{self.variant}: {self.metric}{against}{f' ({place})' if place else ''} {relation} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bound."""
        slack = 1e-9 * max(1.0, abs(self.limit))  # 0.88 − 0.90 is −0.02 and then some, in binary
        return value >= self.limit - slack if self.at_least is not None else value <= self.limit + slack


def judge(gates: Sequence[Gate], measurements: Sequence[Measurement]) -> tuple[Verdict, ...]:
    """Return one verdict per gate.

    A gate is missing where no measurement fits it or one that fits has no value; it fails where one does not hold;
    the verdict shows the worst.
    """
    return tuple(_judge_one(gate, measurements) for gate in gates)


def exit_code_of(verdicts: Sequence[Verdict], all_stages_succeeded: bool) -> ExitCode:
    """Return 3 where evidence is missing, else 1 where a gate failed, else 0."""
    if not all_stages_succeeded or any(verdict.status == "missing" for verdict in verdicts):
        return ExitCode.INCOMPLETE
    return ExitCode.GATE_FAILED if any(verdict.status == "failed" for verdict in verdicts) else ExitCode.PASSED


def _judge_one(gate: Gate, measurements: Sequence[Measurement]) -> Verdict:
    fitting = [m for m in measurements if m.variant == gate.variant and _fits(gate, m)]
    if not fitting:
        return Verdict(gate.name, "missing", None, gate.limit, _why_nothing_fits(gate, measurements))
    values = []
    for measurement in fitting:
        value, why_not = _value(gate, measurement, measurements)
        if value is None:
            return Verdict(gate.name, "missing", None, gate.limit, why_not)
        values.append((value, measurement))
    pick = min if gate.at_least is not None else max
    worst, measurement = pick(values, key=lambda pair: pair[0])
    status: Literal["passed", "failed"] = "passed" if gate.holds(worst) else "failed"
    itself = f"{gate.variant} itself: " if gate.relative_to_fp32 else ""
    return Verdict(gate.name, status, worst, gate.limit, itself + _detail(measurement))


def _why_nothing_fits(gate: Gate, measurements: Sequence[Measurement]) -> str:
    """Return why a gate has no measurement; the name of a class, a label or a subgroup may be mistyped."""
    of_variant = [m for m in measurements if m.variant == gate.variant]
    family, slash, _ = gate.metric.partition("/")
    wanted, known = None, set[str]()
    if slash and all(m.metric != gate.metric for m in of_variant):
        wanted, known = gate.metric, {m.metric for m in of_variant if m.metric.startswith(f"{family}/")}
    elif gate.subgroup is not None:
        named = (m.settings.get("subgroup") for m in of_variant if m.metric == gate.metric)
        wanted, known = gate.subgroup, {str(name) for name in named if name is not None}
    nearest = difflib.get_close_matches(wanted, sorted(known), n=1) if wanted else []
    return "not measured in this run" + (
        f"; did you mean {nearest[0]!r}?" if nearest and nearest[0] != wanted else ""
    )


def _fits(gate: Gate, measurement: Measurement) -> bool:
    return (
        measurement.metric == gate.metric
        and measurement.settings.get("subgroup") == gate.subgroup
        and gate.provider in (None, measurement.provider)
        and gate.threads in (None, measurement.settings.get("threads"))
        and gate.method in (None, measurement.settings.get("method"))
    )


def _value(gate: Gate, found: Measurement, measurements: Sequence[Measurement]) -> tuple[float | None, str]:
    if found.value is None:
        return None, f"not measured: {found.settings.get('reason', 'no reason given')}"
    if gate.relative_to_fp32 is None:
        return found.value, ""
    baseline = [m for m in measurements if m.variant == "fp32" and _fits(gate, m) and _same_place(m, found)]
    if not baseline or baseline[0].value is None:
        return None, "not measured for fp32, which it is held against"
    if gate.relative_to_fp32 == "difference":
        # Equal sums differ in their last bit; adding 0.0 turns the −0.0 that rounding may leave into 0.0.
        return round(found.value - baseline[0].value, 12) + 0.0, ""
    if baseline[0].value == 0:
        return None, "fp32's value is 0, so there is no ratio"
    return found.value / baseline[0].value, ""


def _same_place(one: Measurement, other: Measurement) -> bool:
    keys = ("threads", "method", "subgroup")
    same_settings = all(one.settings.get(key) == other.settings.get(key) for key in keys)
    return one.provider == other.provider and one.split == other.split and same_settings


def _detail(measurement: Measurement) -> str:
    unit = "" if measurement.unit == "share" else f" {measurement.unit}"
    value = measurement.value or 0.0
    parts = [f"{value:.0f}{unit}" if measurement.unit == "bytes" else f"{value:.4g}{unit}"]
    if measurement.ci95:
        parts.append(f"95 % {measurement.ci95[0]:.4g} to {measurement.ci95[1]:.4g}")
    if measurement.n is not None:
        parts.append(f"n = {measurement.n}")
    if "too_rare" in measurement.settings:
        rare = ", ".join(measurement.settings["too_rare"])
        parts.append(f"over {measurement.settings['labels']} labels, too few images of {rare}")
    return ", ".join(parts)
