"""Nights by paired tests: answers that flip are no regression, a loss that is real is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from small_run import environment, small_record

from calibration_data.prepared import PreparedSplit
from foundation.errors import ExitCode
from foundation.explanations import Explanations
from foundation.measurements import Measurement, PairedDifference, Where
from foundation.run_folder import RunFolder
from pipeline.judge.comparison import Comparison, compare
from pipeline.judge.evidence import Evidence
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge
from pipeline.judge.paired_runs import PairedRuns, pair_runs, paired_differences, paired_maps, paired_with_fp32
from pipeline.judge.tolerances import ComparisonSettings
from stages.validate.accuracy import AccuracySettings, measure_accuracy
from stages.validate.answers import Predictions
from stages.validate.intervals.paired import paired_shares
from stages.validate.intervals.proportions import Decisions
from stages.validate.map_values import write_map_values

CLASSES = ("a", "b")
SETTINGS = AccuracySettings(resamples=1000)
ON_TEST = Where(provider="cpu", split="test")


def split_of(labels: np.ndarray) -> PreparedSplit:
    names = tuple(f"image {place}" for place in range(len(labels)))
    nothing = np.zeros((len(labels), 1, 1), np.bool_)
    class_of = np.full(len(labels), -1, np.int64)
    pixels = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return PreparedSplit(pixels, labels, nothing, nothing[:, 0, 0], class_of, names, names, ((),) * len(names), names)


def answered(variant: str, labels: np.ndarray, wrong: list[int]) -> Predictions:
    sure = 1.0 + np.arange(len(labels)) / len(labels)
    logits = np.stack([sure, -sure], axis=1) * np.where(labels == 0, 1.0, -1.0)[:, None]
    logits[wrong] *= -1
    return Predictions(variant, logits.astype(np.float32), labels, Path())


def compared(before: Predictions, after: Predictions, labels: np.ndarray) -> Comparison:
    test = split_of(labels)

    def evidence(own: Predictions) -> Evidence:
        rows = measure_accuracy("fp32", own.logits, labels, CLASSES, None, test.groups, test.subgroups, SETTINGS)
        return Evidence("run", small_record(environment=environment("EPYC"), exit_code=ExitCode.PASSED), tuple(rows))

    pairs = PairedRuns(paired_differences((before, after), test, CLASSES, SETTINGS))
    return compare(evidence(before), evidence(after), ComparisonSettings(), pairs)


def test_answers_that_flip_to_and_fro_are_no_regression() -> None:
    """Three of a hundred images lost, one gained: two points worse, and p is McNemar's mid-p."""
    labels = np.arange(100, dtype=np.int64) % 2
    found = compared(answered("fp32", labels, [0, 2]), answered("fp32", labels, [2, 4, 6, 8]), labels)
    (accuracy,) = [one for one in found.differences if one.metric == "accuracy"]
    assert (accuracy.accepted, accuracy.current, accuracy.status) == (0.98, 0.96, "unchanged")
    assert accuracy.detail == f"may be chance, p of a loss {binom.sf(3, 4, 0.5) + binom.pmf(3, 4, 0.5) / 2:.2g}"
    assert found.exit_code == ExitCode.PASSED


def test_a_loss_that_is_real_is_one() -> None:
    labels = np.arange(200, dtype=np.int64) % 2
    found = compared(answered("fp32", labels, [0]), answered("fp32", labels, [0, *range(1, 21)]), labels)
    status = {one.metric: one.status for one in found.differences}
    assert status["accuracy"] == status["balanced_accuracy"] == "regressed"
    (accuracy,) = [one for one in found.differences if one.metric == "accuracy"]
    assert accuracy.detail == "by more than 0.01, p of a loss < .001"
    assert found.exit_code == ExitCode.GATE_FAILED


def test_a_loss_that_chance_would_give_one_of_many_rows_is_none() -> None:
    """p = .02 alone is a regression; among five variants of the same metric it is not."""
    old = [Measurement("accuracy", 0.9, "share", f"v{place}", ON_TEST, 100) for place in range(5)]
    new = [replace(old[0], value=0.86), *old[1:]]
    record = small_record(environment=environment("EPYC"), exit_code=ExitCode.PASSED)
    lost = PairedDifference(-0.04, (-0.08, 0.0), "tango", 100, 100, 0.0, 0.04, 100.0, 100.0)
    same = replace(lost, value=0.0, lost=0.0)
    for others, status in ((0, "regressed"), (4, "unchanged")):
        keys = [("accuracy", f"v{place}", ON_TEST) for place in range(others + 1)]
        pairs = PairedRuns(dict(zip(keys, [lost, *[same] * others], strict=True)))
        found = compare(
            Evidence("a", record, tuple(old)), Evidence("b", record, tuple(new)), ComparisonSettings(), pairs
        )
        assert [one.status for one in found.differences if one.variant == "v0"] == [status]


def lost_and_gained(lost: int, gained: int) -> PairedDifference:
    """Of 100 images."""
    wrong = np.zeros((2, 100))
    wrong[1, :lost], wrong[0, lost : lost + gained] = 1.0, 1.0
    before, after = (Decisions(1.0 - one[None, None], np.arange(100)) for one in wrong)
    return paired_shares(after, before)


