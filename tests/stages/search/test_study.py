"""The search: what it returns, what it keeps, and that it goes on where it stopped."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from foundation.errors import StageError, UsageError
from foundation.note_parts import CandidateNote, Estimate, MeasuredNote, ScoreNote, SensitivityNote, TrialNote
from stages.search.choice import best_trial, next_to_round
from stages.search.study import TunedSettings, known_layers, open_study, remember_layer, search
from stages.search.tuned import chosen

LAYERS = 20
NUMBER = Estimate(value=0.5, ci95=(0.25, 0.75), n=32)
SCORE = ScoreNote(accuracy_drop=None, agreement=NUMBER, logits_sqnr_db=NUMBER, saliency_spearman=NUMBER)
PLAIN = CandidateNote(
    calibration="minmax", equalization=False, bias_correction=False, ranking="logits", float_layers=0
)


def found(speedup: float, least: float, **margins: float) -> MeasuredNote:
    faster = Estimate(value=speedup, ci95=(least, 2 * speedup - least), n=30)
    return MeasuredNote(score=SCORE, speedup=faster, size_bytes=1000, margins=margins)


def trial(measured: MeasuredNote | None, error: str | None = None, **changed: object) -> TrialNote:
    return TrialNote(candidate=PLAIN.model_copy(update=changed), measured=measured, error=error)


def measured(candidate: CandidateNote) -> MeasuredNote:
    """A network whose truth is known: every float layer costs 0.05 of 2 × and gains 0.04 of correlation."""
    correlation = 0.61 + 0.04 * candidate.float_layers + 0.1 * candidate.equalization
    correlation += {"minmax": 0.0, "percentile": 0.05, "entropy": 0.02, "mse": 0.08}[candidate.calibration]
    speedup = 2.0 - 0.05 * candidate.float_layers
    return found(speedup, speedup - 0.01, saliency_spearman=correlation - 0.9)


def no_progress(done: int, total: int) -> None:
    pass


def run(tmp_path, trials, evaluate=measured, deadline=math.inf, seed=0):
    settings = TunedSettings(trials=trials, seed=seed)
    study = open_study(tmp_path / "search.jsonl", "identity")
    return search(evaluate, LAYERS, settings, study, no_progress, deadline)


def test_the_fastest_within_the_limits_is_found(tmp_path):
    # 0.61 + 0.1 + 0.08 leaves 0.11: three float layers at 0.04 each, so 1.85 × is the optimum.
    best = best_trial(run(tmp_path, 40))
    assert best.measured.speedup.value == pytest.approx(1.85)
    assert (best.candidate.calibration, best.candidate.equalization, best.candidate.float_layers) == ("mse", True, 3)


def test_the_plain_file_comes_first_and_the_budget_holds(tmp_path):
    trials = run(tmp_path, 7)
    assert len(trials) == 7
    assert trials[0].candidate == PLAIN
    assert len({trial.candidate for trial in trials}) == 7


def test_an_interrupted_search_goes_on_and_measures_nothing_twice(tmp_path):
    seen = []

    def until(stop):
        def evaluate(candidate):
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(candidate)
            return measured(candidate)

        return evaluate

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 12, until(5))
    trials = run(tmp_path, 12, until(99))
    assert len(trials) == 12
    assert len(seen) == len(set(seen)) == 12
    assert [trial.candidate for trial in trials[:5]] == seen[:5]
    assert trials[0].measured == measured(trials[0].candidate)


@pytest.mark.parametrize("entries", range(0, 130, 9))
def test_a_search_that_was_killed_after_any_entry_ends_as_one_that_was_not(tmp_path, entries):
    (tmp_path / "killed").mkdir()
    whole = run(tmp_path, 14)
    lines = (tmp_path / "search.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) > 117
    (tmp_path / "killed" / "search.jsonl").write_bytes(b"".join(lines[:entries]))
    assert run(tmp_path / "killed", 14) == whole


def test_a_lock_that_a_killed_process_left_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(Path(), 1)
    Path("search.jsonl.lock").symlink_to("search.jsonl")
    assert len(run(Path(), 2)) == 2


def test_the_trial_that_a_kill_cut_off_is_made_up_for(tmp_path):
    def killed(candidate):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, 4, killed)
    candidates = [trial.candidate for trial in run(tmp_path, 4)]
    assert PLAIN in candidates
    assert [candidate.calibration for candidate in candidates].count("mse") == 2


def test_half_an_entry_at_the_end_of_the_journal_costs_that_entry_alone(tmp_path):
    first = run(tmp_path, 3)
    with (tmp_path / "search.jsonl").open("ab") as journal:
        journal.write(b'{"op_code": 4, "worker')
    again = run(tmp_path, 4)
    assert [trial.candidate for trial in again[:3]] == [trial.candidate for trial in first]


def test_a_damaged_journal_is_named_and_left_alone(tmp_path):
    run(tmp_path, 1)
    journal = tmp_path / "search.jsonl"
    damaged = journal.read_bytes().replace(b'"worker_id"', b"worker", 1)
    journal.write_bytes(damaged)
    with pytest.raises(UsageError, match=r"search\.jsonl: expected the journal of a search, .* Delete it"):
        run(tmp_path, 2)
    assert journal.read_bytes() == damaged


@pytest.mark.parametrize(
    ("written", "edited"),
    [
        (b'"value":2.0', b'"value":3.0'),  # the speed of the plain file, as it is read
        (b'"values":[2.0]', b'"values":[3.0]'),  # and as the sampler sees it
        (b'"margins":{"saliency_spearman":-', b'"margins":{"saliency_spearman":'),
        (b'"error":"an activation', b'"error":"no activation'),
        (b'"value":2.0', b'"value":NaN'),
    ],
)
def test_an_edited_trial_is_refused(tmp_path, written, edited):
    def evaluate(candidate):
        if candidate.calibration == "percentile":
            raise StageError("an activation is not finite")
        return measured(candidate)

    run(tmp_path, 3, evaluate)
    journal = tmp_path / "search.jsonl"
    content = journal.read_bytes().replace(b": ", b":")
    assert written in content
    journal.write_bytes(content)
    run(tmp_path, 3, evaluate)  # spaces are no edit
    journal.write_bytes(journal.read_bytes().replace(written, edited, 1))
    with pytest.raises(UsageError, match=r"search\.jsonl: .* found one that was edited \(trial \d\)\. Delete it"):
        run(tmp_path, 4, evaluate)


def test_an_edited_layer_is_refused_and_one_of_another_search_too(tmp_path):
    journal = tmp_path / "search.jsonl"
    layer = SensitivityNote(layer="conv1", operator="Conv", score=SCORE)
    remember_layer(open_study(journal, "identity"), layer)
    assert known_layers(open_study(journal, "identity")) == {"conv1": layer}
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b"0.25", b"0.26", 1))
    with pytest.raises(UsageError, match=r"found one that was edited \(conv1\)"):
        open_study(journal, "identity")
    journal.write_bytes(content.replace(b"identity", b"another0"))
    with pytest.raises(UsageError, match=r"found one that was edited \(conv1\)"):
        open_study(journal, "another0")


def test_a_candidate_that_fails_is_kept_as_such_and_costs_one_trial(tmp_path):
    def evaluate(candidate):
        if candidate.calibration == "percentile":
            raise StageError("an activation is not finite")
        return measured(candidate)

    trials = run(tmp_path, 10, evaluate)
    failed = [trial for trial in trials if trial.error]
    assert failed
    assert all(trial.candidate.calibration == "percentile" for trial in failed)
    again = run(tmp_path, 10, evaluate)
    assert {trial.candidate: trial.error for trial in again} == {trial.candidate: trial.error for trial in trials}


def test_time_ends_the_search_after_the_trial_under_way(tmp_path):
    assert len(run(tmp_path, 50, deadline=time.monotonic())) == 1


def test_a_space_smaller_than_the_budget_ends(tmp_path):
    settings = TunedSettings(trials=60)
    trials = search(measured, 1, settings, open_study(tmp_path / "s.jsonl", "identity"), no_progress, math.inf)
    assert len(trials) <= 4 * 2 * 2 * 2 * 2  # float_layers is 0 or 1


def test_of_files_that_all_break_a_limit_the_one_with_the_smallest_shortfall_is_taken():
    trials = [
        trial(found(1.5, 1.4, agreement=-0.02, accuracy_drop=0.1), calibration="mse", float_layers=4),
        trial(found(2.0, 1.9, agreement=-0.2, accuracy_drop=-0.1), calibration="mse"),
    ]
    nearest = best_trial(trials)
    assert nearest.candidate.float_layers == 4
    assert nearest.measured.misses == {"agreement": 0.02}
    with pytest.raises(StageError, match=r"none of 1 files could be measured \(it broke\)"):
        best_trial([trial(None, "it broke")])


def test_of_files_that_are_as_fast_the_most_faithful_is_taken():
    trials = [
        trial(found(2.0, 1.9, saliency_spearman=0.01)),
        trial(found(1.92, 1.8, saliency_spearman=0.12), calibration="mse"),
        trial(found(1.89, 1.8, saliency_spearman=0.2), calibration="entropy"),
        trial(found(2.5, 2.4, saliency_spearman=-0.01), equalization=True),
    ]
    assert best_trial(trials).candidate.calibration == "mse"


def test_a_file_without_a_speed_is_taken_only_where_none_has_one():
    untimed = trial(found(9.0, 8.9, agreement=0.3).model_copy(update={"speedup": None}), equalization=True)
    assert best_trial([untimed, trial(found(1.2, 1.1, agreement=0.01))]).measured.speedup.value == 1.2
    assert best_trial([untimed, trial(found(1.2, 1.1, agreement=-0.01))]) == untimed


def test_what_was_left_out_of_a_trial_changes_no_choice_and_survives_the_journal(tmp_path):
    """The truth: speed, agreement and saliency by the number of float layers; at 0.9 and more nothing is left out."""

    def whole(candidate):
        likeness = Estimate(value=0.4 + 0.02 * candidate.float_layers, ci95=None, n=8)
        score = SCORE.model_copy(update={"saliency_spearman": likeness})
        margins = {"agreement": -0.08 + 0.001 * candidate.float_layers, "saliency_spearman": likeness.value - 0.8}
        measured = found(2.0 - 0.05 * candidate.float_layers, 1.0, **margins)
        return measured.model_copy(update={"score": score})

    def part(candidate):
        return whole(candidate).model_copy(
            update={"score": SCORE.model_copy(update={"saliency_spearman": None}), "speedup": None,
                    "margins": {"agreement": whole(candidate).margins["agreement"]}, "reason": "its answers"}
        )  # fmt: skip

    parts = run(tmp_path, 12, part)
    assert run(tmp_path, 12, part) == parts
    trials, best = chosen(parts, whole)
    assert best == best_trial([trial(whole(one.candidate), **one.candidate.model_dump()) for one in parts])
    assert best.measured.misses == pytest.approx(
        {"agreement": 0.08 - 0.001 * best.candidate.float_layers,
         "saliency_spearman": 0.4 - 0.02 * best.candidate.float_layers}
    )  # fmt: skip
    assert len(trials) == 12


def test_one_file_in_six_has_its_rounding_chosen_anew_the_best_so_far_first(tmp_path):
    def evaluate(candidate):
        note = measured(candidate)
        if not candidate.compensated_rounding:
            return note
        return note.model_copy(update={"margins": {"saliency_spearman": note.margins["saliency_spearman"] + 0.3}})

    trials = run(tmp_path, 28, evaluate)
    dear = [place for place, one in enumerate(trials) if one.candidate.compensated_rounding]
    assert len(dear) == 4
    assert dear[0] == 6
    for place in dear:
        without = trials[place].candidate.model_copy(update={"compensated_rounding": False})
        before = trials[:place]
        assert next_to_round(before).candidate == without
        assert next_to_round([*before, trials[place]]) is None
    # A rounding gains 0.3, so files in integers alone keep the limit, at 2 ×.
    assert best_trial(trials).candidate.compensated_rounding
    assert best_trial(trials).measured.speedup.value == pytest.approx(2.0)


def test_what_is_rounded_next_would_be_faster_than_what_keeps_the_limits():
    trials = [
        trial(found(1.5, 1.49, agreement=0.02), float_layers=9),
        trial(found(1.9, 1.89, agreement=-0.02), float_layers=2),
        trial(found(2.0, 1.99, agreement=-0.2)),
        *(trial(found(1.2, 1.19, agreement=0.1), float_layers=10 + more) for more in range(3)),
    ]
    assert next_to_round(trials[:5]) is None
    assert next_to_round(trials).candidate.float_layers == 2
    assert next_to_round([*trials[:1], *trials[3:], trial(None, "it broke"), trials[3]]) is None  # five and a repeat
    kept = [*trials[:1], *trials[3:], *(trial(None, "it broke", calibration="mse", float_layers=n) for n in (0, 1))]
    assert next_to_round(kept).candidate.float_layers == 9


@pytest.mark.parametrize(
    "wrong", [{"trials": 0}, {"minutes": 0}, {"saliency_spearman": 1.5}, {"explained_images": 1}]
)
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(ValidationError):
        TunedSettings(**wrong)
