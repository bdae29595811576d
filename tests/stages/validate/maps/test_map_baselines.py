from __future__ import annotations

import pytest
from scipy.stats import spearmanr

from pipeline.errors import StageError
from stages.validate.maps.baselines import random_maps


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
