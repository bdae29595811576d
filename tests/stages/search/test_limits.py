"""A limit is kept where a bound shows it, whatever number of files was tried."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, t

from foundation.note_parts import CandidateNote, Estimate, MeasuredNote, ScoreNote, TrialNote
from stages.search.limits import held_again, images_needed, is_ruled_out, margins
from stages.search.score import _on_fishers_z, _paired
from stages.search.study import TunedSettings

ANYTHING = Estimate(value=0.9, ci95=None, n=10)
PLAIN = CandidateNote(
    calibration="minmax", equalization=False, bias_correction=False, ranking="logits", float_layers=0
)


def score_of(same: np.ndarray, units: np.ndarray | None = None, likeness: np.ndarray | None = None) -> ScoreNote:
    """Return the score of a file by which of its answers are the float file's."""
    units = np.arange(len(same)) if units is None else units
    evidence = {"agreement": _paired(same.astype(float), np.ones(len(same)), units)}
    if likeness is not None:
        evidence["saliency_spearman"] = _on_fishers_z(likeness, np.arange(len(likeness)))
    agreement = Estimate(value=float(same.mean()), ci95=None, n=len(same))
    return ScoreNote(
        accuracy_drop=None,
        agreement=agreement,
        logits_sqnr_db=ANYTHING,
        saliency_spearman=None if likeness is None else agreement,
        evidence=evidence,
    )


def answers(lost: int, n: int) -> np.ndarray:
    return np.arange(n) >= lost


def test_more_files_ask_more_of_each() -> None:
    shown = [
        margins(score_of(answers(4, 400)), TunedSettings(agreement=0.95, trials=trials))["agreement"]
        for trials in (1, 24, 1000)
    ]
    assert shown[0] > shown[1] > shown[2]
    assert shown[0] == pytest.approx(0.9781 - 0.95, abs=0.001)  # Wilson's one-sided bound of 396 of 400 at 5 %
    held = held_again(
        [TrialNote(candidate=PLAIN, measured=None, error="e"), TrialNote(candidate=PLAIN, measured=_measured())],
        TunedSettings(agreement=0.95, trials=1000),
    )
    assert held[0].measured is None
    assert held[1].measured is not None
    assert held[1].measured.margins["agreement"] == pytest.approx(shown[2])


def _measured() -> MeasuredNote:
    return MeasuredNote(score=score_of(answers(4, 400)), speedup=None, size_bytes=1, margins={"agreement": 0.5})


@pytest.mark.parametrize("trials", [1, 24])
def test_files_that_only_just_break_the_limit_pass_together_at_most_at_the_error_rate(trials: int) -> None:
    """The exact probability, by the binomial law of the disagreements, that one of `trials` such files passes."""
    settings, n = TunedSettings(agreement=0.95, trials=trials), 512
    passes = [margins(score_of(answers(lost, n)), settings)["agreement"] >= 0 for lost in range(40)]
    most = max(lost for lost, passed in enumerate(passes) if passed)
    one_passes = float(binom.cdf(most, n, 0.05))
    assert 1 - (1 - one_passes) ** trials < 0.055
    # By the estimate, as many as a half would pass.
    assert float(binom.cdf(int(0.05 * n), n, 0.05)) > 0.5


def test_images_of_one_patient_show_less() -> None:
    settings = TunedSettings(agreement=0.9, trials=1)
    alone = margins(score_of(answers(0, 200)), settings)["agreement"]
    together = margins(score_of(answers(0, 200), np.arange(200) // 10), settings)["agreement"]
    assert together < alone
    of_one = margins(score_of(answers(0, 200), np.zeros(200, np.int64)), settings)["agreement"]
    assert of_one == pytest.approx(-0.9)  # a single patient shows nothing


def test_the_bound_of_the_likeness_is_students_on_fishers_scale() -> None:
    likeness = np.random.default_rng(0).beta(8, 1.5, 32)
    settings = TunedSettings(saliency_spearman=0.5, trials=24)
    found = margins(score_of(answers(0, 100), likeness=likeness), settings)["saliency_spearman"]
    mean, error = likeness.mean(), likeness.std(ddof=1) / np.sqrt(32)
    z = np.arctanh(mean) - t.ppf(1 - 0.05 / 24, 31) * error / (1 - mean**2)
    assert found == pytest.approx(np.tanh(z) - 0.5)
    same = margins(score_of(answers(0, 100), likeness=np.ones(32)), settings)["saliency_spearman"]
    assert same == pytest.approx(0.5)


@pytest.mark.parametrize(("limit", "trials"), [(0.95, 24), (0.97, 1), (0.99, 24), (0.9, 100)])
def test_no_fewer_images_than_told_can_show_a_limit(limit: float, trials: int) -> None:
    settings = TunedSettings(agreement=limit, trials=trials)
    needed = images_needed(settings)
    assert needed is not None
    for n, shown in ((needed, True), (needed - 1, False)):
        assert (margins(score_of(answers(0, n)), settings)["agreement"] >= 0) == shown


def test_an_agreement_of_one_is_never_shown() -> None:
    settings = TunedSettings(agreement=1.0)
    assert images_needed(settings) is None
    assert margins(score_of(answers(0, 100_000)), settings)["agreement"] < 0


def test_an_estimate_beyond_a_limit_rules_a_file_out_and_a_wide_bound_does_not() -> None:
    settings = TunedSettings(agreement=0.95)
    assert is_ruled_out(score_of(answers(3, 20)), settings, 0.05)
    few = score_of(answers(0, 20))
    assert margins(few, settings)["agreement"] < -0.2
    assert not is_ruled_out(few, settings, 0.05)


def test_few_images_rule_out_what_they_show_to_break_a_limit_as_seldom_wrongly_as_a_file_passes() -> None:
    settings = TunedSettings(agreement=0.95, trials=24)
    broken = margins(score_of(answers(16, 64)), settings, at_best=True)["agreement"]
    # Wilson's one-sided upper bound of 48 of 64 at 5 % / 24 is 0.870; a difference of pairs leaves some room beyond.
    assert 0.870 - 0.95 < broken < 0.895 - 0.95
    assert margins(score_of(answers(8, 64)), settings, at_best=True)["agreement"] > 0
    # Of files at the limit itself, at most one in 480 is ruled out.
    lost = next(n for n in range(65) if margins(score_of(answers(n, 64)), settings, at_best=True)["agreement"] < 0)
    assert binom.sf(lost - 1, 64, 0.05) < 0.05 / 24
    trial = TrialNote(candidate=PLAIN, measured=_measured().model_copy(update={"at_best": True}))
    (held,) = held_again([trial], settings)
    assert held.measured is not None
    assert held.measured.margins["agreement"] == margins(score_of(answers(4, 400)), settings, True)["agreement"]
