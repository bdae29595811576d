"""The curves and the table of answers on worse images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from foundation.measurements import Measurement
from foundation.metrics import METRICS
from reports import formats
from reports.curves_section import looks
from reports.facts import Facts
from reports.line_charts import Axes, Line, chart
from reports.scales import Scale
from reports.tables import Column, Row, Table, absent, cell

_METRICS = ("robust_accuracy", "robust_agreement")


@dataclass(frozen=True)
class Robustness:
    """The section of the report: curves over the strengths, and their numbers."""

    charts: tuple[tuple[str, Markup], ...]
    tables: tuple[Table, ...]


def robustness(facts: Facts) -> Robustness | None:
    """Return the curves and the tables; None where the run was not asked."""
    found = {
        (m.metric, m.variant, m.where.change): m
        for m in facts.measurements
        if m.metric in _METRICS and m.where.change
    }
    if not found:
        return None
    changes = list(dict.fromkeys(str(change) for _, _, change in found))
    kinds = list(dict.fromkeys(change.rpartition(" ")[0] for change in changes))
    drawn = []
    for kind in kinds:
        strengths = [change for change in changes if change.rpartition(" ")[0] == kind]
        lines = {
            variant: [
                one.value * 100
                for change in strengths
                if (one := found.get((_METRICS[0], variant, change))) is not None and one.value is not None
            ]
            for variant in facts.variant_names
        }
        lines = {name: values for name, values in lines.items() if len(values) == len(strengths)}
        told = "; ".join(
            f"{name} {', '.join(f'{value:.1f}' for value in values)} %" for name, values in lines.items()
        )
        heading = _heading(kind, [one for (_, _, change), one in found.items() if change in strengths])
        drawn.append((heading, _chart(facts, kind, lines, f"Accuracy under {kind}: {told}.")))
    tables = []
    for metric in _METRICS:
        rows = []
        for change in changes:
            values = [found.get((metric, variant, change)) for variant in facts.variant_names]
            rows.append(Row(change, tuple(cell(one) if one else absent("fp32 is the reference") for one in values)))
        row = METRICS[metric]
        columns = tuple(Column(variant) for variant in facts.variant_names)
        legend = row.definitions[facts.task].legend
        n = max((one.n or 0 for one in found.values()), default=0)
        caption = f"{row.heading} on {formats.count(n, 'image')} made worse"
        tables.append(Table(metric.replace("_", "-"), caption, "Change", columns, tuple(rows), legend))
    return Robustness(tuple(drawn), tuple(tables))


def _chart(facts: Facts, kind: str, lines: Mapping[str, Sequence[float]], told: str) -> Markup:
    look = looks(facts)
    most = max((len(values) for values in lines.values()), default=1)
    shown = [value for values in lines.values() for value in values]
    axes = Axes(
        "strength",
        "accuracy, %",
        Scale(0.8, most + 0.2),
        Scale.over(shown or [0.0, 100.0], within=(0.0, 100.0)),
        [(float(strength), str(strength)) for strength in range(1, most + 1)],
    )
    drawn = [
        Line(name, [(float(at + 1), value) for at, value in enumerate(values)], look[name], marks=True)
        for name, values in lines.items()
    ]
    return chart(f"robustness-{re.sub('[^A-Za-z0-9]+', '-', kind)}", axes, drawn, told)


def _heading(kind: str, measured: Sequence[Measurement]) -> str:
    """Return what the strengths are, as the measurements themselves say: "JPEG quality: 25, 18, 15, 10, 7"."""
    levels = dict.fromkeys(f"{one.remarks['level']:g}" for one in measured if "level" in one.remarks)
    named = next((str(one.remarks["change_is"]) for one in measured if "change_is" in one.remarks), kind)
    return f"{named}: {', '.join(levels)}" if levels else named
