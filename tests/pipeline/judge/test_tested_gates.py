from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from foundation.errors import ExitCode
from foundation.measurements import Measurement, PairedDifference, Where
from foundation.record import Verdict, exit_code_of
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge
from stages.validate.intervals.paired import bounds, paired_shares
from stages.validate.intervals.proportions import Decisions
from stages.validate.intervals.sample_size import images_for_share, pairs_for_noninferiority


def changed(lost: int, gained: int, n: int) -> Measurement:
    """Return the accuracy of a file that changed some of fp32's answers, one image a patient."""
    right, before = np.ones(n), np.ones(n)
    right[:lost], before[lost : lost + gained] = 0, 0
    difference = paired_shares(*(Decisions(one[None, None], np.arange(n)) for one in (right, before)))
    value = float(right.mean())
    return Measurement(
        "accuracy", value, "share", "int8", Where("cpu", "test"), n, (value - 0.02, value), {}, difference
    )


NONINFERIOR = Gate(metric="accuracy", variant="int8", noninferior_to="fp32", margin=0.02)


def verdict(gate: Gate, measurement: Measurement) -> Verdict:
    return judge([gate], [measurement])[0]


@pytest.mark.parametrize(
    ("lost", "gained", "n", "status"),
    [(2, 2, 1000, "passed"), (2, 1, 100, "inconclusive"), (60, 5, 1000, "failed"), (20, 4, 1000, "inconclusive")],
)
def test_a_bound_decides(lost: int, gained: int, n: int, status: str) -> None:
    found = verdict(NONINFERIOR, changed(lost, gained, n))
    assert (found.status, found.value, found.limit) == (status, pytest.approx((gained - lost) / n), -0.02)


def test_an_inconclusive_gate_names_the_images_that_would_tell() -> None:
    """As many images with the same discordance pass, and a tenth fewer do not."""
    found = verdict(NONINFERIOR, changed(3, 2, 100))
    assert "cannot be told with these 100 images; about " in found.detail
    needed = int(found.detail.split("about ")[1].split(" would")[0].replace(",", ""))
    assert verdict(NONINFERIOR, changed(3 * needed // 100, 2 * needed // 100, needed)).status == "passed"
    fewer = needed * 8 // 10
    assert verdict(NONINFERIOR, changed(3 * fewer // 100, 2 * fewer // 100, fewer)).status == "inconclusive"


def test_patients_are_named_where_they_are_the_unit() -> None:
    one = changed(3, 2, 100)
    assert one.difference is not None
    grouped = replace(one.difference, units=40, effective_n=70.0, least_effective_n=40.0, mcnemar_p=None)
    assert "with these 40 patients" in verdict(NONINFERIOR, replace(one, difference=grouped)).detail


def test_inconclusive_ends_with_3_before_a_failure() -> None:
    assert exit_code_of([verdict(NONINFERIOR, changed(2, 1, 100))], True) == ExitCode.INCOMPLETE


def test_equivalence_needs_both_sides() -> None:
    gate = Gate(metric="accuracy", variant="int8", equivalent_to="fp32", margin=0.02)
    assert verdict(gate, changed(2, 2, 1000)).status == "passed"
    assert verdict(gate, changed(0, 60, 1000)).status == "failed"
    assert verdict(NONINFERIOR, changed(0, 60, 1000)).status == "passed"


def test_an_absolute_bound_can_ask_for_the_interval() -> None:
    gate = Gate(metric="accuracy", variant="int8", at_least=0.9, confidence="lower_bound")
    at = Measurement("accuracy", 0.92, "share", "int8", Where("cpu", "test"), 100, (0.85, 0.96))
    found = verdict(gate, at)
    assert found.status == "inconclusive"
    assert "about 1,300 would tell" in found.detail  # (0.07 / 0.02)² = 12.25 times as many
    assert verdict(gate, replace(at, ci95=(0.905, 0.94))).status == "passed"
    assert verdict(gate, replace(at, value=0.8, ci95=(0.7, 0.89))).status == "failed"
    assert verdict(gate.model_copy(update={"confidence": "point"}), at).status == "passed"


def test_lower_is_better_turns_the_margin() -> None:
    gate = Gate(metric="brier", variant="int8", noninferior_to="fp32", margin=0.02)
    worse = PairedDifference(0.05, (0.03, 0.07), "cluster_t", 100, 100, standard_error=0.01, degrees=99)
    one = Measurement("brier", 0.3, "squared distance", "int8", Where("cpu", "test"), 100, (0.2, 0.4), {}, worse)
    assert verdict(gate, one).status == "failed"
    assert verdict(gate, replace(one, difference=replace(worse, value=-0.05))).status == "passed"


def test_what_has_no_pairs_is_missing_and_few_patients_are_inconclusive() -> None:
    one = changed(1, 1, 100)
    assert verdict(NONINFERIOR, replace(one, difference=None)).status == "missing"
    assert one.difference is not None
    few = replace(one.difference, ci95=None, no_interval="too few patients for an interval: 4")
    assert "too few patients" in verdict(NONINFERIOR, replace(one, difference=few)).detail


@pytest.mark.parametrize(
    "given",
    [
        {"noninferior_to": "fp32"},
        {"at_least": 0.1, "margin": 0.1},
        {"at_least": 0.1, "noninferior_to": "fp32", "margin": 0.1},
        {"noninferior_to": "fp32", "margin": 0.1, "relative_to_fp32": "ratio"},
        {"noninferior_to": "fp32", "margin": -0.1},
    ],
)
def test_gates_that_contradict_themselves_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Gate(metric="accuracy", variant="int8", **given)


@pytest.mark.parametrize("power", [0.8, 0.9])
def test_planned_images_have_the_power(power: float) -> None:
    n = pairs_for_noninferiority(0.03, 0.08, 0.05, power)
    rng, passed, trials = np.random.default_rng(1), 0, 800
    for _ in range(trials):
        lost, gained, _ = rng.multinomial(n, [0.04, 0.04, 0.92])
        difference = PairedDifference((gained - lost) / n, None, "tango", n, n, gained / n, lost / n, n, n)
        passed += bounds(difference, 0.05)[0] > -0.03
    assert passed / trials == pytest.approx(power, abs=0.05)


def test_planned_images_of_a_share_are_the_textbooks() -> None:
    # (1.96·√(.8·.2) + .8416·√(.85·.15))² / .05²
    assert images_for_share(0.8, 0.85, 0.025, 0.8) == 471
