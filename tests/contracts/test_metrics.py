"""What every row of `METRICS` must keep."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from calibration_data.prepared import Task
from foundation.metrics import METRICS, Metric, row_name
from stages.validate import COMPUTATIONS, Function
from stages.validate.deletion import Probability

ROWS = pytest.mark.parametrize(("name", "row"), METRICS.items(), ids=METRICS.keys())
COMPUTED: list[tuple[str, Task]] = [
    (name, task) for name, computations in COMPUTATIONS.items() for task in computations
]
CONTRACT = {
    "accuracy",
    "balanced_accuracy",
    "auroc_macro",
    "average_precision_macro",
    "auroc/CLASS",
    "average_precision/CLASS",
    "sensitivity/CLASS",
    "specificity/CLASS",
    "ece",
    "brier",
    "agreement",
    "logits_sqnr_db",
    "sensitivity_at_threshold/CLASS",
    "specificity_at_threshold/CLASS",
    "ppv_at_threshold/CLASS",
    "npv_at_threshold/CLASS",
    "lr_positive_at_threshold/CLASS",
    "lr_negative_at_threshold/CLASS",
    "own_threshold/CLASS",
    "calibration_slope/CLASS",
    "calibration_intercept/CLASS",
    "robust_accuracy",
    "robust_agreement",
    "size_bytes",
    "size_against_fp32",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "latency_speedup",
    "latency_against_kernel",
    "throughput_images_per_s",
    "preprocessing_ms",
    "load_ms",
    "first_inference_ms",
    "peak_memory_bytes",
    "saliency_spearman",
    "saliency_ssim",
    "saliency_top10_overlap",
    "sanity_spearman",
    "deletion_auc",
    "insertion_auc",
    "pointing_game",
    "mass_in_mask",
    "iou_at_mask_area",
    "pixel_auroc",
    "topk_in_mask",
    "sparseness",
    "cascade_spearman",
    "max_sensitivity",
    "completeness_error",
    "place_agreement",
    "place_bit_equal",
    "place_logits_sqnr_db",
    "place_largest_difference",
    "place_saliency_spearman",
    "place_saliency_top10_overlap",
}


def lit_where(masks: np.ndarray) -> Probability:
    """A file whose probability is the brightness inside the masks."""
    return lambda images, targets: (images[:, 0] / 255 * masks).sum(axis=(1, 2)) / masks.sum(axis=(1, 2))


def outcome(row: Metric, function: Function, task: Task, skilled: bool) -> np.ndarray:
    """Feed a metric with a perfect or a useless answer."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    has = np.eye(4, dtype=bool)[labels]
    perfect = np.where(has, 20.0, 0.0 if task == "multi_class" else -20.0).astype(np.float32)
    truth = labels if task == "multi_class" else has.astype(np.int64)
    logits = perfect if skilled else np.roll(perfect, 1, axis=1)
    ones = np.ones((2, 40))
    maps = rng.standard_normal((5, 12, 12)).astype(np.float32)
    masks = maps > 0
    match row.inputs:
        case "labels":
            return function(logits, truth, ones)
        case "class" | "class_mean":
            return function(logits, truth, 1, ones)
        case "reference":
            return function(logits, perfect, ones)
        case "maps" if not row.against_fp32:
            return function(maps**3 if skilled else maps)
        case "maps":
            return function(maps if skilled else -maps, maps)
        case "randomised" | "cascade":
            return function(maps, rng.standard_normal(maps.shape) if skilled else maps)
        case "noise":
            return function(maps, [maps + (0.01 if skilled else 1.0) * np.float32(sign) for sign in (1, -1)])
        case "path":
            return function(maps, maps.sum(axis=(1, 2)) + (0.01 if skilled else 1.0))
        case "perturbed":
            images, targets = np.full((5, 1, 12, 12), 255, np.uint8), np.zeros(5, np.int64)
            dark = np.zeros(1, np.uint8)
            return function(lit_where(masks), images, maps if skilled else -maps, targets, dark)
        case "masks":
            return function(maps, masks if skilled else ~masks)
    raise AssertionError(row.inputs)


def test_the_table_holds_the_names_of_the_contract() -> None:
    assert set(METRICS) == CONTRACT


@ROWS
def test_a_row_explains_itself(name: str, row: Metric) -> None:
    assert row.unit
    assert name.endswith("_bytes") == (row.unit == "bytes")
    assert name.endswith("_ms") == (row.unit == "ms")
    assert name.endswith("_db") == (row.unit == "dB")
    assert name.endswith("/CLASS") == (row.inputs in ("class", "calibration", "threshold"))
    assert set(row.definitions) <= {"multi_class", "multi_label"}
    assert row.definitions
    assert row.heading
    for task, definition in row.definitions.items():
        assert definition.meaning
        assert "\n" not in definition.meaning + definition.legend
        explained = "fp32's answer, also where it is wrong" if task == "multi_class" else "the finding that the mask"
        assert (row.inputs == "masks") == (f"explains {explained}" in definition.meaning)
        assert definition.sample == "all" or row.inputs == "class"


def test_what_is_computed_is_described_in_the_same_order_and_for_the_same_tasks() -> None:
    elsewhere = ("file", "timing", "calibration", "threshold", "changed", "place")
    described = {name: list(row.definitions) for name, row in METRICS.items() if row.inputs not in elsewhere}
    assert {name: list(computations) for name, computations in COMPUTATIONS.items()} == described
    assert list(COMPUTATIONS) == list(described)


def test_what_has_no_interval_says_why() -> None:
    for computations in COMPUTATIONS.values():
        for computation in computations.values():
            assert (computation.interval is None) == ("no_interval" in computation.remarks)


@pytest.mark.parametrize(("name", "task"), COMPUTED)
def test_the_direction_is_the_one_in_which_skill_moves_the_value(name: str, task: Task) -> None:
    row = METRICS[name]
    good, bad = (outcome(row, COMPUTATIONS[name][task].function, task, skilled) for skilled in (True, False))
    assert good.dtype == np.float64
    assert np.isfinite(good).all()
    assert np.isfinite(bad).all()
    assert (good > bad).all() if row.higher_is_better else (good < bad).all()


@pytest.mark.parametrize(("name", "task"), [pair for pair in COMPUTED if METRICS[pair[0]].unit == "share"])
def test_shares_stay_between_0_and_1(name: str, task: Task) -> None:
    for skilled in (True, False):
        values = outcome(METRICS[name], COMPUTATIONS[name][task].function, task, skilled)
        assert ((values >= 0) & (values <= 1)).all()


def test_names_of_class_metrics_find_their_row() -> None:
    assert row_name("auroc/polyp") == "auroc/CLASS"
    assert row_name("auroc/a/b") == "auroc/CLASS"
    assert row_name("accuracy") == "accuracy"
    for unknown in ("acuracy", "auroc", "auroc/", "ece/polyp", ""):
        assert METRICS.get(row_name(unknown)) is None


def test_the_table_is_cheap_to_import() -> None:
    listing = "import sys, stages.validate; print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "scipy", "sklearn", "onnx", "onnxruntime", "matplotlib"):
        assert f"'{heavy}'" not in loaded
