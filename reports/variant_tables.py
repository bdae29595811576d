"""The tables with one row per variant: at a glance, accuracy and size, latency."""

from __future__ import annotations

from collections.abc import Mapping

from calibration_data.prepared import Task
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import (
    LatencySetting,
    any_measured,
    find,
    headline,
    latency_settings,
    method_name,
    rare_labels,
    saliency_methods,
)
from reports.tables import REFERENCE, Cell, Column, Row, Table, absent, cell, speedup_cell

COMPARED_WITH_BASELINE = frozenset(
    {"agreement", "logits_sqnr_db", "saliency_spearman", "saliency_ssim", "saliency_top10_overlap", "latency_speedup"}
)
MOST_LATENCY_COLUMNS = 9
ANSWER_LEGENDS: Mapping[Task, str] = {
    "multi_class": "Agreement: share of images with fp32's top-1 answer.",
    "multi_label": "Accuracy and agreement: share of all yes/no decisions, at probability 0.5. Balanced accuracy: "
    "mean over the labels of half the sum of sensitivity and specificity.",
}


def at_a_glance(facts: Facts) -> Table:
    """Return the few numbers that decide, one row per variant."""
    settings = latency_settings(facts)
    methods = saliency_methods(facts)
    deciding = headline(facts)
    rows = []
    for variant in facts.variant_names:
        cells = (
            _size(facts, variant),
            _ratio(facts, variant),
            cell(find(facts, deciding.metric, variant)),
            against_baseline(facts, "agreement", variant),
            against_baseline(facts, "saliency_spearman", variant, saliency_method=methods[0] if methods else None),
            against_baseline(facts, "latency_speedup", variant, latency=settings[0] if settings else None),
        )
        rows.append(variant_row(facts, variant, cells))
    columns = (
        Column("Size"),
        Column("Size, × fp32"),
        Column(deciding.heading),
        Column("Agreement with fp32"),
        Column(f"Saliency Spearman with fp32{f' ({method_name(methods[0])})' if methods else ''}"),
        Column(f"Speed-up over fp32 ({settings[0]})" if settings else "Speed-up over fp32"),
    )
    return Table(
        "glance",
        "At a glance",
        "Variant",
        columns,
        tuple(rows),
        "Second lines are 95 % intervals. A speed-up whose interval holds 1 is no clear difference.",
    )


def accuracy_table(facts: Facts) -> Table:
    """Return size and every measure of the answers on the test images."""
    metrics = {
        "accuracy": "Accuracy",
        "balanced_accuracy": "Balanced accuracy",
        "auroc_macro": "AUROC, macro",
        "average_precision_macro": "Average precision, macro",
        "ece": "ECE",
        "brier": "Brier score",
        "agreement": "Agreement with fp32",
        "logits_sqnr_db": "SQNR of the logits",
    }
    # Average precision is younger than the format of a run.
    if not any(m.metric == "average_precision_macro" for m in facts.measurements):
        del metrics["average_precision_macro"]
    rows = tuple(
        variant_row(
            facts,
            variant,
            (
                _size(facts, variant),
                _ratio(facts, variant),
                *(against_baseline(facts, metric, variant) for metric in metrics),
            ),
        )
        for variant in facts.variant_names
    )
    tested = f" on {formats.count(len(facts.data.test), 'test image')}" if facts.data else ""
    return Table(
        "accuracy",
        f"Size and accuracy{tested}",
        "Variant",
        (Column("Size"), Column("Size, × fp32"), *(Column(heading) for heading in metrics.values())),
        rows,
        f"{ANSWER_LEGENDS[facts.task]} SQNR: power of fp32's logits over the power of the "
        "difference; 20 dB is an error of a tenth. ECE and Brier score: lower is better; ECE has no "
        f"interval, because a bootstrap of it is biased upwards.{_resampled(facts)}{_left_out(facts)}",
    )


def _resampled(facts: Facts) -> str:
    """Return whether the intervals draw groups of images."""
    groups = find(facts, "accuracy", BASELINE).remarks.get("resampled")
    return f" Intervals draw whole groups of images, such as patients: {groups}." if groups else ""


