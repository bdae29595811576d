"""Where the nodes of each file ran, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.placement import FLOAT_LAYERS, INTEGER_LAYERS, LAYOUT, REQUANTIZING, Placement
from reports import formats
from reports.facts import Facts
from reports.tables import Cell, Column, Row, Table, absent

_GROUPS = (
    ("Integer layers", INTEGER_LAYERS),
    ("Float layers", FLOAT_LAYERS),
    ("To and from integers", REQUANTIZING),
    ("Order of tensors", LAYOUT),
)


@dataclass(frozen=True)
class PlacementSection:
    """The section of the report: what the time goes into, and what to change, by file."""

    table: Table
    told: tuple[tuple[str, str], ...]


def placement(facts: Facts) -> PlacementSection | None:
    """Return what the nodes of each file cost on each provider; None where nobody looked."""
    if not facts.placements:
        return None
    columns = (
        Column("Nodes"),
        Column("Providers"),
        *(Column(heading, "Share of the time") for heading, _ in _GROUPS),
    )
    columns = (*columns, Column("Rest", "Share of the time"))
    rows = tuple(Row(one.variant, _cells(one), detail=one.provider) for one in facts.placements)
    legend = (
        "Nodes as they ran, after ONNX Runtime's fusions; shares of the nodes' own time, medians of single queries "
        "on one thread."
    )
    told = tuple(
        (f"{one.variant}, {one.provider}", note[:1].upper() + note[1:])
        for one in facts.placements
        for note in one.notes
    )
    return PlacementSection(
        Table("placement", "What each file's time goes into", "Variant", columns, rows, legend), told
    )


def _cells(one: Placement) -> tuple[Cell, ...]:
    if one.reason is not None:
        return (absent(one.reason),) * (len(_GROUPS) + 3)
    shares = [one.share_of(operators) for _, operators in _GROUPS]
    providers = sorted({kind.provider.removesuffix("ExecutionProvider") for kind in one.kinds})
    return (
        Cell(str(sum(kind.nodes for kind in one.kinds))),
        Cell(", ".join(providers)),
        *(Cell(formats.percent(share)) for share in (*shares, max(0.0, 1 - sum(shares)))),
    )
