"""The tables with one row per class or subgroup and one column per variant."""

from __future__ import annotations

from dataclasses import replace

from foundation.measurements import Measurement
from foundation.metrics import METRICS, Metric, row_name, rows_of
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import find, rare_labels
from reports.tables import Cell, Column, Row, Table, cell

MOST_CLASSES = 40
"""Rows of a table per class; a thousand would hide what matters."""

SIGNIFICANT = 0.05
SUBGROUP_LEGEND = (
    "A p stands where chance does not explain the difference from fp32: at most .05, corrected by Holm for the other "
    "subgroups of the table."
)


def class_tables(facts: Facts) -> tuple[Table, ...]:
    """Return each measure per class or label; a metric that the run does not list is left out."""
    tables = []
    kind = "Label" if facts.task == "multi_label" else "Class"
    for name, row in _in_order(facts):
        family, definition = name.removesuffix("/CLASS"), row.definitions[facts.task]
        if not any(m.metric.startswith(f"{family}/") for m in facts.measurements):
            continue
        shown = _shown_classes(facts, family)
        rows = tuple(
            Row(
                of_class,
                tuple(cell(find(facts, f"{family}/{of_class}", variant)) for variant in facts.variant_names),
                _images(facts, index, others=definition.sample == "others"),
            )
            for index, of_class in enumerate(facts.record.classes)
            if of_class in shown
        )
        columns = tuple(Column(variant) for variant in facts.variant_names)
        caption = f"{row.heading} per {kind.lower()}"
        legend = definition.legend + _left_out(facts, family, len(shown))
        tables.append(Table(f"class-{family}", caption, kind, columns, rows, legend))
    return tuple(tables)


def _measured_classes(facts: Facts, family: str) -> list[str]:
    return [name for name in facts.record.classes if (f"{family}/{name}", BASELINE, None) in facts.by_name]


def _shown_classes(facts: Facts, family: str) -> frozenset[str]:
    """Return the classes that get a row: all, or of very many those with fp32's lowest values."""
    measured = _measured_classes(facts, family)
    if len(measured) <= MOST_CLASSES:
        return frozenset(measured or facts.record.classes)
    values = {name: find(facts, f"{family}/{name}", BASELINE).value for name in measured}
    lowest = sorted(measured, key=lambda name: (values[name] is None, values[name] or 0.0))
    return frozenset(lowest[:MOST_CLASSES])


def _left_out(facts: Facts, family: str, shown: int) -> str:
    measured = len(_measured_classes(facts, family))
    if measured <= shown:
        return ""
    return f" The {shown} classes of {measured} with fp32's lowest values; report.json has all."


def _in_order(facts: Facts) -> list[tuple[str, Metric]]:
    """Return the metrics: of classes the shares that are answered right first, of labels how they are ordered.

    Most labels are too rare to reach probability 0.5.
    """
    rows = rows_of("classes", facts.task).items()
    answers_first = facts.task == "multi_class"
    in_order = sorted(rows, key=lambda one: (one[1].definitions[facts.task].sample == "all") == answers_first)
    return [*in_order, *rows_of("calibration", facts.task).items()]


def rare_sentence(facts: Facts) -> str:
    """Return which labels too few images have or lack to be measured, each with its images; "" where none is."""
    rare = rare_labels(facts)
    if not rare:
        return ""
    of_all = f" of {len(facts.data.test)}" if facts.data else ""
    counts = {name: f"{_images_of(facts, index)}{of_all}" for index, name in enumerate(facts.record.classes)}
    listed = ", ".join(f"{name} ({counts[name]})" if facts.data and name in counts else name for name in rare)
    return (
        "Too few test images have the label, or lack it, for an AUROC or an average precision; left out of the means "
        f"over labels: {listed}."
    )


def subgroup_tables(facts: Facts) -> tuple[Table, ...]:
    """Return one table per measure of the subgroups; of two classes those of the second one stand there too."""
    metrics = ["accuracy", "balanced_accuracy", "auroc_macro"]
    if facts.task == "multi_class" and len(facts.record.classes) == 2:
        metrics += [f"{family}/{facts.record.classes[1]}" for family in ("sensitivity", "specificity", "auroc")]
    tables = (_subgroup_table(facts, metric) for metric in metrics)
    return tuple(table for table in tables if table is not None)


def _subgroup_table(facts: Facts, metric: str) -> Table | None:
    images: dict[str, int] = {}
    for measurement in facts.measurements:
        if measurement.metric == metric and measurement.where.subgroup is not None:
            subgroup, n = measurement.where.subgroup, measurement.n or 0
            images[subgroup] = max(n, images.get(subgroup, 0))
    told = [subgroup for subgroup in sorted(images) if images[subgroup]]
    if not told:
        return None
    rows = tuple(
        Row(
            subgroup,
            tuple(_with_p(find(facts, metric, variant, subgroup=subgroup)) for variant in facts.variant_names),
            formats.count(images[subgroup], "image"),
        )
        for subgroup in told
    )
    row, of_class = METRICS[row_name(metric)], metric.partition("/")[2]
    caption = f"{row.heading}{f' of {of_class}' if of_class else ''} per subgroup"
    columns = tuple(Column(variant) for variant in facts.variant_names)
    silent = [subgroup for subgroup in sorted(images) if not images[subgroup]]
    legend = SUBGROUP_LEGEND
    if silent:
        legend += f" Not measured, since images of a class are missing or too few: {', '.join(silent)}."
    return Table(f"subgroups-{metric.partition('/')[0]}", caption, "Subgroup", columns, rows, legend)


def _with_p(measurement: Measurement) -> Cell:
    """Return a cell whose difference from fp32 has its p, where chance does not explain it."""
    shown, change = cell(measurement), measurement.difference
    if change is None or change.holm_p is None or change.holm_p > SIGNIFICANT:
        return shown
    return replace(shown, remark=f"{shown.remark}, {formats.p_value(change.holm_p)}")


def _images(facts: Facts, label: int, *, others: bool) -> str:
    if facts.data is None:
        return ""
    of_class = _images_of(facts, label)
    if not others:
        return formats.count(of_class, "image")
    what = " without" if facts.task == "multi_label" else " of others"
    return formats.count(len(facts.data.test) - of_class, "image") + what


def _images_of(facts: Facts, label: int) -> int:
    """Return how many test images have a class or label; 0 where the images are gone."""
    if facts.data is None:
        return 0
    labels = facts.data.test.labels
    return int(((labels == label) if labels.ndim == 1 else labels[:, label] == 1).sum())
