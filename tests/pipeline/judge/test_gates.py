"""Measurements against criteria: every fitting measurement must hold, and what was not measured is never passed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foundation.errors import ExitCode
from foundation.measurements import Measurement, PairedDifference, Where
from foundation.record import exit_code_of
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge


def measurement(value, variant="pact-int8", metric="balanced_accuracy", remarks=None, **where):
    return Measurement(
        metric, value, "share", variant, Where(**{"split": "test", **where}), n=100, remarks=remarks or {}
    )


def only(gate, *measurements):
    (verdict,) = judge([gate], measurements)
    return verdict


def test_bounds_include_their_ends():
    at_least = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=0.9)
    at_most = Gate(metric="balanced_accuracy", variant="pact-int8", at_most=0.9)
    assert [only(gate, measurement(v)).status for gate in (at_least, at_most) for v in (0.899, 0.9, 0.901)] == [
        "failed", "passed", "passed", "passed", "passed", "failed"
    ]  # fmt: skip


def test_a_difference_exactly_on_its_limit_passes():
    gate = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=-0.02, relative_to_fp32="difference")
    assert 0.88 - 0.90 < -0.02  # in binary
    assert only(gate, measurement(0.90, "fp32"), measurement(0.88)).status == "passed"
    assert only(gate, measurement(0.90, "fp32"), measurement(0.8799)).status == "failed"


def test_equal_sums_that_differ_in_their_last_bit_differ_by_nothing():
    gate = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=0.0, relative_to_fp32="difference")
    verdict = only(gate, measurement(0.1 + 0.2, "fp32"), measurement(0.3))
    assert verdict.status == "passed"
    assert str(verdict.value) == "0.0"


def test_a_bound_of_zero_is_a_bound():
    gate = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=0.0)
    assert gate.limit == 0.0
    assert only(gate, measurement(-0.1)).status == "failed"


def test_difference_and_ratio_are_taken_against_fp32_at_the_same_place():
    sizes = [measurement(400.0, "fp32", "size_bytes"), measurement(120.0, metric="size_bytes")]
    ratio = Gate(metric="size_bytes", variant="pact-int8", at_most=0.3, relative_to_fp32="ratio")
    assert only(ratio, *sizes).value == pytest.approx(0.3)
    assert only(ratio, *sizes).status == "passed"
    drop = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=-0.02, relative_to_fp32="difference")
    verdict = only(drop, measurement(0.92, "fp32"), measurement(0.89))
    assert verdict.value == pytest.approx(-0.03)
    assert verdict.status == "failed"
    times = [
        measurement(value, variant, "latency_p50_ms", provider="cpu", threads=threads)
        for value, variant, threads in (
            (8.0, "fp32", 1),
            (2.0, "pact-int8", 1),
            (4.0, "fp32", 2),
            (3.0, "pact-int8", 2),
        )
    ]
    slower = Gate(metric="latency_p50_ms", variant="pact-int8", at_most=0.5, relative_to_fp32="ratio")
    assert only(slower, *times).value == pytest.approx(0.75)  # the worst of the two places
    assert only(slower, *times).status == "failed"


def test_a_gate_can_name_the_place():
    rows = [
        measurement(value, metric="latency_speedup", provider="cpu", threads=threads)
        for value, threads in ((2.0, 1), (0.8, 2))
    ]
    gate = Gate(metric="latency_speedup", variant="pact-int8", at_least=1.0, provider="cpu", threads=1)
    assert only(gate, *rows).status == "passed"
    assert only(gate.model_copy(update={"threads": None}), *rows).status == "failed"
    assert only(gate.model_copy(update={"provider": "cuda"}), *rows).status == "missing"


def test_a_verdict_holds_what_it_judged_and_what_that_was_held_against():
    """The worst of the fitting ones, and fp32's at the same place; the ratio is theirs."""
    rows = [
        measurement(value, variant, "latency_p50_ms", provider="cpu", threads=threads)
        for variant, values in {"fp32": (8.0, 4.0), "pact-int8": (2.0, 3.0)}.items()
        for threads, value in enumerate(values, start=1)
    ]
    slower = Gate(metric="latency_p50_ms", variant="pact-int8", at_most=0.5, relative_to_fp32="ratio")
    verdict = only(slower, *rows)
    assert (verdict.measurement, verdict.against) == (rows[3], rows[1])
    assert verdict.value == rows[3].value / rows[1].value
    plain = only(slower.model_copy(update={"relative_to_fp32": None, "at_most": 9.0}), *rows)
    assert (plain.measurement, plain.against) == (rows[3], None)
    absent = measurement(None, remarks={"reason": "no such environment"})
    gate = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=0.1)
    assert (only(gate, absent).measurement, only(gate).measurement) == (absent, None)


