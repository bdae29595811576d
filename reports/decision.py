"""The verdict of a run in one word, one sentence and one exit code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from foundation.errors import ExitCode
from foundation.measurements import Measurement, PairedDifference
from foundation.record import Verdict, exit_code_of
from reports.facts import Facts
from reports.formats import count

_MINUS = re.compile(r"(?<=[≥≤] )-(?=\d)")

Kind = Literal["passed", "changed", "failed", "incomplete", "unjudged"]

WORDS: Mapping[Kind, str] = {
    "passed": "Accept",
    "changed": "Cannot be told",
    "failed": "Reject",
    "incomplete": "Cannot be told",
    "unjudged": "No criteria",
}
"""What the criteria say of the files; a person decides."""


@dataclass(frozen=True)
class Decision:
    """What the reviewer reads first.

    Attributes:
        kind: decides colour and symbol; "unjudged" where the baseline or a shipped variant has no gate, "changed"
            where the gates hold but were changed after measurements were seen.
        headline: for example "2 of 7 gates failed".
        sentence: why.
        exit_code: what the process told its caller; 3 where the run has not recorded that it ended.
    """

    kind: Kind
    headline: str
    sentence: str
    exit_code: ExitCode

    @property
    def word(self) -> str:
        """The decision in a word or three."""
        return WORDS[self.kind]


def outcome(facts: Facts) -> Decision:
    """Return the verdict on a run: what its exit code says, and why.

    A code that the gates and stages of the same record contradict is told as incomplete evidence.
    """
    record = facts.record
    if record.exit_code is None:
        why = " ".join(("The run did not end: it has recorded no exit code.", *_why_incomplete(facts)))
        return Decision("incomplete", "Evidence incomplete", why, ExitCode.INCOMPLETE)
    stands_for = exit_code_of(record.verdicts, record.all_stages_succeeded and not _unjudged_gates(facts))
    told = _in_words(facts, stands_for)
    if record.exit_code == stands_for:
        return told
    return Decision(
        "incomplete",
        "Evidence incomplete",
        f"The run ended with exit code {record.exit_code:d}, but its gates and stages stand for {stands_for:d}: "
        f"{told.headline}.",
        record.exit_code,
    )


def without_gate(facts: Facts) -> tuple[str, ...]:
    """Return the baseline and the shipped variants that no gate is about."""
    judged = {variant_of(verdict) for verdict in facts.record.verdicts}
    return tuple(name for name in facts.variant_names if name not in judged)


def variant_of(verdict: Verdict) -> str:
    """Return the file that a gate is about."""
    return verdict.measurement.variant if verdict.measurement else verdict.gate.partition(": ")[0]


def _in_words(facts: Facts, exit_code: ExitCode) -> Decision:
    verdicts = facts.record.verdicts
    if exit_code == ExitCode.INCOMPLETE:
        return Decision("incomplete", "Evidence incomplete", " ".join(_why_incomplete(facts)), exit_code)
    if exit_code == ExitCode.GATE_FAILED:
        failed = [verdict.gate for verdict in verdicts if verdict.status == "failed"]
        headline = f"{len(failed)} of {count(len(verdicts), 'gate')} failed"
        return Decision("failed", headline, f"Outside its limit: {_listing(failed)}.", exit_code)
    if not verdicts:
        why = "No acceptance criterion was judged: this run only reports what it measured."
        return Decision("unjudged", "No gates", why, exit_code)
    changes = facts.record.gate_changes
    if changes:
        told = " ".join(change.sentence for change in changes)
        return Decision(
            "changed", "Gates changed after the measurements", f"{told} As changed, they hold.", exit_code
        )
    uncovered = without_gate(facts)
    if uncovered:
        held = "the gate holds" if len(verdicts) == 1 else f"all {len(verdicts)} gates hold"
        return Decision(
            "unjudged",
            f"No gate on {_listing(list(uncovered))}",
            f"Of what was asked, {held}; but nothing says how good {'they' if len(uncovered) > 1 else 'it'} must "
            "be. A run is accepted only with a gate on the baseline and one on every variant.",
            exit_code,
        )
    return Decision(
        "passed",
        "All gates passed" if len(verdicts) > 1 else "The gate passed",
        f"Every stage finished, and {count(len(verdicts), 'criterion', 'criteria')} fixed before the run "
        f"{'holds' if len(verdicts) == 1 else 'hold'}.",
        exit_code,
    )


def judged_as_it_stands(verdict: Verdict) -> Measurement | None:
    """Return the measurement that a gate judged as it stands; None where it judged a difference or a ratio."""
    found = verdict.measurement
    as_it_stands = found is not None and verdict.value is not None and verdict.value == found.value
    return found if as_it_stands and verdict.against is None else None


def judged_difference(verdict: Verdict) -> PairedDifference | None:
    """Return the paired difference that a gate judged; None where it judged something else."""
    found = verdict.measurement.difference if verdict.measurement and verdict.against is None else None
    return found if found is not None and verdict.value == found.value else None


def _unjudged_gates(facts: Facts) -> int:
    """Return how many gates of the configuration have no verdict at all."""
    gates = facts.record.configuration.get("gates")
    return max(0, (len(gates) if isinstance(gates, list) else 0) - len(facts.record.verdicts))


def _why_incomplete(facts: Facts) -> list[str]:
    """Return one sentence for each kind of gap; empty where nothing is missing."""
    broken = [stage.name for stage in facts.record.unfinished_stages]
    missing = [verdict.gate for verdict in facts.record.verdicts if verdict.status == "missing"]
    unclear = [verdict.gate for verdict in facts.record.verdicts if verdict.status == "inconclusive"]
    failed = [verdict.gate for verdict in facts.record.verdicts if verdict.status == "failed"]
    unjudged = _unjudged_gates(facts)
    parts = []
    if broken:
        parts.append(f"{count(len(broken), 'stage')} did not finish: {_listing(broken)}.")
    if missing:
        parts.append(f"{count(len(missing), 'gate')} could not be judged: {_listing(missing)}.")
    if unclear:
        parts.append(f"{count(len(unclear), 'gate')} cannot be told with these images: {_listing(unclear)}.")
    if unjudged:
        parts.append(
            f"{count(unjudged, 'gate')} of the configuration {'was' if unjudged == 1 else 'were'} not judged."
        )
    if failed:
        parts.append(f"{count(len(failed), 'gate')} failed: {_listing(failed)}.")
    return parts


def _listing(names: list[str], most: int = 3) -> str:
    names = [_MINUS.sub("\N{MINUS SIGN}", name) for name in names]
    if len(names) <= most:
        return "; ".join(names)
    return f"{'; '.join(names[:most])}; and {len(names) - most} more"
