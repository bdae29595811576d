"""The tables of operating points: one per class, what each variant is worth at the threshold chosen with fp32."""

from __future__ import annotations

from foundation.measurements import Measurement
from foundation.metrics import METRICS, rows_of
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import find
from reports.tables import Column, Row, Table, absent, cell

_OWN = "own_threshold"
_LEGEND = (
    "The threshold was chosen before any variant was looked at, and is the same for all. PPV and NPV hold for the "
    "prevalence of {prevalence}. LR: likelihood ratio. "
)


def threshold_tables(facts: Facts) -> tuple[Table, ...]:
    """Return one table for each class that has a threshold; none where the run was not asked for any."""
    return tuple(table for of_class in facts.record.classes if (table := _of_class(facts, of_class)) is not None)


def _of_class(facts: Facts, of_class: str) -> Table | None:
    families = [name.removesuffix("/CLASS") for name in rows_of("thresholds", facts.task)]
    measured = [m for m in facts.measurements if m.metric in {f"{family}/{of_class}" for family in families}]
    if not measured:
        return None
    rows = []
    for per in dict.fromkeys(m.where.per for m in measured if not m.metric.startswith(_OWN)):
        for family in families[:-1]:
            cells = tuple(
                cell(find(facts, f"{family}/{of_class}", variant, per=per)) for variant in facts.variant_names
            )
            rows.append(Row(METRICS[f"{family}/CLASS"].heading, cells, f"per {per or 'image'}"))
    own = {m.variant: m for m in measured if m.metric.startswith(_OWN)}
    cells = tuple(
        cell(own[variant]) if variant in own else absent("no threshold was chosen") for variant in facts.variant_names
    )
    rows.append(Row(METRICS[f"{_OWN}/CLASS"].heading, cells, "on validation images"))
    columns = tuple(Column(variant) for variant in facts.variant_names)
    legend = _LEGEND.format(prevalence=_prevalence(measured)) + _floor(facts, own)
    legend += METRICS[f"{_OWN}/CLASS"].definitions[facts.task].legend
    key = f"threshold-{facts.record.classes.index(of_class)}"
    return Table(key, f"Operating point of {of_class}{_chosen(measured)}", "", columns, tuple(rows), legend)


def _chosen(measured: list[Measurement]) -> str:
    told = next((m.remarks for m in measured if m.where.split == "test" and "threshold" in m.remarks), None)
    if told is None:
        return ""
    return f": probability ≥ {formats.score(float(told['threshold']))}, by the rule {told['rule']}"


def _prevalence(measured: list[Measurement]) -> str:
    shares = {(m.where.per or "image", m.remarks["prevalence"]) for m in measured if "prevalence" in m.remarks}
    if len({share for _, share in shares}) == 1:
        return formats.percent(float(next(iter(shares))[1]))
    return (
        " and ".join(f"{formats.percent(float(share))} per {per}" for per, share in sorted(shares))
        or "the test images"
    )


def _floor(facts: Facts, own: dict[str, Measurement]) -> str:
    lost = [name for name, one in own.items() if one.remarks.get("floor_kept") == "no" and name != BASELINE]
    if not any("floor_kept" in one.remarks for one in own.values()):
        return ""
    if not lost:
        return "On the validation images every variant keeps the floor with it. "
    return f"On the validation images the floor is lost with it by {', '.join(lost)}. "
