"""The search behind a tuned variant, as the report shows it."""

from __future__ import annotations

import re

import pytest

from foundation.note_parts import CandidateNote, Estimate, MeasuredNote, ScoreNote, SensitivityNote, TrialNote
from foundation.notes import StaticNotes, TunedNotes
from reports.tuning import MOST_LAYERS, search_section


def estimate(value, spread=0.01, n=32):
    return Estimate(value=value, ci95=(value - spread, value + spread), n=n)


def score(correlation, sqnr_db=30.0, accuracy_drop=0.005, labelled=True):
    return ScoreNote(
        accuracy_drop=estimate(accuracy_drop) if labelled else None,
        agreement=estimate(0.98, n=256),
        logits_sqnr_db=estimate(sqnr_db),
        saliency_spearman=estimate(correlation),
    )


def candidate(float_layers=0, calibration="minmax"):
    return CandidateNote(
        calibration=calibration,
        equalization=float_layers > 0,
        bias_correction=False,
        ranking="logits",
        float_layers=float_layers,
    )


def trial(speedup, correlation, float_layers=0, calibration="minmax", labelled=True):
    found = MeasuredNote(
        score=score(correlation, labelled=labelled),
        speedup=estimate(speedup),
        size_bytes=1000,
        margins={"agreement": 0.01, "saliency_spearman": correlation - 0.8},
    )
    return TrialNote(candidate=candidate(float_layers, calibration), measured=found)


TRIALS = (
    trial(2.0, 0.70),
    trial(1.9, 0.60, 1),
    trial(1.8, 0.85, 2, "mse"),
    trial(1.5, 0.92, 6),
    trial(1.4, 0.91, 7),
    TrialNote(candidate=candidate(8), measured=None, error="an activation is not finite"),
)
LIMITS = {"accuracy_drop": 0.01, "agreement": 0.97, "saliency_spearman": 0.8, "alpha": 0.05, "trials": 24}


def section(trials=TRIALS, names=("conv_0", "conv_1", "conv_2"), misses=None, older=False):
    sensitivity = tuple(
        SensitivityNote(layer=name, operator="Conv", score=score(0.9, 20.0 + i, 0.01 / (i + 1)))
        for i, name in enumerate(names)
    )
    file = StaticNotes(
        activation_type="uint8",
        weight_type="int8",
        reduce_range=False,
        layers=len(names),
        float_layers=(),
        calibration_images=(),
        saturation=None,
    )
    notes = TunedNotes(
        file=file, chosen=trials[2].candidate, search=trials, sensitivity=sensitivity, misses=misses or {}
    )
    limits = {name: value for name, value in LIMITS.items() if not older or name not in ("alpha", "trials")}
    return search_section("tuned-int8", limits, notes)


def test_the_section_counts_and_names_the_chosen_one():
    shown = section()
    assert "6\N{NO-BREAK SPACE}files compiled, 5 measured, 3 shown to keep the limits" in shown.sentence
    chosen = [row for row in shown.front.rows if "chosen" in row.detail]
    assert [row.cells[0].text for row in chosen] == ["1.80×"]
    assert shown.front.rows[0].detail == "plain"
    assert [row.cells[0].text for row in shown.front.rows] == ["2.00×", "1.80×", "1.50×"]
    assert 'id="pareto-tuned-int8-description"' in shown.pareto
    assert shown.sensitivity.count("conv_") >= 3


def test_what_the_chosen_one_misses_is_told():
    assert section(misses={"agreement": 0.008}).sentence.endswith(
        "As none keeps them all, the nearest was taken: it misses agreement by 0.80 points."
    )


def test_without_labels_the_accuracy_is_said_to_be_absent():
    trials = tuple(trial(s, c, k, labelled=False) for k, (s, c) in enumerate(((2.0, 0.8), (1.5, 0.85), (1.2, 0.9))))
    shown = section(trials)
    assert "accuracy" not in shown.sentence
    assert {row.cells[3].reason for row in shown.front.rows} == {"the images have no labels"}


@pytest.mark.parametrize(("layers", "rest"), [(3, ""), (MOST_LAYERS + 5, "The 5 others cost less.")])
def test_the_costliest_layers_come_first_and_the_rest_is_counted(layers, rest):
    table = section(names=[f"conv_{i}" for i in range(layers)]).layers
    assert table.rows[0].name == "conv_0"
    assert len(table.rows) == min(layers, MOST_LAYERS)
    assert table.legend == f"n = 256 images, 32 maps. {rest}".rstrip()


def test_a_file_that_was_ruled_out_has_its_row_and_no_point():
    plain = TRIALS[0].measured.model_copy(
        update={
            "score": score(0.7).model_copy(update={"saliency_spearman": None}),
            "speedup": None,
            "reason": "its answers",
        }
    )
    shown = section((TRIALS[0].model_copy(update={"measured": plain}), *TRIALS[1:]))
    (row,) = [row for row in shown.front.rows if row.detail == "plain"]
    assert [cell.reason for cell in row.cells[:2]] == ["its answers", "its answers"]
    assert "4 trials; on the Pareto front: 1.90" in shown.pareto


def test_names_from_the_model_are_escaped():
    hostile = section(names=("<script>alert(1)</script>", "conv_1"))
    assert not re.search(r"<script", str(hostile.sensitivity))


def test_what_the_limits_were_held_by_is_told_of_older_runs_too() -> None:
    assert "on validation images, by one-sided bounds at 5.0" in section().sentence
    assert "on validation images, by their estimates." in section(older=True).sentence
