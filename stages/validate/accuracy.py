"""Accuracy of a shipped file on the test split, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedSplit
from pipeline.artifacts import Measurement, OnnxModel
from pipeline.errors import StageError
from pipeline.settings import Settings
from stages.validate import METRICS, Metric, statistics
from stages.validate.arrays import read_arrays, write_arrays
from stages.validate.evidence import measured, not_measured
from stages.validate.sessions import open_session, predict

Labels = NDArray[np.int64]
Logits = NDArray[np.float32]


class AccuracySettings(Settings):
    """How the test split is answered and how sure its figures are."""

    # One by one, as an edge device sees them: dynamic quantization takes its range from the whole batch.
    batch_size: int = Field(
        1, ge=1, le=4096, description="images per query; more than 1 changes dynamic-int8's answers"
    )
    threads: int = Field(1, ge=1, le=256, description="threads of the session")
    resamples: int = Field(2000, ge=1000, le=100_000, description="bootstrap resamples behind an interval")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the bootstrap")


@dataclass(frozen=True)
class Predictions:
    """What a variant answered to the test split.

    Attributes:
        variant: its name.
        logits: float32 [n, classes].
        labels: int64 [n], the truth.
        path: the `.npz` that holds both.
    """

    variant: str
    logits: Logits
    labels: Labels
    path: Path

    @classmethod
    def read(cls, variant: str, path: Path) -> Predictions:
        """Return what `predict_variant` wrote."""
        logits, labels = read_arrays(path, ("logits", "labels"))
        return cls(variant, logits, labels, path)


def predict_variant(model: OnnxModel, data: PreparedSplit, settings: AccuracySettings, target: Path) -> Predictions:
    """Answer every image of a split with a shipped file on the CPU provider, and write the logits.

    Args:
        model: the file.
        data: the split, usually test.
        settings: batch size and threads.
        target: the `.npz` to write: logits float32 [n, classes], labels int64 [n].

    Raises:
        StageError: a logit is not finite.
    """
    session = open_session(model.path, "cpu", settings.threads)
    logits = predict(session, data.images, settings.batch_size)
    write_arrays(target, {"logits": logits, "labels": data.labels})
    return Predictions(model.variant, logits, data.labels, target)


def measure_size(model: OnnxModel) -> Measurement:
    """Return the size of the shipped file."""
    return Measurement("size_bytes", float(model.size_bytes), METRICS["size_bytes"].unit, model.variant)


def measure_accuracy(
    variant: str,
    logits: Logits,
    labels: Labels,
    classes: Sequence[str],
    reference_logits: Logits | None,
    subgroups: Sequence[str],
    settings: AccuracySettings,
) -> list[Measurement]:
    """Return every row of `METRICS` that is computed from logits, each with its sample size and 95 % interval.

    What cannot be said of this sample has the value None and a reason; what has no sound interval has none and says
    why.

    Args:
        variant: its name.
        logits: float32 [n, classes].
        labels: int64 [n], indices into `classes`.
        classes: their names.
        reference_logits: fp32's logits of the same images; None for fp32 itself.
        subgroups: n names, "" where unknown; accuracy is measured in each known one too.
        settings: resamples and seed.

    Raises:
        StageError: a logit is not finite, or the arrays don't fit each other.
    """
    _require_finite(variant, logits)
    if logits.shape != (len(labels), len(classes)) or not len(labels):
        raise StageError(
            f"{variant}: expected logits of {len(labels)} images (at least one) and {len(classes)} classes, found "
            f"the shape {list(logits.shape)}. Delete its predictions and run `edgeproof validate` again."
        )
    if reference_logits is not None and reference_logits.shape != logits.shape:
        raise StageError(
            f"{variant}: expected fp32's logits of the same images, found the shapes {list(logits.shape)} and "
            f"{list(reference_logits.shape)}. Delete the predictions and run `edgeproof validate` again."
        )
    answers = _Answers(variant, logits, labels, tuple(classes), reference_logits)
    rows: list[Measurement] = []
    for name, metric in METRICS.items():
        if metric.inputs in ("labels", "reference"):
            rows.append(_measure(name, metric, answers, None, settings))
        elif metric.inputs == "class":
            rows += [
                _measure(name.replace("CLASS", of_class), metric, answers, index, settings)
                for index, of_class in enumerate(classes)
            ]
    return rows + _subgroup_accuracies(answers, subgroups)


@dataclass(frozen=True)
class _Answers:
    """What `measure_accuracy` was given."""

    variant: str
    logits: Logits
    labels: Labels
    classes: tuple[str, ...]
    reference_logits: Logits | None


def _measure(
    name: str, metric: Metric, answers: _Answers, class_index: int | None, settings: AccuracySettings
) -> Measurement:
    reason = _why_not(metric, answers, class_index)
    if reason:
        return not_measured(name, answers.variant, reason, "cpu", "test", {})
    statistic = _statistic(metric, answers, class_index)
    value = float(statistic(np.ones((1, len(answers.labels))))[0])
    n = int(_sample(metric, answers, class_index).sum())
    estimate = statistics.Estimate(value, _interval(metric, answers, statistic, value, n, settings), n)
    return measured(name, answers.variant, estimate, "cpu", "test", {})


def _sample(metric: Metric, answers: _Answers, class_index: int | None) -> NDArray[np.bool_]:
    """Return which images the value is taken over, bool [n]."""
    if metric.sample == "all":
        return np.ones(len(answers.labels), dtype=np.bool_)
    counted: NDArray[np.bool_] = (answers.labels == class_index) == (metric.sample == "class")
    return counted


def _why_not(metric: Metric, answers: _Answers, class_index: int | None) -> str:
    """Return why a metric cannot be said of this sample; "" where it can."""
    totals = np.bincount(answers.labels, minlength=len(answers.classes))
    if metric.inputs == "reference" and answers.reference_logits is None:
        return f"{answers.variant} is the reference itself"
    if class_index is None:
        # A mean over fewer classes is another quantity than the one that the gates were written for.
        missing = [name for name, total in zip(answers.classes, totals, strict=True) if total == 0]
        over_classes = metric.interval in ("mean_of_sensitivities", "stratified_bootstrap")
        return f"the test split has no image of {', '.join(missing)}" if missing and over_classes else ""
    if metric.sample == "all" and totals[class_index] in (0, len(answers.labels)):
        return (
            f"the test split has {'only' if totals[class_index] else 'no'} images of {answers.classes[class_index]}"
        )
    if not _sample(metric, answers, class_index).any():
        return "the test split has no image that this share could be taken of"
    return ""


def _statistic(metric: Metric, answers: _Answers, class_index: int | None) -> statistics.Statistic:
    """Return a metric as a function of the weights alone."""
    function = metric.function
    assert function is not None  # a contract of the table
    if metric.inputs == "class":
        return lambda weights: function(answers.logits, answers.labels, class_index, weights)
    truth = answers.reference_logits if metric.inputs == "reference" else answers.labels
    return lambda weights: function(answers.logits, truth, weights)


def _interval(
    metric: Metric,
    answers: _Answers,
    statistic: statistics.Statistic,
    value: float,
    n: int,
    settings: AccuracySettings,
) -> tuple[float, float] | None:
    labels = answers.labels
    match metric.interval:
        case None:
            return None
        case "wilson":
            return statistics.wilson_interval(round(value * n), n)
        case "mean_of_sensitivities":
            right = labels[answers.logits.argmax(axis=1) == labels]
            hits, totals = (np.bincount(one, minlength=len(answers.classes)) for one in (right, labels))
            return statistics.mean_of_proportions_interval(hits, totals)
        case "bootstrap" | "stratified_bootstrap":
            strata = labels if metric.interval == "stratified_bootstrap" else np.zeros_like(labels)
            return statistics.bootstrap_interval(statistic, strata, settings.resamples, settings.seed)


def _subgroup_accuracies(answers: _Answers, subgroups: Sequence[str]) -> list[Measurement]:
    correct = answers.logits.argmax(axis=1) == answers.labels
    names = np.asarray(subgroups)
    rows = []
    for name in sorted(set(subgroups) - {""}):
        hits, n = int(correct[names == name].sum()), int((names == name).sum())
        estimate = statistics.Estimate(hits / n, statistics.wilson_interval(hits, n), n)
        rows.append(measured("accuracy", answers.variant, estimate, "cpu", "test", {"subgroup": name}))
    return rows


def _require_finite(variant: str, logits: Logits) -> None:
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise StageError(
            f"{variant}: expected finite logits, found NaN or infinity for {broken} of {len(logits)} images. "
            "Its numbers overflow; leave more of it in float or choose another method."
        )
