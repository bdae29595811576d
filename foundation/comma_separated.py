"""Tables for other programs, as comma-separated values (RFC 4180) in which no text becomes a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from foundation.printable import printable

CellValue = str | float | int | bool | None

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a table programme takes for the beginning of a formula; some take the wide forms as well."""


def csv_text(header: Sequence[str], rows: Iterable[Sequence[CellValue]]) -> str:
    """Return a table with one line a row.

    A text that a table programme would compute gets an apostrophe before it, and one that would command a terminal
    its escapes. A number is written with every digit that it takes to read it back; None is an empty cell.

    Args:
        header: names of the columns.
        rows: as many values each.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_cell(name) for name in header)
    for row in rows:
        writer.writerow(_cell(value) for value in row)
    return text.getvalue()


def _cell(value: CellValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    shown = printable(value)
    return f"'{shown}" if value.lstrip(" ").startswith(_FORMULA) else shown
