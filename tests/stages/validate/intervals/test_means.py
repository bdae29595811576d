from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binomtest, bootstrap

from stages.validate.intervals import groups, means


def test_a_mean_of_many_is_near_scipys_bca() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=200)
    estimate = means.mean_estimate(values, 10_000, 1, np.arange(200), "log")
    expected = bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=2).confidence_interval
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.ci95 == pytest.approx((expected.low, expected.high), abs=0.03)
    assert estimate == means.mean_estimate(values, 10_000, 1, np.arange(200), "log")


@pytest.mark.parametrize("values", [np.full(17, 0.1), np.full(64, 1.0)])
def test_equal_values_have_a_mean_and_no_interval(values: np.ndarray) -> None:
    """An interval of no width would say that the next image is sure to give the same."""
    estimate = means.mean_estimate(values, 1000, 0, np.arange(len(values)), "fisher_z")
    assert (estimate.value, estimate.ci95, estimate.n) == (pytest.approx(values[0]), None, len(values))


def test_equal_shares_have_wilsons_interval() -> None:
    wilson = binomtest(20, 20).proportion_ci(0.95, "wilson")
    assert means.mean_estimate(np.ones(20), 1000, 0, np.arange(20), "logit").ci95 == pytest.approx(
        (wilson.low, wilson.high)
    )


@pytest.mark.parametrize(("n", "patients"), [(12, None), (48, None), (100, 12)])
def test_a_skewed_mean_is_covered_where_percentiles_do_not(n: int, patients: int | None) -> None:
    """Likeness as of maps: most near 1, a tail below; beta(6, 0.8) has the mean 0.882."""
    rng = np.random.default_rng(1)
    units = np.arange(n) if patients is None else np.arange(n) % patients
    covered, trials = 0, 300
    for trial in range(trials):
        values = beta(6, 0.8).rvs(n, random_state=rng)
        low, high = means.studentised_interval(values, units, "fisher_z", 1000, trial)
        covered += low <= 6 / 6.8 <= high
    assert 0.92 <= covered / trials <= 0.98


def test_twins_widen_an_interval_by_the_root_of_two() -> None:
    """Every image twice is no more evidence than once: drawn one by one, the interval would shrink by √2."""
    values = np.random.default_rng(0).normal(size=200)
    once = means.mean_estimate(values, 4000, 0, np.arange(200), "identity").ci95
    twins, units = np.repeat(values, 2), np.repeat(np.arange(200), 2)
    grouped = means.mean_estimate(twins, 4000, 0, units, "identity").ci95
    apart = means.mean_estimate(twins, 4000, 0, np.arange(400), "identity").ci95
    assert grouped == pytest.approx(once)
    assert (grouped[1] - grouped[0]) / (apart[1] - apart[0]) == pytest.approx(np.sqrt(2), rel=0.06)


def test_nine_are_too_few() -> None:
    values = np.random.default_rng(0).random(18)
    assert means.mean_estimate(values, 1000, 0, np.repeat(np.arange(9), 2), "logit").ci95 is None
    assert groups.too_few(np.repeat(np.arange(9), 2)).startswith("too few patients for an interval: 9 groups")
    assert groups.too_few(np.arange(9)).startswith("too few images")


def test_one_value_far_away_throws_no_bound_beyond_all_values() -> None:
    """119 maps as good as fp32's and one of 0.2: on Fisher's scale the lower bound was −0.999."""
    values = np.concatenate([np.full(119, 0.9995) - 1e-5 * np.arange(119), [0.2]])
    estimate = means.mean_estimate(values, 2000, 0, np.arange(120), "fisher_z")
    assert estimate.ci95 is not None
    assert 0.2 <= estimate.ci95[0] < estimate.value < estimate.ci95[1] <= 0.9995
