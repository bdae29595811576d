"""Where the nodes of each file ran, and what that costs."""

from __future__ import annotations

from foundation.placement import Placement
from reports import formats
from reports.facts import Facts
from reports.tables import Cell, Column, Row, Table, absent

_SHOWN_KINDS = 4
_LEAST_SHARE = 0.005


def placement_table(facts: Facts) -> Table | None:
    """Return one row for each file on each provider; None where nobody looked."""
    if not facts.placements:
        return None
    columns = (Column("Nodes"), Column("What takes the time"), Column("What to change"))
    rows = tuple(Row(one.variant, _cells(one), detail=one.provider) for one in facts.placements)
    legend = (
        "Nodes as they ran, after ONNX Runtime's fusions; shares of the nodes' own time, medians of single queries "
        "on one thread."
    )
    return Table("placement", "Where each file's nodes ran", "Variant", columns, rows, legend)


def _cells(one: Placement) -> tuple[Cell, ...]:
    if one.reason is not None:
        return (absent(one.reason),) * 3
    costly = [kind for kind in one.kinds if kind.share >= _LEAST_SHARE][:_SHOWN_KINDS]
    told = ", ".join(f"{kind.operator} × {kind.nodes} {formats.percent(kind.share)}" for kind in costly)
    return Cell(str(sum(kind.nodes for kind in one.kinds))), Cell(told), Cell(" ".join(one.notes) or "–")
