from __future__ import annotations

from dataclasses import replace

import pytest
from planted_nights import Fault, night_of
from small_run import speedup

from pipeline.judge.changed_inputs import changed_inputs
from pipeline.judge.comparison import compare
from pipeline.judge.evidence import Evidence
from pipeline.judge.tolerances import ComparisonSettings
from pipeline.night.causes import Cause, causes


def found(accepted: Evidence, current: Evidence) -> tuple[Cause, ...]:
    return causes(accepted, current, compare(accepted, current, ComparisonSettings()))


@pytest.mark.parametrize(
    ("fault", "stage", "suspects"),
    [
        ("package", "quantize/static-int8", ("packages",)),
        ("package, files alike", "validate/static-int8", ("packages",)),
        ("data", "data", ("data",)),
        ("code", "quantize/static-int8", ("code",)),
        ("configuration", "quantize/static-int8", ("configuration",)),
    ],
)
def test_one_planted_fault_is_named_with_the_stage_that_it_reached_first(
    fault: Fault, stage: str, suspects: tuple[str, ...]
) -> None:
    (cause,) = found(night_of(), night_of(fault, loss=0.05))
    assert (cause.stage, cause.suspects) == (stage, suspects)
    assert "The one thing that changed and can do that" in cause.sentence


def test_two_changes_at_once_are_both_told() -> None:
    current = night_of("package", loss=0.05)
    (cause,) = found(night_of(), replace(current, record=replace(current.record, configuration_sha256="d" * 64)))
    assert cause.suspects == ("configuration", "packages")
    assert "onnxruntime 1.31.1 → 1.99.0" in cause.sentence


def test_a_loss_without_any_change_is_chance_or_unrecorded() -> None:
    (cause,) = found(night_of(), night_of(loss=0.05))
    assert (cause.stage, cause.suspects) == (None, ())


def test_a_quiet_night_has_no_cause() -> None:
    assert found(night_of(), night_of("package")) == ()


def test_a_slower_machine_is_told_by_the_calibration_kernel() -> None:
    (change,) = changed_inputs(night_of(), night_of("slower machine"))
    assert (change.kind, change.sentence) == (
        "machine",
        "Another pace of the machine: the calibration kernel took 1.80 × as long.",
    )
    assert changed_inputs(night_of(), night_of()) == ()


def test_a_file_that_lost_its_speed_is_laid_to_what_changes_speed() -> None:
    accepted, slow = night_of(), night_of("package")
    slow = replace(slow, measurements=(*slow.measurements[:-1], speedup(1.5)))
    (cause,) = found(accepted, slow)
    assert (cause.stage, cause.suspects) == (None, ("packages",))
    assert "the files differ (static-int8)" in cause.sentence


def test_a_record_of_before_the_code_was_recorded_accuses_nobody() -> None:
    old = night_of()
    bare = replace(old, record=replace(old.record, environment=replace(old.record.environment, sources_sha256=None)))
    assert changed_inputs(bare, night_of("code")) == ()
