from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from planted_nights import Fault, night_of, write_night

from foundation.errors import ExitCode, UsageError
from foundation.run_folder import RunFolder
from pipeline.configuration import Configuration
from pipeline.configuration_file import parse_configuration
from pipeline.judge.comparison import compare
from pipeline.judge.evidence import Evidence
from pipeline.judge.tolerances import ComparisonSettings
from pipeline.night.accepted import Accepted, accept
from pipeline.night.nightly import NightlyResult, run_nightly
from pipeline.night.recipe import FOLDER_NAME, Rerun, accepted_configuration, told


def configured(folder: Path, given: str, **changed: Any) -> Configuration:
    values = {
        "name": "skin",
        "data": {"source": {"name": "folder", "root": str(folder / "images")}, "image_size": 32},
        "variants": {"theirs": {"method": "given", "path": str(folder / given)}},
    }
    return parse_configuration(values | changed, "skin.yaml", folder)


def recorded(configuration: Configuration) -> Evidence:
    night = night_of()
    record = replace(
        night.record,
        configuration=configuration.without_folders(),
        configuration_sha256=configuration.sha256,
    )
    return replace(night, record=record)


def test_the_accepted_recipe_finds_its_files_where_tonights_lie(tmp_path: Path) -> None:
    then = configured(tmp_path / "old", "a.onnx", gates=[{"metric": "accuracy", "variant": "fp32", "at_least": 0.5}])
    tonight = configured(tmp_path / "new", "a.onnx")
    found = accepted_configuration(recorded(then), tonight)
    assert found.sha256 == then.sha256 != tonight.sha256
    assert found.as_python()["data"]["source"]["root"] == tmp_path / "new" / "images"
    assert found.as_python()["variants"]["theirs"]["path"] == tmp_path / "new" / "a.onnx"


def test_a_path_that_tonight_does_not_have_is_never_looked_for_in_the_working_directory(tmp_path: Path) -> None:
    then, tonight = configured(tmp_path, "a.onnx"), configured(tmp_path, "b.onnx")
    with pytest.raises(UsageError, match=r"found none for a\.onnx"):
        accepted_configuration(recorded(then), tonight)


def test_a_recipe_that_this_version_reads_otherwise_is_refused(tmp_path: Path) -> None:
    then = recorded(configured(tmp_path, "a.onnx"))
    other = replace(then, record=replace(then.record, configuration_sha256="0" * 64))
    with pytest.raises(UsageError, match="expected its recorded configuration to have the sha256 000000000000"):
        accepted_configuration(other, configured(tmp_path, "a.onnx"))


def rerun_of(fault: Fault, loss: float) -> Rerun:
    return told(compare(night_of(), night_of(fault, loss=loss), ComparisonSettings()))


def nights(
    root: Path, fault: Fault, rerun: Rerun, suspects_too: tuple[str, ...] = ()
) -> tuple[NightlyResult, list[Path]]:
    """Accept a night, then run one with a fault; return it and the folders in which the recipe was run again."""
    asked: list[Path] = []

    def again(accepted: Accepted, folder: Path) -> Rerun:
        asked.append(folder)
        return rerun

    for day, evidence in enumerate((night_of(), night_of(fault, loss=0.05))):
        world = evidence.record.environment
        if day and "packages" in suspects_too:
            world = replace(world, packages={**world.packages, "onnxruntime": "1.99.0"})
        evidence = replace(evidence, record=replace(evidence.record, environment=world))

        def run(folder: RunFolder, evidence: Evidence = evidence) -> ExitCode:
            write_night(folder.root, evidence)
            return ExitCode.PASSED

        now = datetime(2026, 1, 1, 2, tzinfo=UTC) + timedelta(days=day)
        result = run_nightly(
            "skin", root, f"{day}" * 64, run, ComparisonSettings(), keep=3, rerun=again, clock=lambda now=now: now
        )  # type: ignore[misc]
        if not day:
            accept(result.run, root)
    return result, asked


def test_where_the_recipe_comes_out_as_accepted_the_configuration_did_it(tmp_path: Path) -> None:
    result, asked = nights(tmp_path, "configuration", rerun_of("none", 0.0), ("packages",))
    assert asked == [tmp_path / FOLDER_NAME]
    (cause,) = result.causes
    assert cause.suspects == ("configuration",)
    assert "came out as accepted: the configuration's change did it" in cause.sentence


def test_where_the_recipe_is_red_as_well_the_world_did_it(tmp_path: Path) -> None:
    result, _ = nights(tmp_path, "configuration", rerun_of("package", 0.05), ("packages",))
    (cause,) = result.causes
    assert cause.suspects == ("packages",)
    assert "is red as well" in cause.sentence
    assert cause.sentence in (result.run.report / "comparison.md").read_text(encoding="utf-8")


def test_a_recipe_that_could_not_be_run_again_rules_nothing_out_and_is_told(tmp_path: Path) -> None:
    result, _ = nights(tmp_path, "configuration", Rerun(None, "The accepted recipe could not be run again: gone."))
    (cause,) = result.causes
    assert cause.suspects == ("configuration",)
    assert cause.sentence.endswith("The accepted recipe could not be run again: gone.")


def test_nothing_is_run_again_where_the_configuration_is_the_accepted_one(tmp_path: Path) -> None:
    _, asked = nights(tmp_path, "package", rerun_of("none", 0.0))
    assert asked == []
