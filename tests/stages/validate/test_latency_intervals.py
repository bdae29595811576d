from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stages.validate import latency_intervals


def test_with_one_stage_the_interval_is_students() -> None:
    values = np.array([0.2, 0.25, 0.19, 0.3, 0.22])
    found = latency_intervals.mean_estimate(values, 5)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean())
    assert found.ci95 == pytest.approx((expected.low, expected.high))
    assert found.n == 5


def test_the_second_stage_keeps_the_spread_and_the_degrees_of_freedom_of_the_first() -> None:
    values = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 9.0, -9.0, 0.2])
    found = latency_intervals.mean_estimate(values, 5)
    half = stats.t.ppf(0.975, 4) * np.std(values[:5], ddof=1) / np.sqrt(8)
    assert found.ci95 == pytest.approx((values.mean() - half, values.mean() + half))


def test_a_geometric_mean_is_back_in_times() -> None:
    found = latency_intervals.geometric_estimate(np.log([1.0, 2.0, 4.0, 2.0, 2.0]), 5)
    assert found.value == pytest.approx(2.0)
    assert found.ci95 is not None
    assert found.ci95[0] * found.ci95[1] == pytest.approx(4.0)


def test_processes_needed_make_the_interval_as_narrow_as_asked() -> None:
    """A spread of 2.1 % and t with 4 degrees: (2.776 · 0.021 / ln 1.02)² = 8.7."""
    logs = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    logs *= 0.021 / np.std(logs, ddof=1)
    assert latency_intervals.processes_needed(logs, 0.02) == 9
    assert latency_intervals.processes_needed(np.zeros(5), 0.02) == 5


@pytest.mark.parametrize(("quantile", "least"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_a_percentile_that_n_cannot_carry_is_refused(quantile: float, least: int) -> None:
    assert latency_intervals.smallest_sample(quantile) == least
    queries = -(-least // 5)
    rng = np.random.default_rng(0)
    assert latency_intervals.percentile_estimate(rng.gamma(9.0, size=(5, queries)), quantile, 5) is not None
    assert latency_intervals.percentile_estimate(rng.gamma(9.0, size=(5, queries - 1)), quantile, 5) is None


def test_identical_files_are_told_apart_in_one_of_twenty_runs() -> None:
    """Process effects of 1.5 %, 2,000 whole runs with both stages: 5 %, ± 2 standard errors of the simulation."""
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(2000):
        logs = rng.normal(0.0, 0.015 * np.sqrt(2), 50)
        processes = min(50, latency_intervals.processes_needed(logs[:5], 0.02))
        low, high = latency_intervals.geometric_estimate(logs[:processes], 5).ci95 or (0.0, 2.0)
        false += not low <= 1.0 <= high
    assert false / 2000 == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(("quantile", "name"), [(0.5, "p50"), (0.9, "p90"), (0.99, "p99")])
def test_a_percentiles_interval_holds_that_of_all_processes(quantile: float, name: str) -> None:
    """Process effects of 1.5 % around queries that scatter by 5 %."""
    rng = np.random.default_rng(5)
    truth = np.exp(stats.norm.ppf(quantile) * np.hypot(0.05, 0.015))
    held = 0
    for _ in range(500):
        effects = rng.normal(0.0, 0.015, (5, 1))
        found = latency_intervals.percentile_estimate(np.exp(effects + rng.normal(0.0, 0.05, (5, 210))), quantile, 5)
        assert found is not None
        assert found.ci95 is not None
        held += found.ci95[0] <= truth <= found.ci95[1]
    assert held / 500 > 0.92, name
