"""Gates as a reviewer reads them: what was asked, what was found, with one way to write each kind of number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from foundation.files import JSON
from foundation.metrics import row_of
from foundation.record import Verdict
from reports import formats
from reports.decision import judged_as_it_stands, judged_difference, variant_of
from reports.facts import Facts
from reports.forest import Entry, Forest, forest, limit_text, written
from reports.measured import shown_unit

Kind = Literal["level", "difference", "ratio"]

STATUS_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "inconclusive": "cannot be told",
    "missing": "not measured",
    "done": "done",
    "reused": "reused",
    "not_measured": "not measured",
}


@dataclass(frozen=True)
class GateRow:
    """One gate.

    Attributes:
        gate: the criterion as the configuration names it.
        variant: the file that it is about.
        what: the metric and the place, in words.
        kind: whether a level, a difference or a ratio is held against the limit.
        unit: of value and limit.
        value: what was held against the limit.
        interval: its 95 % interval; None where there is none.
        limit: the bound.
        upper: whether what lies above the limit fails.
        status: the outcome.
        detail: why it is missing, or what else is to be known.
    """

    gate: str
    variant: str
    what: str
    kind: Kind
    unit: str
    value: float | None
    interval: tuple[float, float] | None
    limit: float
    upper: bool
    status: str
    detail: str

    @property
    def value_text(self) -> str:
        """What was found, with its interval."""
        if self.value is None:
            return formats.NOT_MEASURED
        return written(self.value, self.interval, self.unit, self.kind == "difference")

    @property
    def limit_text(self) -> str:
        """The bound, written as the value is."""
        return limit_text(self.limit, self.unit, self.kind == "difference")

    @property
    def sentence(self) -> str:
        """The gate and its outcome in words."""
        against = " against fp32" if self.kind == "difference" else ""
        bound = "at most" if self.upper else "at least"
        return f"{self.variant}: {self.what} {self.value_text}{against}; {bound} {self.limit_text} was asked"


def gate_rows(facts: Facts) -> tuple[GateRow, ...]:
    """Return the gates in the order of the configuration."""
    verdicts = facts.record.verdicts
    asked = facts.record.configuration.get("gates")
    settings = asked if isinstance(asked, list) and len(asked) == len(verdicts) else [None] * len(verdicts)
    return tuple(_row(verdict, of) for verdict, of in zip(verdicts, settings, strict=True))


def gate_forests(facts: Facts, rows: Sequence[GateRow]) -> tuple[Forest, ...]:
    """Return one plot for each kind of number that gates are set on, the differences first."""
    order: Mapping[Kind, int] = {"difference": 0, "level": 1, "ratio": 2}
    kinds = sorted({(order[row.kind], row.unit, row.kind) for row in rows})
    plots = []
    for number, (_, unit, kind) in enumerate(kinds):
        chosen = [row for row in rows if (row.kind, row.unit) == (kind, unit)]
        word = {"share": "points" if kind == "difference" else "%", "bytes": "", "×": "×"}.get(unit, unit)
        what = {"difference": "Difference from fp32", "ratio": "Ratio to fp32", "level": "Value"}[kind]
        entries = [
            Entry(
                f"{row.variant}: {row.what}",
                row.value,
                row.interval,
                row.limit,
                row.detail,
                row.status,
                upper=row.upper,
            )
            for row in chosen
        ]
        plots.append(
            forest(
                f"gates-{number}",
                f"{what}{f', {word}' if word else ''}",
                "Criterion",
                entries,
                unit,
                differences=kind == "difference",
                no_effect=1.0 if kind == "ratio" else None,
            )
        )
    return tuple(plots)


def _row(verdict: Verdict, settings: Mapping[str, JSON] | None) -> GateRow:
    kind, measurement = _kind(verdict, settings), verdict.measurement
    unit = shown_unit(measurement) if measurement else _unit_of(settings)
    difference, level = judged_difference(verdict), judged_as_it_stands(verdict)
    interval = None
    if kind == "difference" and difference is not None:
        interval = difference.ci95
    elif kind == "difference" and measurement is not None and measurement.difference is not None:
        same = verdict.value is not None and abs(measurement.difference.value - verdict.value) < 1e-9
        interval = measurement.difference.ci95 if same else None
    elif level is not None:
        interval = level.ci95
    return GateRow(
        verdict.gate,
        variant_of(verdict),
        _what(verdict),
        kind,
        "×" if kind == "ratio" else unit,
        verdict.value,
        interval,
        verdict.limit,
        _is_upper(verdict, settings),
        verdict.status,
        _detail(verdict, kind),
    )


def _kind(verdict: Verdict, settings: Mapping[str, JSON] | None) -> Kind:
    if isinstance(settings, Mapping):
        if settings.get("noninferior_to") or settings.get("equivalent_to"):
            return "difference"
        relative = settings.get("relative_to_fp32")
        return relative if relative in ("difference", "ratio") else "level"
    if verdict.against is not None:
        return "ratio" if " / fp32" in verdict.gate else "difference"
    return (
        "difference" if judged_difference(verdict) is not None and judged_as_it_stands(verdict) is None else "level"
    )


def _is_upper(verdict: Verdict, settings: Mapping[str, JSON] | None) -> bool:
    if isinstance(settings, Mapping):
        if settings.get("at_most") is not None:
            return True
        if settings.get("margin") is not None:
            return verdict.limit > 0
        return False
    return " ≤ " in verdict.gate


def _unit_of(settings: Mapping[str, JSON] | None) -> str:
    row = row_of(str(settings.get("metric"))) if isinstance(settings, Mapping) else None
    return (row.shown_as or row.unit) if row is not None else ""


def _what(verdict: Verdict) -> str:
    """Return the metric with its place, in the report's words."""
    measurement = verdict.measurement
    if measurement is None:
        return verdict.gate.partition(": ")[2] or verdict.gate
    row, of_class = row_of(measurement.metric), measurement.metric.partition("/")[2]
    heading = row.heading if row is not None else measurement.metric
    where = measurement.where
    place = (
        of_class,
        where.method.replace("_", " ") if where.method else "",
        where.subgroup or "",
        where.change or "",
        f"per {where.per}" if where.per else "",
        f"{where.provider}, {formats.count(where.threads, 'thread')}" if where.threads else "",
    )
    told = ", ".join(part for part in place if part)
    return f"{heading}{f' ({told})' if told else ''}"


def _detail(verdict: Verdict, kind: Kind) -> str:
    measurement = verdict.measurement
    if verdict.status in ("missing", "inconclusive"):
        return verdict.detail
    if measurement is None:
        return ""
    parts = [verdict.detail.partition(":")[0]] if verdict.detail.startswith("worst of ") else []
    if measurement.n:
        images = "image" if measurement.where.split == "test" or measurement.difference else ""
        parts.append(formats.count(measurement.n, images) if images else f"n = {measurement.n}")
    if "labels" in measurement.remarks:
        parts.append(f"mean over {measurement.remarks['labels']} labels")
    if kind == "ratio" and measurement.value is not None:
        parts.append(f"itself {formats.with_unit(measurement.value, shown_unit(measurement))}")
    return ", ".join(parts)
