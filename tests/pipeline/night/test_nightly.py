from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small_run import MEASUREMENTS, accuracy, write_run

from foundation.errors import ExitCode, StageError, UsageError
from foundation.measurements import Measurement
from foundation.run_folder import RunFolder
from pipeline.judge.tolerances import ComparisonSettings
from pipeline.night.accepted import accept
from pipeline.night.nightly import NightlyResult, run_nightly, worst
from pipeline.night.nights import read_history, record_start

CONFIGURATION = "c" * 64
FIRST_NIGHT = datetime(2026, 1, 1, 2, tzinfo=UTC)


def fake_run(
    measurements: tuple[Measurement, ...] = MEASUREMENTS, code: ExitCode = ExitCode.PASSED
) -> Callable[[RunFolder], ExitCode]:
    def run(folder: RunFolder) -> ExitCode:
        write_run(folder.root, measurements, exit_code=int(code))
        return code

    return run


def night(
    root: Path,
    day: int,
    run: Callable[[RunFolder], ExitCode],
    configuration: str = CONFIGURATION,
    keep: int = 5,
) -> NightlyResult:
    return run_nightly(
        "kvasir",
        root,
        configuration,
        run,
        ComparisonSettings(),
        keep=keep,
        clock=lambda: FIRST_NIGHT + timedelta(days=day),
    )


def test_without_an_accepted_run_the_gates_decide_alone(tmp_path: Path) -> None:
    result = night(tmp_path, 0, fake_run(code=ExitCode.GATE_FAILED))
    assert result.run.root == tmp_path / "2026-01-01T020000Z"
    assert result.exit_code == result.gates_exit_code == ExitCode.GATE_FAILED
    assert result.comparison is None
    assert "No run was accepted yet" in result.notes[0]
    assert json.loads((result.run.report / "comparison.json").read_text())["accepted"] is None
    (recorded,) = read_history(tmp_path).nights
    assert (recorded.status, recorded.exit_code) == ("finished", 1)
    assert recorded.comparison == "no accepted run yet: the gates decide alone"
    assert recorded.headline == {"size_bytes/static-int8": 1_000_000, "latency_speedup/static-int8": 3.0}


REGRESSED = (accuracy(0.91, "fp32"), accuracy(0.80), *MEASUREMENTS[2:])
SHORT = MEASUREMENTS[:-1]


@pytest.mark.parametrize(
    ("measurements", "gates", "exit_code"),
    [
        (MEASUREMENTS, ExitCode.PASSED, 0),
        (MEASUREMENTS, ExitCode.GATE_FAILED, 1),
        (REGRESSED, ExitCode.PASSED, 1),
        (SHORT, ExitCode.PASSED, 3),
        (SHORT, ExitCode.GATE_FAILED, 3),
        (REGRESSED, ExitCode.INCOMPLETE, 3),
        (SHORT, ExitCode.USAGE, 2),
    ],
)
def test_exit_code_is_the_worst_of_gates_and_comparison(
    tmp_path: Path, measurements: tuple[Measurement, ...], gates: ExitCode, exit_code: int
) -> None:
    accept(night(tmp_path, 0, fake_run()).run, tmp_path)
    result = night(tmp_path, 1, fake_run(measurements, gates))
    assert (result.exit_code, result.gates_exit_code) == (exit_code, gates)
    assert read_history(tmp_path).nights[-1].exit_code == exit_code


def test_worst_puts_incomplete_above_failed() -> None:
    codes = [ExitCode.PASSED, ExitCode.GATE_FAILED, ExitCode.INCOMPLETE, ExitCode.USAGE]
    assert [int(worst(codes[: count + 1])) for count in range(4)] == [0, 1, 3, 2]


def test_the_report_folder_tells_the_comparison_and_the_last_nights(tmp_path: Path) -> None:
    accept(night(tmp_path, 0, fake_run()).run, tmp_path)
    result = night(tmp_path, 1, fake_run(REGRESSED))
    record = json.loads((result.run.report / "comparison.json").read_text())
    assert (record["accepted"], record["current"]) == ("2026-01-01T020000Z", "2026-01-02T020000Z")
    assert record["counts"] == {"regressed": 1, "unchanged": 3, "not_compared": 1}
    text = (result.run.report / "comparison.md").read_text()
    assert text.startswith("## Nightly kvasir\n")
    assert "| accuracy (cpu, test) | static-int8 |" in text
    assert "| 2026-01-02T020000Z | 1 | 1 regressed of 4 measurements compared |" in text
    assert text.index("2026-01-02T020000Z | 1") < text.index("2026-01-01T020000Z | 0")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(StageError("training diverged"), 3), (UsageError("no such folder"), 2), (ZeroDivisionError("x"), 3)],
)
def test_an_error_is_recorded_and_passed_on(tmp_path: Path, error: Exception, exit_code: int) -> None:
    def run(folder: RunFolder) -> ExitCode:
        raise error

    with pytest.raises(type(error)):
        night(tmp_path, 0, run)
    (recorded,) = read_history(tmp_path).nights
    assert (recorded.status, recorded.exit_code) == ("finished", exit_code)
    assert recorded.error is not None
    assert str(error) in recorded.error
    assert str(error) in (tmp_path / recorded.run / "report" / "comparison.md").read_text()
    assert not night(tmp_path, 1, fake_run()).resumed


