"""The shape of every table in the report: columns, rows and cells that are already text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from foundation.measurements import Measurement
from foundation.metrics import row_of
from reports import formats
from reports.measured import reason_of, shown_unit

LEAST_OWN_SHARE = 0.5
"""Share of a graph's nodes below which a provider's latency is more the CPU's than its own."""


@dataclass(frozen=True)
class Cell:
    """One number as text.

    Attributes:
        text: the number with its unit.
        interval: its 95 % interval; "" where there is none.
        remark: a word on what the number means, such as "not distinguishable".
        reason: why the number is absent; becomes a footnote.
        caveat: what a number that is there must be read with; becomes a footnote too.
    """

    text: str
    interval: str = ""
    remark: str = ""
    reason: str = ""
    caveat: str = ""

    @property
    def footnote(self) -> str:
        """The text of its footnote; "" where it needs none."""
        return self.reason or self.caveat


@dataclass(frozen=True)
class Column:
    """A column's heading; columns next to each other with the same `group` share a heading above."""

    heading: str
    group: str = ""


@dataclass(frozen=True)
class Row:
    """A row's name, a line under the name, and its cells."""

    name: str
    cells: tuple[Cell, ...]
    detail: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption and the footnotes that its cells need."""

    key: str
    caption: str
    corner: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    legend: str = ""

    @cached_property  # every cell with a footnote asks for its letter
    def footnotes(self) -> tuple[str, ...]:
        """Why numbers are absent or what they must be read with, each text once, in reading order."""
        return tuple(dict.fromkeys(cell.footnote for row in self.rows for cell in row.cells if cell.footnote))

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """Letter and text of each footnote."""
        return tuple((_letters(index), text) for index, text in enumerate(self.footnotes))

    def letter(self, cell: Cell) -> str:
        """Return the letter of a cell's footnote."""
        return _letters(self.footnotes.index(cell.footnote))

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Group headings with the number of columns below each; empty where no column has a group."""
        if not any(column.group for column in self.columns):
            return ()
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and runs[-1][0] == column.group:
                runs[-1] = (column.group, runs[-1][1] + 1)
            else:
                runs.append((column.group, 1))
        return tuple(runs)

    def starts_group(self, index: int) -> bool:
        """Return whether a column is the first of its group."""
        return bool(self.groups) and (index == 0 or self.columns[index].group != self.columns[index - 1].group)


REFERENCE = Cell("reference")


def absent(reason: str) -> Cell:
    """Return the cell of a number that was not measured."""
    return Cell(formats.NOT_MEASURED, reason=reason)


def cell(measurement: Measurement) -> Cell:
    """Return a measurement as a cell in its own unit."""
    if measurement.value is None:
        return absent(reason_of(measurement))
    unit = shown_unit(measurement)
    interval = formats.interval(*measurement.ci95, unit) if measurement.ci95 else ""
    row = row_of(measurement.metric)
    difference = None if row is not None and row.against_fp32 else measurement.difference
    remark = formats.change(difference.value, difference.ci95, unit) if difference else ""
    return Cell(formats.with_unit(measurement.value, unit), interval, remark, caveat=_mostly_on_cpu(measurement))


def speedup_cell(measurement: Measurement) -> Cell:
    """Return a speed-up with the word that its interval allows."""
    shown = cell(measurement)
    if measurement.value is None:
        return shown
    return replace(shown, remark=formats.speedup_in_words(measurement.ci95))


def _mostly_on_cpu(measurement: Measurement) -> str:
    """Return how little of the graph the provider took where the CPU ran most of it under the provider's name."""
    share = measurement.remarks.get("nodes_on_provider")
    if measurement.where.provider == "cpu" or not isinstance(share, int | float) or share >= LEAST_OWN_SHARE:
        return ""
    return f"{formats.percent(share)} of the nodes ran on {measurement.where.provider}, the rest on cpu"


def _letters(index: int) -> str:
    """Return a, b, … z, aa, ab… for 0, 1, …"""
    letters = chr(ord("a") + index % 26)
    return _letters(index // 26 - 1) + letters if index >= 26 else letters
