from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from foundation.errors import StageError
from stages.validate.maps.baselines import centre_prior, random_maps


def test_random_maps_are_as_smooth_as_occlusion_maps() -> None:
    """Neighbours are covered by nearly the same patches; with patch 1 they share none."""

    def neighbours(patch: int) -> float:
        maps = random_maps(3, (50, 16, 16), patch, 1)
        return float(spearmanr(maps[:, :, 1:].ravel(), maps[:, :, :-1].ravel()).statistic)

    assert neighbours(4) > 0.7
    assert neighbours(1) == pytest.approx(0.0, abs=0.05)
    assert (random_maps(3, (2, 9, 9), 4, 3) == random_maps(3, (2, 9, 9), 4, 3)).all()


def test_a_stride_that_would_skip_pixels_is_refused() -> None:
    with pytest.raises(StageError, match="stride 3 and patch 2"):
        random_maps(0, (1, 8, 8), 2, 3)


def test_the_centre_prior_is_a_gaussian_of_a_quarter_of_each_side() -> None:
    maps = centre_prior((2, 9, 17))
    assert (maps.shape, maps.dtype) == ((2, 9, 17), np.float32)
    assert (maps[0] == maps[1]).all()
    assert maps[0, 4, 8] == 1.0
    # Two rows of 9/4, so 8/9 of a standard deviation up; four columns of 17/4 to the right.
    assert maps[0, 2, 8] == pytest.approx(np.exp(-0.5 * (2 / 2.25) ** 2))
    assert maps[0, 4, 12] == pytest.approx(np.exp(-0.5 * (4 / 4.25) ** 2))
    assert maps == pytest.approx(maps[:, ::-1, ::-1])
