from __future__ import annotations

import numpy as np
import pytest

from stages.validate.intervals import ratios


def test_paired_ratio_cancels_what_slows_a_whole_round() -> None:
    rng = np.random.default_rng(0)
    load = rng.uniform(1.0, 10.0, 40)
    estimate = ratios.paired_ratio_estimate(30.0 * load, 10.0 * load, 2000, seed=0)
    assert estimate.value == pytest.approx(3.0)
    assert estimate.ci95 == pytest.approx((3.0, 3.0))
    assert estimate.n == 40


def test_paired_ratio_covers_the_truth_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        noise = rng.lognormal(0.0, 0.05, (2, 31))
        low, high = ratios.paired_ratio_estimate(2.0 * noise[0], noise[1], 1000, seed=trial).ci95
        covered += low <= 2.0 <= high
    assert 0.90 <= covered / 300 <= 0.99
