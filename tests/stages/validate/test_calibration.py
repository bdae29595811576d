"""Whether probabilities mean what they say: lines against an independent fit, bins against the ECE."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from foundation.measurements import Where
from stages.validate import metrics
from stages.validate.answers import Answers
from stages.validate.calibration import intercept, measure_calibration, reliability, reliability_document, slope

WHERE = Where("cpu", "test")


def sample(n: int, slope_of: float, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.0, 2.0, n)
    return scores, rng.random(n) < expit(shift + slope_of * scores)


def answers(
    scores: np.ndarray, positive: np.ndarray, reference: np.ndarray | None = None, units: np.ndarray | None = None
) -> Answers:
    def logits(of: np.ndarray) -> np.ndarray:
        return np.stack([np.zeros_like(of), of], axis=1).astype(np.float32)

    return Answers(
        "int8",
        logits(scores),
        positive.astype(np.int64),
        ("healthy", "polyp"),
        None if reference is None else logits(reference),
        np.arange(len(scores)) if units is None else units,
        10,
    )


def test_the_slope_is_that_of_a_logistic_regression() -> None:
    scores, positive = sample(400, 0.6, 0.4)
    line = slope(scores, positive)
    assert line is not None
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(scores[:, None], positive)
    assert line.value == pytest.approx(fitted.coef_[0, 0], rel=1e-5)
    assert line.influence.sum() == pytest.approx(0.0, abs=1e-9)


def test_the_intercept_holds_the_slope_at_1() -> None:
    scores, positive = sample(400, 1.0, -0.7)
    line = intercept(scores, positive)
    assert line is not None
    loss = minimize(lambda a: np.logaddexp(0, -(2 * positive - 1) * (a[0] + scores)).sum(), [0.0], tol=1e-12)
    assert line.value == pytest.approx(loss.x[0], abs=1e-5)
    assert (expit(line.value + scores)).mean() == pytest.approx(
        positive.mean()
    )  # what calibration in the large means


def test_the_influences_give_the_error_that_repetitions_show() -> None:
    lines = [slope(*sample(300, 0.8, 0.2, seed)) for seed in range(300)]
    spread = np.std([line.value for line in lines if line])
    errors = [np.sqrt(np.square(line.influence).sum()) for line in lines if line]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)


def test_an_interval_holds_the_truth_and_whole_groups_widen_it() -> None:
    scores, positive = sample(300, 1.0, 0.0)
    rows = {one.metric: one for one in measure_calibration(answers(scores, positive), WHERE)}
    found = rows["calibration_slope/polyp"]
    assert found.ci95 is not None
    assert found.ci95[0] < 1.0 < found.ci95[1]
    assert found.n == 300
    thrice = answers(np.repeat(scores, 3), np.repeat(positive, 3), units=np.repeat(np.arange(300), 3))
    grouped = {one.metric: one for one in measure_calibration(thrice, WHERE)}["calibration_slope/polyp"]
    assert grouped.ci95 == pytest.approx(found.ci95, rel=1e-4)  # three copies of an image tell no more than one


def test_a_file_twice_as_sure_has_half_the_slope_and_the_difference_says_so() -> None:
    scores, positive = sample(500, 1.0, 0.0)
    rows = {one.metric: one for one in measure_calibration(answers(2 * scores, positive, scores), WHERE)}
    sure = rows["calibration_slope/polyp"]
    fp32 = slope(scores.astype(np.float32).astype(np.float64), positive)
    assert fp32 is not None
    assert sure.value == pytest.approx(fp32.value / 2, rel=1e-4)
    assert sure.difference is not None
    assert sure.difference.value == pytest.approx(-fp32.value / 2, rel=1e-4)
    assert sure.difference.ci95 is not None
    assert sure.difference.ci95[1] < 0


def test_separated_scores_have_no_line_and_rare_classes_no_row() -> None:
    scores = np.r_[np.full(20, -3.0), np.full(20, 3.0)] + np.linspace(0, 0.1, 40)
    rows = measure_calibration(answers(scores, scores > 0), WHERE)
    slopes = [one for one in rows if one.metric.startswith("calibration_slope")]
    assert [one.reason for one in slopes] == [
        "the scores separate the class from the others, so the line has no bound"
    ] * 2
    assert measure_calibration(answers(scores[:29], scores[:29] > 0), WHERE) == []  # nine images of one class


def test_the_bins_are_those_of_the_ece() -> None:
    scores, positive = sample(300, 0.5, 0.0)
    given = answers(scores, positive)
    bins = reliability(given)
    gap = sum(one.answers * abs(one.confidence - one.right) for one in bins) / 300
    ece = metrics.expected_calibration_error(given.logits, given.labels, np.ones((1, 300)))[0]
    assert gap == pytest.approx(ece)
    assert sum(one.answers for one in bins) == 300
    assert all(one.low < one.confidence <= one.high for one in bins)
    assert all(one.ci95 is not None and one.ci95[0] <= one.right <= one.ci95[1] for one in bins)
    assert reliability_document([given])["variants"]["int8"][0]["answers"] == bins[0].answers
