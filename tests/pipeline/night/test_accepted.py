from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import MEASUREMENTS, accuracy, write_run

from foundation.errors import UsageError
from foundation.measurements import write_measurements
from foundation.record import read_record, write_record
from foundation.run_folder import RunFolder
from pipeline.judge.evidence import read_evidence
from pipeline.night.accepted import accept, read_accepted


def test_the_accepted_run_may_be_deleted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "2026-01-01T020000Z")
    evidence = read_evidence(run)
    accept(run, tmp_path)
    shutil.rmtree(run.root)
    accepted = read_accepted(tmp_path)
    assert accepted is not None
    assert accepted.evidence == evidence
    assert accepted.evidence.measurements == MEASUREMENTS
    assert accepted.evidence.run == "2026-01-01T020000Z"
    assert accepted.is_intact


def test_nothing_accepted_yet(tmp_path: Path) -> None:
    assert read_accepted(tmp_path) is None


@pytest.mark.parametrize(("exit_code", "found"), [(1, "exit code 1"), (3, "exit code 3"), (None, "it did not end")])
def test_a_red_run_is_accepted_only_with_a_reason(tmp_path: Path, exit_code: int | None, found: str) -> None:
    run = write_run(tmp_path / "red", exit_code=exit_code)
    for reason in (None, "", "  "):
        with pytest.raises(UsageError, match=found):
            accept(run, tmp_path, reason=reason)
    assert read_accepted(tmp_path) is None
    accept(run, tmp_path, reason="the gate on ece was set too tight")
    accepted = read_accepted(tmp_path)
    assert accepted is not None
    assert accepted.reason == "the gate on ece was set too tight"


def test_a_refusal_leaves_the_former_acceptance(tmp_path: Path) -> None:
    accept(write_run(tmp_path / "good"), tmp_path)
    before = (tmp_path / "accepted.json").read_bytes()
    with pytest.raises(UsageError, match="expected measurements, found none"):
        accept(write_run(tmp_path / "empty", (accuracy(None),)), tmp_path)
    with pytest.raises(UsageError, match=r"run\.json: expected a file, found nothing"):
        accept(RunFolder(tmp_path / "nowhere"), tmp_path)
    assert (tmp_path / "accepted.json").read_bytes() == before


def test_the_digest_sees_what_matters_and_not_the_time_it_took(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    accept(run, tmp_path)
    record = read_record(run)
    (stage,) = record.stages
    write_record(run, replace(record, stages=(replace(stage, seconds=99.0),)))
    accepted = read_accepted(tmp_path)
    assert accepted is not None
    assert accepted.is_intact
    write_record(run, replace(record, stages=(replace(stage, outputs={"data/test.images.npy": "0" * 64}),)))
    assert not accepted.is_intact
    write_record(run, record)
    assert accepted.is_intact
    write_measurements(run.measurements, (accuracy(0.9999),))
    assert not accepted.is_intact
    run.record.write_text("{")
    assert not accepted.is_intact


@pytest.mark.parametrize(
    "content", ["{", "[]", "7", '{"format_version": 1, "evidence": {}}', '{"format_version": 2, "evidence": {}}']
)
def test_a_broken_acceptance_says_how_to_mend_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "accepted.json").write_text(content)
    with pytest.raises(UsageError, match=r"accepted\.json: expected .* Accept a run again with"):
        read_accepted(tmp_path)


def test_same_run_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    accept(run, tmp_path)
    first = (tmp_path / "accepted.json").read_bytes()
    accept(run, tmp_path)
    assert (tmp_path / "accepted.json").read_bytes() == first


KILLED_ACCEPT = """
import os, signal, sys
from pathlib import Path
from foundation.run_folder import RunFolder
from pipeline.night.accepted import accept

os.replace = os.rename = lambda *paths, **options: os.kill(os.getpid(), signal.SIGKILL)
Path.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
accept(RunFolder(Path(sys.argv[1])), Path(sys.argv[1]).parent)
"""


def test_what_a_killed_acceptance_left_goes_with_the_next_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    others = tmp_path / ".accepted.notes.json"
    others.write_text("mine")
    assert subprocess.run([sys.executable, "-c", KILLED_ACCEPT, run.root], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".accepted.*.edgeproof-partial.json"))) == 1
    accept(run, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".accepted.notes.json", "accepted.json", "run"]
