"""The tables with one row per class or subgroup and one column per variant."""

from __future__ import annotations

from reports import formats
from reports.facts import Facts
from reports.measured import find
from reports.tables import Column, Row, Table, cell

CLASS_METRICS = {
    "sensitivity": ("Sensitivity", "Share of a class's images that were called that class."),
    "specificity": ("Specificity", "Share of the other classes' images that were not called that class."),
    "auroc": ("AUROC", "One class against all others; no interval where the sample separates them perfectly."),
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
    """Return accuracy per subgroup; None where the run measured none."""
    images: dict[str, int] = {}
    for measurement in facts.measurements:
        if measurement.metric == "accuracy" and "subgroup" in measurement.settings:
            images.setdefault(str(measurement.settings["subgroup"]), measurement.n or 0)
    if not images:
        return None
    rows = tuple(
        Row(
            subgroup,
            tuple(cell(find(facts, "accuracy", variant, subgroup=subgroup)) for variant in facts.variant_names),
            formats.count(images[subgroup], "image"),
        )
        for subgroup in sorted(images)
    )
    columns = tuple(Column(variant) for variant in facts.variant_names)
    return Table("subgroups", "Accuracy per subgroup", "Subgroup", columns, rows)


def _images(facts: Facts, label: int, *, others: bool) -> str:
    if facts.data is None:
        return ""
    of_class = int((facts.data.test.labels == label).sum())
    if others:
        return formats.count(len(facts.data.test) - of_class, "image") + " of others"
    return formats.count(of_class, "image")
