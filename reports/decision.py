"""The verdict of a run in one word, one sentence and one exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundation.errors import ExitCode
from foundation.record import Measurement, StageRecord, Verdict
from reports.facts import Facts
from reports.formats import count


@dataclass(frozen=True)
class Decision:
    """What the reviewer reads first.

    Attributes:
        kind: decides colour and symbol; "unjudged" where no gate was set.
        headline: for example "2 of 7 gates failed".
        sentence: why.
        exit_code: what the process told its caller; 3 where the run has not recorded that it ended.
    """

    kind: Literal["passed", "failed", "incomplete", "unjudged"]
    headline: str
    sentence: str
    exit_code: int


def outcome(facts: Facts) -> Decision:
    """Return the verdict on a run; incomplete evidence weighs more than a failed gate, as in the exit codes."""
    derived = _from_evidence(facts)
    recorded = facts.record.get("exit_code")
    if recorded is None:
        why = " ".join(("The run did not end: it has recorded no exit code.", *_why_incomplete(facts)))
        return Decision("incomplete", "Evidence incomplete", why, ExitCode.INCOMPLETE)
    if recorded == derived.exit_code:
        return derived
    return Decision(
        "incomplete",
        "Evidence incomplete",
        f"The run ended with exit code {recorded}, but its gates and stages stand for {derived.exit_code:d}: "
        f"{derived.headline}.",
        int(recorded),
    )


def _from_evidence(facts: Facts) -> Decision:
    verdicts = facts.verdicts
    failed = [verdict for verdict in verdicts if verdict.status == "failed"]
    missing = [verdict for verdict in verdicts if verdict.status == "missing"]
    if missing or unfinished_stages(facts) or _unjudged_gates(facts):
        why = " ".join(_why_incomplete(facts))
        return Decision("incomplete", "Evidence incomplete", why, ExitCode.INCOMPLETE)
    if failed:
        return Decision(
            "failed",
            f"{len(failed)} of {count(len(verdicts), 'gate')} failed",
            f"Outside its limit: {_listing([verdict.gate for verdict in failed])}.",
            ExitCode.GATE_FAILED,
        )
    if not verdicts:
        why = "No acceptance criterion was judged: this run only reports what it measured."
        return Decision("unjudged", "No gates", why, ExitCode.PASSED)
    return Decision(
        "passed",
        "All gates passed" if len(verdicts) > 1 else "The gate passed",
        f"Every stage finished, and {count(len(verdicts), 'criterion', 'criteria')} fixed before the run "
        f"{'holds' if len(verdicts) == 1 else 'hold'}.",
        ExitCode.PASSED,
    )


def unfinished_stages(facts: Facts) -> tuple[StageRecord, ...]:
    """Return the stages that failed or could not measure."""
    return tuple(stage for stage in facts.stages if stage.status in ("failed", "not_measured"))


def gate_measurement(verdict: Verdict, facts: Facts) -> Measurement | None:
    """Return the measurement that a gate judged as it stands; None where the gate judged a difference or a ratio."""
    for measurement in facts.measurements:
        subject = f"{measurement.variant}: {measurement.metric} "
        # A relative gate goes on with "− fp32" or "/ fp32"; its value may equal the measurement's all the same.
        as_it_stands = verdict.gate.removeprefix(subject).startswith(("≥", "≤", "("))
        named = verdict.gate.startswith(subject) and as_it_stands
        if named and measurement.value is not None and measurement.value == verdict.value:
            return measurement
    return None


def _unjudged_gates(facts: Facts) -> int:
    """Return how many gates of the configuration have no verdict at all."""
    return max(0, len(facts.configuration.get("gates") or ()) - len(facts.verdicts))


def _why_incomplete(facts: Facts) -> list[str]:
    """Return one sentence for each kind of gap; empty where nothing is missing."""
    broken = [stage.name for stage in unfinished_stages(facts)]
    missing = [verdict.gate for verdict in facts.verdicts if verdict.status == "missing"]
    failed = [verdict.gate for verdict in facts.verdicts if verdict.status == "failed"]
    unjudged = _unjudged_gates(facts)
    parts = []
    if broken:
        parts.append(f"{count(len(broken), 'stage')} did not finish: {_listing(broken)}.")
    if missing:
        parts.append(f"{count(len(missing), 'gate')} could not be judged: {_listing(missing)}.")
    if unjudged:
        parts.append(
            f"{count(unjudged, 'gate')} of the configuration {'was' if unjudged == 1 else 'were'} not judged."
        )
    if failed:
        parts.append(f"{count(len(failed), 'gate')} failed: {_listing(failed)}.")
    return parts


def _listing(names: list[str], most: int = 3) -> str:
    if len(names) <= most:
        return "; ".join(names)
    return f"{'; '.join(names[:most])}; and {len(names) - most} more"
