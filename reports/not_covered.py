"""What a run does not cover: everything that was not measured, with its reason and what would measure it; limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from foundation.files import JSON
from foundation.measurements import UNINFORMED, Measurement
from foundation.metrics import row_of
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import rare_labels, reason_of

_NAMED = 5
_MEND = (
    ("min_positives", "more test images of the class (or `validation.accuracy.min_positives`, with care)"),
    ("too few", "more test images"),
    ("has no image of", "test images of that class"),
    ("mask", "a data set with masks"),
    ("gives the number of a class", "a file that gives scores"),
    ("Neural Compressor", "`edgeproof doctor` says how its environment is set up"),
    ("openvino", "`pip install edgeproof[openvino]`"),
    ("OpenVINO", "another file or provider: OpenVINO cannot run it"),
    ("provider", "a machine that has the provider; `edgeproof doctor` lists those here"),
    ("separate", "more test images: the scores separate these without a mistake"),
)
"""A word of the reason → what would mend it."""


@dataclass(frozen=True)
class Gap:
    """Numbers that were not measured for one reason.

    Attributes:
        what: the numbers.
        whose: of which variants and subgroups.
        count: how many.
        reason: why.
        mend: the command or setting that would measure them; "" where nothing is known.
    """

    what: str
    whose: str
    count: int
    reason: str
    mend: str


def gaps(facts: Facts) -> tuple[Gap, ...]:
    """Return all that was not measured, one entry per reason, and what the run was not asked for."""
    return (*_absent(facts), *_broken(facts), *_not_asked(facts))


def _absent(facts: Facts) -> Iterator[Gap]:
    found: dict[str, list[Measurement]] = {}
    for one in facts.measurements:
        if one.value is None and not _asks_nothing(one):
            found.setdefault(_reason(one), []).append(one)
    for reason, several in found.items():
        what = dict.fromkeys(_heading(one) for one in several)
        whose = [name for of in (_variant, _class, _place) for name in _one_kind(of, several)]
        yield Gap(_some(list(what)), "; ".join(whose), len(several), reason, _mend(reason))


def _reason(one: Measurement) -> str:
    """Return why; of subgroups in one sentence, since each has its own number of images."""
    if one.where.subgroup is None:
        return reason_of(one)
    return "too few images of a class, or none, in these subgroups; report.json has the number of each"


def _heading(one: Measurement) -> str:
    row = row_of(one.metric)
    return row.heading if row else one.metric


def _variant(one: Measurement) -> str:
    return one.variant


def _class(one: Measurement) -> str:
    return one.metric.partition("/")[2]


def _place(one: Measurement) -> str:
    return ", ".join(part for part in (one.where.subgroup, one.where.provider if one.where.threads else None) if part)


def _one_kind(of: Callable[[Measurement], str], several: Sequence[Measurement]) -> list[str]:
    names = [name for name in dict.fromkeys(map(of, several)) if name]
    return [_some(names)] if names else []


def _asks_nothing(one: Measurement) -> bool:
    """Return whether nobody would ask for it: fp32 against itself, and what only fp32's own maps are asked."""
    row = row_of(one.metric)
    if row is None or one.variant in UNINFORMED:
        return row is not None
    return row.against_fp32 if one.variant == BASELINE else row.table in ("sanity", "cascade")


def _broken(facts: Facts) -> Iterator[Gap]:
    for stage in facts.record.unfinished_stages:
        reason = stage.error or "the run gives no reason"
        yield Gap(f"Stage {stage.name}", stage.subject or "the run", 1, reason, _mend(reason) or "run again")
    for sentence in facts.unreadable:
        yield Gap("A file of the run", "", 1, sentence, "`edgeproof validate` writes it again")


def _not_asked(facts: Facts) -> Iterator[Gap]:
    validation = facts.record.configuration.get("validation")
    settings: Mapping[str, JSON] = validation if isinstance(validation, dict) else {}
    if not any(m.metric.startswith("robust_") for m in facts.measurements):
        yield Gap("Answers on worse images", "all", 1, "not asked for", "`validation.robustness: {}`")
    if not any("_at_threshold" in m.metric for m in facts.measurements):
        why = "Operating points (PPV, NPV, likelihood ratios)"
        yield Gap(why, "all", 1, "not asked for", "`validation.operating_points: {rule: youden}`")
    if not any(m.where.subgroup for m in facts.measurements):
        yield Gap("Subgroups", "all", 1, "the data set names none", "a data set with columns such as sex and age")
    cpu = facts.record.environment.cpu.model
    for place in facts.places:
        if not place.measurements:
            yield Gap("Answers elsewhere", place.place, 1, place.reason or "no answer", "`edgeproof verify` again")
    if not any(place.measurements and place.kind == "real" for place in facts.places):
        why, mend = f"every time is of this machine, {cpu}", "`edgeproof verify` on the device"
        yield Gap("Other devices", "all", 1, why, mend)
    if facts.answers is None:
        why = "the run was validated by an earlier version"
        yield Gap("Confusion matrices, ROC and precision-recall curves", "all", 1, why, "`edgeproof validate CONFIG`")
    if not settings.get("saliency") and not facts.maps:
        yield Gap("Saliency", "all", 1, "not asked for", "`validation.saliency: {methods: [occlusion]}`")


def limits(facts: Facts) -> tuple[str, ...]:
    """Return what holds for every number of the report, as sentences."""
    found = []
    if facts.record.synthetic:
        found.append("The images were generated. The numbers have no clinical meaning.")
    if not facts.words("intended_use"):
        found.append("No intended use is stated, so whether these numbers suffice for one cannot be judged.")
    if facts.data is not None:
        images = formats.count(len(facts.data.test), "test image")
        found.append(f"Measured on {images} of one data set; other sites, devices and patients may differ.")
    if rare_labels(facts):
        found.append(f"Too few test images to judge: {', '.join(rare_labels(facts))}.")
    found += [
        f"Accuracy and latency of an int8 file hold for the processor they were measured on: "
        f"{facts.record.environment.cpu.model}.",
        "Agreement with fp32 is not correctness: what fp32 gets wrong, a faithful variant gets wrong as well.",
        "Saliency maps say where a file looks, not why; a map like fp32's is only as meaningful as fp32's.",
        "No reader, no workflow and no clinical outcome was studied.",
    ]
    return tuple(found)


def _mend(reason: str) -> str:
    return next((mend for word, mend in _MEND if word in reason), "")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
