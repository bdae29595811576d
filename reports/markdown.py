"""Markdown in which no text of the run can become markup."""

from __future__ import annotations

import re

from reports.tables import Cell, Table

SPECIAL = re.compile(r"([\\`*_{}\[\]#+|~$@])")


def escape(text: str) -> str:
    """Return text on one line with Markdown's and HTML's characters made harmless."""
    one_line = " ".join(text.split())
    one_line = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", ":&#47;&#47;")
    return SPECIAL.sub(r"\\\1", one_line)


def table(shown: Table) -> str:
    """Return a table with its footnotes; the interval stands behind the number."""
    head = [shown.corner]
    head += [f"{column.group}: {column.heading}" if column.group else column.heading for column in shown.columns]
    lines = [_line([escape(text) for text in head]), "| --- |" + " ---: |" * len(shown.columns)]
    lines.extend(_line([escape(row.name), *(_cell(shown, cell) for cell in row.cells)]) for row in shown.rows)
    notes = [f"({letter}) {escape(text)}" for letter, text in shown.notes]
    return "\n".join([*lines, *(["", "  \n".join(notes)] if notes else [])])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(shown: Table, cell: Cell) -> str:
    text = escape(cell.text)
    if cell.interval:
        text += f" ({escape(cell.interval)})"
    if cell.remark:
        text += f", {escape(cell.remark)}"
    return f"{text} ({shown.letter(cell)})" if cell.footnote else text
