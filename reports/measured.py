"""Finding the measurement that belongs in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foundation.measurements import Measurement
from foundation.metrics import DECIDING_METRICS, METRICS, Metric, TableName, row_of, rows_of
from reports.facts import Facts

SALIENCY_TABLES: tuple[TableName, ...] = ("likeness", "faithfulness", "in_mask", "shape", "sanity", "cascade")
"""The tables, or parts of one, in which metrics of saliency maps stand."""

METHOD_NAMES = {
    "gradient_x_input": "gradient × input",
    "smooth_grad": "SmoothGrad",
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
    "rise": "RISE",
}
"""Saliency methods as their authors write them, where that is not the key itself."""


@dataclass(frozen=True)
class DecidingMetric:
    """The one measure of the answers that stands beside size and latency, with its row of `METRICS`."""

    metric: str
    row: Metric


def deciding_metric(facts: Facts) -> DecidingMetric:
    """Return the one that fits the task of a run."""
    metric = DECIDING_METRICS[facts.task]
    return DecidingMetric(metric, METRICS[metric])


def columns_of(facts: Facts, table: TableName) -> dict[str, Metric]:
    """Return the metrics that are columns of a table, by name.

    A metric that the run does not list is younger than the run, and left out; but where it lists none of the table's,
    all of them stand there as not measured.
    """
    rows = rows_of(table, facts.task)
    listed = {m.metric for m in facts.measurements}
    return {name: row for name, row in rows.items() if name in listed} or rows


def legend_of(facts: Facts, rows: Mapping[str, Metric]) -> str:
    """Return what stands below a table of metrics: their legends, in the order of the rows."""
    return " ".join(legend for row in rows.values() if (legend := row.definitions[facts.task].legend))


@dataclass(frozen=True, order=True)
class LatencySetting:
    """Where a latency was measured."""

    provider: str
    threads: int
    batch_size: int = 1

    def __str__(self) -> str:
        batch = f", {self.batch_size} images at once" if self.batch_size != 1 else ""
        return f"{self.provider}, {self.threads} thread{'' if self.threads == 1 else 's'}{batch}"


def find(
    facts: Facts,
    metric: str,
    variant: str,
    *,
    latency: LatencySetting | None = None,
    saliency_method: str | None = None,
    subgroup: str | None = None,
    per: str | None = None,
) -> Measurement:
    """Return one measurement of the test split, or one without a value whose remarks say why it is absent.

    Args:
        facts: the run's facts.
        metric: metric name, such as `sensitivity/polyp`.
        variant: variant name.
        latency: only the measurement taken there.
        saliency_method: only the one of this method; one without a method counts for every method.
        subgroup: only the one of these images; None: of all of them.
        per: only the one about these, such as patients; None: about images.
    """
    candidates = [m for m in facts.by_name.get((metric, variant, subgroup), ()) if m.where.per == per]
    if latency is not None:
        candidates = [m for m in candidates if _belongs_to(m, latency)]
    if saliency_method is not None:
        candidates = [m for m in candidates if m.where.method in (None, saliency_method)]
    if not candidates:
        return Measurement(metric, None, "", variant, remarks={"reason": _why_absent(facts, variant)})
    # Accuracy may be measured on several providers: the processor is the one that every machine has.
    return min(candidates, key=lambda m: (m.value is None, m.where.provider not in (None, "cpu")))


def reason_of(measurement: Measurement) -> str:
    """Return why a measurement has no value."""
    return measurement.reason or "the run gives no reason"


def latency_setting(measurement: Measurement) -> LatencySetting | None:
    """Return where a latency was measured; None where provider or threads are not recorded."""
    where = measurement.where
    if where.provider is None or where.threads is None:
        return None
    return LatencySetting(where.provider, where.threads, where.batch_size or 1)


def latency_settings(facts: Facts) -> tuple[LatencySetting, ...]:
    """Return every provider, thread count and batch size that was timed or meant to be, the cpu provider first."""
    found = {latency_setting(m) for m in facts.measurements if stands_in(m, "latency")}
    return tuple(
        sorted((setting for setting in found if setting is not None), key=lambda s: (s.provider != "cpu", s))
    )


def saliency_methods(facts: Facts) -> tuple[str, ...]:
    """Return the saliency methods in the order in which they were measured."""
    methods = (m.where.method for m in facts.measurements if stands_in(m, *SALIENCY_TABLES))
    return tuple(dict.fromkeys(method for method in methods if method is not None))


def method_name(method: str) -> str:
    """Return a saliency method as one writes it."""
    return METHOD_NAMES.get(method, method)


def stands_in(measurement: Measurement, *tables: TableName) -> bool:
    """Return whether a measurement belongs into one of the report's tables."""
    row = row_of(measurement.metric)
    return row is not None and row.table in tables


def rare_labels(facts: Facts) -> tuple[str, ...]:
    """Return the labels that the means over labels leave out, because too few test images have or lack them."""
    whole = (m for m in facts.measurements if m.where.subgroup is None)
    lists = (m.remarks["too_rare"] for m in whole if "too_rare" in m.remarks)
    return tuple(dict.fromkeys(str(name) for names in lists for name in names))


def _belongs_to(measurement: Measurement, latency: LatencySetting) -> bool:
    """Return whether a latency was taken there, or is absent for the whole provider or the whole variant."""
    if measurement.value is None and measurement.where.threads is None:
        return measurement.where.provider in (None, latency.provider)
    return latency_setting(measurement) == latency


def shown_unit(measurement: Measurement) -> str:
    """Return the unit to write: the one that the metric's row asks for, or the measurement's own."""
    row = row_of(measurement.metric)
    return (row.shown_as if row else None) or measurement.unit


def _why_absent(facts: Facts, variant: str) -> str:
    for stage in facts.record.stages:
        if not stage.succeeded and stage.subject == variant:
            return stage.error or f"stage {stage.name} failed"
    if not facts.measurements:
        return "the run holds no measurements"
    return "the run holds no such measurement"
