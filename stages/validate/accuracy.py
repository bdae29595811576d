"""Accuracy of a shipped file on the test split, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedSplit
from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS, Metric
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.sessions import gives_scores, open_session, predict
from stages.validate import COMPUTATIONS
from stages.validate.answer_estimates import Row, difference_of, interval_of, resample, value_of
from stages.validate.answers import Answers, Predictions
from stages.validate.calibration import measure_calibration
from stages.validate.intervals import groups
from stages.validate.intervals.estimates import Estimate
from stages.validate.measurements import measured, not_measured
from stages.validate.metrics import gap_of_calibrated
from stages.validate.subgroups import holm_corrected

Labels = NDArray[np.int64]
Logits = NDArray[np.float32]

ON_TEST = Where(provider="cpu", split="test")
"""Where a file answers: accuracy is measured on the provider that every machine has."""

SUBGROUP_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "auroc_macro",
    "sensitivity/CLASS",
    "specificity/CLASS",
    "auroc/CLASS",
)
"""What is measured of each subgroup too: metrics whose intervals need no resampling."""


class AccuracySettings(Settings):
    """How the test split is answered and how sure its figures are."""

    # One by one, as an edge device sees them: dynamic quantization takes its range from the whole batch.
    batch_size: int = Field(
        1, ge=1, le=4096, description="images per query; more than 1 changes dynamic-int8's answers"
    )
    threads: int = Field(1, ge=1, le=256, description="threads of the session")
    resamples: int = Field(2000, ge=1000, le=100_000, description="bootstrap resamples behind an interval")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the bootstrap")
    min_positives: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="test images with a label, and without it, from which on its AUROC and average precision are "
        "measured and it counts in the means over labels; multi-label data only, but in a subgroup of any data",
    )


def predict_variant(
    model: OnnxModel,
    data: PreparedSplit,
    settings: AccuracySettings,
    target: Path,
    progress: Progress = no_progress,
) -> Predictions:
    """Answer every image of a split with a shipped file on the CPU provider, and write the logits.

    Args:
        model: the file.
        data: the split, usually test.
        settings: batch size and threads.
        target: the `.npz` to write: logits float32 [n, classes], labels as in the split, whether there are scores.
        progress: called after each query with the images done and all.

    Raises:
        StageError: a logit is not finite.
    """
    session = open_session(model.path, "cpu", settings.threads)
    logits = predict(session, data.images, settings.batch_size, progress)
    predictions = Predictions(model.variant, logits, data.labels, target, gives_scores(session))
    predictions.write()
    return predictions


def measure_size(model: OnnxModel, fp32: OnnxModel) -> list[Measurement]:
    """Return the size of the shipped file; of all but fp32 itself also over fp32's."""
    size = Measurement("size_bytes", float(model.size_bytes), METRICS["size_bytes"].unit, model.variant)
    if model.variant == fp32.variant:
        return [size]
    over_fp32s = model.size_bytes / fp32.size_bytes
    return [size, Measurement("size_against_fp32", over_fp32s, METRICS["size_against_fp32"].unit, model.variant)]


