from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.validate.map_stability import completeness_error, max_sensitivity, noisy_copies


def test_max_sensitivity_is_captums() -> None:
    """`captum.metrics.sensitivity_max` 0.9.0 of x³ at (¼, ½, ¾, 1) and (1¼, 1½, 1¾, 2), moved by −0.1 to 0.2."""
    images = (np.arange(1, 9, dtype=np.float32) / 4).reshape(2, 2, 2)
    noisy = ((images + np.float32(step)) ** 3 for step in np.linspace(-0.1, 0.2, 7))
    found = max_sensitivity(images**3, noisy)
    assert found == pytest.approx([0.8045968869634329, 0.37034009508392945], rel=1e-6)


@given(st.floats(0.01, 100.0), st.integers(0, 1000))
def test_larger_logits_are_no_less_stable(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((3, 4, 4)).astype(np.float32)
    copies = [maps + rng.standard_normal(maps.shape).astype(np.float32) for _ in range(3)]
    scaled = max_sensitivity(scale * maps, [scale * copy for copy in copies])
    assert scaled == pytest.approx(max_sensitivity(maps, copies), rel=1e-4)


def test_a_map_of_nothing_has_no_sensitivity() -> None:
    maps = np.zeros((2, 3, 3), np.float32)
    maps[1, 0, 0] = 2
    found = max_sensitivity(maps, [maps + 1])
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(np.sqrt(9) / 2)


def test_copies_move_by_whole_gray_values_within_the_radius_and_are_the_same_for_every_file() -> None:
    images = np.full((2, 3, 40, 40), 100, np.uint8)

    def copies() -> Iterator[np.ndarray]:
        return noisy_copies(images, 4, 5, seed=1)

    moved = np.concatenate([copy.astype(int) - 100 for copy in copies()])
    assert sorted(set(moved.ravel().tolist())) == list(range(-5, 6))
    assert moved.mean() == pytest.approx(0.0, abs=0.05)
    assert all(np.array_equal(first, second) for first, second in zip(copies(), copies(), strict=True))
    (at_the_edge,) = noisy_copies(np.full((1, 1, 20, 20), 254, np.uint8), 1, 5, seed=1)
    assert (at_the_edge.min(), at_the_edge.max()) == (249, 255)


def test_the_completeness_error_of_a_cube_under_the_midpoint_rule() -> None:
    """∫₀¹ 3(tx)² dt is x² (1 − 1 / 4N²) by N midpoints, so that Σ x³ / 4N² is missing."""
    x, steps = np.array([[[0.5, 2.0], [1.0, -1.5]]]), 8
    midpoints = (np.arange(steps) + 0.5) / steps
    maps = x * (3 * (midpoints[:, None, None, None] * x) ** 2).mean(axis=0)
    error = completeness_error(maps.astype(np.float32), (x**3).sum(axis=(1, 2)))
    assert error == pytest.approx((x**3).sum() / (4 * steps**2), rel=1e-3)
