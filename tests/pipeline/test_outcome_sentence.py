from __future__ import annotations

from pathlib import Path

from foundation.errors import ExitCode
from foundation.record import Verdict
from foundation.run_folder import RunFolder
from pipeline.flow import RunOutcome


def sentence(*verdicts: Verdict) -> str:
    run = RunFolder(Path("run"))
    return RunOutcome(run=run, verdicts=verdicts, exit_code=ExitCode.PASSED, report=Path("r")).sentence


def test_a_run_without_gates_has_passed_nothing() -> None:
    assert sentence() == "No gates were set: the run reports what it measured and accepts nothing."
    assert sentence(Verdict("g", "passed", 1.0, 0.5, "")) == "All gates passed (1)."