@pytest.mark.parametrize(("others", "status"), [((2, 1), "regressed"), ((3, 3), "unchanged")])
def test_only_files_that_changed_enough_are_counted_by_holm(others: tuple[int, int], status: str) -> None:
    """Five answers lost (p = .016) among five files: three changed answers are .06 at best, six less than .016."""
    names = [f"v{place}" for place in range(5)]
    changes = [lost_and_gained(5, 0), *[lost_and_gained(*others)] * 4]
    old = [Measurement("accuracy", 0.9, "share", name, ON_TEST, 100) for name in names]
    new = [replace(one, value=0.9 + change.value) for one, change in zip(old, changes, strict=True)]
    record = small_record(environment=environment("EPYC"), exit_code=ExitCode.PASSED)
    pairs = PairedRuns({("accuracy", name, ON_TEST): change for name, change in zip(names, changes, strict=True)})
    found = compare(Evidence("a", record, tuple(old)), Evidence("b", record, tuple(new)), ComparisonSettings(), pairs)
    assert {one.variant: one.status for one in found.differences}["v0"] == status


def test_why_runs_are_not_paired_is_told(tmp_path: Path) -> None:
    record = small_record(environment=environment("EPYC"), exit_code=ExitCode.PASSED)
    pairs = pair_runs(RunFolder(tmp_path / "gone"), record, RunFolder(tmp_path), record)
    assert pairs.why_not == "The folder of the accepted run gone is gone."
    one = Measurement("accuracy", 0.9, "share", "fp32", ON_TEST, 100)
    both = Evidence("run", record, (one,)), Evidence("run", record, (replace(one, value=0.85),))
    found = compare(*both, ComparisonSettings(), pairs)
    assert found.statements[-1] == (
        "Answers are compared by fixed tolerances. The folder of the accepted run gone is gone."
    )
    assert found.exit_code == ExitCode.GATE_FAILED


def test_agreement_with_fp32_is_paired_over_both_nights() -> None:
    labels = np.arange(100, dtype=np.int64) % 2
    fp32s = (answered("fp32", labels, []), answered("fp32", labels, [0]))
    variants = (answered("int8", labels, [5]), answered("int8", labels, [5, 6, 7]))
    found = paired_with_fp32(variants, fp32s, split_of(labels).groups, SETTINGS)
    agreement = found["agreement", "int8", ON_TEST]
    assert (agreement.value, agreement.lost, agreement.gained) == (pytest.approx(-0.03), pytest.approx(0.03), 0.0)
    assert found["logits_sqnr_db", "int8", ON_TEST].value < 0


# --- gates ---


def gate(**changes: object) -> Gate:
    values = {"metric": "accuracy", "variant": "fp32", "noninferior_to": "accepted", "margin": 0.05, **changes}
    return Gate.model_validate(values)


def test_a_gate_holds_a_variant_against_itself_in_the_accepted_run() -> None:
    one = Measurement("accuracy", 0.9, "share", "fp32", ON_TEST, 1000)
    lost = PairedDifference(-0.01, None, "tango", 1000, 1000, 0.0, 0.01, 1000.0, 1000.0)
    pairs = PairedRuns({("accuracy", "fp32", ON_TEST): lost})
    (verdict,) = judge([gate()], [one], pairs)
    assert (verdict.status, verdict.value) == ("passed", -0.01)
    assert verdict.gate == "fp32: accuracy not inferior to the accepted run by 0.05 (α = 0.05)"
    assert verdict.detail.startswith("difference from the accepted run -0.01, one-sided .95 bounds")
    (strict,) = judge([gate(margin=0.01)], [one], pairs)
    assert strict.status == "inconclusive"
    (equal,) = judge([gate(noninferior_to=None, equivalent_to="accepted")], [one], pairs)
    assert equal.status == "passed"


def test_without_an_accepted_run_such_a_gate_is_missing_and_says_what_to_do() -> None:
    one = Measurement("accuracy", 0.9, "share", "fp32", ON_TEST, 1000)
    (verdict,) = judge([gate()], [one])
    assert (verdict.status, verdict.value) == ("missing", None)
    assert verdict.detail == "not compared: No run was accepted yet; `edgeproof accept RUN` accepts one."


def explained(root: Path, values: np.ndarray, index: np.ndarray) -> RunFolder:
    """Write what 40 maps are worth, and which images they explain."""
    run, maps = RunFolder(root), np.zeros((len(index), 2, 2), np.float32)
    Explanations("fp16", maps, index, np.zeros(len(index), np.int64), run.maps("fp16", "gradient")).write()
    write_map_values(run.map_values("fp16", "gradient"), {"saliency_spearman": values, "mass_in_mask": values / 2})
    return run


def test_maps_of_two_nights_are_paired_image_by_image(tmp_path: Path) -> None:
    """Every map lost 0.03: beside a spread of 0.2 between images two intervals would meet; the pairs show it."""
    rng, index = np.random.default_rng(0), np.arange(0, 80, 2)
    values = 0.7 + 0.2 * rng.standard_normal(40).clip(-1, 1)
    lost = values - 0.03 - 0.01 * rng.standard_normal(40)
    lost[3] = values[3] = np.nan  # an image that does not count
    before, after = explained(tmp_path / "a", values, index), explained(tmp_path / "b", lost, index)
    names = [f"patient {place // 4}" for place in range(80)]
    found = paired_maps(before, after, "fp16", names)
    where = Where(provider="cpu", split="test", method="gradient")
    assert set(found) == {("saliency_spearman", "fp16", where), ("mass_in_mask", "fp16", where)}
    likeness = found["saliency_spearman", "fp16", where]
    assert likeness.value == pytest.approx(np.nanmean(lost - values))
    assert (likeness.n, likeness.units) == (39, 20)
    assert likeness.ci95 is not None
    assert likeness.ci95[1] < -0.02
    other = explained(tmp_path / "c", lost, index + 1)
    assert paired_maps(before, other, "fp16", names) == {}  # other images
    assert paired_maps(before, RunFolder(tmp_path / "gone"), "fp16", names) == {}
