"""The page of two runs side by side: what got better, what got worse, and what cannot be told.

It is drawn from texts and numbers that the comparison has judged already; nothing here decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundation.errors import ExitCode
from reports import html
from reports.forest import Forest


@dataclass(frozen=True)
class ComparedRun:
    """One of the two runs.

    Attributes:
        role: "before" or "now".
        name: of its folder.
        facts: name and text of what tells it from others.
    """

    role: str
    name: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ComparedRow:
    """One measurement of both runs, as text.

    Attributes:
        metric: as one reads it.
        detail: its name, and where it was taken.
        variant: the file.
        before: the first run's number.
        now: the second one's.
        change: with its sign; "" where there is none.
        interval: of the change, on the same images; "" where the two are not paired.
        why: what the outcome rests on.
    """

    metric: str
    detail: str
    variant: str
    before: str
    now: str
    change: str
    interval: str
    why: str


@dataclass(frozen=True)
class ComparedPart:
    """The measurements of one outcome.

    Attributes:
        key: part of its id.
        heading: "Got worse".
        sentence: what stands in it, and what it would take to tell.
        rows: in their order.
        kind: decides the colour.
        folded: whether it is opened on request.
    """

    key: str
    heading: str
    sentence: str
    rows: tuple[ComparedRow, ...]
    kind: Literal["failed", "passed", "incomplete", "plain"] = "plain"
    folded: bool = False


@dataclass(frozen=True)
class ComparedRuns:
    """The whole page.

    Attributes:
        kind: decides colour and symbol of the outcome.
        word: the outcome in a few words.
        headline: the counts.
        sentence: why.
        exit_code: what the command tells its caller.
        runs: the first and the second.
        statements: what else differs, one sentence each.
        plots: the changes beyond their tolerances with their intervals, one plot for each unit.
        parts: the worse first.
        version: of edgeproof that wrote the page; None where unknown.
    """

    kind: Literal["passed", "failed", "incomplete"]
    word: str
    headline: str
    sentence: str
    exit_code: ExitCode
    runs: tuple[ComparedRun, ComparedRun]
    statements: tuple[str, ...]
    plots: tuple[Forest, ...]
    parts: tuple[ComparedPart, ...]
    version: str | None


def render(compared: ComparedRuns) -> str:
    """Return the page: one file, without a network and without a script."""
    return html.page_environment().get_template("comparison.html").render(compared=compared)
