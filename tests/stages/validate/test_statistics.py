from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from stages.validate import statistics


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
