"""The first screen: the decision, what it is of, what it rests on, and what to watch out for."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.measurements import UNINFORMED
from reports import formats
from reports.decision import Decision, outcome
from reports.facts import BASELINE, Facts
from reports.gate_rows import GateRow, gate_rows
from reports.measured import rare_labels
from reports.watch_out import Caution, watch_out

NOT_STATED = "not stated"
_FILES = 6
"""Files that the first screen names."""
_SEVERITY = ("failed", "inconclusive", "missing", "passed")


@dataclass(frozen=True)
class Said:
    """A line of the first screen: its name, its text, and whether nothing is known."""

    name: str
    text: str
    unknown: bool = False


@dataclass(frozen=True)
class FirstScreen:
    """What a reviewer reads in the first minute.

    Attributes:
        decision: the word, why, and the exit code.
        deciding: the gate that decides, in words; "" without gates.
        subject: of what.
        basis: what it rests on.
        cautions: what to watch out for.
    """

    decision: Decision
    deciding: str
    subject: tuple[Said, ...]
    basis: tuple[Said, ...]
    cautions: tuple[Caution, ...]


def first_screen(facts: Facts) -> FirstScreen:
    """Return the first screen of a run."""
    rows = gate_rows(facts)
    return FirstScreen(outcome(facts), _deciding(rows), _subject(facts), _basis(facts), watch_out(facts))


def _deciding(rows: tuple[GateRow, ...]) -> str:
    """Return the gate that decides: the gravest outcome, of equal ones a difference from fp32 before a level."""
    if not rows:
        return ""
    worst = min(
        rows, key=lambda row: (_SEVERITY.index(row.status), row.kind != "difference", row.variant == BASELINE)
    )
    lead = {"failed": "Decisive", "inconclusive": "Undecided", "missing": "Missing", "passed": "Nearest to fp32"}
    if worst.status == "passed" and worst.kind != "difference":
        return f"{worst.sentence}."
    return f"{lead[worst.status]}: {worst.sentence}."


def _subject(facts: Facts) -> tuple[Said, ...]:
    files = [
        f"{one.variant} ({formats.size(one.size_bytes)}, sha256 {formats.short_hash(one.sha256)})"
        for one in facts.record.variants
        if one.variant != BASELINE
    ]
    fp32 = [one for one in facts.record.variants if one.variant == BASELINE]
    use, cpu = facts.words("intended_use"), facts.record.environment.cpu
    more = f"; and {len(files) - _FILES} more, under Files and lineage" if len(files) > _FILES else ""
    return (
        Said("Files", "; ".join(files[:_FILES]) + more or "none was compiled", not files),
        Said("Against", f"fp32 (sha256 {formats.short_hash(fp32[0].sha256)})" if fp32 else "no fp32 file", not fp32),
        Said("Place", f"{cpu.model}, {_providers(facts)}"),
        Said("Use", use or NOT_STATED, not use),
    )


def _providers(facts: Facts) -> str:
    found = dict.fromkeys(m.where.provider for m in facts.measurements if m.where.provider and m.value is not None)
    return f"ONNX Runtime by {', '.join(found)}" if found else "nothing measured"


def _basis(facts: Facts) -> tuple[Said, ...]:
    return (_images(facts), _classes(facts), _subgroups(facts), _places(facts), _numbers(facts))


def _images(facts: Facts) -> Said:
    if facts.data is None:
        return Said("Images", f"data set {facts.record.dataset}; the run holds no images", True)
    test = facts.data.test
    images = formats.count(len(test), "test image")
    if not facts.data.groups_known:
        return Said("Images", f"{images}, patients unknown; data set {facts.record.dataset}")
    patients = formats.count(len(set(test.groups)), "patient or group", "patients or groups")
    return Said("Images", f"{images} of {patients}; data set {facts.record.dataset}")


def _classes(facts: Facts) -> Said:
    labels = facts.task == "multi_label"
    word, all_of = ("Labels" if labels else "Classes"), len(facts.record.classes)
    family = "auroc/" if labels else "sensitivity/"
    judged = {
        m.metric.partition("/")[2]
        for m in facts.measurements
        if m.metric.startswith(family) and m.variant == BASELINE and m.value is not None and m.where.subgroup is None
    }
    kept = [name for name in facts.record.classes if name in judged and name not in rare_labels(facts)]
    missing = all_of - len(kept)
    return Said(word, f"{len(kept)} of {all_of} judged" + (f", {missing} not" if missing else ""), not kept)


def _subgroups(facts: Facts) -> Said:
    named = {m.where.subgroup for m in facts.measurements if m.where.subgroup}
    judged = {m.where.subgroup for m in facts.measurements if m.where.subgroup and m.value is not None}
    if not named:
        return Said("Subgroups", "none judged: the data set names none", True)
    without = len(named) - len(judged)
    return Said(
        "Subgroups", f"{len(judged)} of {len(named)} judged" + (f", {without} with too few images" if without else "")
    )


def _places(facts: Facts) -> Said:
    tried = {m.where.provider for m in facts.measurements if m.where.provider}
    judged = {m.where.provider for m in facts.measurements if m.where.provider and m.value is not None}
    failed = sorted(str(one) for one in tried - judged)
    others = f"; not measured: {', '.join(failed)}" if failed else ""
    answered = [place.place for place in facts.places if place.measurements]
    silent = [place.place for place in facts.places if not place.measurements]
    elsewhere = f"the same answers asked of {', '.join(answered)}" if answered else "no other device"
    silence = f"; no answer from {', '.join(silent)}" if silent else ""
    text = f"1 machine, {formats.count(len(judged), 'execution provider')}{others}; {elsewhere}{silence}"
    return Said("Places", text, not judged)


def _numbers(facts: Facts) -> Said:
    own = [m for m in facts.measurements if m.variant not in UNINFORMED]
    absent = sum(m.value is None for m in own)
    if not own:
        return Said("Numbers", "nothing was measured", True)
    taken, missing = formats.count(len(own) - absent, "measurement"), formats.count(absent, "number")
    return Said("Numbers", f"{taken}; {missing} not measured")
