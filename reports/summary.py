"""`summary.md`: the verdict and the deciding numbers, short enough for a pull request or a job summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from foundation.printable import printable, printable_lines, shortened
from reports import formats, markdown
from reports.decision import outcome
from reports.facts import Facts
from reports.variant_tables import at_a_glance

MOST_CHARACTERS = 65_535
"""A comment on GitHub takes 65,536 characters, less the line that it ends with."""
_MOST_LINES = 20
"""How many of many gates or stages are listed."""
_MOST_OF_A_TEXT = 200
_CUT = "More stands in report/index.html."

_Entry = TypeVar("_Entry")


def render(facts: Facts) -> str:
    """Return the file's text: the decision first, then as much of the rest as a comment takes."""
    verdict = outcome(facts)
    parts = [
        f"## {verdict.word}: {verdict.headline}",
        f"{_text(verdict.sentence)} Exit code {verdict.exit_code}.",
        f"Run {_text(facts.record.name)}, data set {_text(facts.record.dataset)}.",
    ]
    if facts.record.synthetic:
        parts.append("**Synthetic data:** these numbers have no clinical meaning.")
    parts += _listed(facts.record.gate_changes, lambda change: f"**!** {_text(change.sentence)}")
    broken = [entry for entry in facts.record.verdicts if entry.status != "passed"]
    parts += _listed(broken, lambda entry: f"- {_gate_line(entry.gate, entry.status, entry.detail)}")
    parts += _listed(
        facts.record.unfinished_stages,
        lambda stage: f"- Stage {_text(stage.name)}: {_text(stage.error or 'the run gives no reason')}",
    )
    if facts.variant_names:
        table = at_a_glance(facts)
        parts += [markdown.table(table), markdown.escape(table.legend)]
    return _fitting(parts)


def _listed(entries: Sequence[_Entry], line_of: Callable[[_Entry], str]) -> list[str]:
    """Return a line for each of the first entries, as one part; no part where there are none."""
    more = [f"- and {len(entries) - _MOST_LINES} more"] if len(entries) > _MOST_LINES else []
    return ["\n".join([*map(line_of, entries[:_MOST_LINES]), *more])] if entries else []


def _fitting(parts: Sequence[str]) -> str:
    """Return the parts up to the first that a comment does not take any more, as they are written."""
    text = ""
    for part in parts:
        longer = f"{text}{printable_lines(part)}\n\n"
        if len(longer) + len(_CUT) > MOST_CHARACTERS:
            return f"{text}{_CUT}\n"
        text = longer
    return text.rstrip("\n") + "\n"


def _gate_line(gate: str, status: str, detail: str) -> str:
    word = formats.NOT_MEASURED if status == "missing" else status
    return f"Gate {_text(gate)} {word}: {_text(detail.removeprefix(f'{word}: '))}"


def _text(text: str) -> str:
    return markdown.escape(shortened(printable(" ".join(text.split())), _MOST_OF_A_TEXT))
