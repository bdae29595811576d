"""The tables of what saliency maps are worth: per method, per lesion size, and the sanity check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration_data.prepared import Task
from foundation.measurements import CENTRE_PRIOR, RANDOM_MAP, UNINFORMED, Measurement
from foundation.metrics import Metric, TableName, rows_of
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import (
    SALIENCY_TABLES,
    columns_of,
    find,
    legend_of,
    method_name,
    reason_of,
    saliency_methods,
    stands_in,
)
from reports.tables import Cell, Column, Row, Table, absent, cell
from reports.variant_tables import against_baseline, variant_row

GROUPS: tuple[TableName, ...] = ("likeness", "faithfulness", "in_mask", "shape")
"""The parts of a method's table, in their order."""
SIZES = ("small", "medium", "large")
SUBGROUPS = tuple(f"{size} lesions" for size in SIZES)

KNOW_NOTHING = {
    RANDOM_MAP: ("random map", "what chance scores"),
    CENTRE_PRIOR: ("centre prior", "spot in the middle"),
}

LESION: Mapping[Task, str] = {"multi_class": "lesion", "multi_label": "finding"}
EXPLAINED: Mapping[Task, str] = {
    "multi_class": "Every map explains fp32's answer, also where that is wrong.",
    "multi_label": "A map explains the label whose finding the mask shows, and without a mask the one that fp32 "
    "scores highest.",
}


def saliency_tables(facts: Facts) -> tuple[Table, ...]:
    """Return one table per saliency method, those by lesion size, and the sanity check.

    The maps that know nothing come last in each; the tuple is empty where no saliency was asked for.
    """
    if not any(stands_in(m, *SALIENCY_TABLES) for m in facts.measurements):
        return ()
    methods: tuple[str | None, ...] = saliency_methods(facts) or (None,)
    tables = [
        _method_table(facts, method, first=index == 0, last=index + 1 == len(methods))
        for index, method in enumerate(methods)
    ]
    return (*tables, *_size_tables(facts, methods), *_sanity_tables(facts, methods), *_cascade_tables(facts, methods))


def _method_table(facts: Facts, method: str | None, *, first: bool, last: bool) -> Table:
    of_method = [m for m in facts.measurements if stands_in(m, *GROUPS) and m.where.method in (method, None)]
    whole = [m for m in of_method if m.where.subgroup is None]
    headings: Mapping[TableName, str] = {
        "likeness": f"Likeness to {BASELINE}'s map",
        "faithfulness": "Faithfulness",
        "in_mask": f"Meeting the {LESION[facts.task]}",
        "shape": "The map alone",
    }
    # Not every data set has masks.
    shown: list[TableName] = [group for group in GROUPS if group == "likeness" or _any(whole, group)]
    metrics = {group: _rows_of(facts, group) for group in shown}
    columns = tuple(Column(row.heading, headings[group]) for group in shown for row in metrics[group].values())
    names = [name for group in shown for name in metrics[group]]
    rows = []
    for variant in _variants(facts, whole, every=first):
        cells = tuple(against_baseline(facts, metric, variant, saliency_method=method) for metric in names)
        rows.append(_row(facts, variant, cells))
    images = {m.n for m in whole if m.n}
    sample = f", {formats.count(max(images), 'image')}" if images else ""
    return Table(
        f"saliency-{0 if first else method}",
        f"Saliency{f' by {method_name(method)}' if method else ''}{sample}",
        "Variant",
        columns,
        tuple(rows),
        _legend(facts, shown, whole) if last else "",
    )


def _rows_of(facts: Facts, group: TableName) -> Mapping[str, Metric]:
    """Return the columns of a group; of what a map is alone, those that the run was asked for."""
    return columns_of(facts, group) if group == "shape" else rows_of(group, facts.task)


def _legend(facts: Facts, shown: Sequence[TableName], measured: Sequence[Measurement]) -> str:
    parts = [legend_of(facts, _rows_of(facts, group)) for group in shown]
    tolerances = {m.remarks["tolerance_px"] for m in measured if "tolerance_px" in m.remarks}
    parts += [f"The pointing game counts a peak within {px} px of the {LESION[facts.task]} too." for px in tolerances]
    if "in_mask" not in shown:
        reasons = dict.fromkeys(reason_of(m) for m in measured if stands_in(m, "in_mask"))
        parts.append(f"How maps meet masks is not measured: {'; '.join(reasons)}." if reasons else "")
    parts.append(f"{EXPLAINED[facts.task]} Read each number against those of the maps that know nothing.")
    return " ".join(part for part in parts if part)


