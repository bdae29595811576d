"""A comparison as a page: the judged differences of two runs, told as better, worse or not to be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from foundation.measurements import PairedDifference
from foundation.metrics import METRICS, row_name
from foundation.versions import installed_version
from pipeline.judge.comparison import Comparison, Difference
from pipeline.judge.evidence import Evidence
from pipeline.judge.paired_runs import PairedRuns
from pipeline.judge.tolerances import ComparisonSettings, recorded_settings
from reports import comparison_page, formats
from reports.comparison_page import ComparedPart, ComparedRow, ComparedRun, ComparedRuns
from reports.forest import Entry, Forest, forest

_OF_THE_IMAGES = ("file", "timing")
"""What a metric is taken from that does not depend on the images."""


def comparison_html(comparison: Comparison, accepted: Evidence, current: Evidence, pairs: PairedRuns) -> str:
    """Return the page of two compared runs.

    Args:
        comparison: what was judged.
        accepted: the first run.
        current: the second one.
        pairs: the answers of both, paired, for the intervals of the changes.
    """
    differences = comparison.differences
    aside: tuple[Difference, ...] = ()
    if comparison.other_images is not None:
        aside = tuple(one for one in differences if not _holds_on_any_images(one))
        differences = tuple(one for one in differences if _holds_on_any_images(one))

    def rows(
        wanted: Callable[[Difference], bool], among: Sequence[Difference] = differences
    ) -> tuple[ComparedRow, ...]:
        return tuple(_row(one, pairs) for one in among if wanted(one))

    worse, missing = rows(lambda one: one.status == "regressed"), rows(lambda one: one.status == "missing")
    parts = [
        ComparedPart("worse", "Got worse", "Beyond the tolerance, and not by chance.", worse, "failed"),
        ComparedPart("missing", "Not measured any more", _MISSING, missing, "incomplete"),
        ComparedPart("better", "Got better", "Beyond the tolerance.", rows(lambda one: one.status == "improved")),
        ComparedPart("untold", "Cannot be told", _UNTOLD, rows(lambda one: one.may_be_chance), "incomplete"),
        ComparedPart(
            "apart", "Not compared", _APART, rows(lambda one: one.status == "not_compared"), folded=True
        ),
        ComparedPart("new", "New", "Not in the first run.", rows(lambda one: one.status == "new"), folded=True),
        ComparedPart(
            "same", "No worse than the tolerance", "The change is within the tolerance.",
            rows(lambda one: one.status == "unchanged" and not one.may_be_chance), folded=True,
        ),
    ]  # fmt: skip
    if aside:
        side = ComparedPart("aside", "Not comparable", _ASIDE, rows(lambda one: True, aside), "incomplete", True)
        parts.insert(0, side)
    kind, word, headline, sentence = _outcome(comparison, len(worse), len(missing))
    runs = (_run("before", accepted), _run("now", current))
    shown = tuple(part for part in parts if part.rows or part.key in ("worse", "better", "untold"))
    return comparison_page.render(
        ComparedRuns(
            kind, word, headline, sentence, comparison.exit_code, runs, comparison.statements,
            _plots(differences, pairs, recorded_settings(current.record)), shown,
            installed_version("edgeproof"),
        )
    )  # fmt: skip


_MISSING = "Measured in the first run and not in the second. Measure them again, or take them out of the gates."
_UNTOLD = (
    "Beyond the tolerance, but it may be chance: the answers to the same images flip to and fro, or the intervals "
    "meet. More test images would tell."
)
_APART = "Times of different nights or processors, and metrics that this version does not know."
_ASIDE = (
    "Measured on other test images than the first run's: the numbers stand side by side, and nothing follows from "
    "their difference. Run both on the same images to compare them."
)

_MOST_IN_A_PLOT = 40


def _plots(differences: Sequence[Difference], pairs: PairedRuns, settings: ComparisonSettings) -> tuple[Forest, ...]:
    """Return the changes beyond their tolerances that have an interval, those of a unit on one axis."""
    told = {"regressed": "worse", "improved": "better"}
    by_unit: dict[str, list[Entry]] = {}
    for one in differences:
        paired = pairs.differences.get((one.metric, one.variant, one.where))
        row = METRICS.get(row_name(one.metric))
        beyond = one.status in told or one.may_be_chance
        if row is None or paired is None or paired.ci95 is None or not beyond:
            continue
        tolerance = settings.tolerance(one.metric)
        limit = None if tolerance.kind == "relative" else tolerance.limit * (-1.0 if row.higher_is_better else 1.0)
        entry = Entry(
            _heading(one), paired.value, paired.ci95, limit, f"{one.variant}, {_place(one)}",
            upper=not row.higher_is_better, emphasis=told.get(one.status, ""),
        )  # fmt: skip
        by_unit.setdefault(row.shown_as or one.unit, []).append(entry)
    legend = "Now minus before on the same images, 95 % intervals; the bracket is the tolerance."
    return tuple(
        forest(
            f"changes-{number}",
            f"Changes beyond the tolerance, {'points' if unit == 'share' else unit}",
            "Measurement",
            entries[:_MOST_IN_A_PLOT],
            unit,
            differences=True,
            legend=legend,
        )
        for number, (unit, entries) in enumerate(by_unit.items())
    )


Outcome = tuple[Literal["passed", "failed", "incomplete"], str, str, str]


def _outcome(comparison: Comparison, worse: int, missing: int) -> Outcome:
    counts = comparison.counts
    told = [f"{formats.count(worse, 'measurement')} worse"] if worse else []
    told += [f"{formats.count(counts['improved'], 'measurement')} better"] if counts["improved"] else []
    told += [f"{formats.count(missing, 'measurement')} missing"] if missing else []
    if comparison.other_images is not None:
        return "incomplete", "Not comparable", "the runs saw other images", comparison.other_images
    compared = sum(counts[status] for status in ("regressed", "improved", "unchanged", "missing"))
    headline = ", ".join(told) or "no change beyond the tolerances"
    sentence = f"{formats.count(compared, 'measurement')} compared by the tolerances of {comparison.current}."
    if worse:
        return "failed", "Worse", headline, sentence
    if missing:
        return "incomplete", "Cannot be told", headline, sentence
    return "passed", "Nothing got worse", headline, sentence


def _holds_on_any_images(one: Difference) -> bool:
    row = METRICS.get(row_name(one.metric))
    return row is not None and row.inputs in _OF_THE_IMAGES


def _row(one: Difference, pairs: PairedRuns) -> ComparedRow:
    row = METRICS.get(row_name(one.metric))
    unit = (row.shown_as if row else None) or one.unit
    change = one.current - one.accepted if one.accepted is not None and one.current is not None else None
    return ComparedRow(
        metric=_heading(one),
        detail=_place(one),
        variant=one.variant,
        before=_value(one.accepted, unit),
        now=_value(one.current, unit),
        change="" if change is None else formats.signed(change, unit),
        interval=_interval(pairs.differences.get((one.metric, one.variant, one.where)), unit),
        why=one.detail,
    )


def _heading(one: Difference) -> str:
    row = METRICS.get(row_name(one.metric))
    of_class = one.metric.partition("/")[2]
    return f"{row.heading}{f', {of_class}' if of_class else ''}" if row else one.metric


def _place(one: Difference) -> str:
    where = (one.where.provider, one.where.split, *(f"{name} {value}" for name, value in one.where.settings.items()))
    return ", ".join(part for part in (one.metric.partition("/")[0], *where) if part)


def _interval(paired: PairedDifference | None, unit: str) -> str:
    if paired is None or paired.ci95 is None:
        return ""
    return " to ".join(formats.signed(one, unit, with_word=False) for one in paired.ci95)


def _value(value: float | None, unit: str) -> str:
    return formats.NOT_MEASURED if value is None else formats.with_unit(value, unit)


def _run(role: str, evidence: Evidence) -> ComparedRun:
    record = evidence.record
    code = record.exit_code
    facts = (
        ("Run", record.name),
        ("Exit code", "none: it did not end" if code is None else str(int(code))),
        ("Data set", f"{record.dataset}{' (synthetic)' if record.synthetic else ''}"),
        ("Files", ", ".join(variant.variant for variant in record.variants) or "none"),
        ("Processor", record.environment.cpu.model),
        ("edgeproof", record.environment.edgeproof or "unknown"),
        ("Record", formats.short_hash(record.sha256)),
    )
    return ComparedRun(role, evidence.run, facts)
