from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import UsageError
from pipeline.night.nights import read_history, record_finish, record_start

CONFIGURATION = "c" * 64


def a_finished_night(folder: Path, run: str = "2026-01-01T020000Z", exit_code: int = 0) -> None:
    night = replace(
        record_start(folder, run, CONFIGURATION, "2026-01-01T02:00:00Z"),
        finished_utc="2026-01-01T02:30:00Z",
        exit_code=exit_code,
        comparison="nothing regressed",
        headline={"balanced_accuracy/fp32": 0.875, "latency_speedup/static-int8": None},
    )
    record_finish(folder, night)


def test_no_history_yet(tmp_path: Path) -> None:
    history = read_history(tmp_path)
    assert history.nights == ()
    assert history.unreadable == ()


def test_a_night_is_read_back_as_it_was_recorded(tmp_path: Path) -> None:
    a_finished_night(tmp_path, exit_code=3)
    (night,) = read_history(tmp_path).nights
    assert night.run == "2026-01-01T020000Z"
    assert night.configuration_sha256 == CONFIGURATION
    assert (night.started_utc, night.finished_utc) == ("2026-01-01T02:00:00Z", "2026-01-01T02:30:00Z")
    assert (night.status, night.exit_code, night.attempts) == ("finished", 3, 1)
    assert night.headline == {"balanced_accuracy/fp32": 0.875, "latency_speedup/static-int8": None}
    assert night.comparison == "nothing regressed"


def test_a_night_without_an_end_was_killed_and_may_be_resumed(tmp_path: Path) -> None:
    record_start(tmp_path, "a", CONFIGURATION, "2026-01-01T02:00:00Z")
    assert read_history(tmp_path).nights[0].status == "killed"
    again = record_start(tmp_path, "a", CONFIGURATION, "2026-01-02T02:00:00Z")
    record_finish(tmp_path, replace(again, finished_utc="2026-01-02T02:10:00Z", exit_code=0))
    (night,) = read_history(tmp_path).nights
    assert (night.status, night.attempts) == ("finished", 2)
    assert night.started_utc == "2026-01-01T02:00:00Z"


@given(cut=st.integers(min_value=1))
def test_a_line_torn_at_any_byte_costs_no_other_line(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        a_finished_night(folder, "first")
        path = folder / "history.jsonl"
        whole = path.read_bytes()
        a_finished_night(folder, "second")
        last = path.read_bytes()[len(whole) :].splitlines(keepends=True)[0]
        torn = last[: 1 + cut % (len(last) - 1)]
        path.write_bytes(whole + torn)

        complete = torn == last[:-1]  # all but the newline: nothing is lost
        history = read_history(folder)
        assert [night.run for night in history.nights] == (["first", "second"] if complete else ["first"])
        assert len(history.unreadable) == (0 if complete else 1)

        a_finished_night(folder, "third")
        history = read_history(folder)
        assert [night.run for night in history.nights if night.status == "finished"] == ["first", "third"]
        assert history.unreadable == ()
        if not complete:
            assert (folder / "history.torn").read_bytes() == torn + b"\n"


def test_an_unreadable_line_in_the_middle_is_reported_and_passed_over(tmp_path: Path) -> None:
    a_finished_night(tmp_path, "first")
    with (tmp_path / "history.jsonl").open("ab") as stream:
        stream.write(b'\0\0\0\n{"event": "moved", "run": "first"}\n{"event": "finished", "run": "unknown"}\n7\n')
    a_finished_night(tmp_path, "second")
    history = read_history(tmp_path)
    assert [night.run for night in history.nights] == ["first", "second"]
    assert [entry.split(":")[0] for entry in history.unreadable] == [f"history.jsonl line {n}" for n in (3, 4, 5, 6)]


APPENDER = """
import sys
from pathlib import Path
from dataclasses import replace
from pipeline.night.nights import record_finish, record_start
for index in range(100000):
    night = record_start(Path(sys.argv[1]), str(index), "c" * 64, "2026-01-01T02:00:00Z")
    end = {"finished_utc": "2026-01-01T02:00:00Z", "exit_code": 0, "error": "x" * 20000}
    record_finish(Path(sys.argv[1]), replace(night, **end))
    print(index, flush=True)
"""


@pytest.mark.parametrize("lines_before_the_kill", [1, 7, 20])
def test_what_was_recorded_before_a_kill_stays(tmp_path: Path, lines_before_the_kill: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(lines_before_the_kill):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    finished = [night.run for night in read_history(tmp_path).nights if night.status == "finished"]
    assert finished[: last + 1] == [str(index) for index in range(last + 1)]
    a_finished_night(tmp_path, "after the kill")
    history = read_history(tmp_path)
    assert history.nights[-1].run == "after the kill"
    assert history.unreadable == ()


def test_a_full_disk_is_told_and_costs_no_line(tmp_path: Path) -> None:
    """A limit on the file's size stands for the full disk: the write stops in the middle of the line."""
    a_finished_night(tmp_path, "first")
    size = (tmp_path / "history.jsonl").stat().st_size
    code = f"""
import resource, signal
from pathlib import Path
from foundation.errors import UsageError
from pipeline.night.nights import record_start
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 40}, {size + 40}))
try:
    record_start(Path({str(tmp_path)!r}), "second", "c" * 64, "2026-01-01T02:00:00Z")
except UsageError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "the disk is full. Free some space" in told
    assert (tmp_path / "history.jsonl").stat().st_size == size + 40
    a_finished_night(tmp_path, "third")
    assert [night.run for night in read_history(tmp_path).nights] == ["first", "third"]


def test_a_folder_in_place_of_the_history(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").mkdir()
    with pytest.raises(UsageError, match="could not be read"):
        read_history(tmp_path)
    with pytest.raises(UsageError, match="could not be written"):
        record_start(tmp_path, "a", CONFIGURATION, "2026-01-01T02:00:00Z")


def test_one_line_per_event(tmp_path: Path) -> None:
    a_finished_night(tmp_path)
    events = [json.loads(line)["event"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert events == ["started", "finished"]
