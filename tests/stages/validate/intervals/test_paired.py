from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm, ttest_rel

from stages.validate.intervals import paired, ranks
from stages.validate.intervals.proportions import Decisions


def alone(right: np.ndarray, units: np.ndarray | None = None) -> Decisions:
    return Decisions(right.astype(np.float64)[None, None], np.arange(len(right)) if units is None else units)


def score_bound(gained: int, lost: int, n: int, tail: float) -> float:
    """Tango's lower bound without his algebra: the constrained likelihood is maximised by search."""

    def statistic(delta: float) -> float:
        def minus_likelihood(q: float) -> float:
            cells = ((gained, q + delta), (lost, q), (n - gained - lost, 1 - 2 * q - delta))
            return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

        bounds = (max(0.0, -delta), (1 - delta) / 2)
        q = minimize_scalar(minus_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        return (gained - lost - n * delta) / np.sqrt(n * (2 * q + delta * (1 - delta)))

    return brentq(lambda delta: statistic(delta) - norm.isf(tail), -0.999, (gained - lost) / n - 1e-9)


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 7, 50), (12, 9, 100), (3, 40, 300), (5, 1, 20)])
def test_tango_is_the_score_interval(gained: int, lost: int, n: int) -> None:
    low, high = paired.tango_interval(gained, lost, n)
    assert low == pytest.approx(score_bound(gained, lost, n, 0.025), abs=1e-5)
    assert high == pytest.approx(-score_bound(lost, gained, n, 0.025), abs=1e-5)


def test_no_discordance_leaves_what_wilson_leaves() -> None:
    low, high = paired.tango_interval(0, 0, 100)
    assert (low, high) == pytest.approx((-0.03699, 0.03699), abs=1e-4)  # z²/(n + z²)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_tango_holds_its_estimate_and_mirrors(gained: int, lost: int, alike: int) -> None:
    n = gained + lost + alike + 1
    low, high = paired.tango_interval(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert paired.tango_interval(lost, gained, n) == pytest.approx((-high, -low))


def test_a_share_without_groups_has_tango_and_mcnemar() -> None:
    first, second = np.ones(100), np.ones(100)
    first[:6], second[6:8] = 0, 0
    found = paired.paired_shares(alone(first), alone(second))
    assert (found.value, found.gained, found.lost) == pytest.approx((-0.04, 0.02, 0.06))
    assert found.ci95 == pytest.approx(paired.tango_interval(2, 6, 100))
    assert found.mcnemar_p == pytest.approx(2 * (1 + 8 + 28) / 2**8)
    assert (found.n, found.units, found.method) == (100, 100, "tango")


def test_twin_pairs_count_once_and_have_no_mcnemar() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(200) < 0.8, rng.random(200) < 0.8
    once = paired.paired_shares(alone(first), alone(second))
    units = np.repeat(np.arange(200), 2)
    twice = paired.paired_shares(alone(np.repeat(first, 2), units), alone(np.repeat(second, 2), units))
    assert twice.ci95 == pytest.approx(once.ci95, abs=0.002)
    assert twice.effective_n == pytest.approx(199, abs=1)
    assert (twice.n, twice.units, twice.mcnemar_p) == (400, 200, None)


def test_a_balanced_difference_weighs_classes_as_the_metric_does() -> None:
    """A flip in a class of 10 counts a hundred times one in a class of 1,000."""
    first = np.full((2, 1, 1010), np.nan)
    first[0, 0, :10], first[1, 0, 10:] = 1, 1
    second = first.copy()
    first[0, 0, 0] = 0
    found = paired.paired_shares(Decisions(first, np.arange(1010)), Decisions(second, np.arange(1010)))
    assert found.value == pytest.approx(-0.05)
    assert found.effective_n == pytest.approx(21, abs=0.2)  # as many as the small class is worth
    assert found.ci95[0] < -0.1


def test_areas_are_paired_by_delong() -> None:
    """Variance of a difference from its definition: that of the differences of the structural components."""
    rng = np.random.default_rng(4)
    positive = rng.random(120) < 0.4
    scores = rng.normal(size=120) + positive
    other = scores + 0.4 * rng.normal(size=120)
    found = paired.paired_areas(
        *(ranks.area_of(s, positive, np.arange(120)) for s in (other, scores)), np.arange(120)
    )
    parts = [np.sign(s[positive][:, None] - s[~positive][None, :]) / 2 + 0.5 for s in (other, scores)]
    change = parts[0] - parts[1]
    variance = change.mean(axis=1).var(ddof=1) / positive.sum() + change.mean(axis=0).var(ddof=1) / (~positive).sum()
    assert found.value == pytest.approx(change.mean())
    assert found.standard_error == pytest.approx(np.sqrt(variance))
    assert found.ci95[0] < found.value < found.ci95[1]


def test_equal_ranks_leave_room_by_the_rarer_class() -> None:
    positive = np.arange(60) < 12
    area = ranks.area_of(np.linspace(0, 1, 60), positive, np.arange(60))
    found = paired.paired_areas(area, area, np.arange(60))
    assert found.value == 0
    assert -0.35 < found.ci95[0] < -0.2  # 12 pairs without a change: z²/(12 + z²), a little more for t


def test_means_are_a_paired_t_test() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.random(40), rng.random(40)
    expected = ttest_rel(first, second).confidence_interval(0.95)
    found = paired.paired_means(first, second, np.arange(40))
    assert found.ci95 == pytest.approx((expected.low, expected.high))


def test_same_files_show_no_scatter_and_few_patients_no_interval() -> None:
    values = np.random.default_rng(0).random(40)
    assert paired.paired_means(values, values, np.arange(40)).no_interval == paired.NO_SCATTER
    few = paired.paired_means(values, values[::-1], np.arange(40) % 6)
    assert few.ci95 is None
    assert "too few patients" in str(few.no_interval)
    assert paired.bounds(few, 0.05) is None


@pytest.mark.parametrize("patients", [None, 60])
def test_a_bound_rejects_a_loss_at_the_margin_at_most_one_time_in_twenty(patients: int | None) -> None:
    """The truth is exactly −0.02: the point estimate is above it half of the time, a 5 % bound hardly ever."""
    rng = np.random.default_rng(11)
    n, trials = 600, 500
    units = np.arange(n) if patients is None else np.arange(n) % patients
    passed = point = 0
    for _ in range(trials):
        chance = rng.random(n)
        if patients is not None:  # a patient's images flip together: correlation 0.3
            shared = rng.random(patients)[units]
            chance = np.where(rng.random(n) < 0.3, shared, chance)
        lost, gained = chance < 0.05, chance > 0.97
        found = paired.paired_shares(alone(~lost, units), alone(~gained, units))
        passed += paired.bounds(found, 0.05)[0] > -0.02
        point += found.value >= -0.02
    assert passed / trials <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / trials)
    assert 0.4 < point / trials < 0.65
