"""Two runs side by side: which measurement got worse, which one is missing, and what else differs between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from foundation.errors import ExitCode, UsageError
from foundation.files import JSON
from foundation.measurements import UNINFORMED, Measurement, PairedDifference, Where
from foundation.metrics import METRICS, row_name
from foundation.run_files import why_unverified
from pipeline.judge.changed_inputs import changed_inputs
from pipeline.judge.evidence import Evidence
from pipeline.judge.paired_runs import Key, PairedRuns
from pipeline.judge.tolerances import OF_ITS_NIGHT, OF_ITS_PROCESSOR, ComparisonSettings
from stages.validate.intervals.multiple import holm, loss_p

FORMAT_VERSION = 1

_BY_INTERVALS = ("timing", "threshold", "changed", "calibration")
"""What differs from night to night by itself, or by single images, and is not paired: its intervals must not meet."""

Status = Literal["regressed", "missing", "improved", "unchanged", "new", "not_compared"]

ORDER: tuple[Status, ...] = ("regressed", "missing", "improved", "not_compared", "new", "unchanged")


@dataclass(frozen=True)
class Difference:
    """One measurement of both runs.

    Attributes:
        metric: name of the metric, likewise variant and unit.
        where: what tells it from other measurements of the metric.
        accepted: the accepted run's value; None where it was not measured.
        current: the current run's value, likewise.
        status: `regressed` and `missing` turn the comparison red; `not_compared` are latencies of two processors.
        detail: why, in a few words.
        may_be_chance: whether the change is beyond the tolerance and yet not shown; such a one is `unchanged`.
    """

    metric: str
    variant: str
    where: Where
    unit: str
    accepted: float | None
    current: float | None
    status: Status
    detail: str
    may_be_chance: bool = False

    def as_json(self) -> dict[str, JSON]:
        """Return the difference as it stands in `comparison.json`."""
        own = {name: value for name, value in asdict(self).items() if name not in ("where", "may_be_chance")}
        where = self.where
        return {**own, "provider": where.provider, "split": where.split, "settings": where.settings}


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing two runs.

    Attributes:
        accepted: name of the accepted run.
        current: name of the current run.
        statements: what else differs (configuration, gates, data, processor, versions), one sentence each.
        differences: one per measurement, the regressed ones first, then the missing ones.
        other_images: why answers and maps of the two are not comparable, as a sentence; None where they are.
    """

    accepted: str
    current: str
    statements: tuple[str, ...]
    differences: tuple[Difference, ...] = field(default=())
    other_images: str | None = None

    @property
    def exit_code(self) -> ExitCode:
        """3 where a measurement is missing, 1 where one regressed, 0 otherwise."""
        counts = self.counts
        if counts["missing"]:
            return ExitCode.INCOMPLETE
        return ExitCode.GATE_FAILED if counts["regressed"] else ExitCode.PASSED

    @property
    def counts(self) -> Mapping[str, int]:
        """How many measurements have each status; 0 for the others."""
        return Counter(difference.status for difference in self.differences)

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        counts = self.counts
        compared = sum(counts[status] for status in ("regressed", "improved", "unchanged"))
        red = [f"{counts[status]} {status}" for status in ("regressed", "missing") if counts[status]]
        return f"{', '.join(red) or 'nothing regressed'} of {compared + counts['missing']} measurements compared"

    def as_json(self) -> dict[str, JSON]:
        """Return the comparison as it stands in `comparison.json`."""
        return {
            "format_version": FORMAT_VERSION,
            "exit_code": int(self.exit_code),
            "summary": self.summary,
            "counts": dict(self.counts),
            "accepted": self.accepted,
            "current": self.current,
            "statements": list(self.statements),
            "differences": [difference.as_json() for difference in self.differences],
        }


SIGNIFICANT = 0.05
"""Error rate of each metric's family of rows, by Holm."""


