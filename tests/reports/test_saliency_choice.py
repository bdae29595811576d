from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from foundation.run_folder import RunFolder
from reports.facts import read_facts
from reports.saliency_choice import choose_images, spearman
from stages.validate import map_similarity


@given(arrays(np.float32, (2, 30), elements=st.integers(0, 6).map(float)))
def test_spearman_agrees_with_scipy_ties_included(maps: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    if np.ptp(maps, axis=1).min() == 0:
        assert spearman(maps[0], maps[1]) == 0.0
    else:
        assert spearman(maps[0], maps[1]) == pytest.approx(spearmanr(maps[0], maps[1])[0], abs=1e-12)


@given(arrays(np.float32, (2, 3, 4, 5), elements=st.integers(0, 3).map(float)))
def test_captions_agree_with_the_measurement(maps: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    shown = [spearman(one, other) for one, other in zip(*maps, strict=True)]
    assert shown == pytest.approx(map_similarity.spearman(*maps), abs=1e-12)


def test_each_variant_s_lowest_image_is_shown_and_then_typical_ones(reported_run: RunFolder) -> None:
    choice = choose_images(read_facts(reported_run))
    assert choice.compared == 48
    for variant, values in choice.correlations.items():
        lowest = min(values, key=lambda index: values[index])
        assert variant in next(image.why for image in choice.images if image.index == lowest)
    typical = [image.index for image in choice.images if image.why == "typical"]
    averages = {i: np.mean([values[i] for values in choice.correlations.values()]) for i in range(48)}
    distance = {i: abs(averages[i] - np.median(list(averages.values()))) for i in averages}
    others = [distance[i] for i in range(48) if i not in {image.index for image in choice.images}]
    assert len(typical) == 3
    assert max(distance[i] for i in typical) <= min(others)
