"""The tables with one row per variant: at a glance, accuracy and size, latency."""

from __future__ import annotations

from foundation.metrics import METRICS
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import (
    LatencySetting,
    columns_of,
    deciding_metric,
    find,
    latency_settings,
    legend_of,
    method_name,
    rare_labels,
    saliency_methods,
)
from reports.tables import REFERENCE, Cell, Column, Row, Table, absent, cell, speedup_cell

MOST_LATENCY_COLUMNS = 10
_SIZE_COLUMNS = (Column(METRICS["size_bytes"].heading), Column(METRICS["size_against_fp32"].heading))


def at_a_glance(facts: Facts) -> Table:
    """Return the few numbers that decide, one row per variant."""
    settings = latency_settings(facts)
    methods = saliency_methods(facts)
    deciding = deciding_metric(facts)
    rows = []
    for variant in facts.variant_names:
        cells = (
            _size(facts, variant),
            against_baseline(facts, "size_against_fp32", variant),
            cell(find(facts, deciding.metric, variant)),
            against_baseline(facts, "agreement", variant),
            against_baseline(facts, "saliency_spearman", variant, saliency_method=methods[0] if methods else None),
            against_baseline(facts, "latency_speedup", variant, latency=settings[0] if settings else None),
        )
        rows.append(variant_row(facts, variant, cells))
    columns = (
        *_SIZE_COLUMNS,
        Column(deciding.row.heading),
        Column(METRICS["agreement"].heading),
        Column(f"Saliency Spearman with fp32{f' ({method_name(methods[0])})' if methods else ''}"),
        Column(f"Speed-up over fp32 ({settings[0]})" if settings else "Speed-up over fp32"),
    )
    return Table(
        "glance",
        "At a glance",
        "Variant",
        columns,
        tuple(rows),
        "Second lines are 95 % intervals. Where a speed-up's interval holds 1, the two are not distinguishable.",
    )


def accuracy_table(facts: Facts) -> Table:
    """Return size and every measure of the answers on the test images."""
    metrics = columns_of(facts, "answers")
    rows = tuple(
        variant_row(
            facts,
            variant,
            (
                _size(facts, variant),
                against_baseline(facts, "size_against_fp32", variant),
                *(against_baseline(facts, metric, variant) for metric in metrics),
            ),
        )
        for variant in facts.variant_names
    )
    # What is better low is said last, because it reads the other way.
    told = dict(sorted(metrics.items(), key=lambda one: not one[1].higher_is_better))
    tested = f" on {formats.count(len(facts.data.test), 'test image')}" if facts.data else ""
    return Table(
        "accuracy",
        f"Size and accuracy{tested}",
        "Variant",
        (*_SIZE_COLUMNS, *(Column(row.heading) for row in metrics.values())),
        rows,
        f"{legend_of(facts, told)}{_resampled(facts)}{_left_out(facts)}",
    )


def _resampled(facts: Facts) -> str:
    """Return whether the intervals draw groups of images."""
    groups = find(facts, "accuracy", BASELINE).remarks.get("resampled")
    return f" Intervals draw whole groups of images, such as patients: {groups}." if groups else ""


def _left_out(facts: Facts) -> str:
    rare = rare_labels(facts)
    return f" Means over labels leave out {formats.count(len(rare), 'label')} with too few images." if rare else ""


def latency_tables(facts: Facts) -> tuple[Table, ...]:
    """Return times and memory per provider and thread count, split so that a table fits on a page."""
    settings = latency_settings(facts)
    per_table = max(1, MOST_LATENCY_COLUMNS // len(columns_of(facts, "latency")))
    groups = [settings[start : start + per_table] for start in range(0, len(settings), per_table)]
    return tuple(_latency_table(facts, group, index, len(groups)) for index, group in enumerate(groups))


def _latency_table(facts: Facts, settings: tuple[LatencySetting, ...], index: int, of: int) -> Table:
    metrics = columns_of(facts, "latency")
    columns = tuple(Column(row.heading, str(setting)) for setting in settings for row in metrics.values())
    places = [(metric, setting) for setting in settings for metric in metrics]
    rows = tuple(
        variant_row(
            facts,
            variant,
            tuple(against_baseline(facts, metric, variant, latency=setting) for metric, setting in places),
        )
        for variant in facts.variant_names
    )
    part = f" ({index + 1} of {of})" if of > 1 else ""
    return Table(
        f"latency-{index}",
        f"Latency{part}",
        "Variant",
        columns,
        rows,
        f"{legend_of(facts, metrics)}{_timed(facts)}" if index + 1 == of else "",
    )


def _timed(facts: Facts) -> str:
    """Return how many calls of how many processes were timed, where that is one number, and if others were busy."""
    timed = [m for m in facts.measurements if m.metric == "latency_p50_ms" and m.n]
    counts = {(m.n, m.remarks.get("processes")) for m in timed}
    told = ""
    if len(counts) == 1:
        calls, processes = counts.pop()
        told = f" {formats.count(calls or 0, 'timed call')} each"
        if isinstance(processes, int):
            told += f", from {formats.count(processes, 'fresh process', 'fresh processes')}"
        told += "."
    busy = next((str(m.remarks["busy"]) for m in timed if "busy" in m.remarks), "")
    return f"{told} {busy}" if busy else told


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
    if variant == BASELINE and METRICS[metric].against_fp32:
        return REFERENCE
    measurement = find(facts, metric, variant, latency=latency, saliency_method=saliency_method)
    row = METRICS[metric]
    return speedup_cell(measurement) if row.unit == "×" and row.against_fp32 else cell(measurement)


def _size(facts: Facts, variant: str) -> Cell:
    size_bytes = _size_bytes(facts, variant)
    if size_bytes is None:
        return absent("no file was compiled")
    return Cell(formats.size(size_bytes))


def _size_bytes(facts: Facts, variant: str) -> int | None:
    return next((record.size_bytes for record in facts.record.variants if record.variant == variant), None)
