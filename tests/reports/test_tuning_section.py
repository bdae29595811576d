"""The search behind a tuned variant, as the report shows it."""

from __future__ import annotations

import re

import pytest

from foundation.record import VariantRecord
from reports.tuning import MOST_LAYERS, pareto_front, search_section


def estimate(value, spread=0.01, n=32):
    return {"value": value, "ci95": [value - spread, value + spread], "n": n}


def trial(speedup, correlation, within, float_layers=0, calibration="minmax", labelled=True):
    return {
        "calibration": calibration, "equalization": float_layers > 0, "bias_correction": False, "ranking": "logits",
        "float_layers": float_layers, "error": None, "within_limits": within,
        "measured": {
            "accuracy_drop": estimate(0.005) if labelled else None, "agreement": estimate(0.98),
            "logits_sqnr_db": estimate(30.0), "saliency_spearman": estimate(correlation),
            "speedup": estimate(speedup), "size_bytes": 1000,
        },
    }  # fmt: skip


TRIALS = (
    trial(2.0, 0.70, False),
    trial(1.9, 0.60, False, 1),
    trial(1.8, 0.85, True, 2, "mse"),
    trial(1.5, 0.92, True, 6),
    trial(1.4, 0.91, True, 7),
    {**trial(1.0, 0.5, False, 8), "measured": None, "error": "an activation is not finite"},
)
SETTINGS = {"accuracy_drop": 0.01, "agreement": 0.97, "saliency_spearman": 0.8}


def record(trials=TRIALS, layers=3):
    chosen = {
        key: trials[2][key] for key in ("calibration", "equalization", "bias_correction", "ranking", "float_layers")
    }
    sensitivity = [
        {"layer": f"conv_{i}", "operator": "Conv", "accuracy_drop": estimate(0.01 / (i + 1)),
         "agreement": estimate(0.9, n=256), "logits_sqnr_db": estimate(20.0 + i), "saliency_spearman": estimate(0.9)}
        for i in range(layers)
    ]  # fmt: skip
    notes = {"chosen": chosen, "search": list(trials), "sensitivity": sensitivity}
    return VariantRecord("tuned-int8", "tuned", "quantize/tuned-int8.onnx", "0" * 64, 1000, None, SETTINGS, notes)


def test_the_front_holds_what_no_other_beats_in_both():
    front = pareto_front([t for t in TRIALS if t["measured"]])
    assert [t["measured"]["speedup"]["value"] for t in front] == [2.0, 1.8, 1.5]


def test_the_section_counts_and_names_the_chosen_one():
    shown = search_section(record())
    assert "6\N{NO-BREAK SPACE}files compiled, 5 measured, 3 within the limits" in shown.sentence
    chosen = [row for row in shown.front.rows if "chosen" in row.detail]
    assert [row.cells[0].text for row in chosen] == ["1.80×"]
    assert shown.front.rows[0].detail == "plain"
    assert 'id="pareto-tuned-int8-description"' in shown.pareto
    assert shown.sensitivity.count("conv_") >= 3


def test_without_labels_the_accuracy_is_said_to_be_absent():
    trials = tuple(
        trial(s, c, True, k, labelled=False) for k, (s, c) in enumerate(((2.0, 0.8), (1.5, 0.85), (1.2, 0.9)))
    )
    shown = search_section(record(trials))
    assert "accuracy" not in shown.sentence
    assert {row.cells[3].reason for row in shown.front.rows} == {"the images have no labels"}


@pytest.mark.parametrize(("layers", "rest"), [(3, ""), (MOST_LAYERS + 5, "The 5 others cost less.")])
def test_the_costliest_layers_come_first_and_the_rest_is_counted(layers, rest):
    table = search_section(record(layers=layers)).layers
    assert table.rows[0].name == "conv_0"
    assert len(table.rows) == min(layers, MOST_LAYERS)
    assert table.legend == f"n = 256 images, 32 maps. {rest}".rstrip()


def test_names_from_the_model_are_escaped():
    hostile = record()
    hostile.notes["sensitivity"][0]["layer"] = "<script>alert(1)</script>"
    assert not re.search(r"<script", str(search_section(hostile).sensitivity))
