"""Forest plots of what changed against fp32: per class or label, and per subgroup, with every variant."""

from __future__ import annotations

from foundation.measurements import Measurement
from foundation.metrics import METRICS
from reports import formats
from reports.class_tables import SIGNIFICANT
from reports.facts import BASELINE, Facts
from reports.forest import Entry, Forest, forest
from reports.measured import shown_unit
from reports.watch_out import FEW_IMAGES

MOST_ROWS = 40
"""Rows of a plot; of more, those with the largest loss."""


def class_forests(facts: Facts) -> tuple[Forest, ...]:
    """Return one plot per variant of each class's change: sensitivity of classes, AUROC of labels."""
    family = "auroc" if facts.task == "multi_label" else "sensitivity"
    plots = (_of_classes(facts, family, variant, number) for number, variant in enumerate(most_changed(facts)))
    return tuple(plot for plot in plots if plot is not None)


def most_changed(facts: Facts) -> tuple[str, ...]:
    """Return the variants, those whose answers changed most first."""
    changes = facts.image_by_image.answers.changes if facts.image_by_image else ()
    changed = {one.variant: one.changed for one in changes}
    others = (name for name in facts.variant_names if name != BASELINE)
    return tuple(sorted(others, key=lambda name: -changed.get(name, 0)))


def _of_classes(facts: Facts, family: str, variant: str, number: int) -> Forest | None:
    found = [
        m
        for m in facts.measurements
        if m.variant == variant
        and m.metric.startswith(f"{family}/")
        and m.where.subgroup is None
        and m.where.split in (None, "test")
        and m.difference is not None
    ]
    entries = [_entry(m.metric.partition("/")[2], m, _images(m)) for m in found]
    if not entries:
        return None
    heading = METRICS[f"{family}/CLASS"].heading
    kind = "label" if facts.task == "multi_label" else "class"
    unit = shown_unit(found[0])
    word = ", points" if unit == "share" else ""
    caption = (
        f"{variant} − fp32: {heading[:1].lower() + heading[1:] if heading != 'AUROC' else heading} per {kind}{word}"
    )
    return _plot(f"class-forest-{number}", caption, kind.capitalize(), entries, unit)


def subgroup_forests(facts: Facts) -> tuple[Forest, ...]:
    """Return one plot per variant of each subgroup's change in accuracy."""
    plots = []
    for number, variant in enumerate(most_changed(facts)):
        found = [
            m
            for m in facts.measurements
            if m.variant == variant and m.metric == "accuracy" and m.where.subgroup and m.difference is not None
        ]
        large = [m for m in found if (m.n or 0) >= FEW_IMAGES]
        if large:
            caption = f"{variant} − fp32: accuracy per subgroup, points"
            entries = [_entry(str(m.where.subgroup), m, _images(m)) for m in large]
            left_out = len(found) - len(large)
            told = f" Not drawn, with fewer than {FEW_IMAGES} images: {left_out}." if left_out else ""
            plots.append(_plot(f"subgroup-forest-{number}", caption, "Subgroup", entries, "share", told))
    return tuple(plots)


def _entry(name: str, one: Measurement, images: str) -> Entry:
    difference = one.difference
    assert difference is not None  # the callers asked
    emphasis, interval = "", difference.ci95
    if interval is not None and interval[1] < 0:
        emphasis = "worse"
    elif interval is not None and interval[0] > 0:
        emphasis = "better"
    p = difference.holm_p
    told = f", {formats.p_value(p)}" if p is not None and p <= SIGNIFICANT else ""
    detail = f"{formats.with_unit(one.value, shown_unit(one))} now, " if one.value is not None else ""
    return Entry(name, difference.value, interval, detail=f"{detail}{images}{told}", emphasis=emphasis)


def _images(one: Measurement) -> str:
    return formats.count(one.n, "image") if one.n else "n unknown"


def _plot(key: str, caption: str, corner: str, entries: list[Entry], unit: str, told: str = "") -> Forest:
    legend = (
        "Bars are 95 % intervals of the difference on the same images; a row whose bar leaves 0 out is marked. Of "
        f"twenty rows one does so by chance.{told}"
    )
    if len(entries) > MOST_ROWS:
        legend += f" The {MOST_ROWS} of {len(entries)} with the largest loss; report.json has all."
        entries = sorted(entries, key=lambda one: one.value or 0.0)[:MOST_ROWS]
    return forest(key, caption, corner, entries, unit, differences=True, legend=legend)
