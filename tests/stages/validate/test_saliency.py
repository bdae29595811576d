from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from calibration_data.prepared import PreparedSplit
from pipeline.artifacts import OnnxModel
from stages.validate import explained, saliency
from stages.validate.maps.baselines import random_maps

SETTINGS = saliency.SaliencySettings(resamples=1000)


def alone(n: int) -> list[str]:
    return [f"patient-{index}" for index in range(n)]


def test_its_pointing_game_is_1_for_a_mask_there_and_0_elsewhere(
    corner_model: OnnxModel, make_split: Callable[..., PreparedSplit], tmp_path: Path
) -> None:
    data = make_split(classes=2)
    data.images[:] = 255
    found = saliency.explain_variant(
        corner_model, data, np.zeros(12, np.int64), "multi_class", SETTINGS, tmp_path / "corner.npz"
    )
    masks = data.masks[found.image_index]
    rows = {
        row.metric: row
        for row in saliency.measure_saliency(
            "corner",
            found.maps,
            found.maps,
            masks,
            np.ones(12, bool),
            alone(12),
            "multi_class",
            "occlusion",
            SETTINGS,
        )
    }
    assert rows["pointing_game"].value == 1.0
    assert rows["pointing_game"].n == 12
    # Patch 2, stride 1. Along one axis a patch at 0, 1, 2, 3 hides 2, 2, 1, 0 pixels of the corner, so the pixels get
    # 2, 2, 1.5 inside and 0.5 outside: 5.5 of 6.
    assert rows["mass_in_mask"].value == pytest.approx((5.5 / 6) ** 2, abs=1e-6)
    assert rows["saliency_spearman"].value == pytest.approx(1.0)
    assert rows["saliency_ssim"].value == pytest.approx(1.0)
    assert rows["saliency_top10_overlap"].value == 1.0
    assert rows["mass_in_mask"].settings == {"method": "occlusion"}
    elsewhere = saliency.measure_saliency(
        "corner", found.maps, None, ~masks, np.ones(12, bool), alone(12), "multi_class", "occlusion", SETTINGS
    )
    assert next(row.value for row in elsewhere if row.metric == "pointing_game") == 0.0


def test_explanations_come_back_and_have_the_same_bytes_twice(
    make_model: Callable[..., OnnxModel], make_split: Callable[..., PreparedSplit], tmp_path: Path
) -> None:
    data, path = make_split(), tmp_path / "saliency" / "fp32.npz"
    targets = np.arange(12) % 3
    settings = saliency.SaliencySettings(images=5, resamples=1000)
    seen: list[tuple[int, int]] = []
    found = saliency.explain_variant(
        make_model(), data, targets, "multi_class", settings, path, lambda done, total: seen.append((done, total))
    )
    first = path.read_bytes()
    saliency.explain_variant(make_model(), data, targets, "multi_class", settings, path)
    assert path.read_bytes() == first
    assert seen == [(i, 5) for i in range(1, 6)]
    again = saliency.Explanations.read("fp32", path)
    assert again.maps.shape == (5, 8, 8)
    assert (again.maps == found.maps).all()
    assert (again.target == targets[again.image_index]).all()


def test_without_masks_the_reason_is_said() -> None:
    maps = random_maps(0, (4, 8, 8), 3, 1)
    masks = np.ones((4, 8, 8), bool)
    for has_mask, given_masks in ((np.zeros(4, bool), masks), (np.ones(4, bool), ~masks)):
        rows = saliency.measure_saliency(
            "fp32", maps, None, given_masks, has_mask, alone(4), "multi_class", "gradient", SETTINGS
        )
        assert [row.value for row in rows] == [None] * 5
        assert rows[0].settings == {"method": "gradient", "reason": "fp32 is the reference itself"}
        assert "mask" in str(rows[-1].settings["reason"])
        assert rows[0].provider == "cpu"


def test_identical_maps_claim_no_certainty() -> None:
    maps = random_maps(0, (10, 8, 8), 3, 1)
    masks, has_mask = np.zeros((10, 8, 8), bool), np.zeros(10, bool)
    rows = {
        row.metric: row
        for row in saliency.measure_saliency(
            "fp16", maps, maps, masks, has_mask, alone(10), "multi_class", "occlusion", SETTINGS
        )
    }
    assert (rows["saliency_ssim"].value, rows["saliency_ssim"].ci95) == (pytest.approx(1.0), None)
    assert rows["saliency_ssim"].settings["no_interval"] == "every resample gives the same value"
    wilson = binomtest(10, 10).proportion_ci(0.95, "wilson")
    assert rows["saliency_top10_overlap"].ci95 == pytest.approx((wilson.low, wilson.high))


def test_random_maps_agree_with_nothing_and_hit_a_mask_by_its_share() -> None:
    first, second = (random_maps(seed, (400, 16, 16), 4, 2) for seed in (0, 1))
    masks = np.zeros((400, 16, 16), bool)
    masks[:, :, 8:] = True
    rows = {
        row.metric: row
        for row in saliency.measure_saliency(
            saliency.RANDOM_MAP,
            first,
            second,
            masks,
            np.ones(400, bool),
            alone(400),
            "multi_class",
            "occlusion",
            SETTINGS,
        )
    }
    assert rows["saliency_spearman"].value == pytest.approx(0.0, abs=0.05)
    assert rows["saliency_top10_overlap"].value == pytest.approx(0.1, abs=0.04)
    assert rows["pointing_game"].value == pytest.approx(0.5, abs=0.08)
    assert rows["mass_in_mask"].value == pytest.approx(0.5, abs=0.05)


def test_images_are_chosen_from_every_class() -> None:
    labels = np.array([0] * 100 + [1] * 3 + [2] * 10)
    chosen = explained.choose_images(labels, 12, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [5, 3, 4] or np.bincount(labels[chosen]).tolist() == [4, 3, 5]
    assert (np.diff(chosen) > 0).all()
    assert len(explained.choose_images(labels, 1000, seed=0)) == 113
    assert (explained.choose_images(labels, 12, seed=1) != chosen).any()


@given(st.integers(1, 300), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_patches_of_any_setting_cover_every_pixel(size: int, patch_share: float, stride_share: float) -> None:
    settings = saliency.SaliencySettings(patch_share=patch_share, stride_share=stride_share)
    patch, stride = settings.patch(size), settings.stride(size)
    assert 1 <= stride <= patch <= size


def test_maps_of_one_patient_count_together() -> None:
    maps = random_maps(0, (30, 16, 16), 4, 2)
    reference = random_maps(1, (30, 16, 16), 4, 2)
    masks, patients = np.zeros((60, 16, 16), bool), [f"patient-{index // 2}" for index in range(60)]
    masks[:, :, 8:] = True
    once, twice = (
        saliency.measure_saliency(
            "fp16", of, others, masks[: len(of)], np.ones(len(of), bool), groups, "multi_label", "occlusion", SETTINGS
        )
        for of, others, groups in (
            (maps, reference, alone(30)),
            (np.repeat(maps, 2, 0), np.repeat(reference, 2, 0), patients),
        )
    )
    for first, second in zip(once, twice, strict=True):
        assert second.value == pytest.approx(first.value)
        assert second.ci95 == pytest.approx(first.ci95, abs=0.02)
        assert (second.n, second.settings["resampled"]) == (60, "30 groups")
