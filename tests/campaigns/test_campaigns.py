"""A little of every campaign; `make campaign` does much of it, and docs/reliability.md says what came of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the campaigns read /proc and need Linux")


def found_by(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, HERE, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    return "" if process.returncode == 0 else process.stdout + process.stderr


@ON_LINUX
@pytest.mark.long
def test_kills_and_failing_disks_leave_what_an_undisturbed_command_leaves() -> None:
    assert found_by("kills", "errors", "levels", "clocks", "--only", "nightly", "--budget", "1") == ""


@ON_LINUX
@pytest.mark.long
def test_a_run_is_the_same_elsewhere() -> None:
    assert found_by("places", "--budget", "1") == ""


@ON_LINUX
@pytest.mark.long
def test_a_run_reaches_no_network_and_writes_nowhere_else() -> None:
    assert found_by("network", "--budget", "1") == ""


@ON_LINUX
@pytest.mark.long
def test_a_signal_ends_a_run_and_its_children() -> None:
    assert found_by("signals", "--budget", "1") == ""


@ON_LINUX
@pytest.mark.long
def test_a_run_whose_workers_are_killed_is_the_same() -> None:
    assert found_by("workers", "--budget", "1") == ""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_no_text_of_a_report_runs_in_a_browser() -> None:
    assert found_by("browser", "--budget", "2") == ""