def test_old_runs_go_and_the_accepted_one_stays(tmp_path: Path) -> None:
    (tmp_path / "my-notes").mkdir()
    first = night(tmp_path, 0, fake_run(), keep=2)
    accept(first.run, tmp_path)
    results = [night(tmp_path, day, fake_run(), keep=2) for day in range(1, 5)]
    assert [result.pruned for result in results] == [(), (), ("2026-01-02T020000Z",), ("2026-01-03T020000Z",)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "2026-01-01T020000Z",
        "2026-01-04T020000Z",
        "2026-01-05T020000Z",
        "my-notes",
    ]
    assert len(read_history(tmp_path).nights) == 5


def test_a_half_deleted_run_is_finished_off(tmp_path: Path) -> None:
    (tmp_path / ".deleted-2025-12-31T020000Z" / "report").mkdir(parents=True)
    night(tmp_path, 0, fake_run())
    assert not (tmp_path / ".deleted-2025-12-31T020000Z").exists()


def test_a_second_nightly_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    def run(folder: RunFolder) -> ExitCode:
        with pytest.raises(UsageError, match="in use by process"):
            night(tmp_path, 1, fake_run())
        return fake_run()(folder)

    assert night(tmp_path, 0, run).exit_code == ExitCode.PASSED
    assert len(read_history(tmp_path).nights) == 1


