"""Accuracy of a shipped file on the test split, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedSplit
from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS, Definition, Metric
from foundation.settings import Settings
from onnx_files.sessions import gives_scores, open_session, predict
from stages.validate import COMPUTATIONS, Computation, resampling, statistics
from stages.validate.answers import Answers, Predictions
from stages.validate.measurements import measured, not_measured

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Logits = NDArray[np.float32]
Part = tuple[Callable[..., Floats], int | None]
"""A metric's function and the class that it is asked of; a metric is the mean of its parts."""

ON_TEST = Where(provider="cpu", split="test")
"""Where a file answers: accuracy is measured on the provider that every machine has."""

RARE_RESAMPLES = "most resamples lack a class or label that is counted"
"""Why a bootstrap has no interval where labels are rarer than an interval needs."""


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
        "measured and it counts in the means over labels; multi-label data only",
    )


def predict_variant(model: OnnxModel, data: PreparedSplit, settings: AccuracySettings, target: Path) -> Predictions:
    """Answer every image of a split with a shipped file on the CPU provider, and write the logits.

    Args:
        model: the file.
        data: the split, usually test.
        settings: batch size and threads.
        target: the `.npz` to write: logits float32 [n, classes], labels as in the split, whether there are scores.

    Raises:
        StageError: a logit is not finite.
    """
    session = open_session(model.path, "cpu", settings.threads)
    logits = predict(session, data.images, settings.batch_size)
    predictions = Predictions(model.variant, logits, data.labels, target, gives_scores(session))
    predictions.write()
    return predictions


def measure_size(model: OnnxModel) -> Measurement:
    """Return the size of the shipped file."""
    return Measurement("size_bytes", float(model.size_bytes), METRICS["size_bytes"].unit, model.variant)


