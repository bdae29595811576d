"""A comparison as a person reads it: a table for the terminal, Markdown for the nightly's summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.printable import printable, printable_lines
from pipeline.judge.comparison import Comparison, Difference
from pipeline.night.nights import Night
from reports.formats import NOT_MEASURED, with_unit

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_NIGHTS = 10
STYLES = {"regressed": "bold red", "missing": "bold red", "improved": "green"}


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return the statements, every measurement that is not unchanged, and the outcome, in at most 80 columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(printable(statement)) for statement in comparison.statements]
    shown = _worth_showing(comparison)
    if shown:
        table = Table(
            width=80, title=Text(printable(f"{comparison.accepted} → {comparison.current}")), title_justify="left"
        )
        for heading in ("measurement", "variant", "before → now", "outcome"):
            table.add_column(heading, overflow="fold")
        for one in shown:
            table.add_row(
                Text(printable(_what(one))),
                Text(printable(one.variant)),
                f"{_value(one, one.accepted)} → {_value(one, one.current)}",
                Text(printable(f"{_status(one)}: {one.detail}"), style=STYLES.get(one.status, "")),
            )
        parts.append(table)
    parts.append(Text(_outcome(comparison), style="bold red" if comparison.exit_code else "bold green"))
    return Group(*parts)


def nightly_markdown(
    name: str,
    comparison: Comparison | None,
    causes: Sequence[str],
    notes: Sequence[str],
    nights: Sequence[Night],
) -> str:
    """Return the nightly's section: the comparison, its causes, the notes and the last nights.

    Args:
        name: the configuration's name.
        comparison: None where no run was accepted yet.
        causes: why it is red, one sentence each.
        notes: one sentence each.
        nights: oldest first, tonight last.
    """
    lines = [f"## Nightly {name}", ""]
    if comparison is not None:
        lines += [f"Compared with the accepted run {comparison.accepted}: **{_outcome(comparison)}**", ""]
    lines += [f"- **Why:** {sentence}" for sentence in causes]
    told = [*(comparison.statements if comparison else ()), *notes]
    if told:
        lines += [*(f"- {sentence}" for sentence in told), ""]
    shown = _worth_showing(comparison) if comparison else ()
    if shown:
        lines += ["| measurement | variant | accepted | tonight | outcome |", "| --- | --- | ---: | ---: | --- |"]
        lines += [*(_row(one) for one in shown), ""]
    lines += ["| night | exit code | comparison |", "| --- | ---: | --- |"]
    lines += [_night_row(night) for night in reversed(nights[-SHOWN_NIGHTS:])]
    return printable_lines("\n".join(lines)) + "\n"


def _worth_showing(comparison: Comparison) -> tuple[Difference, ...]:
    return tuple(one for one in comparison.differences if one.status not in ("unchanged", "new"))


def _outcome(comparison: Comparison) -> str:
    new = comparison.counts["new"]
    return f"{comparison.summary}{f', {new} new' if new else ''}."


def _what(one: Difference) -> str:
    where = one.where
    parts = [
        *filter(None, (where.provider, where.split)),
        *(f"{key} {value}" for key, value in where.settings.items()),
    ]
    return f"{one.metric} ({', '.join(parts)})" if parts else one.metric


def _value(one: Difference, value: float | None) -> str:
    return NOT_MEASURED if value is None else with_unit(value, one.unit)


def _status(one: Difference) -> str:
    return one.status.replace("_", " ")


def _row(one: Difference) -> str:
    cells = (
        _what(one),
        one.variant,
        _value(one, one.accepted),
        _value(one, one.current),
        f"{_status(one)}: {one.detail}",
    )
    return _markdown_row(cells)


def _night_row(night: Night) -> str:
    if night.status == "killed":
        return _markdown_row((night.run, "–", f"killed (attempt {night.attempts})"))
    return _markdown_row((night.run, str(night.exit_code), night.error or night.comparison or ""))


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
