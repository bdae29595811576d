from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import spearmanr

from foundation.explanations import Explanations
from stages.validate import map_similarity
from stages.validate.shown_maps import maps_to_show

Maps = NDArray[np.float32]


def explanations(maps: Maps, target: NDArray[np.int64] | None = None) -> Explanations:
    index = np.arange(len(maps)) * 3
    return Explanations(
        "any", maps, index, np.zeros(len(maps), np.int64) if target is None else target, Path("x.npz")
    )


@given(arrays(np.float32, (2, 30), elements=st.integers(0, 6).map(float)))
def test_spearman_agrees_with_scipy_ties_included(maps: Maps) -> None:
    (found,) = map_similarity.spearman(maps[:1].reshape(1, 5, 6), maps[1:].reshape(1, 5, 6))
    if np.ptp(maps, axis=1).min() == 0:
        assert found == 0.0
    else:
        assert found == pytest.approx(spearmanr(maps[0], maps[1])[0], abs=1e-12)


def test_each_variants_lowest_image_is_shown_and_then_typical_ones() -> None:
    rng = np.random.default_rng(3)
    fp32 = rng.standard_normal((70, 6, 6)).astype(np.float32)
    noisy = {
        name: fp32 + rng.standard_normal(fp32.shape).astype(np.float32) * scale
        for name, scale in (("fp16", 0.1), ("static-int8", 0.7))
    }
    shown = maps_to_show("gradient", explanations(fp32), {name: explanations(maps) for name, maps in noisy.items()})
    assert (shown.method, shown.compared) == ("gradient", 70)
    likeness = {name: map_similarity.spearman(maps, fp32) for name, maps in noisy.items()}
    for name, values in likeness.items():
        (worst,) = [image for image in shown.images if name in image.moved_most_in]
        assert worst.index == 3 * int(values.argmin())
    for image in shown.images:
        assert image.likeness == {name: pytest.approx(values[image.index // 3]) for name, values in likeness.items()}
    typical = [image.index // 3 for image in shown.images if not image.moved_most_in]
    averages = np.mean(list(likeness.values()), axis=0)
    distance = np.abs(averages - np.median(averages))
    others = np.setdiff1d(np.arange(70), [image.index // 3 for image in shown.images])
    assert len(typical) == 3
    assert distance[typical].max() <= distance[others].min()


def test_two_variants_may_share_their_worst_image() -> None:
    fp32 = np.arange(4 * 9, dtype=np.float32).reshape(4, 3, 3)
    turned = fp32.copy()
    turned[2] *= -1
    shown = maps_to_show("gradient", explanations(fp32), {"a": explanations(turned), "b": explanations(turned)})
    assert shown.images[0].moved_most_in == ("a", "b")
    assert (shown.images[0].index, shown.images[0].likeness) == (6, {"a": -1.0, "b": -1.0})


def test_without_another_variant_the_first_images_are_shown() -> None:
    fp32 = np.arange(5 * 9, dtype=np.float32).reshape(5, 3, 3)
    shown = maps_to_show("rise", explanations(fp32), {})
    assert [(image.index, image.moved_most_in, dict(image.likeness)) for image in shown.images] == [
        (0, (), {}), (3, (), {}), (6, (), {}),
    ]  # fmt: skip


def test_maps_of_another_class_are_not_compared() -> None:
    fp32 = np.arange(3 * 9, dtype=np.float32).reshape(3, 3, 3)
    other = explanations(fp32, np.array([1, 0, 0]))
    shown = maps_to_show("gradient", explanations(fp32), {"fp16": other})
    assert {image.index for image in shown.images if "fp16" in image.likeness} == {3, 6}