def test_subgroups_are_not_the_variant():
    rows = [measurement(0.95), measurement(0.1, subgroup="dim")]
    assert only(Gate(metric="balanced_accuracy", variant="pact-int8", at_least=0.9), *rows).status == "passed"


def test_a_subgroup_has_a_gate_of_its_own():
    """Small lesions fail where all of them together pass; each is held against fp32's own small lesions."""
    rows = [
        measurement(value, variant, "mass_in_mask", method="gradient", **group)
        for variant, values in {"fp32": (0.6, 0.4), "pact-int8": (0.5, 0.1)}.items()
        for value, group in zip(values, ({}, {"subgroup": "small lesions"}), strict=True)
    ]
    every = Gate(metric="mass_in_mask", variant="pact-int8", at_least=0.45)
    small = every.model_copy(update={"subgroup": "small lesions", "method": "gradient"})
    assert (only(every, *rows).status, only(small, *rows).status) == ("passed", "failed")
    assert small.name == "pact-int8: mass_in_mask (gradient, small lesions) ≥ 0.45"
    drop = small.model_copy(update={"at_least": -0.2, "relative_to_fp32": "difference"})
    assert only(drop, *rows).value == pytest.approx(-0.3)
    mistyped = small.model_copy(update={"subgroup": "small lesion"})
    assert only(mistyped, *rows).detail == "not measured in this run; did you mean 'small lesions'?"


def test_a_subgroup_with_too_few_masks_is_missing_and_says_so():
    reason = "only 4 of the explained images have a mask of this size; a figure by size needs 10"
    row = measurement(None, metric="mass_in_mask", subgroup="large lesions", remarks={"reason": reason})
    gate = Gate(metric="mass_in_mask", variant="pact-int8", at_least=0.1, subgroup="large lesions")
    assert (only(gate, row).status, only(gate, row).detail) == ("missing", f"not measured: {reason}")


def test_what_was_not_measured_is_missing_and_says_why():
    gate = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=0.1)
    assert only(gate).status == "missing"
    absent = only(gate, measurement(None, remarks={"reason": "no such environment"}))
    assert (absent.status, absent.value) == ("missing", None)
    assert "no such environment" in absent.detail
    relative = gate.model_copy(update={"relative_to_fp32": "difference"})
    assert only(relative, measurement(0.9)).status == "missing"
    ratio = gate.model_copy(update={"relative_to_fp32": "ratio"})
    assert only(ratio, measurement(0.9), measurement(0.0, "fp32")).status == "missing"


def test_a_label_that_is_too_rare_is_missing_and_a_mean_says_what_it_leaves_out():
    reason = "only 3 positive images in the test split; min_positives asks for 10"
    gate = Gate(metric="auroc/hernia", variant="pact-int8", at_least=0.7)
    rare = only(gate, measurement(None, metric="auroc/hernia", remarks={"reason": reason}))
    assert (rare.status, rare.detail) == ("missing", f"not measured: {reason}")
    macro = only(
        gate.model_copy(update={"metric": "auroc_macro"}),
        measurement(0.8, metric="auroc_macro", remarks={"labels": "2 of 3", "too_rare": ["hernia"]}),
    )
    assert macro.detail == "0.8, n = 100, over 2 of 3 labels, too few images of hernia"


def test_a_mistyped_label_gets_the_nearest_one():
    gate = Gate(metric="auroc/Hernai", variant="pact-int8", at_least=0.7)
    rows = [measurement(0.8, metric=f"auroc/{name}") for name in ("Hernia", "Mass")]
    assert only(gate, *rows).detail == "not measured in this run; did you mean 'auroc/Hernia'?"


