"""The tables with one row per variant: at a glance, accuracy and size, saliency, latency."""

from __future__ import annotations

from collections.abc import Mapping

from calibration_data.prepared import Task
from pipeline.artifacts import Measurement
from reports import formats
from reports.facts import BASELINE, RANDOM_MAP, Facts
from reports.measured import (
    SALIENCY_METRICS,
    LatencySetting,
    any_measured,
    find,
    headline,
    latency_settings,
    rare_labels,
    saliency_methods,
)
from reports.tables import REFERENCE, Cell, Column, Row, Table, absent, cell, speedup_cell

COMPARED_WITH_BASELINE = frozenset(
    {"agreement", "logits_sqnr_db", "saliency_spearman", "saliency_ssim", "saliency_top10_overlap", "latency_speedup"}
)
MOST_LATENCY_COLUMNS = 9
SALIENCY_LEGENDS: Mapping[Task, str] = {
    "multi_class": "Pointing game: share of images whose map peaks inside the lesion. Mass in mask: share of the "
    "map's weight inside the lesion. Every map explains fp32's answer, also where that is wrong. Read each number "
    "against the random map's.",
    "multi_label": "Pointing game: share of images whose map peaks inside the finding. Mass in mask: share of the "
    "map's weight inside the finding. A map explains the label whose finding the mask shows, and without a mask the "
    "one that fp32 scores highest. Read each number against the random map's.",
}
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
            _against_baseline(facts, "agreement", variant),
            _against_baseline(facts, "saliency_spearman", variant, saliency_method=methods[0] if methods else None),
            _against_baseline(facts, "latency_speedup", variant, latency=settings[0] if settings else None),
        )
        rows.append(_row(facts, variant, cells))
    columns = (
        Column("Size"),
        Column("Size, × fp32"),
        Column(deciding.heading),
        Column("Agreement with fp32"),
        Column("Saliency Spearman with fp32"),
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
        _row(
            facts,
            variant,
            (
                _size(facts, variant),
                _ratio(facts, variant),
                *(_against_baseline(facts, metric, variant) for metric in metrics),
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
    groups = find(facts, "accuracy", BASELINE).settings.get("resampled")
    return f" Intervals draw whole groups of images, such as patients: {groups}." if groups else ""


def _left_out(facts: Facts) -> str:
    rare = rare_labels(facts)
    return f" Means over labels leave out {formats.count(len(rare), 'label')} with too few images." if rare else ""


def saliency_tables(facts: Facts) -> tuple[Table, ...]:
    """Return one table per saliency method, the random map's row last; empty where no saliency was asked for."""
    if not any(m.metric in SALIENCY_METRICS for m in facts.measurements):
        return ()
    methods: tuple[str | None, ...] = saliency_methods(facts) or (None,)
    return tuple(
        _saliency_table(facts, method, first=index == 0, last=index + 1 == len(methods))
        for index, method in enumerate(methods)
    )


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


def _saliency_table(facts: Facts, method: str | None, *, first: bool, last: bool) -> Table:
    headings = {
        "saliency_spearman": "Spearman with fp32",
        "saliency_ssim": "SSIM with fp32",
        "saliency_top10_overlap": "Top-10 % overlap with fp32",
        "pointing_game": "Pointing game",
        "mass_in_mask": "Mass in mask",
    }
    of_method = [
        m for m in facts.measurements if m.metric in headings and m.settings.get("method") in ((method, None))
    ]
    compiled = facts.variant_names if first else tuple(v for v in facts.variant_names if _has(of_method, v))
    random_map = (RANDOM_MAP,) if any(m.variant == RANDOM_MAP for m in facts.measurements) else ()
    rows = []
    for variant in (*compiled, *random_map):
        cells = tuple(_against_baseline(facts, metric, variant, saliency_method=method) for metric in headings)
        if variant == RANDOM_MAP:
            rows.append(Row("random map", cells, "what chance scores", "chance"))
        else:
            rows.append(_row(facts, variant, cells))
    images = {m.n for m in of_method if m.n}
    sample = f", {formats.count(max(images), 'image')}" if images else ""
    return Table(
        f"saliency-{0 if first else method}",
        f"Saliency{f' by {method}' if method else ''}{sample}",
        "Variant",
        tuple(Column(heading) for heading in headings.values()),
        tuple(rows),
        SALIENCY_LEGENDS[facts.task] if last else "",
    )


def _has(measurements: list[Measurement], variant: str) -> bool:
    return any(m.variant == variant for m in measurements)


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
            cells.append(_against_baseline(facts, "latency_speedup", variant, latency=setting))
            if with_memory:
                cells.append(cell(find(facts, "peak_memory_bytes", variant, latency=setting)))
        rows.append(_row(facts, variant, tuple(cells)))
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


def _row(facts: Facts, variant: str, cells: tuple[Cell, ...]) -> Row:
    methods = {record.variant: record.method for record in facts.variants}
    detail = methods.get(variant, "not compiled")
    return Row(variant, cells, "" if detail == variant else detail, "baseline" if variant == BASELINE else "")


def _against_baseline(
    facts: Facts,
    metric: str,
    variant: str,
    *,
    latency: LatencySetting | None = None,
    saliency_method: str | None = None,
) -> Cell:
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
    return next((record.size_bytes for record in facts.variants if record.variant == variant), None)