def _size_tables(facts: Facts, methods: Sequence[str | None]) -> tuple[Table, ...]:
    """Return one table per method by lesion size, for the methods where a size has enough masks."""
    of_size = [m for m in facts.measurements if stands_in(m, "in_mask") and m.where.subgroup in SUBGROUPS]
    measured = {method: [m for m in of_size if m.where.method == method] for method in methods}
    shown = [method for method in methods if _any(measured[method], "in_mask")]
    metrics = rows_of("in_mask", facts.task)
    columns = tuple(Column(size.capitalize(), row.heading) for row in metrics.values() for size in SIZES)
    tables = []
    for method in shown:
        rows = tuple(
            _row(
                facts,
                variant,
                tuple(
                    cell(find(facts, metric, variant, saliency_method=method, subgroup=subgroup))
                    for metric in metrics
                    for subgroup in SUBGROUPS
                ),
            )
            for variant in _variants(facts, measured[method], every=False)
        )
        caption = f"Saliency{f' by {method_name(method)}' if method else ''}, by size of the {LESION[facts.task]}"
        legend = f"Thirds of the masks by their share of the image. {_bounds(measured[method])}"
        last = method == shown[-1]
        tables.append(Table(f"saliency-sizes-{method}", caption, "Variant", columns, rows, legend if last else ""))
    return tuple(tables)


def _bounds(measured: Sequence[Measurement]) -> str:
    """Return each size's bounds and how many images have a mask of it."""
    parts = []
    for size, subgroup in zip(SIZES, SUBGROUPS, strict=True):
        one = next((m for m in measured if m.where.subgroup == subgroup), None)
        if one is None:
            continue
        said = f"{one.remarks.get('mask_share')}, {formats.count(one.n or 0, 'image')}"
        parts.append(f"{size.capitalize()}: {said if one.value is not None else reason_of(one)}.")
    return " ".join(parts)


def _sanity_tables(facts: Facts, methods: Sequence[str | None]) -> tuple[Table, ...]:
    """Return a table per sanity check, one row per method; none where the run did not make it."""
    variants = {BASELINE: BASELINE, RANDOM_MAP: "Random map", CENTRE_PRIOR: "Centre prior"}
    tables: list[Table] = []
    for metric, row in rows_of("sanity", facts.task).items():
        if not any(m.metric == metric and m.variant in variants for m in facts.measurements):
            continue
        rows = tuple(
            Row(
                method_name(method) if method else "maps",
                tuple(cell(find(facts, metric, variant, saliency_method=method)) for variant in variants),
            )
            for method in methods
        )
        tables.append(
            Table(
                "saliency-sanity" if not tables else f"saliency-{metric}",
                f"{row.heading}: likeness to the maps of random weights",
                "Method",
                tuple(Column(heading) for heading in variants.values()),
                rows,
                row.definitions[facts.task].legend,
            )
        )
    return tuple(tables)


def _cascade_tables(facts: Facts, methods: Sequence[str | None]) -> tuple[Table, ...]:
    """Return the table of the weights that become random from the answer down; none where it was not asked for."""
    found = {
        (m.where.change, m.where.method): m
        for m in facts.measurements
        if stands_in(m, "cascade") and m.variant == BASELINE and m.where.change
    }
    steps = tuple(dict.fromkeys(str(step) for step, _ in found))
    asked = tuple(method for method in methods if any((step, method) in found for step in steps))
    if not asked:
        return ()
    ((_, row),) = rows_of("cascade", facts.task).items()
    rows = tuple(
        Row(
            step,
            tuple(
                cell(found[step, method]) if (step, method) in found else absent("the method has no such maps")
                for method in asked
            ),
        )
        for step in steps
    )
    columns = tuple(Column(method_name(method) if method else "maps") for method in asked)
    caption = f"{row.heading}: likeness to the maps of random weights"
    return (Table("saliency-cascade", caption, "Random weights", columns, rows, row.definitions[facts.task].legend),)


def _variants(facts: Facts, measured: Sequence[Measurement], *, every: bool) -> tuple[str, ...]:
    """Return the variants that were measured, or every one, and then the maps that know nothing."""
    found = {m.variant for m in measured}
    compiled = (v for v in facts.variant_names if every or v in found)
    return (*compiled, *(name for name in UNINFORMED if name in found))


def _row(facts: Facts, variant: str, cells: tuple[Cell, ...]) -> Row:
    if variant in KNOW_NOTHING:
        name, detail = KNOW_NOTHING[variant]
        return Row(name, cells, detail, "chance")
    return variant_row(facts, variant, cells)


def _any(measured: Sequence[Measurement], group: TableName) -> bool:
    return any(m.value is not None and stands_in(m, group) for m in measured)
