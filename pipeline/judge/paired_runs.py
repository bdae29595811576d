"""Two runs' answers to the same images, paired: what changed from the accepted run to this one, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import UsageError
from foundation.measurements import Measurement, PairedDifference, Where
from foundation.metrics import METRICS, row_name
from foundation.record import RunRecord
from foundation.run_files import refuse_changed
from foundation.run_folder import RunFolder

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedSplit
    from stages.validate.accuracy import AccuracySettings
    from stages.validate.answers import Predictions

Key = tuple[str, str, Where]


@dataclass(frozen=True)
class PairedRuns:
    """How this run's answers differ from the accepted run's.

    Attributes:
        differences: (metric, variant, where) → this run's number − the accepted one's.
        why_not: why there are none, as a sentence; None where there are.
        other_images: whether that is because the two were asked about other images, or these have other labels.
    """

    differences: Mapping[Key, PairedDifference] = field(default_factory=dict)
    why_not: str | None = None
    other_images: bool = False


NOTHING_ACCEPTED = PairedRuns(why_not="No run was accepted yet; `edgeproof accept RUN` accepts one.")


def pair_runs(
    accepted: RunFolder, accepted_record: RunRecord, current: RunFolder, current_record: RunRecord
) -> PairedRuns:
    """Return the paired differences of what is computed from answers and from maps, of variants that both runs have.

    Args:
        accepted: the folder of the accepted run; it may be gone.
        accepted_record: what was recorded of it.
        current: the folder of this run, whose validation has ended.
        current_record: likewise.
    """
    from calibration_data.prepared_folder import read_prepared
    from stages.validate.accuracy import AccuracySettings
    from stages.validate.answers import Predictions

    if not accepted.record.exists():
        return PairedRuns(why_not=f"The folder of the accepted run {accepted.root.name} is gone.")
    try:
        refuse_changed(accepted, accepted_record)
        then, now = read_prepared(accepted.data), read_prepared(current.data)
        if (then.classes, then.test.sha256) != (now.classes, now.test.sha256):
            return PairedRuns(why_not="The accepted run answered other test images.", other_images=True)
        if not np.array_equal(then.test.labels, now.test.labels):
            return PairedRuns(why_not="The accepted run's test images have other labels.", other_images=True)
        settings = AccuracySettings.model_validate(_accuracy_settings(current_record))
        differences: dict[Key, PairedDifference] = {}
        for variant in _variants(accepted_record, current_record):
            pairs = [(name, run.predictions(name)) for name in (variant, "fp32") for run in (accepted, current)]
            if not all(path.is_file() for _, path in pairs):
                continue
            differences |= paired_maps(accepted, current, variant, now.test.groups)
            before, after, fp32_before, fp32_after = (Predictions.read(name, path) for name, path in pairs)
            differences |= paired_differences((before, after), now.test, now.classes, settings)
            if variant != "fp32":
                fp32s = (fp32_before, fp32_after)
                differences |= paired_with_fp32((before, after), fp32s, now.test.groups, settings)
    except UsageError as error:
        return PairedRuns(why_not=f"The accepted run's answers or maps cannot be read: {error}")
    return PairedRuns(differences)


def paired_differences(
    answers: tuple[Predictions, Predictions], test: PreparedSplit, classes: Sequence[str], settings: AccuracySettings
) -> dict[Key, PairedDifference]:
    """Return what changed in every metric of the answers alone, from the first to the second of one variant.

    Args:
        answers: the accepted run's and this one's.
        test: the images of both.
        classes: their names.
        settings: of the bootstrap.
    """
    from stages.validate.accuracy import measure_accuracy
    from stages.validate.subgroups import subgroups_of

    before, after = answers
    measured = measure_accuracy(
        after.variant,
        after.logits,
        after.labels,
        classes,
        before.logits,
        test.groups,
        subgroups_of(test),
        settings,
        present_only=True,
        unscored=frozenset(() if before.scored and after.scored else (after.variant, "fp32")),
    )
    return {
        (one.metric, one.variant, one.where): one.difference
        for one in measured
        if one.difference is not None and not METRICS[row_name(one.metric)].against_fp32
    }


def paired_with_fp32(
    answers: tuple[Predictions, Predictions],
    fp32s: tuple[Predictions, Predictions],
    group_names: Sequence[str],
    settings: AccuracySettings,
) -> dict[Key, PairedDifference]:
    """Return how a variant's agreement and SQNR, each with the same run's fp32, changed.

    Args:
        answers: a variant's in the accepted run and in this one.
        fp32s: likewise.
        group_names: of the images.
        settings: of the bootstrap.
    """
    from stages.validate import decisions, metrics
    from stages.validate.intervals.groups import units_of
    from stages.validate.intervals.paired import paired_draws, paired_shares
    from stages.validate.intervals.proportions import Decisions
    from stages.validate.intervals.resampling import resampled

    units, variant = units_of(group_names), answers[0].variant
    function = decisions.agreement if answers[0].task == "multi_class" else decisions.label_agreement
    pairs = tuple(zip(answers, fp32s, strict=True))
    before, after = (Decisions(function(own.logits, fp32.logits, None), units) for own, fp32 in pairs)
    where = Where(provider="cpu", split="test")
    found = {("agreement", variant, where): paired_shares(after, before)}
    if all(one.scored for one in (*answers, *fp32s)):
        then, now = (metrics.sqnr_sums(own.logits, fp32.logits) for own, fp32 in pairs)
        draws = resampled({"then": then, "now": now}, units, settings.resamples, settings.seed)
        once = np.ones((len(units), 1))
        value = float(now(once)[0] - then(once)[0])
        found["logits_sqnr_db", variant, where] = paired_draws(value, draws["now"], draws["then"], units)
    return found


def paired_maps(
    accepted: RunFolder, current: RunFolder, variant: str, group_names: Sequence[str]
) -> dict[Key, PairedDifference]:
    """Return what changed in what a variant's maps are worth, by each method that explained the same in both runs.

    Args:
        accepted: the folder of the accepted run.
        current: of this one, with the same test images.
        variant: that both have.
        group_names: of the test images.
    """
    from foundation.arrays import read_arrays
    from stages.validate.intervals.groups import units_of
    from stages.validate.intervals.paired import paired_means
    from stages.validate.map_values import read_map_values
    from stages.validate.maps.methods import SALIENCY_METHODS

    found: dict[Key, PairedDifference] = {}
    for method in SALIENCY_METHODS:
        runs = (accepted, current)
        paths = [path for run in runs for path in (run.maps(variant, method), run.map_values(variant, method))]
        if not all(path.is_file() for path in paths):
            continue
        explained = [read_arrays(path, ("image_index", "target")) for path in paths[::2]]
        if not all(np.array_equal(then, now) for then, now in zip(*explained, strict=True)):
            continue
        before, after = (read_map_values(path) for path in paths[1::2])
        units = units_of([group_names[index] for index in explained[0][0].tolist()])
        where = Where(provider="cpu", split="test", method=method)
        for metric in (name for name in after if name in before):
            counted = np.isfinite(after[metric])
            if counted.any() and np.array_equal(counted, np.isfinite(before[metric])):
                pair = (after[metric][counted], before[metric][counted])
                found[metric, variant, where] = paired_means(*pair, units[counted])
    return found


def against_accepted(measurements: Sequence[Measurement], pairs: PairedRuns) -> list[Measurement]:
    """Return measurements with their difference from the accepted run's in place of that from fp32."""
    return [
        replace(one, difference=pairs.differences.get((one.metric, one.variant, one.where))) for one in measurements
    ]


def _variants(accepted: RunRecord, current: RunRecord) -> list[str]:
    before = {variant.variant for variant in accepted.variants}
    return [variant.variant for variant in current.variants if variant.variant in before]


def _accuracy_settings(record: RunRecord) -> object:
    validation = record.configuration.get("validation")
    return validation.get("accuracy", {}) if isinstance(validation, dict) else {}
