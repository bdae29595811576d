from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score, roc_auc_score

from stages.validate import map_similarity


def stack(seed: int, m: int = 3, size: int = 14) -> np.ndarray:
    """Maps with ties: one decimal only."""
    return np.round(np.random.default_rng(seed).standard_normal((m, size, size)), 1).astype(np.float32)


def test_spearman_agrees_with_scipy() -> None:
    first, second = stack(0), stack(1)
    second[1] = first[1] ** 3
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second, strict=True)]
    assert map_similarity.spearman(first, second) == pytest.approx(expected)
    assert expected[1] == pytest.approx(1.0)


def ssim_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, pixel by pixel with an explicit window over mirrored maps."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = ((a - a.min()) / (a.max() - a.min()) for a in (x.astype(np.float64), y.astype(np.float64)))
    padded_x, padded_y = (np.pad(a, 5, mode="symmetric") for a in (x, y))
    values = []
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            a, b = (p[row : row + 11, column : column + 11] for p in (padded_x, padded_y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            values.append(luminance * (2 * covariance + 9e-4) / (var_a + var_b + 9e-4))
    return float(np.mean(values))


def test_ssim_agrees_with_its_definition() -> None:
    first, second = stack(2), stack(3)
    second[2] = -first[2]
    expected = [ssim_by_loops(a, b) for a, b in zip(first, second, strict=True)]
    assert map_similarity.structural_similarity(first, second) == pytest.approx(expected, abs=1e-9)
    assert expected[2] < 0


def test_ssim_works_on_maps_smaller_than_its_window() -> None:
    small = stack(4, size=8)
    assert map_similarity.structural_similarity(small, small) == pytest.approx(np.ones(3))


@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_a_map_equals_itself_under_any_scale(seed: int, scale: float, shift: float) -> None:
    maps = stack(seed, size=6)
    scaled = maps * np.float32(scale) + np.float32(shift)
    assert map_similarity.spearman(maps, maps * np.float32(4)) == pytest.approx(np.ones(3))
    assert map_similarity.structural_similarity(maps, scaled) == pytest.approx(np.ones(3), abs=1e-3)
    assert map_similarity.top_overlap(maps, maps) == pytest.approx(np.ones(3))


def test_top_overlap_by_hand() -> None:
    """20 pixels, so the top tenth is 2: {0, 1} against {1, 2}."""
    first, second = np.zeros((1, 4, 5), np.float32), np.zeros((1, 4, 5), np.float32)
    first[0, 0, :3] = [5, 4, 3]
    second[0, 0, :3] = [3, 4, 5]
    assert map_similarity.top_overlap(first, second)[0] == 0.5


def test_top_overlap_breaks_ties_by_reading_order() -> None:
    """Seven pixels share the maximum and two are wanted: the first two in reading order, every time."""
    tied = np.zeros((1, 4, 5), np.float32)
    tied[0, 1, :] = 1
    tied[0, 2, :2] = 1
    wanted = np.zeros((1, 4, 5), np.float32)
    wanted[0, 1, :2] = 1
    assert map_similarity.top_overlap(tied, wanted)[0] == 1.0


def test_constant_maps_have_documented_values() -> None:
    maps, constant = stack(5, m=1), np.full((1, 14, 14), 7.0, np.float32)
    assert map_similarity.spearman(constant, maps)[0] == 0.0
    assert map_similarity.spearman(constant, constant)[0] == 0.0
    assert map_similarity.top_overlap(constant, maps)[0] == 0.0
    assert np.isfinite(map_similarity.structural_similarity(constant, maps)).all()
    assert map_similarity.mass_in_mask(-constant, np.ones((1, 14, 14), bool))[0] == 0.0


def test_pointing_and_mass_by_hand() -> None:
    maps = np.zeros((2, 3, 3), np.float32)
    maps[0, 0, 0], maps[0, 2, 2] = 3, 1
    maps[1, 0, 0], maps[1, 2, 2], maps[1, 1, 1] = 2, 2, -9
    masks = np.zeros((2, 3, 3), bool)
    masks[:, 0, 0] = masks[:, 1, 1] = True
    assert map_similarity.pointing_hits(maps, masks).tolist() == [1.0, 0.5]
    assert map_similarity.mass_in_mask(maps, masks).tolist() == [0.75, 0.5]


@given(st.integers(0, 1000), st.integers(1, 195))
def test_iou_agrees_with_scikit_learn_where_no_pixels_are_equal(seed: int, area: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.permutation(196).reshape(1, 14, 14).astype(np.float32)
    masks = (rng.permutation(196) < area).reshape(1, 14, 14)
    top = maps > 195 - area
    expected = jaccard_score(masks.ravel(), top.ravel())
    assert map_similarity.iou_at_mask_area(maps, masks)[0] == pytest.approx(expected)


def test_iou_by_hand() -> None:
    """Two pixels of the mask and two of the map share one: 1 of 3. All of it: 1. None: 0."""
    maps = np.zeros((3, 2, 3), np.float32)
    maps[:, 0] = [3, 2, 1]
    masks = np.zeros((3, 2, 3), bool)
    masks[0, 0, 1:] = masks[1, 0, :2] = masks[2, 1, 1:] = True
    assert map_similarity.iou_at_mask_area(maps, masks) == pytest.approx([1 / 3, 1.0, 0.0])


def test_iou_counts_a_plateau_by_the_room_that_is_left() -> None:
    """One pixel is certain; four share the next value and one more is wanted, so each of them counts a quarter.

    The mask holds one of the four and not the certain one: a quarter of a hit, so ¼ / (4 − ¼). A constant map hits by
    chance: two of six pixels, of which a third is hit, ⅔ / (4 − ⅔).
    """
    maps = np.array([[[9, 5, 5], [5, 5, 0]], [[7, 7, 7], [7, 7, 7]]], np.float32)
    masks = np.zeros((2, 2, 3), bool)
    masks[0, 0, 1] = masks[0, 1, 2] = True
    masks[1, 0, :2] = True
    assert map_similarity.iou_at_mask_area(maps, masks) == pytest.approx([0.25 / 3.75, (2 / 3) / (4 - 2 / 3)])


def test_iou_of_a_mask_that_is_empty_or_everything() -> None:
    maps = stack(6, m=2)
    masks = np.zeros((2, 14, 14), bool)
    masks[1] = True
    assert map_similarity.iou_at_mask_area(maps, masks).tolist() == [0.0, 1.0]


def test_a_turned_sign_is_no_other_map() -> None:
    """The sanity check sees through it, as the eye does; by sign the two would be opposites."""
    maps = stack(7)
    assert map_similarity.spearman(maps, -maps) == pytest.approx(-np.ones(3))
    assert map_similarity.magnitude_spearman(maps, -maps) == pytest.approx(np.ones(3))
    expected = [spearmanr(abs(a).ravel(), abs(b).ravel()).statistic for a, b in zip(maps, stack(8), strict=True)]
    assert map_similarity.magnitude_spearman(maps, stack(8)) == pytest.approx(expected)


@given(st.integers(0, 1000), st.integers(1, 195))
def test_pixel_auroc_agrees_with_scikit_learn_also_at_ties(seed: int, area: int) -> None:
    maps = stack(seed, m=1)
    masks = (np.random.default_rng(seed).permutation(196) < area).reshape(1, 14, 14)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert map_similarity.pixel_auroc(maps, masks)[0] == pytest.approx(expected)


def test_pixel_auroc_needs_pixels_on_either_side() -> None:
    maps, masks = stack(9, m=3), np.zeros((3, 14, 14), bool)
    masks[1] = masks[2, 0] = True
    assert np.isnan(map_similarity.pixel_auroc(maps, masks)).tolist() == [True, True, False]
    assert map_similarity.pixel_auroc(np.zeros_like(maps), masks)[2] == 0.5


def test_topk_by_hand() -> None:
    """Of 20 pixels the top two: one is hit, both are, and of five that share two places two are inside: ⅖."""
    maps, masks = np.zeros((3, 4, 5), np.float32), np.zeros((3, 4, 5), bool)
    maps[:2, 0, :3], maps[2, 1] = [5, 4, 3], 1
    masks[0, 0, 1:] = masks[1, 0] = masks[2, 1, :2] = True
    assert map_similarity.topk_in_mask(maps, masks) == pytest.approx([0.5, 1.0, 0.4])


def test_sparseness_is_half_the_mean_difference_of_two_pixels_over_their_mean() -> None:
    """Gini's own definition, from every pair of pixels; by hand a single pixel of 196 gives 1 − 1/196."""
    maps = stack(10)
    magnitudes = np.abs(maps.reshape(3, -1).astype(np.float64))
    pairs = np.abs(magnitudes[:, :, None] - magnitudes[:, None, :]).mean(axis=(1, 2))
    assert map_similarity.sparseness(maps) == pytest.approx(pairs / (2 * magnitudes.mean(axis=1)))
    flat = np.stack([np.zeros((14, 14)), np.full((14, 14), -3.0), np.zeros((14, 14))]).astype(np.float32)
    flat[2, 3, 4] = -7
    assert map_similarity.sparseness(flat) == pytest.approx([0.0, 0.0, 1 - 1 / 196])


def test_pointing_counts_what_lies_within_the_tolerance() -> None:
    """From (0, 0) the maximum at (3, 4) is 5 pixels away; of two that share it, at 5 and √41, half is near."""
    maps, masks = np.zeros((3, 8, 8), np.float32), np.zeros((3, 8, 8), bool)
    maps[:, 3, 4] = maps[1, 4, 5] = 1
    masks[:2, 0, 0] = True
    assert map_similarity.pointing_hits(maps, masks, 4).tolist() == [0.0, 0.0, 0.0]
    assert map_similarity.pointing_hits(maps, masks, 5).tolist() == [1.0, 0.5, 0.0]


def test_what_meets_masks_and_the_sparseness_are_those_of_quantus() -> None:
    """Numbers of Quantus 0.6.0 (without its normalisation; `abs` of mass and sparseness, k = 26 of the top-k)."""
    rng = np.random.default_rng(20)
    maps, masks = rng.standard_normal((6, 16, 16)).round(3), np.zeros((6, 16, 16), bool)
    for index in range(6):
        row, column, height, width = *rng.integers(0, 8, 2), *rng.integers(3, 8, 2)
        masks[index, row : row + height, column : column + width] = True
        maps[index][masks[index]] += 0.8
    maps = maps.round(3).astype(np.float32)
    assert masks.sum() == 142
    iou = map_similarity.iou_at_mask_area(maps, masks)
    found = {
        "PointingGame": map_similarity.pointing_hits(maps, masks),
        "RelevanceMassAccuracy": map_similarity.mass_in_mask(np.abs(maps), masks),
        "RelevanceRankAccuracy": 2 * iou / (1 + iou),  # IoU at the mask's area is h / (2 − h)
        "AUC": map_similarity.pixel_auroc(maps, masks),
        "TopKIntersection": map_similarity.topk_in_mask(maps, masks),
        "Sparseness": map_similarity.sparseness(maps),
    }
    quantus = {
        "PointingGame": [1.0, 1.0, 0.0, 1.0, 1.0, 0.0],
        "RelevanceMassAccuracy": [0.104148, 0.134449, 0.109252, 0.173862, 0.075195, 0.051486],
        "RelevanceRankAccuracy": [0.214286, 0.28, 0.2, 0.285714, 0.111111, 0.222222],
        "AUC": [0.680686, 0.690216, 0.662712, 0.628783, 0.623716, 0.80027],
        "TopKIntersection": [0.230769, 0.269231, 0.153846, 0.269231, 0.153846, 0.115385],
        "Sparseness": [0.421218, 0.419297, 0.417946, 0.414449, 0.416009, 0.41521],
    }
    for name, values in quantus.items():
        assert found[name] == pytest.approx(values, abs=2e-6), name


def test_a_plateau_is_a_hit_for_quantus_and_a_share_of_one_here() -> None:
    """Quantus 0.6.0 gives 1.0 where any of the pixels that share the maximum lies inside, as often by chance."""
    maps, mask = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), bool)
    maps[0, 0] = 1
    mask[0, 0, 0] = True
    assert map_similarity.pointing_hits(maps, mask) == [0.25]
