"""Accuracy of a shipped file on the test split, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedSplit
from pipeline.artifacts import JSON, Measurement, OnnxModel
from pipeline.errors import StageError
from pipeline.settings import Settings
from stages.validate import METRICS, metrics, statistics
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
    """Return every accuracy measurement of a variant, each with its sample size and 95 % interval.

    Proportions have Wilson's interval and balanced accuracy the one made of them; AUROC is resampled within the
    classes, calibration and SQNR over all images. What cannot be said of this sample has the value None and a reason.

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
    correct = logits.argmax(axis=1) == labels
    return [
        _proportion("accuracy", variant, correct),
        *_subgroup_accuracies(variant, correct, subgroups),
        *_class_measurements(variant, logits, labels, classes, settings),
        *_calibration_measurements(variant, logits, labels, settings),
        *_reference_measurements(variant, logits, reference_logits, settings),
    ]


def _subgroup_accuracies(variant: str, correct: NDArray[np.bool_], subgroups: Sequence[str]) -> list[Measurement]:
    names = np.asarray(subgroups)
    return [
        _proportion("accuracy", variant, correct[names == name], {"subgroup": name})
        for name in sorted(set(subgroups) - {""})
    ]


def _class_measurements(
    variant: str, logits: Logits, labels: Labels, classes: Sequence[str], settings: AccuracySettings
) -> list[Measurement]:
    answers = logits.argmax(axis=1)
    totals = np.bincount(labels, minlength=len(classes))
    absent = [name for name, total in zip(classes, totals, strict=True) if total == 0]
    rows: list[Measurement] = []
    if absent:
        reason = f"the test split has no image of {', '.join(absent)}"
        rows += [_absent(name, variant, reason) for name in ("balanced_accuracy", "auroc_macro")]
    else:
        hits = np.bincount(labels[answers == labels], minlength=len(classes))
        value = float((hits / totals).mean())
        interval = statistics.mean_of_proportions_interval(hits, totals)
        rows.append(_measured("balanced_accuracy", variant, statistics.Estimate(value, interval, len(labels))))
    rows += _aurocs(variant, logits, labels, classes, settings)
    for index, name in enumerate(classes):
        of_class = labels == index
        rows += [
            _proportion(f"sensitivity/{name}", variant, answers[of_class] == index),
            _proportion(f"specificity/{name}", variant, answers[~of_class] != index),
        ]
    return rows


def _aurocs(
    variant: str, logits: Logits, labels: Labels, classes: Sequence[str], settings: AccuracySettings
) -> list[Measurement]:
    n = len(labels)
    totals = np.bincount(labels, minlength=len(classes))
    defined = [index for index in range(len(classes)) if 0 < totals[index] < n]
    rows = [
        _absent(f"auroc/{name}", variant, f"the test split has {'only' if totals[index] else 'no'} images of {name}")
        for index, name in enumerate(classes)
        if index not in defined
    ]
    if not defined:
        return rows
    scores = metrics.log_odds(logits)

    def per_class(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        areas = [metrics.area_under_roc(scores[:, index], labels == index, weights) for index in defined]
        return np.stack(areas, axis=1)

    def per_class_and_mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        values = per_class(weights)
        return np.concatenate([values, values.mean(axis=1, keepdims=True)], axis=1)

    values = per_class_and_mean(np.ones((1, n)))[0]
    intervals = statistics.bootstrap_interval(per_class_and_mean, labels, settings.resamples, settings.seed)
    names = [f"auroc/{classes[index]}" for index in defined] + ["auroc_macro"]
    estimates = [
        _measured(name, variant, statistics.Estimate(float(value), (float(low), float(high)), n))
        for name, value, low, high in zip(names, values, *intervals, strict=True)
    ]
    # Without every class the mean is another quantity than the one that the gates were written for.
    return rows + (estimates if len(defined) == len(classes) else estimates[:-1])


def _calibration_measurements(
    variant: str, logits: Logits, labels: Labels, settings: AccuracySettings
) -> list[Measurement]:
    def both(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        ece = metrics.expected_calibration_error(logits, labels, weights)
        return np.stack([ece, metrics.brier_score(logits, labels, weights)], axis=1)

    ece, brier = _bootstrapped(both, len(labels), settings)
    return [
        _measured("ece", variant, ece, {"bins": metrics.ECE_BINS, "binning": "equal-width"}),
        _measured("brier", variant, brier),
    ]


def _reference_measurements(
    variant: str, logits: Logits, reference_logits: Logits | None, settings: AccuracySettings
) -> list[Measurement]:
    if reference_logits is None:
        reason = f"{variant} is the reference itself"
        return [_absent(name, variant, reason) for name in ("agreement", "logits_sqnr_db")]
    if reference_logits.shape != logits.shape:
        raise StageError(
            f"{variant}: expected fp32's logits of the same images, found the shapes {list(logits.shape)} and "
            f"{list(reference_logits.shape)}. Delete the predictions and run `edgeproof validate` again."
        )

    def sqnr(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return metrics.logits_sqnr_db(logits, reference_logits, weights)[:, None]

    same = logits.argmax(axis=1) == reference_logits.argmax(axis=1)
    (estimate,) = _bootstrapped(sqnr, len(logits), settings)
    return [_proportion("agreement", variant, same), _measured("logits_sqnr_db", variant, estimate)]


def _bootstrapped(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], n: int, settings: AccuracySettings
) -> list[statistics.Estimate]:
    """Return an estimate for each column of a statistic [b, k], resampled over all images alike."""
    values = statistic(np.ones((1, n)))[0]
    intervals = statistics.bootstrap_interval(
        statistic, np.zeros(n, dtype=np.int64), settings.resamples, settings.seed
    )
    return [
        statistics.Estimate(float(value), (float(low), float(high)), n)
        for value, low, high in zip(values, *intervals, strict=True)
    ]


def _proportion(
    metric: str, variant: str, hits: NDArray[np.bool_], settings: dict[str, JSON] | None = None
) -> Measurement:
    n = len(hits)
    if n == 0:
        return _absent(metric, variant, "the test split has no image that this share could be taken of")
    interval = statistics.wilson_interval(int(hits.sum()), n)
    return _measured(metric, variant, statistics.Estimate(float(hits.mean()), interval, n), settings)


def _measured(
    metric: str, variant: str, estimate: statistics.Estimate, settings: dict[str, JSON] | None = None
) -> Measurement:
    return measured(metric, variant, estimate, "cpu", "test", settings or {})


def _absent(metric: str, variant: str, reason: str) -> Measurement:
    return not_measured(metric, variant, reason, "cpu", "test", {})


def _require_finite(variant: str, logits: Logits) -> None:
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise StageError(
            f"{variant}: expected finite logits, found NaN or infinity for {broken} of {len(logits)} images. "
            "Its numbers overflow; leave more of it in float or choose another method."
        )
