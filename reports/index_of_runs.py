"""A page over several runs: one row each, with its decision, its worst gate and the way to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foundation.record import RunRecord, Verdict
from foundation.versions import installed_version
from reports import html
from reports.decision import outcome
from reports.facts import Facts
from reports.gate_rows import STATUS_WORDS

_BADNESS = {"failed": 0, "missing": 1, "inconclusive": 2, "passed": 3}
_LONGEST_TEXT = 160


@dataclass(frozen=True)
class ListedRun:
    """One run.

    Attributes:
        folder: as it was given.
        name: of the run; "" where its record could not be read.
        kind: decides colour and symbol.
        decision: in a few words.
        worst_gate: the gate that failed by most, or passed by least; "" without any.
        worst_status: its outcome.
        ended: date and time at which its measuring ended; "" where unknown.
        dataset: name of the data set.
        variants: how many files were compiled.
        links: name and address of each file of its report that is there, relative to the page.
        why_not: why its record could not be read; "" where it could.
    """

    folder: str
    name: str = ""
    kind: str = "incomplete"
    decision: str = "Cannot be read"
    worst_gate: str = ""
    worst_status: str = ""
    ended: str = ""
    dataset: str = ""
    variants: int = 0
    links: tuple[tuple[str, str], ...] = ()
    why_not: str = ""


def listed(folder: str, record: RunRecord, ended_utc: str | None, links: Mapping[str, str]) -> ListedRun:
    """Return the row of a run.

    Args:
        folder: as it was given.
        record: of the run.
        ended_utc: when its measuring ended, ISO 8601; None where unknown.
        links: name → address of what there is of its report.
    """
    decision = outcome(Facts(record))
    worst = worst_gate(record.verdicts)
    dataset = f"{record.dataset}{' (synthetic)' if record.synthetic else ''}"
    return ListedRun(
        folder=_short(folder),
        name=_short(record.name),
        kind=decision.kind,
        decision=f"{decision.word}: {decision.headline}",
        worst_gate=_short(worst.gate) if worst else "",
        worst_status=STATUS_WORDS[worst.status] if worst else "",
        ended=ended_utc[:16].replace("T", " ") if ended_utc else "",
        dataset=_short(dataset),
        variants=len(record.variants),
        links=tuple(links.items()),
    )


def unreadable(folder: str, why_not: str) -> ListedRun:
    """Return the row of a folder whose record could not be read."""
    return ListedRun(_short(folder), why_not=why_not[:400])


def worst_gate(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the gate that failed, could not be judged, or passed by the smallest share of its limit."""
    return min(verdicts, key=lambda one: (_BADNESS[one.status], _reserve(one)), default=None)


def render(runs: Sequence[ListedRun]) -> str:
    """Return the page: one file, without a network and without a script."""
    return (
        html.page_environment()
        .get_template("index_of_runs.html")
        .render(runs=runs, version=installed_version("edgeproof"))
    )


def _reserve(verdict: Verdict) -> float:
    """Return how far the value is on the good side of its limit, as a share of the limit."""
    if verdict.value is None:
        return 0.0
    sign = -1.0 if "≤" in verdict.gate else 1.0
    return sign * (verdict.value - verdict.limit) / (abs(verdict.limit) or 1.0)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
