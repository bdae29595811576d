"""Forest plots: one row per number, its interval and its limit on one axis; the names are text beside it.

A row is HTML, so names wrap instead of overlapping, colours follow the reader's theme, and the numbers stand beside
their marks for whoever cannot see these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports import formats
from reports.scales import Scale


@dataclass(frozen=True)
class Entry:
    """A number to draw.

    Attributes:
        name: what it is of.
        value: in the plot's unit; None where it was not measured.
        interval: its 95 % interval; None where there is none.
        limit: the bound that a gate sets; None without a gate.
        detail: a line below the name.
        status: of the gate: "passed", "failed", "inconclusive", "missing"; "" without a gate.
        reason: why it was not measured.
        upper: whether the limit is an upper one, so that what lies above it fails.
        emphasis: whether the row is told apart: an interval that does not hold 0.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    limit: float | None = None
    detail: str = ""
    status: str = ""
    reason: str = ""
    upper: bool = False
    emphasis: str = ""


@dataclass(frozen=True)
class Mark:
    """An entry as it is drawn: places in hundredths of the axis, and its text."""

    entry: Entry
    at: float | None
    low: float | None
    high: float | None
    limit: float | None
    text: str
    limit_text: str

    @property
    def width(self) -> float:
        """Length of the interval on the axis."""
        return 0.0 if self.low is None or self.high is None else round(self.high - self.low, 2)

    @property
    def told(self) -> str:
        """What a reader who cannot see the mark is told."""
        parts = [self.text, f"limit {self.limit_text}" if self.limit_text else "", self.entry.status]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Forest:
    """A plot.

    Attributes:
        key: part of its id.
        caption: what is drawn, with the unit.
        corner: heading of the names.
        ticks: place and text of each number on the axis.
        zero: place of no difference; None where the axis shows levels.
        marks: the rows.
        legend: what stands below.
        judged: whether a gate stands behind any of the rows.
    """

    key: str
    caption: str
    corner: str
    ticks: tuple[tuple[float, str], ...]
    zero: float | None
    marks: tuple[Mark, ...]
    legend: str = ""

    @property
    def judged(self) -> bool:
        """Whether a gate stands behind a row."""
        return any(mark.entry.status for mark in self.marks)


def forest(
    key: str,
    caption: str,
    corner: str,
    entries: Sequence[Entry],
    unit: str,
    *,
    differences: bool,
    legend: str = "",
    no_effect: float | None = None,
) -> Forest:
    """Return a plot of numbers of one unit.

    Args:
        key: part of its id, unique on the page.
        caption: what is drawn.
        corner: heading of the names.
        entries: at least one.
        unit: of all of them.
        differences: whether they are differences, written with a sign, around 0.
        legend: what stands below.
        no_effect: the value of no effect where it is not 0, such as 1 of a ratio.
    """
    neutral = 0.0 if differences else no_effect
    drawn = [neutral] if neutral is not None else []
    for one in entries:
        drawn += [value for value in (one.value, one.limit, *(one.interval or ())) if value is not None]
    scale = Scale.over(drawn or [0.0, 1.0], within=None if differences or unit != "share" else (0.0, 1.0))
    ticks = tuple((scale.at(tick), _tick(tick, unit, differences)) for tick in scale.ticks())
    marks = tuple(_mark(one, scale, unit, differences) for one in entries)
    zero = None if neutral is None else scale.at(neutral)
    return Forest(key, caption, corner, ticks, zero, marks, legend)


def _mark(one: Entry, scale: Scale, unit: str, differences: bool) -> Mark:
    text = formats.NOT_MEASURED if one.value is None else written(one.value, one.interval, unit, differences)
    low, high = (scale.at(end) for end in one.interval) if one.interval else (None, None)
    return Mark(
        one,
        None if one.value is None else scale.at(one.value),
        low,
        high,
        None if one.limit is None else scale.at(one.limit),
        text,
        "" if one.limit is None else limit_text(one.limit, unit, differences),
    )


def written(value: float, interval: tuple[float, float] | None, unit: str, differences: bool) -> str:
    """Return a number with its interval: "−0.4 points (−1.2 to +0.3)", "93.1 % (91.0–95.2 %)"."""
    if differences:
        within = formats.signed_interval(interval, unit) if interval else ""
        return f"{formats.signed(value, unit)}{f' ({within})' if within else ''}"
    within = formats.interval(*interval, unit) if interval else ""
    return f"{formats.with_unit(value, unit)}{f' ({within})' if within else ''}"


def limit_text(limit: float, unit: str, differences: bool) -> str:
    """Return a limit as the numbers that are held against it are written."""
    return formats.signed(limit, unit) if differences else formats.with_unit(limit, unit)


def _tick(value: float, unit: str, differences: bool) -> str:
    factor = 100.0 if unit == "share" else 1.0
    if unit == "bytes":
        return formats.size(value) if value >= 0 else ""
    shown = f"{value * factor:.4g}".replace("-", "−")
    return f"+{shown}" if differences and value > 0 else shown