def measure_accuracy(
    variant: str,
    logits: Logits,
    labels: Labels,
    classes: Sequence[str],
    reference_logits: Logits | None,
    groups: Sequence[str],
    subgroups: Sequence[tuple[str, ...]],
    settings: AccuracySettings,
    present_only: bool = False,
    unscored: frozenset[str] = frozenset(),
) -> list[Measurement]:
    """Return every row of `METRICS` that is computed from logits, each with its sample size and 95 % interval.

    What cannot be said of this sample has the value None and a reason; what has no sound interval has none and says
    why. Where groups hold several images, intervals come from resamples of whole groups (cluster bootstrap).

    Args:
        variant: its name.
        logits: float32 [n, classes].
        labels: int64 [n], indices into `classes`; of a multi-label task int64 [n, classes], 0 or 1.
        classes: names of the classes or labels.
        reference_logits: fp32's logits of the same images; None for fp32 itself.
        groups: n names of what images belong together by, such as a patient.
        subgroups: n tuples of names; accuracy is measured of the images of each name too.
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
    units = resampling.units_of(groups)
    answers = Answers(
        variant, logits, labels, tuple(classes), reference_logits, units, settings.min_positives, unscored=unscored
    )
    if present_only:
        answers = answers.of_present_classes()
    rows = [row for name, metric in METRICS.items() for row in _rows(name, metric, answers)]
    found = _measure(rows, answers, settings, ON_TEST)
    for subgroup in sorted({name for names in subgroups for name in names}):
        of_subgroup = answers.of_images(np.array([subgroup in names for names in subgroups]))
        accuracy = _rows("accuracy", METRICS["accuracy"], of_subgroup)
        found += _measure(accuracy, of_subgroup, settings, replace(ON_TEST, subgroup=subgroup))
    return found


@dataclass(frozen=True)
class _Row:
    """One measurement to be taken."""

    name: str
    metric: Metric
    definition: Definition
    computation: Computation
    class_index: int | None
    parts: tuple[Part, ...]


def _rows(name: str, metric: Metric, answers: Answers) -> list[_Row]:
    """Return the measurements of one row of the table; none where it is not computed from logits of this task."""
    computation = COMPUTATIONS.get(name, {}).get(answers.task)
    if computation is None:
        return []
    row = partial(_Row, metric=metric, definition=metric.definitions[answers.task], computation=computation)
    function = computation.function
    match metric.inputs:
        case "labels" | "reference":
            return [row(name, class_index=None, parts=((function, None),))]
        case "class_mean":
            return [row(name, class_index=None, parts=tuple((function, index) for index in answers.counted))]
        case "class":
            return [
                row(name.replace("CLASS", of_class), class_index=index, parts=((function, index),))
                for index, of_class in enumerate(answers.classes)
                if index in answers.looked_at
            ]
        case _:
            return []


def _measure(rows: Sequence[_Row], answers: Answers, settings: AccuracySettings, where: Where) -> list[Measurement]:
    sound = [row for row in rows if not answers.why_not(row.metric, row.class_index)]
    draws = _draws(sound, answers, settings)
    in_groups = resampling.come_in_groups(answers.units)
    found = []
    for row in rows:
        reason = answers.why_not(row.metric, row.class_index)
        if reason:
            found.append(not_measured(row.name, answers.variant, reason, where, {}))
            continue
        once = np.ones((1, len(answers.labels)))
        value = float(np.mean([_statistic(row.metric, part, answers)(once)[0] for part in row.parts]))
        sample = answers.sample(row.definition, row.class_index)
        of_row = draws.get(row.name)
        remarks = {**row.computation.remarks, **answers.remarks(row.metric)}
        if in_groups and row.computation.interval is not None:
            remarks["resampled"] = f"{len(np.unique(answers.units[sample]))} groups"
        if of_row is not None and resampling.mostly_undefined(of_row):
            remarks["no_interval"] = RARE_RESAMPLES
        interval = _interval(row, answers, value, sample, of_row)
        estimate = statistics.Estimate(value, interval, int(sample.sum()))
        found.append(measured(row.name, answers.variant, estimate, where, remarks))
    return found


def _draws(rows: Sequence[_Row], answers: Answers, settings: AccuracySettings) -> dict[str, Floats]:
    """Return the bootstrap distribution of every row that needs one, float64 [resamples]."""
    in_groups = resampling.come_in_groups(answers.units)
    needing = [
        row
        for row in rows
        if row.computation.interval is not None
        and (in_groups or row.computation.interval not in ("wilson", "mean_of_sensitivities"))
    ]
    found: dict[str, Floats] = {}
    for stratified in (False, True):
        in_classes = ("stratified_bootstrap", "mean_of_sensitivities")
        chosen = [row for row in needing if (row.computation.interval in in_classes) == stratified]
        # A mean over classes takes the classes' own draws, so that nothing is computed twice.
        parts = {part: _statistic(row.metric, part, answers) for row in chosen for part in row.parts}
        strata = np.zeros(len(answers.units), dtype=np.int64)
        if stratified:
            strata = resampling.strata_of(answers.labels, answers.units)
        draws = resampling.resampled(parts, strata, settings.resamples, settings.seed, answers.units)
        found |= {row.name: np.mean([draws[part] for part in row.parts], axis=0) for row in chosen}
    return found


def _statistic(metric: Metric, part: Part, answers: Answers) -> resampling.Statistic:
    """Return a part of a metric as a function of the weights alone."""
    function, class_index = part
    if class_index is not None:
        return lambda weights: function(answers.logits, answers.labels, class_index, weights)
    truth = answers.reference_logits if metric.inputs == "reference" else answers.labels
    return lambda weights: function(answers.logits, truth, weights)


def _interval(
    row: _Row, answers: Answers, value: float, sample: NDArray[np.bool_], draws: Floats | None
) -> tuple[float, float] | None:
    n, units = int(sample.sum()), answers.units[sample]
    match row.computation.interval:
        case None:
            return None
        case "wilson":
            if draws is None:
                return statistics.wilson_interval(round(value * n), n)
            return statistics.effective_wilson_interval(value, n, len(np.unique(units)), draws)
        case "mean_of_sensitivities" if draws is None:
            labels = answers.labels
            right = labels[answers.logits.argmax(axis=1) == labels]
            hits, totals = (np.bincount(one, minlength=len(answers.classes)) for one in (right, labels))
            counted = list(answers.counted)
            return statistics.mean_of_proportions_interval(hits[counted], totals[counted])
        case "basic_bootstrap" if draws is not None:
            return resampling.basic_interval(value, draws)
        case kind:
            assert draws is not None  # `_draws` has them for every other kind
            interval = resampling.percentile_interval(draws)
            if interval is None and kind == "bootstrap_or_wilson":
                return statistics.share_interval(value, n, units, draws)
            return interval


def _require_finite(variant: str, logits: Logits) -> None:
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise StageError(
            f"{variant}: expected finite logits, found NaN or infinity for {broken} of {len(logits)} images. "
            "Its numbers overflow; leave more of it in float or choose another method."
        )
