from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_run import write_run

from foundation.errors import ExitCode, UsageError
from foundation.record import GateChange, Verdict, read_record, write_record
from foundation.run_folder import RunFolder
from pipeline.configuration_file import parse_configuration
from pipeline.night.accepted import accept
from pipeline.run.opening import open_ledger
from reports import html, junit, model_card, summary
from reports.decision import outcome
from reports.facts import read_facts
from reports.report_json import published

SENTENCE = "Gates changed after the measurements (fp32: accuracy ≥ 0.8 → fp32: accuracy ≥ 0.4)."


def configured(at_least: float) -> object:
    gate = {"metric": "accuracy", "variant": "fp32", "at_least": at_least}
    values = {"name": "small", "data": {"source": {"name": "digits"}}, "gates": [gate]}
    return parse_configuration(values, "test", Path.cwd())


def measured(root: Path, at_least: float) -> RunFolder:
    run = write_run(root)
    write_record(run, replace(read_record(run), configuration=configured(at_least).without_folders()))
    return run


def test_gates_that_change_after_measurements_are_recorded_old_and_new(tmp_path: Path) -> None:
    ledger = open_ledger(configured(0.4), measured(tmp_path, 0.8))
    assert [change.sentence for change in ledger.record.gate_changes] == [SENTENCE]
    ledger.write()
    # They stay where the same gates run again, and where the first ones come back.
    assert open_ledger(configured(0.4), RunFolder(tmp_path)).record.gate_changes == ledger.record.gate_changes
    back = open_ledger(configured(0.8), RunFolder(tmp_path)).record.gate_changes
    assert [change.new for change in back] == [("fp32: accuracy ≥ 0.4",), ("fp32: accuracy ≥ 0.8",)]


def test_unchanged_gates_and_a_new_folder_have_no_change(tmp_path: Path) -> None:
    assert open_ledger(configured(0.8), measured(tmp_path / "a", 0.8)).record.gate_changes == ()
    assert open_ledger(configured(0.8), RunFolder(tmp_path / "b")).record.gate_changes == ()


@pytest.fixture
def changed_run(tmp_path: Path) -> RunFolder:
    run = measured(tmp_path / "nights" / "one", 0.4)
    verdict = Verdict("fp32: accuracy ≥ 0.4", "passed", 0.5, 0.4, "")
    change = GateChange(("fp32: accuracy ≥ 0.8",), ("fp32: accuracy ≥ 0.4",))
    write_record(
        run, replace(read_record(run), verdicts=(verdict,), gate_changes=(change,), exit_code=ExitCode.PASSED)
    )
    return run


def test_a_change_is_amber_in_every_report(changed_run: RunFolder) -> None:
    facts = read_facts(changed_run)
    told = outcome(facts)
    assert (told.kind, told.headline) == ("changed", "Gates changed after the measurements")
    assert "fixed before the run" not in told.sentence
    for text in (html.render(facts), junit.render(facts), summary.render(facts), model_card.render(facts)):
        assert SENTENCE.replace(">", "&gt;") in text.replace("\\", "")
    assert published(facts.record, ())["gate_changes"] == [
        {"old": ["fp32: accuracy ≥ 0.8"], "new": ["fp32: accuracy ≥ 0.4"]}
    ]


def test_accept_wants_a_reason_for_changed_gates(changed_run: RunFolder) -> None:
    with pytest.raises(UsageError, match="expected gates that were fixed before the run"):
        accept(changed_run, changed_run.root.parent)
    assert accept(changed_run, changed_run.root.parent, reason="agreed by the board").reason == "agreed by the board"
