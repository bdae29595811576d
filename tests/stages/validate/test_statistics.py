from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from stages.validate import resampling, statistics


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (1, 10), (37, 50), (499, 1000)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert statistics.wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 500), st.data())
def test_wilson_is_ordered_inside_0_and_1_and_symmetric(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = statistics.wilson_interval(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    assert statistics.wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="11 of 10"):
        statistics.wilson_interval(11, 10)


def test_interval_of_one_proportion_is_wilsons() -> None:
    interval = statistics.mean_of_proportions_interval(np.array([7]), np.array([9]))
    assert interval == pytest.approx(statistics.wilson_interval(7, 9), abs=1e-12)


def test_interval_of_mean_of_proportions_covers_95_percent() -> None:
    """Exact coverage over all outcomes of two classes of unequal size and skill."""
    totals, shares = np.array([30, 12]), np.array([0.9, 0.6])
    covered = 0.0
    for first in range(31):
        for second in range(13):
            low, high = statistics.mean_of_proportions_interval(np.array([first, second]), totals)
            if low <= shares.mean() <= high:
                covered += binom.pmf(first, 30, 0.9) * binom.pmf(second, 12, 0.6)
    assert 0.93 < covered < 0.985


def test_perfect_answers_keep_a_width() -> None:
    low, high = statistics.mean_of_proportions_interval(np.array([10, 10]), np.array([10, 10]))
    assert high == 1.0
    # Each class alone would reach down to 0.722; the mean of two is 1 − 0.278/√2.
    assert low == pytest.approx(1 - (1 - statistics.wilson_interval(10, 10)[0]) / np.sqrt(2), abs=1e-12)


def test_resampling_weights_keep_each_stratum_size_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = np.array([0, 1, 1, 2, 2, 2, 0, 1])
    monkeypatch.setattr(resampling, "_CHUNK_ELEMENTS", 30)
    chunks = list(resampling.resampling_weights(strata, 25, seed=3))
    assert [len(chunk) for chunk in chunks] == [3] * 8 + [1]
    weights = np.concatenate(chunks)
    for stratum, size in ((0, 2), (1, 3), (2, 3)):
        assert (weights[:, strata == stratum].sum(axis=1) == size).all()


def test_weights_follow_the_multinomial() -> None:
    weights = np.concatenate(list(resampling.resampling_weights(np.zeros(10, np.int64), 20_000, seed=0)))
    assert weights.mean(axis=0) == pytest.approx(np.ones(10), abs=0.03)
    assert weights.var(axis=0) == pytest.approx(np.full(10, 0.9), abs=0.04)


def test_bootstrap_of_a_mean_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).gamma(2.0, size=80)
    estimate = statistics.mean_estimate(values, 20_000, 1, np.arange(80))
    expected = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.ci95 == pytest.approx((expected.low, expected.high), abs=0.02)
    assert estimate == statistics.mean_estimate(values, 20_000, 1, np.arange(80))


@pytest.mark.parametrize("values", [np.full(7, 0.1), np.full(64, 1.0), np.array([0.3])])
def test_equal_values_have_a_mean_and_no_interval(values: np.ndarray) -> None:
    """An interval of no width would say that the next image is sure to give the same."""
    estimate = statistics.mean_estimate(values, 1000, 0, np.arange(len(values)))
    assert (estimate.value, estimate.ci95, estimate.n) == (pytest.approx(values[0]), None, len(values))


def test_smallest_samples_are_6_for_p50_and_36_for_p90() -> None:
    assert statistics.smallest_sample(0.5) == 6
    assert statistics.smallest_sample(0.9) == 36
    assert statistics.smallest_sample(0.1) == 36
    assert statistics.smallest_sample(0.99) == 368
    # From the definition: the maximum must exceed the quantile with 97.5 %.
    assert 0.9**36 <= 0.025 < 0.9**35


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_too_few_observations_have_no_quantile(quantile: float) -> None:
    n = statistics.smallest_sample(quantile)
    assert statistics.quantile_estimate(np.arange(n - 1.0), quantile) is None
    estimate = statistics.quantile_estimate(np.arange(float(n)), quantile)
    assert estimate is not None
    assert estimate.ci95[1] == n - 1


def test_quantile_ranks_of_100_observations() -> None:
    """The textbook ranks: the 40th to the 61st of 100 bound the median (coverage 96.5 %)."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    median = statistics.quantile_estimate(values, 0.5)
    p90 = statistics.quantile_estimate(values, 0.9)
    assert median is not None
    assert p90 is not None
    assert (median.value, median.ci95) == (50.0, (40.0, 61.0))
    assert (p90.value, p90.ci95) == (90.0, (84.0, 96.0))


@given(st.integers(36, 3000), st.sampled_from([0.5, 0.9]))
def test_quantile_interval_has_its_coverage(n: int, quantile: float) -> None:
    estimate = statistics.quantile_estimate(np.arange(1.0, n + 1), quantile)
    assert estimate is not None
    low, high = (int(rank) for rank in estimate.ci95)
    assert low <= estimate.value <= high
    assert binom.cdf(low - 1, n, quantile) <= 0.025 + 1e-12
    assert binom.sf(high - 1, n, quantile) <= 0.025 + 1e-12


def test_paired_ratio_cancels_what_slows_a_whole_round() -> None:
    rng = np.random.default_rng(0)
    load = rng.uniform(1.0, 10.0, 40)
    estimate = statistics.paired_ratio_estimate(30.0 * load, 10.0 * load, 2000, seed=0)
    assert estimate.value == pytest.approx(3.0)
    assert estimate.ci95 == pytest.approx((3.0, 3.0))
    assert estimate.n == 40


def test_paired_ratio_covers_the_truth_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        noise = rng.lognormal(0.0, 0.05, (2, 31))
        low, high = statistics.paired_ratio_estimate(2.0 * noise[0], noise[1], 1000, seed=trial).ci95
        covered += low <= 2.0 <= high
    assert 0.90 <= covered / 300 <= 0.99
