"""The variants as small multiples: one panel per number that decides, the same variants in the same order in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foundation.measurements import UNINFORMED, Measurement
from foundation.metrics import METRICS
from reports import formats
from reports.facts import BASELINE, Facts
from reports.measured import (
    deciding_metric,
    find,
    latency_settings,
    method_name,
    reason_of,
    saliency_methods,
    shown_unit,
)
from reports.scales import Scale


@dataclass(frozen=True)
class Dot:
    """One variant in one panel: places in hundredths of the panel's axis; `at` None where it was not measured."""

    at: float | None
    low: float | None
    width: float
    text: str
    interval: str
    reason: str


@dataclass(frozen=True)
class Panel:
    """One number of every variant.

    Attributes:
        title: what it is.
        metric: its row in the table of metrics, for the glossary.
        better: which way is better, in words.
        zero: place of fp32's own value; None where it has none.
        dots: one per variant.
    """

    title: str
    metric: str
    better: str
    reference: float | None
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Multiples:
    """All panels.

    Attributes:
        variants: names, the baseline first, with the method that made each.
        panels: accuracy, agreement, saliency, size, speed.
        front: the variants that no other beats in answers, size and speed together.
    """

    variants: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]
    front: frozenset[str]


def multiples(facts: Facts) -> Multiples:
    """Return the panels of a run."""
    methods, settings = saliency_methods(facts), latency_settings(facts)
    deciding = deciding_metric(facts)
    saliency = f"Saliency, ρ with fp32{f' ({method_name(methods[0])})' if methods else ''}"
    method = methods[0] if methods else None
    setting = settings[0] if settings else None
    panels = (
        _panel(facts, deciding.row.heading, deciding.metric, lambda v: find(facts, deciding.metric, v)),
        _panel(facts, METRICS["agreement"].heading, "agreement", lambda v: find(facts, "agreement", v)),
        _panel(
            facts,
            saliency,
            "saliency_spearman",
            lambda v: find(facts, "saliency_spearman", v, saliency_method=method),
        ),
        _panel(facts, "Size of the file", "size_bytes", lambda v: _size(facts, v)),
        _panel(
            facts,
            f"Speed-up over fp32{f' ({setting})' if setting else ''}",
            "latency_speedup",
            lambda v: find(facts, "latency_speedup", v, latency=setting),
        ),
    )
    made = {one.variant: one.method for one in facts.record.variants}
    variants = tuple((name, _made(name, made)) for name in facts.variant_names)
    return Multiples(variants, panels, frozenset(front(facts.measurements, deciding.metric)))


def front(measurements: Sequence[Measurement], deciding: str) -> tuple[str, ...]:
    """Return the files that no other one beats: at least as good in answers, size and speed, and better in one.

    Speed is the latency that was measured first; a file without one of the three is not compared.
    """
    values: dict[str, dict[str, float]] = {}
    for one in measurements:
        row = one.metric in (deciding, "size_bytes", "latency_p50_ms")
        whole = one.where.subgroup is None and one.where.change is None and one.where.per is None
        if row and whole and one.value is not None and one.variant not in UNINFORMED:
            sign = 1.0 if METRICS[one.metric].higher_is_better else -1.0
            values.setdefault(one.variant, {}).setdefault(one.metric, sign * one.value)
    full = {name: [of[key] for key in sorted(of)] for name, of in values.items() if len(of) == 3}
    return tuple(name for name, mine in full.items() if not any(_beats(other, mine) for other in full.values()))


def _beats(other: Sequence[float], mine: Sequence[float]) -> bool:
    pairs = list(zip(other, mine, strict=True))
    return all(his >= ours for his, ours in pairs) and any(his > ours for his, ours in pairs)


def _made(name: str, made: dict[str, str]) -> str:
    method = made.get(name, "not compiled")
    return "" if method == name else method


def _size(facts: Facts, variant: str) -> Measurement:
    for record in facts.record.variants:
        if record.variant == variant:
            return Measurement("size_bytes", record.size_bytes, "bytes", variant)
    return Measurement("size_bytes", None, "bytes", variant, remarks={"reason": "no file was compiled"})


def _panel(facts: Facts, title: str, metric: str, of: Callable[[str], Measurement]) -> Panel:
    row = METRICS[metric]
    found = {variant: of(variant) for variant in facts.variant_names}
    values = [one.value for one in found.values() if one.value is not None]
    for one in found.values():
        values += one.ci95 or ()
    neutral = 1.0 if row.against_fp32 and values else None
    if metric == "size_bytes":
        values.append(0.0)
    if neutral is not None:
        values.append(neutral)
    scale = Scale.over(values or [0.0, 1.0], margin=0.08)
    fp32 = found.get(BASELINE)
    reference = neutral if row.against_fp32 else (fp32.value if fp32 is not None else None)
    dots = tuple(_dot(one, scale, row.against_fp32 and variant == BASELINE) for variant, one in found.items())
    better = "more is better" if row.higher_is_better else "less is better"
    return Panel(title, metric, better, None if reference is None else scale.at(reference), dots)


def _dot(one: Measurement, scale: Scale, is_reference: bool) -> Dot:
    if is_reference:
        return Dot(None, None, 0.0, "reference", "", "")
    if one.value is None:
        return Dot(None, None, 0.0, formats.NOT_MEASURED, "", reason_of(one))
    unit = shown_unit(one)
    low, high = (scale.at(end) for end in one.ci95) if one.ci95 else (None, None)
    width = 0.0 if low is None or high is None else round(high - low, 2)
    interval = formats.interval(*one.ci95, unit) if one.ci95 else ""
    return Dot(scale.at(one.value), low, width, formats.with_unit(one.value, unit), interval, "")