def compare(
    accepted: Evidence, current: Evidence, settings: ComparisonSettings, pairs: PairedRuns | None = None
) -> Comparison:
    """Pair the measurements of two runs and say which got worse.

    Where the answers of both runs to the same images are at hand, a metric of theirs is worse if it is so by more
    than its tolerance and the paired test shows a loss at an error rate of .05, one-sided, corrected by Holm for the
    rows of the same metric (variants, classes, subgroups) in which enough changed for one to be shown. Answers that
    flip to and fro are then no regression, and a loss that is real is one, whatever the number of images. Without
    them the tolerance alone decides; what depends on single images and is not paired (thresholds, worse images) must
    besides have intervals that don't meet.

    The speed-up over fp32, a ratio within one run, is always compared. So is the speed against the calibration
    kernel, on the same model of processor: it tells a night on which every file got slower from a machine that did.
    A latency or a throughput belongs to its night and to its processor: it is compared only where the settings name a
    tolerance for it, on the same model of processor. A timing counts as worse only where the two 95 % intervals do
    not meet: unlike a score on the same images, it differs from night to night by itself.

    Args:
        accepted: the reference.
        current: the run to judge.
        settings: the tolerances.
        pairs: the answers of both runs, paired; None where nobody looked.

    Raises:
        UsageError: the accepted run holds no measured value.
    """
    reference = _keyed(accepted.measurements)
    found = _keyed(current.measurements)
    if all(measurement.value is None for measurement in reference.values()):
        raise UsageError(
            f"{accepted.run}: expected measurements to compare with, found none. Choose a run that was validated."
        )
    same_cpu = accepted.record.environment.cpu.model == current.record.environment.cpu.model
    losses = _holm_by_metric(pairs.differences if pairs else {})
    differences = []
    for key in [*reference, *(key for key in found if key not in reference)]:
        old, new = reference.get(key), found.get(key)
        if old is not None and old.value is not None:
            new = new or _absent_like(old, current.measurements)
            found_p = losses.get((old.metric, old.variant, old.where))
            differences.append(_judge(old, old.value, new, settings, same_cpu, found_p))
        elif new is not None and new.value is not None:
            differences.append(_difference(new, None, new.value, "new", "not in the accepted run"))
    differences.sort(key=lambda difference: ORDER.index(difference.status))  # stable: the runs' own order within each
    other_images = _other_images(accepted, current, pairs)
    statements = (*((other_images,) if other_images else ()), *_statements(accepted, current))
    if pairs is not None and pairs.why_not is not None:
        statements += (f"Answers are compared by fixed tolerances. {pairs.why_not}",)
    return Comparison(accepted.run, current.run, statements, tuple(differences), other_images)


def _other_images(accepted: Evidence, current: Evidence, pairs: PairedRuns | None) -> str | None:
    """Return why answers and maps are not comparable; the same test images with other training images are."""
    if accepted.data_sha256 == current.data_sha256 or (pairs is not None and pairs.why_not is None):
        return None
    if pairs is not None and pairs.other_images:
        return "Not comparable: the two runs were measured on other test images."
    return "Not comparable: the two runs read other data, and whether their test images are the same cannot be told."


def _holm_by_metric(differences: Mapping[Key, PairedDifference]) -> Mapping[Key, float | None]:
    """Return the p of a loss for each row, by Holm over the rows of its metric; None where a row has no interval.

    Over all rows of a night it would find less than half of the losses of 3 points that it finds now, and the nights
    of docs/statistics.md are falsely red seldom enough without.
    """
    found: dict[Key, float | None] = {}
    families: dict[str, list[Key]] = {}
    for key in differences:
        families.setdefault(row_name(key[0]), []).append(key)
    for family, keys in families.items():
        better = METRICS[family].higher_is_better
        raw = {key: p for key in keys if (p := loss_p(differences[key], better)) is not None}
        corrected = holm([p for p, _ in raw.values()], [least for _, least in raw.values()])
        found |= dict.fromkeys(keys) | dict(zip(raw, corrected, strict=True))
    return found


