from __future__ import annotations

import numpy as np
import pytest

from pipeline.night.change_points import LEAST_NIGHTS, change_points


def test_a_step_is_found_where_it_is() -> None:
    assert change_points([0.90] * 60 + [0.88] * 40) == (60,)


def test_nights_without_a_number_are_passed_over() -> None:
    noise = np.random.default_rng(0).normal(0, 0.004, 300)
    values = [None] * 5 + [0.9 + one for one in noise[:200]] + [0.87 + one for one in noise[200:]]
    (place,) = change_points(values)
    assert abs(place - 205) <= 1


@pytest.mark.parametrize("values", [[0.9] * 50, [0.0] * 50, [float("nan")] * 50, [None] * 50, []])
def test_nothing_changes_where_nothing_does(values: list[float | None]) -> None:
    assert change_points(values) == ()


def test_few_nights_tell_nothing() -> None:
    assert change_points([0.9] * 4 + [0.1] * (LEAST_NIGHTS - 5)) == ()


def test_noise_alone_seldom_has_a_change_point() -> None:
    generator = np.random.default_rng(1)
    assert sum(bool(change_points(list(generator.normal(size=100)))) for _ in range(100)) <= 3
