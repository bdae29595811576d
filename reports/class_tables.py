"""The tables with one row per class or subgroup and one column per variant."""

from __future__ import annotations

import math

import numpy as np

from reports import formats
from reports.facts import Facts
from reports.measured import find
from reports.tables import Cell, Column, Row, Table, absent, cell

CLASS_METRICS = {
    "sensitivity": ("Sensitivity", "Share of a class's images that were called that class."),
    "specificity": ("Specificity", "Share of the other classes' images that were not called that class."),
    "auroc": ("AUROC", "One class against all others."),
}


def class_tables(facts: Facts) -> tuple[Table, ...]:
    """Return sensitivity, specificity and AUROC per class; a metric that the run does not list is left out."""
    tables = []
    for metric, (heading, meaning) in CLASS_METRICS.items():
        if not any(m.metric.startswith(f"{metric}/") for m in facts.measurements):
            continue
        rows = tuple(
            Row(
                name,
                tuple(cell(find(facts, f"{metric}/{name}", variant)) for variant in facts.variant_names),
                _images(facts, index, others=metric == "specificity"),
            )
            for index, name in enumerate(facts.classes)
        )
        columns = tuple(Column(variant) for variant in facts.variant_names)
        tables.append(Table(f"class-{metric}", f"{heading} per class", "Class", columns, rows, meaning))
    return tuple(tables)


def subgroup_table(facts: Facts) -> Table | None:
    """Return accuracy per subgroup with Wilson intervals, counted from the predictions; None without subgroups."""
    if facts.data is None or not any(facts.data.test.subgroups):
        return None
    subgroups = np.asarray(facts.data.test.subgroups)
    rows = []
    for subgroup in sorted(set(facts.data.test.subgroups)):
        members = subgroups == subgroup
        cells = tuple(_accuracy_cell(facts, variant, members) for variant in facts.variant_names)
        rows.append(Row(subgroup or "unknown", cells, formats.count(int(members.sum()), "image")))
    columns = tuple(Column(variant) for variant in facts.variant_names)
    return Table(
        "subgroups",
        "Accuracy per subgroup",
        "Subgroup",
        columns,
        tuple(rows),
        "Counted from the predictions; Wilson 95 % intervals.",
    )


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return the Wilson 95 % score interval of a proportion.

    Args:
        successes: 0 to n.
        n: at least 1.

    Source: Wilson, JASA 22 (1927), equation for z = 1.959964.
    """
    z = 1.959963984540054
    proportion = successes / n
    centre = (proportion + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def _accuracy_cell(facts: Facts, variant: str, members: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Cell:
    predictions = facts.predictions.get(variant)
    if predictions is None or len(predictions.labels) != len(members):
        return absent("the run holds no predictions of this variant for these images")
    n = int(members.sum())
    correct = int((predictions.top1 == predictions.labels)[members].sum())
    return Cell(formats.percent(correct / n), formats.interval(*wilson_interval(correct, n), "share"))


def _images(facts: Facts, label: int, *, others: bool) -> str:
    if facts.data is None:
        return ""
    of_class = int((facts.data.test.labels == label).sum())
    if others:
        return formats.count(len(facts.data.test) - of_class, "image") + " of others"
    return formats.count(of_class, "image")
