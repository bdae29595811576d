from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from planted_nights import Fault, night_of, write_night

from foundation.errors import ExitCode, StageError, UsageError
from foundation.run_folder import RunFolder
from pipeline.configuration import Configuration
from pipeline.judge.tolerances import ComparisonSettings
from pipeline.night.accepted import accept
from pipeline.night.fleet import by_staleness, fleet_exit_code, one_night, read_members, run_fleet
from pipeline.night.nightly import NightlyResult, run_nightly
from pipeline.night.nights import read_history

FIRST = datetime(2026, 1, 1, 2, tzinfo=UTC)


def write_configuration(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\ndata: {{source: {{name: digits}}, image_size: 32}}\n")
    return path


def ran(code: ExitCode, time: datetime = FIRST) -> Callable[[Configuration, Path], NightlyResult]:
    def run_one(configuration: Configuration, root: Path) -> NightlyResult:
        def run(folder: RunFolder) -> ExitCode:
            write_night(folder.root, night_of())
            return code

        settings = ComparisonSettings()
        return run_nightly(configuration.name, root, "c" * 64, run, settings, keep=2, clock=lambda: time)

    return run_one


def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    paths = [write_configuration(tmp_path, name) for name in ("a", "b", "c")]
    (tmp_path / "b.yaml").write_text("name: b\nno_such_key: 1\n")
    missing = tmp_path / "gone.yaml"

    def run_one(configuration: Configuration, root: Path) -> NightlyResult:
        if configuration.name == "a":
            raise StageError("training diverged")
        return ran(ExitCode.PASSED)(configuration, root)

    said: list[str] = []
    members = read_members([*paths, missing], tmp_path / "nights")
    nights = run_fleet(members, partial(one_night, run_one=run_one), None, said.append)
    codes = {night.member.name: int(night.exit_code) for night in nights}
    assert codes == {"a": 3, "b.yaml": 2, "c": 0, "gone.yaml": 2}
    assert fleet_exit_code(nights) == ExitCode.USAGE
    assert "training diverged" in next(night.sentence for night in nights if night.member.name == "a")


def test_two_configurations_of_one_name_are_refused(tmp_path: Path) -> None:
    first = write_configuration(tmp_path, "a")
    (tmp_path / "sub").mkdir()
    second = write_configuration(tmp_path / "sub", "a")
    with pytest.raises(UsageError, match="a name that no other configuration has, found 'a'"):
        read_members([first, second], tmp_path)


def test_a_budget_takes_the_stalest_first(tmp_path: Path) -> None:
    paths = [write_configuration(tmp_path, name) for name in ("a", "b", "c")]
    root = tmp_path / "nights"
    members = read_members(paths, root)
    for day, name in ((0, "b"), (1, "a")):
        configuration = next(member.configuration for member in members if member.name == name)
        assert configuration is not None
        ran(ExitCode.PASSED, FIRST + timedelta(days=day))(configuration, root / name)
    assert [member.name for member in by_staleness(members)] == ["c", "b", "a"]
    minutes = iter([0.0, 0.0, 61.0, 61.0, 61.0])
    night_of = partial(one_night, run_one=ran(ExitCode.PASSED))
    nights = run_fleet(members, night_of, 1.0, lambda _: None, clock_s=lambda: next(minutes))
    assert [(night.member.name, int(night.exit_code)) for night in nights] == [("c", 0), ("b", 3), ("a", 3)]
    assert nights[1].sentence.startswith("not begun: the 1 minutes of this night were over")


FAULTS: tuple[Fault, ...] = ("package", "data", "code", "configuration", "slower machine")
EXPECTED = {"package": ["packages"], "data": ["data"], "code": ["code"], "configuration": ["configuration"]}


@pytest.mark.long
def test_thirty_nights_of_twenty_models_name_their_planted_faults(tmp_path: Path) -> None:
    """On the last night of each model a fault is planted; the 29 before are quiet, and so is a slower machine."""
    generator = np.random.default_rng(0)
    red_quiet, named = 0, 0
    for model in range(20):
        root, fault = tmp_path / f"model-{model}", FAULTS[model % len(FAULTS)]
        for day in range(30):
            last = day == 29
            evidence = night_of(fault if last else "none", loss=0.05 if last else float(generator.normal(0, 0.002)))
            if fault == "slower machine" and last:
                evidence = night_of(fault)
            sha = evidence.record.configuration_sha256

            def run(folder: RunFolder, evidence: object = evidence) -> ExitCode:
                write_night(folder.root, evidence)  # type: ignore[arg-type]
                return ExitCode.PASSED

            clock = FIRST + timedelta(days=day)
            result = run_nightly(
                "m",
                root,
                sha,
                run,
                ComparisonSettings(),
                keep=2,
                clock=lambda clock=clock: clock,  # type: ignore[misc]
            )
            if day == 0:
                accept(result.run, root)
            red_quiet += not last and result.exit_code != 0
        night = read_history(root).nights[-1]
        if fault == "slower machine":
            table = json.loads((result.run.report / "comparison.json").read_text())
            named += result.exit_code == 0 and any("pace of the machine" in one for one in table["statements"])
        else:
            named += list(night.suspects) == EXPECTED[fault] and night.exit_code == 1
    assert named == 20
    assert red_quiet <= 0.05 * 20 * 29