def test_incomplete_evidence_outranks_a_failed_gate():
    gate = Gate(metric="balanced_accuracy", variant="pact-int8", at_least=0.9)
    failed, passed = judge([gate], [measurement(0.1)]), judge([gate], [measurement(0.95)])
    assert exit_code_of(passed, True) == ExitCode.PASSED == 0
    assert exit_code_of(failed, True) == ExitCode.GATE_FAILED == 1
    assert exit_code_of(failed, False) == ExitCode.INCOMPLETE == 3
    assert exit_code_of((*failed, *judge([gate], [])), True) == ExitCode.INCOMPLETE
    assert exit_code_of((), True) == ExitCode.PASSED


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_a_gate_passes_exactly_if_every_measurement_does(values, limit):
    rows = [measurement(v, metric="mass_in_mask", method=str(i)) for i, v in enumerate(values)]
    gate = Gate(metric="mass_in_mask", variant="pact-int8", at_least=limit)
    verdict = only(gate, *rows)
    assert (verdict.status == "passed") == all(value >= limit - 1e-9 for value in values)
    assert verdict.value == min(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "balanced_acuracy"}, "did you mean 'balanced_accuracy'"),
        ({"at_least": None}, "exactly one"),
        ({"at_most": 1.0}, "exactly one"),
        ({"relative_to_fp32": "percent"}, "difference"),
    ],
)
def test_a_gate_that_says_nothing_clear_is_refused(changes, message):
    values = {"metric": "balanced_accuracy", "variant": "fp32", "at_least": 0.5}
    with pytest.raises(ValidationError, match=message):
        Gate(**{**values, **changes})


def test_names_read_as_one_would_say_them():
    gate = Gate(metric="latency_speedup", variant="static-int8", at_least=1.0, provider="cpu", threads=1)
    assert gate.name == "static-int8: latency_speedup (cpu, 1 thr.) ≥ 1"
    ratio = Gate(metric="size_bytes", variant="x", at_most=0.3, relative_to_fp32="ratio")
    assert ratio.name == "x: size_bytes / fp32 ≤ 0.3"


def test_the_worst_subgroup_must_hold_and_is_named_and_so_are_those_without_a_number():
    gate = Gate(metric="sensitivity/polyp", variant="pact-int8", at_least=0.8, subgroup="worst")
    of = [
        measurement(0.7, metric="sensitivity/polyp"),  # of all images: no subgroup
        measurement(0.9, metric="sensitivity/polyp", subgroup="sex: male"),
        measurement(0.85, metric="sensitivity/polyp", subgroup="sex: female"),
        measurement(None, metric="sensitivity/polyp", subgroup="age: 80+", remarks={"reason": "only 2"}),
    ]
    verdict = only(gate, *of)
    assert (verdict.status, verdict.value) == ("passed", 0.85)
    assert verdict.detail.startswith("worst of 2 subgroups is sex: female: 0.85")
    assert verdict.detail.endswith("not judged, with too few images: age: 80+")
    assert verdict.gate == "pact-int8: sensitivity/polyp (worst subgroup) ≥ 0.8"
    assert only(gate, *of, measurement(0.79, metric="sensitivity/polyp", subgroup="age: 20–39")).status == "failed"
    assert only(gate, of[0], of[3]).status == only(gate, of[0]).status == "missing"
    of_sex = gate.model_copy(update={"subgroup": "worst sex"})
    verdict = only(of_sex, *of, measurement(0.1, metric="sensitivity/polyp", subgroup="age: 20–39"))
    assert (verdict.value, verdict.gate) == (0.85, "pact-int8: sensitivity/polyp (worst sex subgroup) ≥ 0.8")


def test_a_difference_in_the_worst_subgroup_must_be_shown_in_each():
    gate = Gate(metric="accuracy", variant="pact-int8", noninferior_to="fp32", margin=0.05, subgroup="worst")

    def changed(lost, name, n=1000):
        difference = PairedDifference(-lost, None, "tango", n, n, 0.0, lost, float(n), float(n))
        return replace(measurement(0.9, metric="accuracy", subgroup=name), difference=difference)

    assert only(gate, changed(0.0, "a"), changed(0.01, "b")).status == "passed"
    inconclusive = only(gate, changed(0.0, "a"), changed(0.01, "few", 30))
    assert inconclusive.status == "inconclusive"
    assert inconclusive.detail.startswith("worst of 2 subgroups is few: cannot be told with these 30 images")
    failed = only(gate, changed(0.2, "bad"), changed(0.3, "worse"), changed(0.01, "few", 30))
    assert (failed.status, failed.value) == ("failed", -0.3)