def measure_accuracy(
    variant: str,
    logits: Logits,
    labels: Labels,
    classes: Sequence[str],
    reference_logits: Logits | None,
    group_names: Sequence[str],
    subgroups: Sequence[tuple[str, ...]],
    settings: AccuracySettings,
    present_only: bool = False,
    unscored: frozenset[str] = frozenset(),
) -> list[Measurement]:
    """Return every row of `METRICS` that is computed from logits, each with its sample size and 95 % interval.

    What cannot be said of this sample has the value None and a reason; what has no sound interval has none and says
    why. Where groups hold several images, whole groups vary in every interval. What is held against fp32's answers
    has its paired difference from fp32's number too.

    Args:
        variant: its name.
        logits: float32 [n, classes].
        labels: int64 [n], indices into `classes`; of a multi-label task int64 [n, classes], 0 or 1.
        classes: names of the classes or labels.
        reference_logits: fp32's logits of the same images; None for fp32 itself.
        group_names: n names of what images belong together by, such as a patient.
        subgroups: n tuples of names; `SUBGROUP_METRICS` are measured of the images of each name too, and what
            compression changed there has a p that Holm's correction for the other subgroups went into.
        settings: resamples, seed, and how often a label must occur.
        present_only: whether only the classes that occur among the labels are looked at, as where a model knows a
            thousand and the images show some of them; else a class without an image is told as not measured.
        unscored: the files, of this one and "fp32", that give the number of a class: what takes scores is told as
            not measured.

    Raises:
        StageError: a logit is not finite, or the arrays don't fit each other.
    """
    _require_finite(variant, logits)
    expected = (len(labels), len(classes))
    if logits.shape != expected or not len(labels) or (labels.ndim > 1 and labels.shape != expected):
        raise StageError(
            f"{variant}: expected logits of {len(labels)} images (at least one) and {len(classes)} classes, found "
            f"the shapes {list(logits.shape)} and, of the labels, {list(labels.shape)}. Delete its predictions and "
            "run `edgeproof validate` again."
        )
    if reference_logits is not None and reference_logits.shape != logits.shape:
        raise StageError(
            f"{variant}: expected fp32's logits of the same images, found the shapes {list(logits.shape)} and "
            f"{list(reference_logits.shape)}. Delete the predictions and run `edgeproof validate` again."
        )
    units = groups.units_of(group_names)
    answers = Answers(
        variant, logits, labels, tuple(classes), reference_logits, units, settings.min_positives, unscored=unscored
    )
    if present_only:
        answers = answers.of_present_classes()
    rows = [row for name, metric in METRICS.items() for row in _rows(name, metric, answers)]
    found = _measure(rows, answers, settings, ON_TEST)
    found += measure_calibration(answers, ON_TEST)
    in_subgroups: list[Measurement] = []
    for subgroup in sorted({name for names in subgroups for name in names}):
        chosen = np.array([subgroup in names for names in subgroups])
        of_subgroup = answers.of_images(chosen, f"the subgroup {subgroup!r}")
        rows = [row for name in SUBGROUP_METRICS for row in _rows(name, METRICS[name], of_subgroup)]
        in_subgroups += _measure(rows, of_subgroup, settings, replace(ON_TEST, subgroup=subgroup))
    return found + holm_corrected(in_subgroups)


def _rows(name: str, metric: Metric, answers: Answers) -> list[Row]:
    """Return the measurements of one row of the table; none where it is not computed from logits of this task."""
    computation = COMPUTATIONS.get(name, {}).get(answers.task)
    if computation is None:
        return []
    row = partial(Row, metric=metric, definition=metric.definitions[answers.task], computation=computation)
    match metric.inputs:
        case "labels" | "reference":
            return [row(name, classes=(None,))]
        case "class_mean":
            return [row(name, classes=answers.counted)]
        case "class":
            return [
                row(name.replace("CLASS", of_class), classes=(index,))
                for index, of_class in enumerate(answers.classes)
                if index in answers.looked_at
            ]
        case _:
            return []


def _measure(rows: Sequence[Row], answers: Answers, settings: AccuracySettings, where: Where) -> list[Measurement]:
    sound = [row for row in rows if not answers.why_not(row.metric, row.class_index)]
    answered = resample(sound, answers, settings.resamples, settings.seed)
    in_groups = groups.come_in_groups(answers.units)
    found = []
    for row in rows:
        reason = answers.why_not(row.metric, row.class_index)
        if reason:
            found.append(not_measured(row.name, answers.variant, reason, where, {}))
            continue
        value = value_of(row, answers)
        sample = answers.sample(row.definition, row.class_index)
        interval, why_not = interval_of(row, value, answered, settings.resamples, settings.seed)
        remarks = {**row.computation.remarks, **answers.remarks(row.metric)}
        if in_groups and row.computation.interval is not None:
            remarks["resampled"] = f"{groups.unit_count(answers.units[sample])} groups"
        if why_not and interval is None:
            remarks["no_interval"] = why_not
        if row.name == "ece":
            remarks["calibrated_would_show"] = gap_of_calibrated(answers.confidence)
        estimate = Estimate(value, interval, int(sample.sum()))
        one = measured(row.name, answers.variant, estimate, where, remarks)
        found.append(replace(one, difference=difference_of(row, value, answered)))
    return found


def measure_rows(
    names: Sequence[str], answers: Answers, settings: AccuracySettings, where: Where
) -> list[Measurement]:
    """Return some rows of `METRICS`, taken from logits, of answers that need not be those on the test split here."""
    rows = [row for name in names for row in _rows(name, METRICS[name], answers)]
    return _measure(rows, answers, settings, where)


def _require_finite(variant: str, logits: Logits) -> None:
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise StageError(
            f"{variant}: expected finite logits, found NaN or infinity for {broken} of {len(logits)} images. "
            "Its numbers overflow; leave more of it in float or choose another method."
        )
