"""Thresholds that are chosen with fp32, and what files are worth at them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import expit
from scipy.stats.contingency import relative_risk
from sklearn.metrics import roc_curve

from foundation.errors import UsageError
from foundation.measurements import Measurement
from stages.validate.answers import Answers
from stages.validate.at_threshold import FAMILIES, Bootstrap, measure_at_thresholds
from stages.validate.intervals.likelihood import predictive_value, ratio_of_proportions_interval
from stages.validate.intervals.proportions import wilson_interval
from stages.validate.operating_points import (
    OperatingPoint,
    OperatingPoints,
    OperatingPointSettings,
    choose,
    choose_all,
    read_operating_points,
)

YOUDEN = OperatingPointSettings()
BOOTSTRAP = Bootstrap(resamples=1000, seed=0)


def chosen(scores: np.ndarray, positive: np.ndarray, settings: OperatingPointSettings) -> OperatingPoint:
    found = choose(scores, positive, "polyp", settings)
    assert isinstance(found, OperatingPoint)
    return found


def sample(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.arange(n) % 4 == 0
    return rng.normal(1.5 * positive, 1.0), positive


# --- choosing ---


def test_youdens_threshold_is_where_the_roc_curve_is_farthest_from_chance() -> None:
    scores, positive = sample()
    found = chosen(scores, positive, YOUDEN)
    alarms, hits, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert found.sensitivity + found.specificity - 1 == pytest.approx((hits - alarms).max())
    assert ((scores >= found.log_odds) & positive).sum() / positive.sum() == pytest.approx(found.sensitivity)
    assert ((scores < found.log_odds) & ~positive).sum() / (~positive).sum() == pytest.approx(found.specificity)


@pytest.mark.parametrize(("rule", "other"), [("sensitivity", "specificity"), ("specificity", "sensitivity")])
def test_a_floor_is_kept_with_the_best_other_half(rule: str, other: str) -> None:
    scores, positive = sample()
    found = chosen(scores, positive, OperatingPointSettings(rule=rule, floor=0.9))
    alarms, hits, _ = roc_curve(positive, scores, drop_intermediate=False)
    halves = {"sensitivity": hits, "specificity": 1 - alarms}
    assert getattr(found, rule) >= 0.9
    assert getattr(found, other) == pytest.approx(halves[other][halves[rule] >= 0.9].max())


def test_the_threshold_lies_between_two_scores_and_of_equals_youden_misses_fewest() -> None:
    found = chosen(np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, True, False, True]), YOUDEN)
    assert (found.log_odds, found.sensitivity, found.specificity) == (0.5, 1.0, 0.5)
    assert found.probability == pytest.approx(expit(0.5))
    of_all = chosen(
        np.array([1.0, 2.0]), np.array([True, False]), OperatingPointSettings(rule="sensitivity", floor=1)
    )
    assert (of_all.log_odds, of_all.specificity) == (0.5, 0.0)  # below every score


def test_without_both_kinds_of_images_there_is_no_threshold() -> None:
    assert choose(np.zeros(3), np.ones(3, bool), "polyp", YOUDEN) == "the validation images have only images of polyp"
    never = OperatingPointSettings(rule="specificity", floor=1.0)
    found = choose(np.array([1.0, 0.0]), np.array([False, True]), "polyp", never)
    assert found == "no threshold below the highest score has a specificity of 1"


@pytest.mark.parametrize("values", [{"rule": "youden", "floor": 0.9}, {"rule": "sensitivity"}])
def test_a_floor_belongs_to_its_rules(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="expected `floor` with the rules sensitivity and specificity"):
        OperatingPointSettings.model_validate(values)


def test_they_are_read_as_written_and_not_when_edited(tmp_path: Path) -> None:
    scores, positive = sample()
    path = tmp_path / "points.json"
    both = np.stack([-scores, scores], axis=1)
    points = choose_all(both, {"healthy": ~positive, "polyp": positive}, ("healthy", "polyp"), YOUDEN, "f", "d")
    points.write(path)
    assert read_operating_points(path).points == points.points
    path.write_text(path.read_text().replace('"positives": 50', '"positives": 51'))
    with pytest.raises(UsageError, match=r"points\.json: expected sha256 .* Delete it and run"):
        read_operating_points(path)


# --- what files are worth ---


def measured(
    logits: np.ndarray,
    positive: np.ndarray,
    settings: OperatingPointSettings = YOUDEN,
    reference: np.ndarray | None = None,
    units: np.ndarray | None = None,
) -> dict[tuple[str, str | None], Measurement]:
    scores = (logits if reference is None else reference)[:, 1].astype(np.float64)
    truth = {"polyp": positive}
    labels = np.stack([~positive, positive], axis=1).astype(np.int64)
    point = chosen(scores, positive, settings)
    points = OperatingPoints({"polyp": point}, {}, "f", "d", "a rule", "0" * 64)
    answers = Answers(
        "int8",
        logits.astype(np.float32),
        labels,
        ("healthy", "polyp"),
        None if reference is None else reference.astype(np.float32),
        np.arange(len(positive)) if units is None else units,
        10,
    )
    found = measure_at_thresholds(
        answers, (logits.astype(np.float64), truth), points, settings, BOOTSTRAP, units is not None
    )
    return {(one.metric.removesuffix("/polyp"), one.where.per): one for one in found}


def logits_of(scores: np.ndarray) -> np.ndarray:
    return np.stack([-scores, scores], axis=1)


def test_ratios_and_predictive_values_are_those_of_the_four_fold_table() -> None:
    scores, positive = sample()
    settings = OperatingPointSettings(prevalence=0.02)
    rows = measured(logits_of(scores), positive, settings)
    called = scores >= chosen(scores.astype(np.float32).astype(float), positive, settings).log_odds
    hits, alarms = int((called & positive).sum()), int((called & ~positive).sum())
    exact = relative_risk(hits, int(positive.sum()), alarms, int((~positive).sum()))
    ratio = rows["lr_positive_at_threshold", None]
    assert ratio.value == pytest.approx(exact.relative_risk)
    katz = exact.confidence_interval(0.95)
    assert ratio.ci95 == pytest.approx((katz.low, katz.high), rel=0.06)
    sensitivity, specificity = hits / positive.sum(), 1 - alarms / (~positive).sum()
    assert rows["ppv_at_threshold", None].value == pytest.approx(
        0.02 * sensitivity / (0.02 * sensitivity + 0.98 * (1 - specificity))
    )
    assert rows["npv_at_threshold", None].value == pytest.approx(
        0.98 * specificity / (0.98 * specificity + 0.02 * (1 - sensitivity))
    )
    assert rows["sensitivity_at_threshold", None].ci95 == pytest.approx(wilson_interval(hits, int(positive.sum())))
    for family in ("ppv", "npv", "lr_negative"):
        one = rows[f"{family}_at_threshold", None]
        assert one.ci95 is not None
        assert one.ci95[0] < one.value < one.ci95[1]


def test_without_a_stated_prevalence_the_ppv_is_the_share_of_calls_that_are_right() -> None:
    scores, positive = sample()
    rows = measured(logits_of(scores), positive)
    called = scores >= chosen(scores.astype(np.float32).astype(float), positive, YOUDEN).log_odds
    assert rows["ppv_at_threshold", None].value == pytest.approx((called & positive).sum() / called.sum())
    assert rows["ppv_at_threshold", None].remarks["prevalence"] == 0.25


def test_a_file_is_held_against_fp32_at_fp32s_threshold() -> None:
    scores, positive = sample(400)
    lower = scores - 0.5  # as after a shifted logit
    rows = measured(logits_of(lower), positive, OperatingPointSettings(rule="sensitivity", floor=0.9),
                    logits_of(scores))  # fmt: skip
    point = chosen(scores.astype(np.float32).astype(float), positive,
                   OperatingPointSettings(rule="sensitivity", floor=0.9))  # fmt: skip
    lost = ((scores >= point.log_odds) & (lower < point.log_odds) & positive).sum() / positive.sum()
    difference = rows["sensitivity_at_threshold", None].difference
    assert difference is not None
    assert difference.value == pytest.approx(-lost)
    assert difference.lost == pytest.approx(lost)
    own = rows["own_threshold", None]
    assert own.value == pytest.approx(expit(point.log_odds - 0.5), rel=1e-5)
    assert own.remarks["floor_kept"] == "no"
    assert own.remarks["sensitivity_with_it"] == pytest.approx(0.9 - lost, abs=0.011)
    for family in FAMILIES:
        change = rows[f"{family}_at_threshold", None].difference
        assert change is not None
        assert change.ci95 is not None
        assert change.ci95[0] <= change.value <= change.ci95[1]


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_a_patient_is_called_by_the_rule_and_positive_where_an_image_is(rule: str) -> None:
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(60), 3)
    positive = (np.repeat(np.arange(60) % 2, 3) == 1) & (np.arange(180) % 3 < 2)
    scores = rng.normal(1.0 * positive, 1.0)
    settings = OperatingPointSettings(patient_rule=rule)
    rows = measured(logits_of(scores), positive, settings, units=units)
    point = chosen(scores.astype(np.float32).astype(float), positive, settings)
    by_patient = scores.reshape(60, 3)
    calls = by_patient.max(axis=1) >= point.log_odds
    if rule == "mean":
        calls = expit(by_patient).mean(axis=1) >= expit(point.log_odds)
    has = np.arange(60) % 2 == 1
    sensitivity = rows["sensitivity_at_threshold", "patient"]
    assert (sensitivity.value, sensitivity.n) == (pytest.approx(calls[has].mean()), 30)
    assert sensitivity.ci95 == pytest.approx(wilson_interval(int(calls[has].sum()), 30))
    assert rows["specificity_at_threshold", "patient"].value == pytest.approx((~calls[~has]).mean())


def test_a_ratio_without_a_wrong_decision_is_told_by_its_least() -> None:
    scores = np.r_[np.full(50, 3.0), np.full(50, -3.0)]
    positive = np.arange(100) < 50
    rows = measured(logits_of(scores), positive)
    ratio = rows["lr_positive_at_threshold", None]
    assert ratio.value is None
    low, high = wilson_interval(50, 50)[0], 1 - wilson_interval(50, 50)[0]
    assert ratio.reason == (
        "the ratio has no bound, because no decision was wrong in its denominator; it is at least "
        f"{low / high:.3g} (one end of its 95 % interval)"
    )
    assert rows["lr_negative_at_threshold", None].value == 0.0
    assert rows["ppv_at_threshold", None].value == 1.0


# --- intervals ---


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))
def test_a_ratio_lies_in_its_interval(hits: int, more: int, alarms: int, quiet: int) -> None:
    total, others = hits + more, alarms + quiet
    first, second = hits / total, alarms / others
    low, high = ratio_of_proportions_interval(
        first, wilson_interval(hits, total), second, wilson_interval(alarms, others)
    )
    assert 0.0 <= low <= first / second <= high


def test_a_ratios_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    hits, alarms = rng.binomial(40, 0.8, 4000), rng.binomial(120, 0.15, 4000)
    held = []
    for a, b in zip(hits.tolist(), alarms.tolist(), strict=True):
        low, high = ratio_of_proportions_interval(a / 40, wilson_interval(a, 40), b / 120, wilson_interval(b, 120))
        held.append(low <= 0.8 / 0.15 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_a_predictive_value_follows_bayes() -> None:
    assert predictive_value(9.0, 0.1) == pytest.approx(0.5)  # 0.9 sensitivity, 0.9 specificity, one in ten ill
    assert predictive_value(0.0, 0.3) == 0.0
    assert predictive_value(float("inf"), 0.3) == 1.0
