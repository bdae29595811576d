from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from stages.validate import metrics


def sample(seed: int, n: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits with ties, labels of every class, and integer weights that leave some images out but no class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    logits = np.round(rng.standard_normal((n, classes)) * 2, 1).astype(np.float32)
    logits[np.arange(n), labels] += np.float32(1.5)
    weights = rng.integers(0, 4, (3, n)).astype(np.float64)
    weights[:, :classes] += 1  # the first `classes` images hold every class only by chance, so:
    for label in range(classes):
        weights[:, np.flatnonzero(labels == label)[0]] += 1
    return logits, labels, weights


def probabilities(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits.astype(np.float64))
    return exponent / exponent.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn_with_sample_weights(seed: int) -> None:
    logits, labels, weights = sample(seed)
    answers, p = logits.argmax(axis=1), probabilities(logits)
    for row, w in enumerate(weights):
        assert metrics.accuracy(logits, labels, weights)[row] == pytest.approx(
            sklearn_metrics.accuracy_score(labels, answers, sample_weight=w)
        )
        recall = sklearn_metrics.recall_score(labels, answers, average=None, sample_weight=w)
        for k in range(4):
            assert metrics.auroc(logits, labels, k, weights)[row] == pytest.approx(
                sklearn_metrics.roc_auc_score(labels == k, p[:, k], sample_weight=w)
            )
            assert metrics.average_precision(logits, labels, k, weights)[row] == pytest.approx(
                sklearn_metrics.average_precision_score(labels == k, p[:, k], sample_weight=w)
            )
            assert metrics.sensitivity(logits, labels, k, weights)[row] == pytest.approx(recall[k])
            assert metrics.specificity(logits, labels, k, weights)[row] == pytest.approx(
                sklearn_metrics.recall_score(labels != k, answers != k, sample_weight=w)
            )
        assert metrics.brier_score(logits, labels, weights)[row] == pytest.approx(
            sklearn_metrics.brier_score_loss(labels, p, sample_weight=w, scale_by_half=False)
        )


def test_auroc_by_hand() -> None:
    # Class 1 scores: positives 1 and 3, negatives 0, 1, 2 → wins (1 + ½) + 3 of 6.
    scores = np.array([1.0, 3.0, 0.0, 1.0, 2.0], dtype=np.float32)
    logits = np.stack([np.zeros(5, np.float32), scores], axis=1)
    assert metrics.auroc(logits, np.array([1, 1, 0, 0, 0]), 1, np.ones((1, 5)))[0] == pytest.approx(4.5 / 6)


def test_auroc_sees_an_order_that_probabilities_lose() -> None:
    """At 50 and 60 the softmax is exactly 1.0; the log-odds still differ."""
    logits = np.array([[0, 60], [0, 50], [0, 50], [0, 40]], dtype=np.float32)
    assert metrics.auroc(logits, np.array([1, 1, 0, 0]), 1, np.ones((1, 4)))[0] == pytest.approx(3.5 / 4)


@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_log_odds_are_those_of_the_softmax_and_ignore_a_common_shift(seed: int, shift: float) -> None:
    logits = np.random.default_rng(seed).standard_normal((5, 3))
    p = probabilities(logits)
    assert metrics.log_odds(logits) == pytest.approx(np.log(p / (1 - p)), abs=1e-9)
    assert metrics.log_odds(logits + shift) == pytest.approx(metrics.log_odds(logits), abs=1e-9)


def test_ece_by_a_loop_over_the_bins() -> None:
    logits, labels, weights = sample(3, n=200)
    p = probabilities(logits)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    for row, w in enumerate(weights):
        expected = 0.0
        for m in range(1, 16):
            inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
            if w[inside].sum():
                gap = np.average(correct[inside], weights=w[inside]) - np.average(
                    confidence[inside], weights=w[inside]
                )
                expected += w[inside].sum() / w.sum() * abs(gap)
        assert metrics.expected_calibration_error(logits, labels, weights)[row] == pytest.approx(expected)


def test_ece_of_a_sure_and_right_model_is_0_and_of_a_sure_and_wrong_one_1() -> None:
    logits = np.array([[100, 0], [0, 100]], dtype=np.float32)
    ones = np.ones((1, 2))
    assert metrics.expected_calibration_error(logits, np.array([0, 1]), ones)[0] == pytest.approx(0.0)
    assert metrics.expected_calibration_error(logits, np.array([1, 0]), ones)[0] == pytest.approx(1.0)
    assert metrics.brier_score(logits, np.array([1, 0]), ones)[0] == pytest.approx(2.0)


def test_sqnr_of_a_tenth_of_noise_is_20_db() -> None:
    reference = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float64)
    ones = np.ones((1, 9))
    assert metrics.logits_sqnr_db(reference * 1.1, reference, ones)[0] == pytest.approx(20.0)
    assert metrics.logits_sqnr_db(reference, reference, ones)[0] == pytest.approx(144.4944, abs=1e-3)


def test_agreement_counts_equal_answers() -> None:
    first = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    second = np.array([[9, 0], [0, 1], [0, 1], [0, 2]], dtype=np.float32)
    assert metrics.agreement(first, second, np.ones((1, 4)))[0] == 0.75