def _left_out(facts: Facts) -> str:
    rare = rare_labels(facts)
    return f" Means over labels leave out {formats.count(len(rare), 'label')} with too few images." if rare else ""


def latency_tables(facts: Facts) -> tuple[Table, ...]:
    """Return p50, p90 and speed-up per provider and thread count, split so that a table fits on a page."""
    settings = latency_settings(facts)
    with_memory = any_measured(facts, ("peak_memory_bytes",))
    per_table = max(1, MOST_LATENCY_COLUMNS // (4 if with_memory else 3))
    groups = [settings[start : start + per_table] for start in range(0, len(settings), per_table)]
    return tuple(
        _latency_table(facts, group, index, len(groups), with_memory=with_memory)
        for index, group in enumerate(groups)
    )


def _latency_table(
    facts: Facts, settings: tuple[LatencySetting, ...], index: int, of: int, *, with_memory: bool
) -> Table:
    columns: list[Column] = []
    for setting in settings:
        headings = ["p50", "p90", "Speed-up"] + (["Peak memory"] if with_memory else [])
        columns += [Column(heading, str(setting)) for heading in headings]
    rows = []
    for variant in facts.variant_names:
        cells: list[Cell] = []
        for setting in settings:
            cells.append(cell(find(facts, "latency_p50_ms", variant, latency=setting)))
            cells.append(cell(find(facts, "latency_p90_ms", variant, latency=setting)))
            cells.append(against_baseline(facts, "latency_speedup", variant, latency=setting))
            if with_memory:
                cells.append(cell(find(facts, "peak_memory_bytes", variant, latency=setting)))
        rows.append(variant_row(facts, variant, tuple(cells)))
    part = f" ({index + 1} of {of})" if of > 1 else ""
    return Table(
        f"latency-{index}",
        f"Latency of one image{part}",
        "Variant",
        tuple(columns),
        tuple(rows),
        _latency_legend(facts) if index + 1 == of else "",
    )


def _latency_legend(facts: Facts) -> str:
    counts = {m.n for m in facts.measurements if m.metric == "latency_p50_ms" and m.n}
    timed = f" {formats.count(counts.pop(), 'timed call')} each." if len(counts) == 1 else ""
    return (
        "p50 and p90: half and nine tenths of the calls were at least this fast. Speed-up: fp32's median time over "
        f"the variant's, from interleaved rounds; an interval that holds 1 is no clear difference.{timed}"
    )


def variant_row(facts: Facts, variant: str, cells: tuple[Cell, ...]) -> Row:
    """Return a variant's row, with the method that compiled it below its name."""
    methods = {record.variant: record.method for record in facts.record.variants}
    detail = methods.get(variant, "not compiled")
    return Row(variant, cells, "" if detail == variant else detail, "baseline" if variant == BASELINE else "")


def against_baseline(
    facts: Facts,
    metric: str,
    variant: str,
    *,
    latency: LatencySetting | None = None,
    saliency_method: str | None = None,
) -> Cell:
    """Return a measurement's cell; fp32's own is the reference where the metric compares with it."""
    if variant == BASELINE and metric in COMPARED_WITH_BASELINE:
        return REFERENCE
    measurement = find(facts, metric, variant, latency=latency, saliency_method=saliency_method)
    return speedup_cell(measurement) if metric == "latency_speedup" else cell(measurement)


def _size(facts: Facts, variant: str) -> Cell:
    size_bytes = _size_bytes(facts, variant)
    if size_bytes is None:
        return absent("no file was compiled")
    return Cell(formats.size(size_bytes))


def _ratio(facts: Facts, variant: str) -> Cell:
    if variant == BASELINE:
        return REFERENCE
    size_bytes, baseline_bytes = _size_bytes(facts, variant), _size_bytes(facts, BASELINE)
    if size_bytes is None or not baseline_bytes:
        return absent("no file was compiled")
    return Cell(formats.significant(size_bytes / baseline_bytes, 2))


def _size_bytes(facts: Facts, variant: str) -> int | None:
    return next((record.size_bytes for record in facts.record.variants if record.variant == variant), None)
