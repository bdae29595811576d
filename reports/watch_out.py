"""What a reviewer should know before believing a number: one sentence each, with the place that says more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foundation.measurements import Measurement, PairedDifference
from foundation.metrics import row_of
from foundation.notes import static_notes
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import rare_labels, shown_unit

FEW_IMAGES = 10
"""Test images of a class below which a share of them says little."""
_NAMED = 4


@dataclass(frozen=True)
class Caution:
    """Something to watch out for.

    Attributes:
        title: in a few words.
        sentence: what it is.
        section: id of the part that says more.
    """

    title: str
    sentence: str
    section: str


def watch_out(facts: Facts) -> tuple[Caution, ...]:
    """Return all that applies, the gravest first."""
    return (
        *_changed_gates(facts),
        *_broken(facts),
        *_synthetic(facts),
        *_weak_baseline(facts),
        *_worse(facts),
        *_worst_subgroup(facts),
        *_rare(facts),
        *_patients(facts),
        *_saturating(facts),
        *_busy(facts),
    )


def _changed_gates(facts: Facts) -> Iterator[Caution]:
    for change in facts.record.gate_changes:
        yield Caution("Gates changed afterwards", change.sentence, "gates-history")


def _broken(facts: Facts) -> Iterator[Caution]:
    why: dict[str, list[str]] = {}
    for stage in facts.record.unfinished_stages:
        why.setdefault(stage.error or "the run gives no reason", []).append(stage.name)
    for reason, names in why.items():
        yield Caution("Stage without a result", f"{_listing(names)}: {reason}", "gaps")
    for sentence in facts.unreadable:
        yield Caution("Unreadable", sentence, "gaps")


def _synthetic(facts: Facts) -> Iterator[Caution]:
    if facts.record.synthetic:
        yield Caution("Synthetic data", "The images were generated; no number here has a clinical meaning.", "data")


def _weak_baseline(facts: Facts) -> Iterator[Caution]:
    for doubt in facts.answers.doubts if facts.answers else ():
        yield Caution("Weak baseline", f"fp32 itself: {doubt} Whatever equals it is as weak.", "classes")
    family = "sensitivity"
    measured = [m for m in facts.measurements if m.metric.startswith(f"{family}/") and m.variant == BASELINE]
    none = [m.metric.partition("/")[2] for m in measured if m.value == 0 and m.where.subgroup is None]
    if none:
        yield Caution(
            "Never found", f"fp32 finds no image of {_listing(none)}: sensitivity 0{formats.NARROW}%.", "classes"
        )


def _worse(facts: Facts) -> Iterator[Caution]:
    for variant, classes in (facts.answers.classes_got_worse if facts.answers else {}).items():
        if variant in facts.variant_names:
            yield Caution(
                "A class got worse",
                f"{variant} finds fewer images of {_listing(list(classes))} than fp32, beyond chance.",
                "classes",
            )


def _worst_subgroup(facts: Facts) -> Iterator[Caution]:
    drops = [m for m in facts.measurements if m.metric == "accuracy" and m.where.subgroup and m.difference]
    told = [(m, m.difference) for m in drops if m.difference and m.difference.value < 0]
    if told:
        worst, difference = min(told, key=lambda one: one[1].value)
        yield Caution("Worst subgroup", _subgroup_sentence(worst, difference), "subgroups")


def _subgroup_sentence(worst: Measurement, difference: PairedDifference) -> str:
    by = formats.change(difference.value, difference.ci95, shown_unit(worst))
    sure = difference.ci95 is not None and difference.ci95[1] < 0
    chance = "" if sure else "; chance alone may explain it"
    n = f", {formats.count(worst.n, 'image')}" if worst.n else ""
    return f"accuracy of {worst.variant} on {worst.where.subgroup}: {by}{n}{chance}."


def _rare(facts: Facts) -> Iterator[Caution]:
    rare = rare_labels(facts)
    if rare:
        of = f"{len(rare)} of {len(facts.record.classes)} labels"
        yield Caution("Rare labels", f"{of} have too few images to be judged: {_listing(list(rare))}.", "classes")
        return
    few = {m.metric.partition("/")[2]: m.n for m in facts.measurements if _is_small(m)}
    if few:
        listed = _listing([f"{name} ({formats.count(n or 0, 'image')})" for name, n in few.items()])
        yield Caution("Rare classes", f"Few test images: {listed}.", "classes")


def _is_small(one: Measurement) -> bool:
    whole = one.where.subgroup is None and one.variant == BASELINE
    return whole and one.metric.startswith("sensitivity/") and one.n is not None and one.n < FEW_IMAGES


def _patients(facts: Facts) -> Iterator[Caution]:
    if facts.data is not None and not facts.data.groups_known:
        yield Caution(
            "Patients unknown",
            "No patients are named, or not of every image: images of one patient may stand in training and test, and "
            "intervals take images for independent.",
            "data",
        )


def _saturating(facts: Facts) -> Iterator[Caution]:
    for record in facts.record.variants:
        static = static_notes(record.notes)
        if static is not None and static.saturation:
            layers = formats.count(len(static.saturation), "layer")
            yield Caution(
                "Saturating layers",
                f"{layers} of {record.variant} can go wrong on x86 processors without VNNI.",
                "files",
            )


def _busy(facts: Facts) -> Iterator[Caution]:
    said = facts.machine.warning if facts.machine else None
    if said is None:
        timed = (m for m in facts.measurements if "busy" in m.remarks and _is_time(m))
        said = next((str(m.remarks["busy"]) for m in timed), None)
    if said:
        yield Caution("Busy machine", said, "latency")


def _is_time(one: Measurement) -> bool:
    row = row_of(one.metric)
    return row is not None and row.inputs == "timing"


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