def test_keep_must_leave_tonight(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 run folder, found 0"):
        night(tmp_path, 0, fake_run(), keep=0)


def test_two_nights_of_one_second_get_a_folder_each(tmp_path: Path) -> None:
    names = [night(tmp_path, 0, fake_run()).run.root.name for _ in range(3)]
    assert names == ["2026-01-01T020000Z", "2026-01-01T020001Z", "2026-01-01T020002Z"]
    assert [past.attempts for past in read_history(tmp_path).nights] == [1, 1, 1]


def test_a_clock_set_back_prunes_the_oldest_night_and_not_the_new_one(tmp_path: Path) -> None:
    accept(night(tmp_path, 9, fake_run(), keep=2).run, tmp_path)
    results = [night(tmp_path, day, fake_run(), keep=2) for day in (10, 3, 2, -400)]
    assert all(result.run.record.exists() for result in results[-2:])
    assert [result.pruned for result in results] == [(), (), ("2026-01-11T020000Z",), ("2026-01-04T020000Z",)]
    assert (tmp_path / "2026-01-10T020000Z" / "run.json").exists()


def test_a_name_that_a_deleted_night_had_is_not_given_again(tmp_path: Path) -> None:
    for day in range(3):
        night(tmp_path, day, fake_run(), keep=1)
    again = night(tmp_path, 0, fake_run(), keep=1)
    assert again.run.root.name == "2026-01-01T020001Z"
    assert len(read_history(tmp_path).nights) == 4


def test_a_folder_that_the_history_does_not_know_is_the_oldest(tmp_path: Path) -> None:
    write_run(tmp_path / "2099-01-01T020000Z")
    assert night(tmp_path, 0, fake_run(), keep=1).pruned == ("2099-01-01T020000Z",)


def test_the_empty_folder_of_a_night_that_never_began_goes(tmp_path: Path) -> None:
    (tmp_path / "2025-12-31T020000Z").mkdir()
    (tmp_path / "my-notes").mkdir()
    night(tmp_path, 0, fake_run())
    assert not (tmp_path / "2025-12-31T020000Z").exists()
    assert (tmp_path / "my-notes").exists()


def test_a_changed_accepted_run_is_told(tmp_path: Path) -> None:
    first = night(tmp_path, 0, fake_run())
    accept(first.run, tmp_path)
    write_run(first.run.root, images=b"others")
    assert "changed since it was accepted" in night(tmp_path, 1, fake_run()).notes[0]


def test_the_reason_of_a_red_accepted_run_is_told(tmp_path: Path) -> None:
    first = night(tmp_path, 0, fake_run(code=ExitCode.GATE_FAILED))
    accept(first.run, tmp_path, reason="ece is being worked on")
    assert night(tmp_path, 1, fake_run()).notes == (
        "The accepted run 2026-01-01T020000Z ended with exit code 1 and was accepted for this reason: "
        "ece is being worked on",
    )


def test_a_run_that_could_not_begin_is_not_compared(tmp_path: Path) -> None:
    accept(night(tmp_path, 0, fake_run()).run, tmp_path)
    result = night(tmp_path, 1, lambda folder: ExitCode.USAGE)
    assert (result.exit_code, result.comparison) == (ExitCode.USAGE, None)
    assert read_history(tmp_path).nights[-1].comparison == "not compared: the run could not begin"


def test_a_broken_acceptance_costs_no_night(tmp_path: Path) -> None:
    (tmp_path / "accepted.json").write_text("{")
    with pytest.raises(UsageError, match=r"accepted\.json"):
        night(tmp_path, 0, fake_run())
    assert read_history(tmp_path).nights == ()


KILLED_NIGHT = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from pipeline.judge.tolerances import ComparisonSettings
from pipeline.night.nightly import run_nightly

def run(folder):
    (folder.root / "train").mkdir()
    (folder.root / "train" / "half.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

run_nightly("kvasir", Path(sys.argv[1]), "c" * 64, run, ComparisonSettings(), keep=5,
            clock=lambda: datetime(2026, 1, 1, 2, tzinfo=UTC))
"""


def kill_a_night(root: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED_NIGHT, str(root)], check=False)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_night_is_recorded_and_resumed_in_its_folder(tmp_path: Path) -> None:
    kill_a_night(tmp_path)
    (killed,) = read_history(tmp_path).nights
    assert (killed.run, killed.status, killed.exit_code) == ("2026-01-01T020000Z", "killed", None)

    def run(folder: RunFolder) -> ExitCode:
        half = folder.root / "train" / "half.txt"
        assert half.read_text() == "half"
        half.unlink()  # as the stage does that goes on from it
        return fake_run()(folder)

    result = night(tmp_path, 1, run)
    assert result.resumed
    assert result.run.root.name == "2026-01-01T020000Z"
    assert "was killed before its end (attempt 1); this night resumed it" in result.notes[0]
    (recorded,) = read_history(tmp_path).nights
    assert (recorded.status, recorded.attempts, recorded.exit_code) == ("finished", 2, 0)
    assert not night(tmp_path, 2, fake_run()).resumed


def test_a_night_killed_between_its_texts_and_its_record_is_resumed(tmp_path: Path) -> None:
    kill_a_night(tmp_path)
    report = tmp_path / "2026-01-01T020000Z" / "report"
    report.mkdir()
    for name in ("comparison.json", "comparison.md"):
        (report / name).write_text("of the killed night")

    def run(folder: RunFolder) -> ExitCode:
        (folder.root / "train" / "half.txt").unlink()
        return fake_run()(folder)

    result = night(tmp_path, 1, run)
    assert (result.resumed, result.exit_code) == (True, 0)
    assert "comparison.json" in {path.name for path in report.iterdir()}


def test_a_killed_night_of_another_configuration_is_left_as_it_is(tmp_path: Path) -> None:
    kill_a_night(tmp_path)
    result = night(tmp_path, 1, fake_run(), configuration="d" * 64)
    assert not result.resumed
    assert result.run.root.name == "2026-01-02T020000Z"
    assert [past.status for past in read_history(tmp_path).nights] == ["killed", "finished"]
    assert "killed (attempt 1)" in (result.run.report / "comparison.md").read_text()


def test_a_killed_night_whose_folder_is_gone_begins_anew(tmp_path: Path) -> None:
    kill_a_night(tmp_path)
    (tmp_path / "2026-01-01T020000Z" / "train" / "half.txt").unlink()
    (tmp_path / "2026-01-01T020000Z" / "train").rmdir()
    (tmp_path / "2026-01-01T020000Z").rmdir()
    assert night(tmp_path, 1, fake_run()).run.root.name == "2026-01-02T020000Z"


def test_a_history_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    record_start(tmp_path / "nights", "../elsewhere", CONFIGURATION, "2026-01-01T02:00:00Z")
    assert night(tmp_path / "nights", 0, fake_run()).run.root == tmp_path / "nights" / "2026-01-01T020000Z"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_torn_history_is_told_in_the_notes(tmp_path: Path) -> None:
    night(tmp_path, 0, fake_run())
    with (tmp_path / "history.jsonl").open("ab") as stream:
        stream.write(b'{"event": "star')
    result = night(tmp_path, 1, fake_run())
    assert result.notes[0].startswith("A line of the history could not be read")
    assert [past.exit_code for past in read_history(tmp_path).nights] == [0, 0]
