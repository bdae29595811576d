from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import binomtest, bootstrap

from calibration_data.prepared import PreparedSplit
from foundation.artifacts import OnnxModel
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from onnx_files.sessions import open_session, predict
from stages.validate.counterparts import Counterparts, ExplainedImages
from stages.validate.fidelity import measure_saliency, probability_of, unmeasured_saliency
from stages.validate.lesion_size import LEAST_MASKS
from stages.validate.maps.baselines import random_maps
from stages.validate.maps.methods import ExplainedFiles, open_method
from stages.validate.saliency import SaliencySettings

SETTINGS = SaliencySettings(resamples=1000)
BLACK = np.zeros(1, np.uint8)


def half_sure(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """A file that is as sure of anything as of nothing."""
    return np.full(len(images), 0.5)


def explained_with(masks: np.ndarray, has_mask: bool = True, **changes: object) -> ExplainedImages:
    m, size = masks.shape[0], masks.shape[1]
    images = ExplainedImages(
        images=np.full((m, 1, size, size), 255, np.uint8),
        targets=np.zeros(m, np.int64),
        masks=masks,
        has_mask=np.full(m, has_mask),
        groups=tuple(f"patient-{index}" for index in range(m)),
        task="multi_class",
    )
    return replace(images, **changes)


def scores(
    maps: np.ndarray, images: ExplainedImages, variant: str = "fp16", **against: object
) -> dict[str, Measurement]:
    """Return the measurements of all images by their metric."""
    counterparts = Counterparts(**{"probability": half_sure, "fill": BLACK, "start": BLACK, **against})
    rows = measure_saliency(variant, maps, images, counterparts, "occlusion", SETTINGS).rows
    return {row.metric: row for row in rows if row.where.subgroup is None}


def test_what_takes_a_probability_is_not_measured_of_the_number_of_a_class() -> None:
    masks = left_half(4)
    found = scores(masks.astype(np.float32), explained_with(masks), probability=None)
    for name in ("deletion_auc", "insertion_auc"):
        assert (found[name].value, found[name].reason) == (None, "the model gives the number of a class, no scores")
    assert found["mass_in_mask"].value == 1.0


def left_half(m: int, size: int = 16) -> np.ndarray:
    masks = np.zeros((m, size, size), bool)
    masks[:, :, : size // 2] = True
    return masks


def test_the_map_of_a_model_that_reads_one_corner(
    corner_model: OnnxModel, make_split: Callable[..., PreparedSplit]
) -> None:
    data = make_split(classes=2)
    data.images[:] = 255
    images = ExplainedImages.of(data, np.arange(12), np.zeros(12, np.int64), "multi_class")
    maps = open_method("occlusion", ExplainedFiles(corner_model.path), "multi_class", SETTINGS)(
        images.images, images.targets
    )
    rows = scores(maps, images, reference=maps, randomised=[-maps])
    assert rows["pointing_game"].value == 1.0
    assert rows["pointing_game"].n == 12
    # Patch 2, stride 1. Along one axis a patch at 0, 1, 2, 3 hides 2, 2, 1, 0 pixels of the corner, so the pixels get
    # 2, 2, 1.5 inside and 0.5 outside: 5.5 of 6.
    assert rows["mass_in_mask"].value == pytest.approx((5.5 / 6) ** 2, abs=1e-6)
    assert rows["iou_at_mask_area"].value == 1.0
    assert rows["saliency_spearman"].value == pytest.approx(1.0)
    assert rows["saliency_ssim"].value == pytest.approx(1.0)
    assert rows["saliency_top10_overlap"].value == 1.0
    assert rows["sanity_spearman"].value == pytest.approx(1.0)  # a turned sign is no other map
    assert rows["mass_in_mask"].where == Where("cpu", "test", method="occlusion")
    assert rows["mass_in_mask"].remarks == {}
    assert rows["deletion_auc"].remarks == {"steps": 20, "fill": "mean colour"}
    elsewhere = scores(maps, replace(images, masks=~images.masks))
    assert elsewhere["pointing_game"].value == 0.0


def test_deletion_and_insertion_of_the_corner_from_the_shipped_file_itself(corner_model: OnnxModel) -> None:
    """By hand: the corner's nine pixels go (or come) first, so the curve is the file's own at 3.2 pixels a step.

    64 pixels in 20 steps: after step s, round(3.2·s) pixels have changed. Each of the first nine takes 2 from the
    logit (255 is +2, the mean 128 about 0), and p = sigmoid(2·sum).
    """
    session = open_session(corner_model.path, "cpu", 1)
    fill = np.array([128], np.uint8)
    images = explained_with(np.zeros((2, 8, 8), bool))
    maps = np.zeros((2, 8, 8), np.float32)
    maps[:, :3, :3] = 1
    rows = scores(maps, images, probability=probability_of(session, "multi_class", 4), fill=fill, start=fill)
    bright, dark = ((value / 255 - 0.5) / 0.25 for value in (255, 128))
    gone = np.minimum(9, [round(64 * step / 20) for step in range(21)])
    deleted = expit(2 * (bright * (9 - gone) + dark * gone))
    inserted = expit(2 * (dark * (9 - gone) + bright * gone))
    assert rows["deletion_auc"].value == pytest.approx(np.trapezoid(deleted) / 20, abs=1e-6)
    assert rows["insertion_auc"].value == pytest.approx(np.trapezoid(inserted) / 20, abs=1e-6)
    assert (rows["deletion_auc"].unit, rows["deletion_auc"].n) == ("probability", 2)


@pytest.mark.parametrize(("task", "expected"), [("multi_class", softmax), ("multi_label", lambda z, axis: expit(z))])
def test_the_probability_is_the_softmax_or_the_labels_sigmoid(
    task: str, expected: Callable[..., np.ndarray], make_model: Callable[..., OnnxModel]
) -> None:
    session = open_session(make_model().path, "cpu", 1)
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    targets = np.array([0, 2, 1, 1, 0])
    found = probability_of(session, task, 2)(images, targets)
    logits = predict(session, images, 5).astype(np.float64)
    assert found == pytest.approx(expected(logits, axis=1)[np.arange(5), targets], abs=1e-6)


def test_an_interval_is_the_bootstrap_over_images() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(40)
    images = explained_with(np.zeros((40, 4, 4), bool))
    row = scores(np.zeros((40, 4, 4), np.float32), images, probability=lambda shown, targets: values)["deletion_auc"]
    expected = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=rng).confidence_interval
    assert row.value == pytest.approx(values.mean())
    assert row.ci95 == pytest.approx((expected.low, expected.high), abs=0.01)
    assert row.n == 40


def test_what_cannot_be_said_has_a_reason() -> None:
    maps = random_maps(0, (4, 8, 8), 3, 1)
    every, none = np.ones((4, 8, 8), bool), np.zeros((4, 8, 8), bool)
    for images in (explained_with(every, has_mask=False), explained_with(none)):
        rows = scores(maps, images, variant="fp32")
        assert rows["saliency_ssim"].remarks == {"reason": "fp32 is the reference itself"}
        assert rows["sanity_spearman"].remarks["reason"] == "the sanity check is made of fp32"
        for metric in ("pointing_game", "mass_in_mask", "iou_at_mask_area"):
            assert rows[metric].value is None
            assert "mask" in str(rows[metric].remarks["reason"])
        assert rows["saliency_ssim"].where.provider == "cpu"
        assert rows["deletion_auc"].value == pytest.approx(0.5)


def test_a_network_that_died_with_its_weights_proves_nothing() -> None:
    """Where the randomised map is constant the image counts not; where all are, the check is not made."""
    maps = random_maps(0, (4, 8, 8), 3, 1)
    randomised = random_maps(1, (4, 8, 8), 3, 1)
    randomised[1] = 0
    images = explained_with(np.zeros((4, 8, 8), bool))
    assert scores(maps, images, randomised=[randomised])["sanity_spearman"].n == 3
    dead = scores(maps, images, randomised=[np.zeros_like(maps)])["sanity_spearman"]
    assert dead.value is None
    assert "answers nothing" in str(dead.remarks["reason"])


def test_a_map_that_does_not_see_the_weights_fails_the_sanity_check() -> None:
    maps, other = (random_maps(seed, (200, 16, 16), 1, 1) for seed in (0, 1))
    images = explained_with(left_half(200))
    assert scores(maps, images, randomised=[maps])["sanity_spearman"].value == pytest.approx(1.0)
    assert scores(maps, images, randomised=[other])["sanity_spearman"].value == pytest.approx(0.0, abs=0.01)


def test_identical_maps_claim_no_certainty() -> None:
    maps = random_maps(0, (10, 8, 8), 3, 1)
    rows = scores(maps, explained_with(np.zeros((10, 8, 8), bool)), reference=maps)
    assert (rows["saliency_ssim"].value, rows["saliency_ssim"].ci95) == (pytest.approx(1.0), None)
    assert rows["saliency_ssim"].remarks["no_interval"] == "every resample gives the same value"
    wilson = binomtest(10, 10).proportion_ci(0.95, "wilson")
    assert rows["saliency_top10_overlap"].ci95 == pytest.approx((wilson.low, wilson.high))


def test_random_maps_agree_with_nothing_and_hit_a_mask_by_its_share() -> None:
    first, second = (random_maps(seed, (400, 16, 16), 4, 2) for seed in (0, 1))
    rows = scores(first, explained_with(left_half(400)), reference=second)
    assert rows["saliency_spearman"].value == pytest.approx(0.0, abs=0.05)
    assert rows["saliency_top10_overlap"].value == pytest.approx(0.1, abs=0.04)
    assert rows["pointing_game"].value == pytest.approx(0.5, abs=0.08)
    assert rows["mass_in_mask"].value == pytest.approx(0.5, abs=0.05)
    assert rows["iou_at_mask_area"].value == pytest.approx(1 / 3, abs=0.05)  # half of each half is shared


def squares(sides: list[int], size: int = 16) -> np.ndarray:
    masks = np.zeros((len(sides), size, size), bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = True
    return masks


def by_size(maps: np.ndarray, images: ExplainedImages) -> dict[tuple[str, str], Measurement]:
    rows = measure_saliency("fp16", maps, images, Counterparts(half_sure, BLACK, BLACK), "gradient", SETTINGS).rows
    return {(row.metric, row.where.subgroup): row for row in rows if row.where.subgroup is not None}


def test_a_map_that_misses_only_small_lesions_shows_it() -> None:
    """Flat maps put on every lesion the share that it covers: 4 of 256 pixels, 36, and 144."""
    sides = [2] * 14 + [6] * 12 + [12] * 12
    rows = by_size(np.ones((38, 16, 16), np.float32), explained_with(squares(sides)))
    for name, share, n in (("small", 4 / 256, 14), ("medium", 36 / 256, 12), ("large", 144 / 256, 12)):
        row = rows["mass_in_mask", f"{name} lesions"]
        assert row.value == pytest.approx(share)
        assert row.n == n
        assert row.where.method == "gradient"
        assert rows["iou_at_mask_area", f"{name} lesions"].value == pytest.approx(share / (2 - share))
    assert rows["mass_in_mask", "medium lesions"].remarks["mask_share"] == "above 1.56 %, at most 14.06 %"
    assert {metric for metric, _ in rows} == {name for name, row in METRICS.items() if row.inputs == "masks"}


def test_sizes_count_whole_patients_too() -> None:
    sides = [2] * 20 + [6] * 20 + [12] * 20
    images = explained_with(squares(sides), groups=tuple(f"patient-{index // 2}" for index in range(60)))
    row = by_size(random_maps(0, (60, 16, 16), 4, 2), images)["mass_in_mask", "large lesions"]
    assert (row.n, row.remarks["resampled"]) == (20, "10 groups")


def test_too_few_masks_of_a_size_are_not_measured() -> None:
    rows = by_size(random_maps(0, (12, 16, 16), 4, 2), explained_with(squares([2] * 4 + [6] * 4 + [12] * 4)))
    assert {row.value for row in rows.values()} == {None}
    reason = rows["mass_in_mask", "small lesions"].remarks["reason"]
    assert reason == f"only 4 of the explained images have a mask of this size; a figure by size needs {LEAST_MASKS}"


def test_maps_of_one_patient_count_together() -> None:
    maps, reference = (random_maps(seed, (30, 16, 16), 4, 2) for seed in (0, 1))
    patients = tuple(f"patient-{index // 2}" for index in range(60))
    once = scores(maps, explained_with(left_half(30)), reference=reference)
    twice = scores(
        np.repeat(maps, 2, 0), explained_with(left_half(60), groups=patients), reference=np.repeat(reference, 2, 0)
    )
    for metric in ("saliency_spearman", "saliency_ssim", "pointing_game", "mass_in_mask", "iou_at_mask_area"):
        assert twice[metric].value == pytest.approx(once[metric].value)
        assert twice[metric].ci95 == pytest.approx(once[metric].ci95, abs=0.02)
        assert (twice[metric].n, twice[metric].remarks["resampled"]) == (60, "30 groups")


def test_a_file_without_maps_lacks_every_number_that_maps_give() -> None:
    rows = unmeasured_saliency("inc-int8", "no rule for Einsum", "multi_label", "gradient")
    images = explained_with(left_half(2), task="multi_label")
    measured = scores(random_maps(0, (2, 16, 16), 1, 1), images)
    assert [row.metric for row in rows] == list(measured)  # what only some runs ask for is in neither
    assert {row.remarks["reason"] for row in rows} == {"no rule for Einsum"}
    assert {row.where.method for row in rows} == {"gradient"}


def test_what_a_mask_leaves_undefined_does_not_count() -> None:
    maps, masks = random_maps(0, (4, 16, 16), 4, 2), left_half(4)
    masks[0] = True
    rows = scores(maps, explained_with(masks))
    assert (rows["pixel_auroc"].n, rows["iou_at_mask_area"].n) == (3, 4)
    nowhere = scores(maps, explained_with(np.ones_like(masks)))["pixel_auroc"]
    assert (nowhere.value, "covers its whole image" in str(nowhere.reason)) == (None, True)


def test_sparseness_stands_beside_fp32s_with_the_difference_of_the_same_images() -> None:
    """A map of one pixel against a flat one: 1 − 1/256 − 0 on every image; fp32 itself has a value too."""
    one = np.zeros((12, 16, 16), np.float32)
    one[:, 3, 3] = 1
    images = explained_with(left_half(12))
    flat = np.ones_like(one)
    row = scores(one, images, reference=flat, fp32s={"sparseness": np.zeros(12)})["sparseness"]
    assert row.value == pytest.approx(1 - 1 / 256)
    assert row.difference is not None
    assert row.difference.value == pytest.approx(1 - 1 / 256)
    assert scores(one, images, variant="fp32")["sparseness"].value == pytest.approx(1 - 1 / 256)


def test_the_pointing_games_tolerance_is_a_setting_that_its_remarks_state() -> None:
    maps = np.zeros((12, 16, 16), np.float32)
    maps[:, 5, 10] = 1  # the mask ends with column 7
    found = {}
    for tolerance in (0, 2, 3):
        settings = SaliencySettings(resamples=1000, pointing_tolerance_px=tolerance)
        against = Counterparts(half_sure, BLACK, BLACK)
        rows = measure_saliency("fp16", maps, explained_with(left_half(12)), against, "occlusion", settings).rows
        row = next(row for row in rows if row.metric == "pointing_game")
        found[tolerance] = (row.value, row.remarks.get("tolerance_px"))
    assert found == {0: (0.0, None), 2: (0.0, 2), 3: (1.0, 3)}


def test_every_metric_of_single_maps_is_paired_with_fp32s_image_by_image() -> None:
    maps, reference = random_maps(0, (20, 16, 16), 4, 2), random_maps(1, (20, 16, 16), 4, 2)
    images = explained_with(left_half(20))
    settings = {"probability": half_sure, "fill": BLACK, "start": BLACK}
    fp32 = measure_saliency("fp32", reference, images, Counterparts(**settings), "occlusion", SETTINGS)
    against = Counterparts(**settings, reference=reference, fp32s=fp32.values)
    found = measure_saliency("fp16", maps, images, against, "occlusion", SETTINGS)
    rows = {row.metric: row for row in found.rows if row.where.subgroup is None}
    for metric in ("mass_in_mask", "iou_at_mask_area", "pixel_auroc", "topk_in_mask", "sparseness", "deletion_auc"):
        difference = rows[metric].difference
        assert difference is not None
        assert difference.value == pytest.approx((found.values[metric] - fp32.values[metric]).mean(), abs=1e-9)
        assert difference.n == 20
    assert rows["saliency_spearman"].difference is None  # a comparison already


def test_several_random_orders_count_as_their_mean_and_each_is_told() -> None:
    maps = random_maps(0, (12, 16, 16), 4, 2)
    images = explained_with(left_half(12))
    row = scores(maps, images, randomised=[maps, -maps, random_maps(5, (12, 16, 16), 4, 2)])["sanity_spearman"]
    of_draws = row.remarks["of_draws"]
    assert row.remarks["draws"] == 3
    assert of_draws[:2] == [1.0, 1.0]  # a turned sign is no other map
    assert row.value == pytest.approx(np.mean(of_draws), abs=1e-4)


def test_a_cascade_has_a_row_for_each_step_and_leaves_out_maps_that_died() -> None:
    maps = random_maps(0, (12, 16, 16), 4, 2)
    half_dead = random_maps(5, (12, 16, 16), 4, 2)
    half_dead[:6] = 0
    cascade = {"top 1 of 3 layers": maps, "top 2 of 3 layers": half_dead, "top 3 of 3 layers": np.zeros_like(maps)}
    against = Counterparts(half_sure, BLACK, BLACK, cascade=cascade)
    scored = measure_saliency("fp32", maps, explained_with(left_half(12)), against, "occlusion", SETTINGS)
    rows = {row.where.change: row for row in scored.rows if row.metric == "cascade_spearman"}
    assert list(rows) == list(cascade)
    assert (rows["top 1 of 3 layers"].value, rows["top 1 of 3 layers"].n) == (1.0, 12)
    assert rows["top 2 of 3 layers"].n == 6
    assert rows["top 3 of 3 layers"].value is None


def test_noise_and_sums_are_measured_where_they_are_asked_for_alone() -> None:
    maps = random_maps(0, (12, 16, 16), 4, 2)
    images = explained_with(left_half(12))
    assert not {"max_sensitivity", "completeness_error", "cascade_spearman"} & set(scores(maps, images))
    gains = maps.sum(axis=(1, 2), dtype=np.float64) + 0.25
    rows = scores(maps, images, noisy=lambda: iter([maps * 1.5, maps * 0.9]), gains=gains)
    assert rows["max_sensitivity"].value == pytest.approx(0.5)
    assert rows["completeness_error"].value == pytest.approx(0.25, rel=1e-4)


def test_insertion_takes_the_start_and_deletion_the_fill() -> None:
    seen: list[float] = []

    def look(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        seen.append(float(images.mean()))
        return np.full(len(images), 0.5)

    start = np.full((12, 1, 16, 16), 99, np.uint8)
    settings = SaliencySettings(resamples=1000, insertion_start="blur")
    against = Counterparts(look, BLACK, start)
    scored = measure_saliency(
        "fp16", random_maps(0, (12, 16, 16), 4, 2), explained_with(left_half(12)), against, "occlusion", settings
    )
    assert (seen[0], seen[20]) == (255.0, 0.0)
    assert (seen[21], seen[41]) == (99.0, 255.0)
    rows = {row.metric: row for row in scored.rows}
    assert rows["insertion_auc"].remarks == {"steps": 20, "start": "the blurred image"}
