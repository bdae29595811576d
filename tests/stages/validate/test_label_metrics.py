from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as sklearn_metrics

from stages.validate import label_metrics


def sample(seed: int, n: int = 60, labels: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits with ties, labels that overlap, and integer weights that leave some images out but no label."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, labels)) < 0.3).astype(np.int64)
    truth[0], truth[1] = 1, 0
    logits = (np.round(rng.standard_normal((n, labels)) * 2, 1) + 2 * truth - 1).astype(np.float32)
    weights = rng.integers(0, 4, (3, n)).astype(np.float64)
    weights[:, :2] += 1
    return logits, truth, weights


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn_with_sample_weights(seed: int) -> None:
    logits, truth, weights = sample(seed)
    answers, p = (logits > 0).astype(int), expit(logits.astype(np.float64))
    for row, w in enumerate(weights):
        per_label = [sklearn_metrics.accuracy_score(truth[:, k], answers[:, k], sample_weight=w) for k in range(3)]
        assert label_metrics.accuracy(logits, truth, weights)[row] == pytest.approx(np.mean(per_label))
        brier = [sklearn_metrics.brier_score_loss(truth[:, k], p[:, k], sample_weight=w) for k in range(3)]
        assert label_metrics.brier_score(logits, truth, weights)[row] == pytest.approx(np.mean(brier))
        for k in range(3):
            expected = {
                label_metrics.auroc: sklearn_metrics.roc_auc_score(truth[:, k], p[:, k], sample_weight=w),
                label_metrics.average_precision: sklearn_metrics.average_precision_score(
                    truth[:, k], p[:, k], sample_weight=w
                ),
                label_metrics.sensitivity: sklearn_metrics.recall_score(truth[:, k], answers[:, k], sample_weight=w),
                label_metrics.specificity: sklearn_metrics.recall_score(
                    1 - truth[:, k], 1 - answers[:, k], sample_weight=w
                ),
                label_metrics.balanced_accuracy: sklearn_metrics.balanced_accuracy_score(
                    truth[:, k], answers[:, k], sample_weight=w
                ),
            }
            for function, value in expected.items():
                assert function(logits, truth, k, weights)[row] == pytest.approx(value), function.__name__


def test_ece_by_a_loop_over_decisions_and_bins() -> None:
    logits, truth, weights = sample(5)
    p = expit(logits.astype(np.float64))
    confidence, correct = np.maximum(p, 1 - p).ravel(), ((logits > 0) == (truth == 1)).ravel()
    for row, per_image in enumerate(weights):
        w = np.repeat(per_image, 3)
        expected = 0.0
        for m in range(1, 16):
            inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
            if w[inside].sum():
                gap = np.average(correct[inside], weights=w[inside])
                gap -= np.average(confidence[inside], weights=w[inside])
                expected += w[inside].sum() / w.sum() * abs(gap)
        assert label_metrics.expected_calibration_error(logits, truth, weights)[row] == pytest.approx(expected)


def test_a_logit_of_0_is_a_no() -> None:
    """MedMNIST's evaluator answers yes above 0.5, not at it."""
    zero, one = np.zeros((1, 1), np.float32), np.ones((1, 1))
    assert label_metrics.accuracy(zero, np.array([[0]]), one)[0] == 1.0
    assert label_metrics.accuracy(zero, np.array([[1]]), one)[0] == 0.0


def test_agreement_counts_decisions() -> None:
    first = np.array([[1, -1, 2], [-1, -1, 3]], dtype=np.float32)
    second = np.array([[2, -9, -1], [-5, 0, 1]], dtype=np.float32)
    assert label_metrics.agreement(first, second, np.ones((1, 2)))[0] == pytest.approx(5 / 6)


def test_a_sample_without_the_label_leaves_its_scores_undefined() -> None:
    logits, truth, _ = sample(0)
    absent = (truth[:, 0] == 0).astype(np.float64)[None]
    for function in (label_metrics.auroc, label_metrics.average_precision, label_metrics.sensitivity):
        assert np.isnan(function(logits, truth, 0, absent)[0])
    assert label_metrics.specificity(logits, truth, 0, absent)[0] > 0


@given(st.floats(-1e4, 1e4))
def test_sigmoid_is_scipys_at_any_size(logit: float) -> None:
    assert label_metrics.sigmoid(np.array([logit]))[0] == pytest.approx(expit(logit), abs=1e-15)
