from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.validate import metrics, resampling, statistics


def test_groups_are_numbered_as_they_appear() -> None:
    assert resampling.units_of(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert not resampling.come_in_groups(resampling.units_of(["b", "a", "c"]))
    assert resampling.come_in_groups(resampling.units_of(["b", "a", "b"]))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 100))
def test_images_of_a_group_are_drawn_together(groups: list[int], seed: int) -> None:
    units = resampling.units_of([str(group) for group in groups])
    (weights,) = resampling.resampling_weights(np.zeros(len(units), np.int64), 20, seed, units)
    _, first = np.unique(units, return_index=True)
    assert (weights == weights[:, first][:, units]).all()
    assert (weights[:, first].sum(axis=1) == len(first)).all()


def test_groups_of_one_image_change_nothing() -> None:
    strata = np.array([0, 1, 1, 0, 1])
    alone = list(resampling.resampling_weights(strata, 10, 3, np.arange(5)))
    assert (np.concatenate(alone) == np.concatenate(list(resampling.resampling_weights(strata, 10, 3)))).all()


def test_classes_are_strata_only_where_no_group_mixes_them() -> None:
    units = np.array([0, 0, 1, 2])
    assert resampling.strata_of(np.array([1, 1, 0, 1]), units).tolist() == [1, 1, 0, 1]
    assert resampling.strata_of(np.array([1, 0, 0, 1]), units).tolist() == [0, 0, 0, 0]


def test_twins_widen_an_interval_by_the_root_of_two() -> None:
    """Every image twice is no more evidence than once: drawn one by one, the interval would shrink by √2."""
    values = np.random.default_rng(0).normal(size=200)
    once = statistics.mean_estimate(values, 4000, 0, np.arange(200)).ci95
    twins, units = np.repeat(values, 2), np.repeat(np.arange(200), 2)
    grouped = statistics.mean_estimate(twins, 4000, 0, units).ci95
    apart = statistics.mean_estimate(twins, 4000, 0, np.arange(400)).ci95
    assert once is not None
    assert grouped == pytest.approx(once)
    assert apart is not None
    assert (grouped[1] - grouped[0]) / (apart[1] - apart[0]) == pytest.approx(np.sqrt(2), rel=0.06)


def test_a_share_of_twins_has_the_interval_of_half_as_many() -> None:
    hits = (np.arange(100) < 80).astype(np.float64)
    twins = statistics.mean_estimate(np.repeat(hits, 2), 4000, 0, np.repeat(np.arange(100), 2), wilson=True)
    assert twins.ci95 == pytest.approx(statistics.wilson_interval(80, 100), abs=0.004)
    # Nothing missed in 100 pairs says no more than nothing missed in 100 images.
    all_hit = statistics.mean_estimate(np.ones(200), 1000, 0, np.repeat(np.arange(100), 2), wilson=True)
    assert all_hit.ci95 == pytest.approx(statistics.wilson_interval(100, 100))


def test_effective_wilson_covers_95_percent_where_plain_wilson_does_not() -> None:
    """60 patients with five images each, the chance of a hit differing between them (beta-binomial, ρ = 0.25)."""
    rng = np.random.default_rng(7)
    units = np.repeat(np.arange(60), 5)
    covered, plain = 0, 0
    for trial in range(300):
        skill = rng.beta(0.8 * 3, 0.2 * 3, 60)
        hits = (rng.random(300) < skill[units]).astype(np.float64)
        low, high = statistics.mean_estimate(hits, 1000, trial, units, wilson=True).ci95
        covered += low <= 0.8 <= high
        low, high = statistics.wilson_interval(int(hits.sum()), 300)
        plain += low <= 0.8 <= high
    assert 0.91 <= covered / 300 <= 0.985
    assert plain / 300 < 0.88


def test_the_basic_interval_covers_a_mean_of_average_precisions_where_percentiles_do_not() -> None:
    """Six labels on 8 % of 250 images, positives one standard deviation higher: the population's value is 0.254."""
    rng = np.random.default_rng(3)
    many = rng.random(1_000_000) < 0.08
    truth = metrics.area_under_precision_recall(rng.normal(size=len(many)) + many, many, np.ones((1, len(many))))[0]
    assert truth == pytest.approx(0.254, abs=0.005)
    covered, percentiles = 0, 0
    for trial in range(60):
        positive = rng.random((250, 6)) < 0.08
        scores = rng.normal(size=(250, 6)) + positive

        def macro(weights: np.ndarray, scores: np.ndarray = scores, positive: np.ndarray = positive) -> np.ndarray:
            pairs = zip(scores.T, positive.T, strict=True)
            return np.mean([metrics.area_under_precision_recall(*pair, weights) for pair in pairs], axis=0)

        draws = resampling.resampled({0: macro}, np.zeros(250, np.int64), 300, trial)[0]
        low, high = resampling.basic_interval(macro(np.ones((1, 250)))[0], draws)
        covered += low <= truth <= high
        low, high = resampling.percentile_interval(draws)
        percentiles += low <= truth <= high
    assert covered / 60 >= 0.87
    assert percentiles / 60 < 0.75


def test_the_basic_interval_holds_its_value_and_stays_inside_0_and_1() -> None:
    draws = np.linspace(0.6, 0.9, 1001)
    low, high = resampling.basic_interval(0.7, draws)
    assert (low, high) == pytest.approx((2 * 0.7 - 0.8925, 2 * 0.7 - 0.6075))
    assert resampling.basic_interval(0.55, draws) == pytest.approx((1.1 - 0.8925, 0.55))
    assert resampling.basic_interval(0.99, draws)[1] == 1.0


def test_resamples_that_lack_a_label_are_left_out() -> None:
    draws = np.r_[np.full(400, np.nan), np.linspace(0, 1, 601)]
    assert resampling.percentile_interval(draws) == pytest.approx((0.025, 0.975))
    mostly = np.r_[np.full(602, np.nan), np.linspace(0, 1, 600)]
    assert resampling.mostly_undefined(mostly)
    assert resampling.percentile_interval(mostly) is None
