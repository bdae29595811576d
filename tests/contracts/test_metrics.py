"""What every row of `METRICS` must keep."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from stages.validate import METRICS, Metric, row_name

ROWS = pytest.mark.parametrize(("name", "row"), METRICS.items(), ids=METRICS.keys())
COMPUTED = [name for name, row in METRICS.items() if row.function is not None]
CONTRACT = {
    "accuracy",
    "balanced_accuracy",
    "auroc_macro",
    "auroc/CLASS",
    "sensitivity/CLASS",
    "specificity/CLASS",
    "ece",
    "brier",
    "agreement",
    "logits_sqnr_db",
    "size_bytes",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_speedup",
    "peak_memory_bytes",
    "saliency_spearman",
    "saliency_ssim",
    "saliency_top10_overlap",
    "pointing_game",
    "mass_in_mask",
}


def outcome(row: Metric, skilled: bool) -> np.ndarray:
    """Feed a metric with a perfect or a useless answer."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    perfect = np.where(np.eye(4, dtype=bool)[labels], 20.0, 0.0).astype(np.float32)
    logits = perfect if skilled else np.roll(perfect, 1, axis=1)
    ones = np.ones((2, 40))
    maps = rng.standard_normal((5, 12, 12)).astype(np.float32)
    masks = maps > 0
    assert row.function is not None
    match row.inputs:
        case "labels":
            return row.function(logits, labels, ones)
        case "class":
            return row.function(logits, labels, 1, ones)
        case "reference":
            return row.function(logits, perfect, ones)
        case "maps":
            return row.function(maps if skilled else -maps, maps)
        case "masks":
            return row.function(maps, masks if skilled else ~masks)
    raise AssertionError(row.inputs)


def test_the_table_holds_the_names_of_the_contract() -> None:
    assert set(METRICS) == CONTRACT


@ROWS
def test_a_row_explains_itself(name: str, row: Metric) -> None:
    assert row.unit
    assert row.meaning
    assert "\n" not in row.meaning
    assert name.endswith("_bytes") == (row.unit == "bytes")
    assert name.endswith("_ms") == (row.unit == "ms")
    assert name.endswith("_db") == (row.unit == "dB")
    assert name.endswith("/CLASS") == (row.inputs == "class")
    assert (row.function is None) == (row.inputs in ("file", "timing"))
    assert row.function is None or (row.interval is None) == ("no_interval" in row.settings)
    assert (row.inputs == "masks") == ("explains fp32's answer, also where it is wrong" in row.meaning)
    assert row.sample == "all" or row.inputs == "class"


@pytest.mark.parametrize("name", COMPUTED)
def test_the_direction_is_the_one_in_which_skill_moves_the_value(name: str) -> None:
    row = METRICS[name]
    good, bad = outcome(row, skilled=True), outcome(row, skilled=False)
    assert good.dtype == np.float64
    assert np.isfinite(good).all()
    assert np.isfinite(bad).all()
    assert (good > bad).all() if row.higher_is_better else (good < bad).all()


@pytest.mark.parametrize("name", [name for name in COMPUTED if METRICS[name].unit == "share"])
def test_shares_stay_between_0_and_1(name: str) -> None:
    for skilled in (True, False):
        values = outcome(METRICS[name], skilled)
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
