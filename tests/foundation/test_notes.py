"""The notes survive their JSON, and what several readers ask of them is answered in one place."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from foundation.note_parts import (
    CandidateNote,
    Estimate,
    HalfRangeNote,
    KeptActivationsNote,
    MeasuredNote,
    RecoveryStepNote,
    SaturatingLayerNote,
    ScoreNote,
    SensitivityNote,
    TrialNote,
)
from foundation.notes import (
    DynamicNotes,
    NeuralCompressorNotes,
    Notes,
    StaticNotes,
    TunedNotes,
    WeightOnlyNotes,
    float_layers,
    static_notes,
)

NUMBER = Estimate(value=1, ci95=(0.5, 2), n=3)
SCORE = ScoreNote(accuracy_drop=None, agreement=NUMBER, logits_sqnr_db=NUMBER, saliency_spearman=NUMBER)
STATIC = StaticNotes(
    activation_type="uint8",
    weight_type="int8",
    reduce_range=True,
    layers=3,
    float_layers=("head",),
    calibration_images=("a", "b"),
    saturation=(
        SaturatingLayerNote(
            layer="conv",
            weight_pairs_at_risk=0.5,
            largest_sum=-40_000,
            saturated_sums=0.0,
            changed_outputs=0.0,
            images=2,
        ),
    ),
    recovery=(
        RecoveryStepNote(did=HalfRangeNote(layer="conv"), logits_sqnr_db_before=1.5, logits_sqnr_db_after=None),
        RecoveryStepNote(did=KeptActivationsNote(), logits_sqnr_db_before=None, logits_sqnr_db_after=None),
    ),
)
CANDIDATE = CandidateNote(
    calibration="mse", equalization=True, bias_correction=False, ranking="saliency", float_layers=1
)


def measured(**margins: float) -> MeasuredNote:
    return MeasuredNote(score=SCORE, speedup=NUMBER, size_bytes=10, margins=margins)


TUNED = TunedNotes(
    file=STATIC,
    chosen=CANDIDATE,
    search=(
        TrialNote(candidate=CANDIDATE, measured=measured(agreement=0.0, accuracy_drop=0.01)),
        TrialNote(candidate=CANDIDATE, measured=measured(agreement=-0.001, accuracy_drop=0.01)),
        TrialNote(candidate=CANDIDATE, measured=None, error="an activation is not finite"),
    ),
    sensitivity=(SensitivityNote(layer="conv", operator="Conv", score=SCORE),),
)


@pytest.mark.parametrize("notes", [STATIC, TUNED], ids=lambda notes: notes.method)
def test_notes_survive_their_json(notes):
    written = json.dumps(notes.model_dump(mode="json"), allow_nan=False)
    assert TypeAdapter(Notes).validate_json(written) == notes


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValidationError, match="finite number"):
        Estimate(value=float("nan"), ci95=None, n=1)


def test_a_limit_is_kept_where_the_margin_is_zero_or_more():
    assert [trial.within_limits for trial in TUNED.search] == [True, False, False]


@pytest.mark.parametrize(
    ("found", "front"),
    [
        ([(2.0, 0.70), (1.9, 0.60), (1.8, 0.85), (1.5, 0.92), (1.4, 0.91)], [2.0, 1.8, 1.5]),
        ([(1.5, 0.9), (1.5, 0.95), (1.2, 0.95)], [1.5]),
        ([], []),
    ],
)
def test_the_front_holds_what_no_other_trial_beats_in_both(found, front):
    trials = tuple(
        TrialNote(
            candidate=CANDIDATE.model_copy(update={"float_layers": number}),
            measured=MeasuredNote(
                score=SCORE.model_copy(update={"saliency_spearman": Estimate(value=likeness, ci95=None, n=8)}),
                speedup=Estimate(value=speedup, ci95=None, n=8),
                size_bytes=10,
                margins={"agreement": -1.0},
            ),
        )
        for number, (speedup, likeness) in enumerate(found)
    )
    failed = TrialNote(candidate=CANDIDATE, measured=None, error="an activation is not finite")
    found_front = TUNED.model_copy(update={"search": (failed, *trials)}).front
    assert [trial.measured.speedup.value for trial in found_front] == front


@pytest.mark.parametrize(("before", "after", "gain"), [(-1.5, 19.5, 21.0), (19.5, None, None), (None, 3.0, None)])
def test_a_step_gains_what_lies_between(before, after, gain):
    did = RecoveryStepNote(did=KeptActivationsNote(), logits_sqnr_db_before=before, logits_sqnr_db_after=after)
    assert did.gain_db == gain


def test_without_an_interval_the_number_is_its_own_lower_bound():
    assert (NUMBER.least, Estimate(value=3, ci95=None, n=1).least) == (0.5, 3)


def test_the_layers_in_float_are_known_of_every_method_that_says_so():
    worker = NeuralCompressorNotes(
        worker={}, reduce_range=False, layers=2, calibration_images=(), float_layers=("fc",), tuning=None
    )
    small = WeightOnlyNotes(layers=("a",), float_layers=("b",), weight_sqnr_db={"w": None})
    dynamic = DynamicNotes(linear_layers=(), convolutions_in_float_arithmetic=("c",), reduce_range=False)
    found = [float_layers(notes) for notes in (STATIC, TUNED, worker, small, dynamic)]
    assert found == [("head",), ("head",), ("fc",), ("b",), None]
    assert static_notes(TUNED) is STATIC
    assert static_notes(dynamic) is None


def test_repairs_are_named_in_words():
    both = CANDIDATE.model_copy(update={"bias_correction": True})
    assert (CANDIDATE.repairs, both.repairs) == (("equalization",), ("equalization", "bias correction"))
