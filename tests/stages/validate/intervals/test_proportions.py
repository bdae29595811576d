from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, t

from stages.validate.intervals import proportions
from stages.validate.intervals.proportions import Decisions, share_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (1, 10), (37, 50), (499, 1000)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert proportions.wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 500), st.data())
def test_wilson_is_ordered_inside_0_and_1_and_symmetric(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = proportions.wilson_interval(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    assert proportions.wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="11 of 10"):
        proportions.wilson_interval(11, 10)


def test_interval_of_one_proportion_is_wilsons() -> None:
    interval = proportions.mean_of_proportions_interval(np.array([7]), np.array([9]))
    assert interval == pytest.approx(proportions.wilson_interval(7, 9), abs=1e-12)


def test_interval_of_mean_of_proportions_covers_95_percent() -> None:
    """Exact coverage over all outcomes of two classes of unequal size and skill."""
    totals, shares = np.array([30, 12]), np.array([0.9, 0.6])
    covered = 0.0
    for first in range(31):
        for second in range(13):
            low, high = proportions.mean_of_proportions_interval(np.array([first, second]), totals)
            if low <= shares.mean() <= high:
                covered += binom.pmf(first, 30, 0.9) * binom.pmf(second, 12, 0.6)
    assert 0.93 < covered < 0.985


def test_perfect_answers_keep_a_width() -> None:
    low, high = proportions.mean_of_proportions_interval(np.array([10, 10]), np.array([10, 10]))
    assert high == 1.0
    # Each class alone would reach down to 0.722; the mean of two is 1 − 0.278/√2.
    assert low == pytest.approx(1 - (1 - proportions.wilson_interval(10, 10)[0]) / np.sqrt(2), abs=1e-12)


def hits(wrong: int, n: int, units: np.ndarray) -> Decisions:
    """Return n decisions of which some are wrong, spread over the units."""
    return Decisions((np.arange(n) * 73 % n >= wrong).astype(np.float64)[None, None], units)


def test_images_alone_have_wilsons_interval() -> None:
    assert share_interval(hits(3, 224, np.arange(224))) == pytest.approx(proportions.wilson_interval(221, 224))


def test_effective_size_is_korn_and_graubards() -> None:
    """By hand: the variance of a ratio mean between 20 units of 6, and (z/t)² with 19 degrees."""
    rng = np.random.default_rng(3)
    units = np.repeat(np.arange(20), 6)
    right = (rng.random(120) < rng.beta(3, 1, 20)[units]).astype(np.float64)
    share = right.mean()
    sums = np.array([(right[units == unit] - share).sum() for unit in range(20)])
    variance = np.square(sums).sum() * 20 / 19 / 120**2
    size = share * (1 - share) / variance * (1.959964 / t.ppf(0.975, 19)) ** 2
    assert share * (1 - share) / variance < 120
    found = share_interval(Decisions(right[None, None], units))
    assert found == pytest.approx(proportions.wilson_interval(share * size, size), abs=1e-6)


def test_the_effective_size_is_at_most_the_number_of_decisions() -> None:
    """Units that each have one of two right vary less than chance: that makes nobody surer than 40 images do."""
    right = np.tile([0.0, 1.0], 20)
    low, high = share_interval(Decisions(right[None, None], np.repeat(np.arange(20), 2)))
    size = 40 * (1.959964 / t.ppf(0.975, 19)) ** 2
    assert (low, high) == pytest.approx(proportions.wilson_interval(size / 2, size), abs=1e-6)


def test_a_changed_answer_never_narrows_the_interval_of_no_change() -> None:
    """224 images of 27 patients: of 0 changed the bound was 87.9 %, of 3 changed 96.1 %."""
    units = np.arange(224) % 27
    bounds = [share_interval(hits(wrong, 224, units))[0] for wrong in range(12)]
    assert bounds[0] == pytest.approx(0.866, abs=0.003)  # 27 patients, and 26 degrees of freedom
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(bounds))


def test_twins_count_once() -> None:
    once = Decisions(np.repeat((np.arange(100) < 80).astype(np.float64), 2)[None, None], np.repeat(np.arange(100), 2))
    size = 99 * (1.959964 / t.ppf(0.975, 99)) ** 2
    assert share_interval(once) == pytest.approx(proportions.wilson_interval(0.8 * size, size), abs=1e-3)


def test_nine_patients_are_too_few_and_nine_images_are_not() -> None:
    assert share_interval(hits(2, 18, np.repeat(np.arange(9), 2))) is None
    assert "too few patients for an interval: 9 groups" in hits(2, 18, np.repeat(np.arange(9), 2)).too_few
    assert share_interval(hits(2, 9, np.arange(9))) == pytest.approx(proportions.wilson_interval(7, 9))


def test_effective_wilson_covers_95_percent_where_plain_wilson_does_not() -> None:
    """60 patients with five images each, the chance of a hit differing between them (beta-binomial, ρ = 0.25)."""
    rng = np.random.default_rng(7)
    units = np.repeat(np.arange(60), 5)
    covered, plain = 0, 0
    for _ in range(600):
        right = (rng.random(300) < rng.beta(0.8 * 3, 0.2 * 3, 60)[units]).astype(np.float64)
        low, high = share_interval(Decisions(right[None, None], units))
        covered += low <= 0.8 <= high
        low, high = proportions.wilson_interval(right.sum(), 300)
        plain += low <= 0.8 <= high
    assert 0.93 <= covered / 600 <= 0.97
    assert plain / 600 < 0.88
