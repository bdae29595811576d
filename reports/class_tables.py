"""The tables with one row per class or subgroup and one column per variant."""

from __future__ import annotations

from collections.abc import Mapping

from calibration_data.prepared import Task
from reports import formats
from reports.facts import Facts
from reports.measured import find, rare_labels
from reports.tables import Column, Row, Table, cell

CLASS_METRICS: Mapping[Task, Mapping[str, tuple[str, str]]] = {
    "multi_class": {
        "sensitivity": ("Sensitivity", "Share of a class's images that were called that class."),
        "specificity": ("Specificity", "Share of the other classes' images that were not called that class."),
        "auroc": ("AUROC", "One class against all others; no interval where the sample separates them perfectly."),
        "average_precision": (
            "Average precision",
            "Mean precision over a class's images, one class against all others; chance scores the class's share. "
            "With few images an interval covers a little less than 95 %.",
        ),
    },
    "multi_label": {
        "auroc": ("AUROC", "Images with the label against images without; chance scores 0.5."),
        "average_precision": (
            "Average precision",
            "Mean precision over the images with the label; chance scores the label's share of the images. With few "
            "images an interval covers a little less than 95 %.",
        ),
        "sensitivity": ("Sensitivity", "Share of the images with the label that were answered yes (above 0.5)."),
        "specificity": ("Specificity", "Share of the images without the label that were answered no."),
    },
}


def class_tables(facts: Facts) -> tuple[Table, ...]:
    """Return each measure per class or label; a metric that the run does not list is left out."""
    tables = []
    kind = "Label" if facts.task == "multi_label" else "Class"
    for metric, (heading, meaning) in CLASS_METRICS[facts.task].items():
        if not any(m.metric.startswith(f"{metric}/") for m in facts.measurements):
            continue
        rows = tuple(
            Row(
                name,
                tuple(cell(find(facts, f"{metric}/{name}", variant)) for variant in facts.variant_names),
                _images(facts, index, others=metric == "specificity"),
            )
            for index, name in enumerate(facts.record.classes)
        )
        columns = tuple(Column(variant) for variant in facts.variant_names)
        caption = f"{heading} per {kind.lower()}"
        tables.append(Table(f"class-{metric}", caption, kind, columns, rows, meaning))
    return tuple(tables)


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


def subgroup_table(facts: Facts) -> Table | None:
    """Return accuracy per subgroup; None where the run measured none."""
    images: dict[str, int] = {}
    for measurement in facts.measurements:
        if measurement.metric == "accuracy" and measurement.where.subgroup is not None:
            images.setdefault(measurement.where.subgroup, measurement.n or 0)
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
