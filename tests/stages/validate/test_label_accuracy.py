"""`measure_accuracy` where an image has any number of labels, and where patients have several images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from foundation.errors import StageError
from foundation.measurements import Measurement
from stages.validate.accuracy import AccuracySettings, measure_accuracy
from stages.validate.intervals.paired import RARE_RESAMPLES

LABELS = ("effusion", "mass", "hernia")
SETTINGS = AccuracySettings(resamples=1000)


def logits_and_labels(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two labels that occur often and one on three images."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < [0.3, 0.2, 0.0]).astype(np.int64)
    labels[:3, 2] = 1
    logits = (rng.standard_normal((n, 3)) + 2 * labels - 1).astype(np.float32)
    return logits, labels


def measure(
    logits: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray | None = None,
    groups: list[str] | None = None,
    settings: AccuracySettings = SETTINGS,
) -> dict[str, Measurement]:
    groups = groups or [f"patient-{index}" for index in range(len(labels))]
    rows = measure_accuracy("int8", logits, labels, LABELS, reference, groups, [""] * len(labels), settings)
    assert len({row.metric for row in rows}) == len(rows)
    return {row.metric: row for row in rows}


def test_values_against_scikit_learn() -> None:
    logits, labels = logits_and_labels()
    rows, p = measure(logits, labels, logits), expit(logits.astype(np.float64))
    areas = [sklearn_metrics.roc_auc_score(labels[:, k], p[:, k]) for k in range(2)]
    precisions = [sklearn_metrics.average_precision_score(labels[:, k], p[:, k]) for k in range(2)]
    assert rows["accuracy"].value == pytest.approx(np.mean((p > 0.5) == labels))
    assert rows["auroc/mass"].value == pytest.approx(areas[1])
    assert rows["auroc_macro"].value == pytest.approx(np.mean(areas))
    assert rows["average_precision_macro"].value == pytest.approx(np.mean(precisions))
    assert rows["balanced_accuracy"].value == pytest.approx(
        np.mean([sklearn_metrics.balanced_accuracy_score(labels[:, k], p[:, k] > 0.5) for k in range(2)])
    )
    found = int((logits[labels[:, 1] == 1, 1] > 0).sum())
    positives = int(labels[:, 1].sum())
    wilson = binomtest(found, positives).proportion_ci(0.95, "wilson")
    assert (rows["sensitivity/mass"].value, rows["sensitivity/mass"].n) == (found / positives, positives)
    assert rows["sensitivity/mass"].ci95 == pytest.approx((wilson.low, wilson.high))
    for name in ("accuracy", "balanced_accuracy", "auroc_macro", "average_precision/mass", "brier"):
        interval = rows[name].ci95
        assert interval is not None
        assert interval[0] < rows[name].value < interval[1]
        assert (rows[name].n, rows[name].where.provider) == (200, "cpu")


def test_the_interval_of_auroc_is_near_delongs() -> None:
    logits, labels = logits_and_labels(n=400, seed=3)
    positive = labels[:, 0] == 1
    wins = (logits[positive, 0][:, None] > logits[~positive, 0][None, :]).astype(float)
    variance = wins.mean(axis=1).var(ddof=1) / positive.sum() + wins.mean(axis=0).var(ddof=1) / (~positive).sum()
    interval = measure(logits, labels)["auroc/effusion"].ci95
    assert interval is not None
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.12)


def test_rare_labels_are_named_and_left_out_of_the_means() -> None:
    rows = measure(*logits_and_labels())
    for name in ("auroc/hernia", "average_precision/hernia"):
        assert rows[name].value is None
        assert rows[name].remarks["reason"] == "only 3 positive images in the test split; min_positives asks for 10"
    for name in ("auroc_macro", "average_precision_macro", "balanced_accuracy"):
        assert rows[name].remarks["labels"] == "2 of 3"
        assert rows[name].remarks["too_rare"] == ["hernia"]
    assert rows["sensitivity/hernia"].n == 3
    assert rows["accuracy"].n == 200


def test_a_label_that_nearly_all_images_have_is_as_rare() -> None:
    logits, labels = logits_and_labels()
    rows = measure(logits, 1 - labels)
    assert str(rows["auroc/hernia"].remarks["reason"]).startswith("only 3 negative images")
    none = measure(logits * np.array([1, 1, 0], np.float32), labels * np.array([1, 1, 0]))
    assert str(none["auroc/hernia"].remarks["reason"]).startswith("no positive image in")
    assert none["sensitivity/hernia"].value is None


def test_no_label_often_enough_leaves_no_mean() -> None:
    rows = measure(*logits_and_labels(), settings=AccuracySettings(resamples=1000, min_positives=150))
    assert "no label has 150 positive" in str(rows["auroc_macro"].remarks["reason"])


def test_a_lower_bound_lets_a_rare_label_in() -> None:
    logits, labels = logits_and_labels()
    rows = measure(logits, labels, settings=AccuracySettings(resamples=1000, min_positives=3))
    assert rows["auroc/hernia"].value == pytest.approx(sklearn_metrics.roc_auc_score(labels[:, 2], logits[:, 2]))
    assert "too_rare" not in rows["auroc_macro"].remarks
    assert rows["auroc/hernia"].ci95 is not None


def test_labels_too_rare_for_a_bootstrap_say_so() -> None:
    """Each of eight labels on one image: hardly a resample holds them all."""
    labels = np.zeros((40, 8), np.int64)
    labels[np.arange(8), np.arange(8)] = 1
    logits = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    names = [str(k) for k in range(8)]
    settings = AccuracySettings(resamples=1000, min_positives=1)
    rows = measure_accuracy("int8", logits, labels, names, None, names * 5, [""] * 40, settings)
    macro = next(row for row in rows if row.metric == "average_precision_macro")
    assert str(macro.remarks["no_interval"]).startswith("too few patients for an interval: 8 groups of images")
    alone = measure_accuracy("int8", logits, labels, names, None, [*map(str, range(40))], [""] * 40, settings)
    assert macro.value is not None
    macro = next(row for row in alone if row.metric == "average_precision_macro")
    assert (macro.ci95, macro.remarks["no_interval"]) == (None, RARE_RESAMPLES)


def test_full_agreement_keeps_an_interval() -> None:
    logits, labels = logits_and_labels()
    row = measure(logits, labels, logits)["agreement"]
    assert row.value == 1.0
    # Three decisions about an image may be alike: 200 images count, with 199 degrees of freedom.
    assert row.ci95 == pytest.approx(tuple(binomtest(200, 200).proportion_ci(0.95, "wilson")), abs=3e-4)


def test_images_of_one_patient_count_together() -> None:
    """Every image twice under one patient: the values stay, and so do the intervals, though n doubles."""
    logits, labels = logits_and_labels()
    alone = measure(logits, labels, logits + np.float32(0.1))
    patients = [f"patient-{index // 2}" for index in range(400)]
    twice = measure(np.repeat(logits, 2, 0), np.repeat(labels, 2, 0), np.repeat(logits, 2, 0) + 0.1, patients)
    # With 6 hernia twins the label is still too rare.
    for name in ("accuracy", "balanced_accuracy", "auroc_macro", "average_precision/mass", "brier", "logits_sqnr_db"):
        assert twice[name].value == pytest.approx(alone[name].value)
        assert twice[name].ci95 == pytest.approx(alone[name].ci95)
        assert (twice[name].n, twice[name].remarks["resampled"]) == (400, "200 groups")
    assert twice["sensitivity/mass"].ci95 == pytest.approx(alone["sensitivity/mass"].ci95, abs=0.02)
    assert "resampled" not in alone["accuracy"].remarks
    assert "resampled" not in twice["ece"].remarks


def test_patients_with_images_of_several_classes() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(120) % 3
    logits = (rng.standard_normal((120, 3)) + 2 * np.eye(3)[labels]).astype(np.float32)
    patients = [f"patient-{index // 4}" for index in range(120)]
    rows = {
        row.metric: row
        for row in measure_accuracy("fp32", logits, labels, LABELS, None, patients, [""] * 120, SETTINGS)
    }
    for name in ("accuracy", "balanced_accuracy", "auroc_macro", "sensitivity/mass"):
        interval = rows[name].ci95
        assert interval is not None
        assert interval[0] < rows[name].value < interval[1]
    assert rows["accuracy"].remarks["resampled"] == "30 groups"


def test_a_subgroups_accuracy_is_the_share_of_its_decisions() -> None:
    logits, labels = logits_and_labels()
    subgroups = [("child",)] * 50 + [("adult",)] * 150
    rows = measure_accuracy(
        "fp32", logits, labels, LABELS, None, [names[0] for names in subgroups], subgroups, SETTINGS
    )
    child = next(row for row in rows if row.where.subgroup == "child")
    assert (child.value, child.n) == (pytest.approx(np.mean((logits > 0)[:50] == labels[:50])), 50)


def test_labels_of_another_width_are_refused() -> None:
    logits, labels = logits_and_labels()
    with pytest.raises(StageError, match=r"\[200, 3\] and, of the labels, \[200, 2\]"):
        measure(logits, labels[:, :2])
