from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.validate import metrics
from stages.validate.intervals import groups, resampling


def test_groups_are_numbered_as_they_appear() -> None:
    assert groups.units_of(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert not groups.come_in_groups(groups.units_of(["b", "a", "c"]))
    assert groups.come_in_groups(groups.units_of(["b", "a", "b"]))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 100))
def test_images_of_a_group_are_drawn_together(names: list[int], seed: int) -> None:
    units = groups.units_of([str(group) for group in names])
    (weights,) = resampling.resampling_weights(units, 20, seed)
    _, first = np.unique(units, return_index=True)
    assert (weights == weights[:, first][:, units]).all()
    assert (weights[:, first].sum(axis=1) == len(first)).all()


def test_chunks_are_small_and_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_CHUNK_ELEMENTS", 30)
    chunks = list(resampling.resampling_weights(np.arange(8), 25, seed=3))
    assert [len(chunk) for chunk in chunks] == [3] * 8 + [1]
    assert (np.concatenate(chunks).sum(axis=1) == 8).all()


def test_weights_follow_the_multinomial() -> None:
    weights = np.concatenate(list(resampling.resampling_weights(np.arange(10), 20_000, seed=0)))
    assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.03)
    assert weights.var(axis=0) == pytest.approx(np.full(10, 0.9), abs=0.04)


def test_the_error_of_a_mean_is_the_textbooks() -> None:
    """The bootstrap's variance is that of n, √(g/(g−1)) makes it that of n − 1."""
    values = np.random.default_rng(0).gamma(2.0, size=12)
    draws = resampling.resampled({0: lambda w: w @ values / w.sum(axis=1)}, np.arange(12), 40_000, 1)[0]
    assert resampling.bootstrap_error(draws, 12) == pytest.approx(values.std(ddof=1) / np.sqrt(12), rel=0.02)


def test_a_mean_of_average_precisions_is_covered_where_percentiles_do_not() -> None:
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

        draws = resampling.resampled({0: macro}, np.arange(250), 300, trial)[0]
        value = macro(np.ones((1, 250)))[0]
        low, high = resampling.bootstrap_t_interval(value, draws, 250, "logit")
        covered += low <= truth <= high
        low, high = np.quantile(draws, [0.025, 0.975])
        percentiles += low <= truth <= high
    assert covered / 60 >= 0.87
    assert percentiles / 60 < 0.75


def test_an_interval_stays_inside_its_scale_and_needs_scatter() -> None:
    draws = np.random.default_rng(0).normal(0.97, 0.03, 1001)
    low, high = resampling.bootstrap_t_interval(0.97, draws, 20, "logit")
    assert 0.7 < low < 0.97 < high < 1.0
    assert resampling.bootstrap_t_interval(0.97, np.full(1001, 0.97), 20, "logit") is None
    assert resampling.bootstrap_t_interval(1.0, draws, 20, "logit") is None


def test_resamples_that_lack_a_label_are_left_out() -> None:
    draws = np.r_[np.full(400, np.nan), np.linspace(0, 1, 601)]
    assert resampling.bootstrap_error(draws, 100) == pytest.approx(np.linspace(0, 1, 601).std() * np.sqrt(100 / 99))
    mostly = np.r_[np.full(602, np.nan), np.linspace(0, 1, 600)]
    assert resampling.mostly_undefined(mostly)
    assert resampling.bootstrap_t_interval(0.5, mostly, 100, "logit") is None