def _keyed(measurements: Iterable[Measurement]) -> dict[tuple[str, str, Where, int], Measurement]:
    """Return measurements by what identifies them; equals are told apart by their order, so that none is lost."""
    keyed: dict[tuple[str, str, Where, int], Measurement] = {}
    seen: Counter[tuple[str, str, Where]] = Counter()
    for one in measurements:
        if one.variant in UNINFORMED:
            continue
        key = (one.metric, one.variant, one.where)
        keyed[*key, seen[key]] = one
        seen[key] += 1
    return keyed


def _absent_like(old: Measurement, measurements: Iterable[Measurement]) -> Measurement | None:
    """Return the record of an absence that explains why `old` is not there: it may be that of the whole variant."""
    subgroups = (None, old.where.subgroup)
    for one in measurements:
        same = (one.metric, one.variant) == (old.metric, old.variant) and one.where.subgroup in subgroups
        if one.value is None and same and one.where.place == old.where.place:
            return one
    return None


def _judge(
    old: Measurement,
    accepted: float,
    new: Measurement | None,
    settings: ComparisonSettings,
    same_cpu: bool,
    loss_p: float | None = None,
) -> Difference:
    if new is None or new.value is None:
        reason = new.reason if new else None
        return _difference(old, accepted, None, "missing", reason or "measured in the accepted run, not in this one")
    row = METRICS.get(row_name(old.metric))
    if row is None:
        return _difference(old, accepted, new.value, "not_compared", "a metric that this version does not know")
    if (old.unit in OF_ITS_NIGHT or old.metric in OF_ITS_PROCESSOR) and not same_cpu:
        return _difference(old, accepted, new.value, "not_compared", "another processor")
    if old.unit in OF_ITS_NIGHT and not settings.names(old.metric):
        return _difference(old, accepted, new.value, "not_compared", "a time of its night; no tolerance names it")
    tolerance = settings.tolerance(old.metric)
    change = new.value - accepted
    allowed = tolerance.limit * (abs(accepted) if tolerance.kind == "relative" else 1.0)
    shown = f"{tolerance.limit:.0%}" if tolerance.kind == "relative" else f"{tolerance.limit:g}"
    if abs(change) <= allowed * (1 + 1e-9):  # 0.91 - 0.90 is a little more than 0.01
        return _difference(old, accepted, new.value, "unchanged", f"within {shown}")
    status: Status = "improved" if (change > 0) == row.higher_is_better else "regressed"
    if loss_p is not None:
        if status == "regressed" and loss_p > SIGNIFICANT:
            why = f"may be chance, {_p_in_words(loss_p)}"
            return replace(_difference(old, accepted, new.value, "unchanged", why), may_be_chance=True)
        return _difference(old, accepted, new.value, status, f"by more than {shown}, {_p_in_words(loss_p)}")
    if row.inputs in _BY_INTERVALS and _intervals_meet(old, new):
        found = _difference(old, accepted, new.value, "unchanged", "the 95 % intervals meet")
        return replace(found, may_be_chance=True)
    return _difference(old, accepted, new.value, status, f"by more than {shown}")


def _p_in_words(p: float) -> str:
    return f"p of a loss {'< .001' if p < 0.001 else f'{p:.2g}'}"


def _intervals_meet(old: Measurement, new: Measurement) -> bool:
    if old.ci95 is None or new.ci95 is None:
        return False
    return old.ci95[0] <= new.ci95[1] and new.ci95[0] <= old.ci95[1]


def _difference(
    one: Measurement, accepted: float | None, current: float | None, status: Status, detail: str
) -> Difference:
    return Difference(one.metric, one.variant, one.where, one.unit, accepted, current, status, detail)


def _statements(accepted: Evidence, current: Evidence) -> tuple[str, ...]:
    unverified = (why_unverified(evidence.record) for evidence in (accepted, current))
    return (
        *(reason for reason in unverified if reason is not None),
        *(change.sentence for change in changed_inputs(accepted, current)),
    )
