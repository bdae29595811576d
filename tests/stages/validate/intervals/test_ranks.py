from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from stages.validate.intervals import ranks
from stages.validate.intervals.proportions import wilson_interval


def scored(n: int, seed: int, shift: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    return np.round(rng.normal(size=n) + shift * positive, 1), positive  # with ties


def delongs_variance(scores: np.ndarray, positive: np.ndarray) -> float:
    """From the definition: all pairs, a tie counting half."""
    wins = np.sign(scores[positive][:, None] - scores[~positive][None, :]) / 2 + 0.5
    return float(wins.mean(axis=1).var(ddof=1) / positive.sum() + wins.mean(axis=0).var(ddof=1) / (~positive).sum())


def test_area_and_variance_are_scikit_learns_and_delongs() -> None:
    scores, positive = scored(150, 0)
    area = ranks.area_of(scores, positive, np.arange(150))
    assert area.value == pytest.approx(roc_auc_score(positive, scores))
    assert ranks.area_error(area.influence, np.arange(150)) ** 2 == pytest.approx(delongs_variance(scores, positive))


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=4, max_size=40))
def test_ranks_give_what_all_pairs_give(images: list[tuple[int, bool]]) -> None:
    """Value and influence of each image from one sort, against the matrix of all pairs, with many ties."""
    scores, positive = np.array([score for score, _ in images], float), np.array([has for _, has in images])
    if min(positive.sum(), (~positive).sum()) < 2:
        return
    area = ranks.area_of(scores, positive, np.arange(len(scores)))
    wins = np.sign(scores[positive][:, None] - scores[~positive][None, :]) / 2 + 0.5
    assert area.value == pytest.approx(wins.mean(), abs=1e-14)
    for chosen, of_each in ((positive, wins.mean(axis=1)), (~positive, wins.mean(axis=0))):
        count = chosen.sum()
        expected = (of_each - wins.mean()) / count * np.sqrt(count / (count - 1))
        assert area.influence[chosen] == pytest.approx(expected, abs=1e-13)


def test_the_interval_is_symmetric_in_the_logit() -> None:
    scores, positive = scored(150, 1)
    area = ranks.area_of(scores, positive, np.arange(150))
    low, high = ranks.auroc_interval(area, np.arange(150))
    error = np.sqrt(delongs_variance(scores, positive)) / (area.value * (1 - area.value))
    half = t.ppf(0.975, positive.sum() - 1) * error
    logit = np.log(area.value / (1 - area.value))
    assert np.log(np.array([low, high]) / (1 - np.array([low, high]))) == pytest.approx([logit - half, logit + half])


def test_clusters_have_obuchowskis_variance() -> None:
    """Written out as in her paper (1997, equations 3 to 6), with sums over clusters."""
    scores, positive = scored(200, 2)
    units = np.arange(200) // 4
    wins = np.sign(scores[positive][:, None] - scores[~positive][None, :]) / 2 + 0.5
    area, m, n = wins.mean(), positive.sum(), (~positive).sum()
    v10, v01 = wins.mean(axis=1), wins.mean(axis=0)
    first = np.array([(v10[units[positive] == u] - area).sum() for u in range(50)])
    second = np.array([(v01[units[~positive] == u] - area).sum() for u in range(50)])
    with_first, with_second = len(np.unique(units[positive])), len(np.unique(units[~positive]))
    s10 = with_first / ((with_first - 1) * m) * np.square(first).sum()
    s01 = with_second / ((with_second - 1) * n) * np.square(second).sum()
    s11 = 50 / 49 * (first * second).sum()
    expected = s10 / m + s01 / n + 2 * s11 / (m * n)
    found = ranks.area_error(ranks.area_of(scores, positive, units).influence, units) ** 2
    assert found == pytest.approx(expected, rel=0.005)


def test_perfect_separation_is_bounded_by_the_smaller_class() -> None:
    positive = np.arange(40) < 8
    area = ranks.area_of(positive.astype(float), positive, np.arange(40))
    assert ranks.auroc_interval(area, np.arange(40)) == pytest.approx((wilson_interval(8, 8)[0], 1.0))
    # Two images per patient: four patients have the class.
    area = ranks.area_of(positive.astype(float), positive, np.arange(40) // 2)
    assert ranks.auroc_interval(area, np.arange(40) // 2) == pytest.approx((wilson_interval(4, 4)[0], 1.0))


@pytest.mark.parametrize(("n", "area"), [(30, 0.9), (100, 0.95), (100, 0.8)])
def test_the_interval_covers_the_binormal_area(n: int, area: float) -> None:
    rng = np.random.default_rng(n)
    shift, covered, trials = np.sqrt(2) * NormalDist().inv_cdf(area), 0, 500
    for _ in range(trials):
        positive = np.arange(n) % 2 == 0
        found = ranks.area_of(rng.normal(size=n) + shift * positive, positive, np.arange(n))
        low, high = ranks.auroc_interval(found, np.arange(n))
        covered += low <= area <= high
    assert 0.93 <= covered / trials <= 0.99


@pytest.mark.parametrize(("area", "correlation"), [(0.99, 0.8), (0.95, 0.8), (0.95, 0.0)])
def test_patients_of_many_images_alike_leave_room_near_one(area: float, correlation: float) -> None:
    """20 patients of 25 images; without the bound of a separated sample .80 and .89 of the first two are covered."""
    rng, units = np.random.default_rng(3), np.arange(500) % 20
    shift, covered, trials = np.sqrt(2) * NormalDist().inv_cdf(area), 0, 300
    for _ in range(trials):
        positive = (rng.permutation(20) % 2 == 0)[units]
        noise = np.sqrt(correlation) * rng.normal(size=20)[units]
        noise += np.sqrt(1 - correlation) * rng.normal(size=500)
        low, high = ranks.auroc_interval(ranks.area_of(noise + shift * positive, positive, units), units)
        covered += low <= area <= high
    assert covered / trials >= 0.93
