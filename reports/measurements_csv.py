"""`measurements.csv`: every measurement of a run, one a row, for a table programme or a data frame."""

from __future__ import annotations

from dataclasses import fields

from foundation.comma_separated import CellValue, csv_text
from foundation.measurements import Measurement, Where
from reports.facts import Facts

_PLACES = tuple(field.name for field in fields(Where))
COLUMNS = (
    "metric", "of_class", "variant", *_PLACES, "value", "unit", "n", "low", "high", "reason", "no_interval",
    "difference", "difference_low", "difference_high", "difference_n",
)  # fmt: skip
"""`low` and `high` bound the 95 % interval; `of_class` is the class or label that a metric is about; `difference` is
the variant's minus fp32's on the same `difference_n` images."""


def render(facts: Facts) -> str:
    """Return the file's text; an absent number is an empty cell with its reason."""
    return csv_text(COLUMNS, (_row(one) for one in facts.measured_everywhere))


def _row(one: Measurement) -> tuple[CellValue, ...]:
    family, _, of_class = one.metric.partition("/")
    low, high = one.ci95 or (None, None)
    no_interval = one.remarks.get("no_interval")
    moved = one.difference
    lowest, highest = (moved.ci95 if moved else None) or (None, None)
    return (
        family,
        of_class or None,
        one.variant,
        *(getattr(one.where, name) for name in _PLACES),
        one.value,
        one.unit,
        one.n,
        low,
        high,
        one.reason,
        None if no_interval is None else str(no_interval),
        moved.value if moved else None,
        lowest,
        highest,
        moved.n if moved else None,
    )
