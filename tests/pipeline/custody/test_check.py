"""`edgeproof check`, and that nothing that trusts a run trusts one that was edited."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_run import quiet_changes, write_run

from foundation.errors import UsageError
from foundation.record import read_record, write_record
from foundation.run_folder import RunFolder
from pipeline.custody.check import CheckedRun, check_run, checked_table
from pipeline.custody.report_again import report_again
from pipeline.judge.evidence import read_evidence
from pipeline.night.accepted import accept, read_accepted
from reports import REPORT_FILES


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = write_run(tmp_path / "run")
    report_again(run)
    return run


def shown(checked: CheckedRun) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(checked_table(checked))
    return capture.get()


def improve(run: RunFolder) -> None:
    """Edit the accuracy of a run by hand, as somebody would who wants it accepted."""
    text = run.measurements.read_text()
    assert '"value": 0.9,' in text
    run.measurements.write_text(text.replace('"value": 0.9,', '"value": 0.9999,'))


def test_an_intact_run_is_zero_and_its_table_names_every_file(run: RunFolder) -> None:
    checked = check_run(run, None)
    assert (checked.exit_code, checked.bad, checked.faults) == (0, (), ())
    assert checked.summary.startswith("all as recorded of 9 files (")
    text = shown(checked)
    assert all(f"report/{name}" in text for name in REPORT_FILES)
    assert f"its own digest: {str(checked.record_sha256)[:12]}" in " ".join(text.replace("│", " ").split())
    assert text.rstrip().endswith("; not signed.")


def test_the_table_fits_80_columns_whatever_a_file_is_called(run: RunFolder) -> None:
    (run.root / f"{'long' * 40}.txt").write_text("x")
    (run.root / "\x1b[31mred [bold]name.txt").write_text("x")
    text = shown(check_run(run, None))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "[bold]name.txt" in text.replace("│", "")


def test_all_that_is_wrong_is_listed_and_the_code_is_two(run: RunFolder) -> None:
    improve(run)
    (run.data / "test.images.npy").unlink()
    (run.root / "extra.bin").write_bytes(b"1")
    checked = check_run(run, None)
    assert checked.exit_code == 2
    assert {one.path: one.state for one in checked.bad} == {
        "data/test.images.npy": "missing", "extra.bin": "unrecorded", "validate/measurements.json": "changed"
    }  # fmt: skip
    assert checked.summary.startswith("1 changed, 1 missing, 1 unrecorded of 10 files")
    values = checked.as_json()
    assert json.loads(json.dumps(values)) == values
    (found,) = [one for one in values["files"] if one["state"] == "changed"]
    assert found["found_sha256"] == hashlib.sha256(run.measurements.read_bytes()).hexdigest()
    assert found["expected_sha256"] == read_record(run).files[found["path"]].sha256


def test_a_thousand_random_changes_of_one_byte_are_all_found(tmp_path: Path) -> None:
    """Of a run of three files; `test_flow` does it with a whole one."""
    assert quiet_changes(write_run(tmp_path / "run"), 1000) == []


def test_an_edited_record_is_told_beside_the_files(run: RunFolder) -> None:
    run.record.write_text(run.record.read_text().replace('"exit_code": 0', '"exit_code": 1'))
    checked = check_run(run, None)
    (fault,) = checked.faults
    assert fault.startswith("run.json: expected sha256 ")
    assert (checked.exit_code, checked.bad) == (2, ())
    assert "Run.json is faulty, all as recorded of 9 files" in shown(checked)


def test_a_record_of_the_former_format_cannot_pass(run: RunFolder) -> None:
    """Else an editor would only have to write format 2 over an edited run."""
    write_record(run, replace(read_record(run), format_version=2, files={}))
    improve(run)
    checked = check_run(run, None)
    assert checked.exit_code == 2
    assert "which names the stages' outputs alone" in checked.faults[0]
    with pytest.raises(UsageError, match="has format 2, which names the stages' outputs alone"):
        accept(run, run.root.parent)


def test_an_edited_number_is_neither_reported_nor_accepted_nor_compared(run: RunFolder, tmp_path: Path) -> None:
    improve(run)
    before = (run.report / "index.html").read_bytes()
    for trust in (report_again, read_evidence, lambda edited: accept(edited, tmp_path)):
        with pytest.raises(
            UsageError, match=r"measurements\.json: expected sha256 \w{12} as recorded, found \w{12}\."
        ):
            trust(run)
    assert (run.report / "index.html").read_bytes() == before
    assert not (tmp_path / "accepted.json").exists()


def test_an_edited_acceptance_is_refused(run: RunFolder, tmp_path: Path) -> None:
    accept(run, tmp_path)
    path = tmp_path / "accepted.json"
    path.write_text(path.read_text().replace('"value": 0.9,', '"value": 0.1,'))
    with pytest.raises(UsageError, match=r"accepted\.json: expected sha256 .* Accept a run again"):
        read_accepted(tmp_path)


def test_a_report_that_was_edited_or_lost_is_made_again(run: RunFolder) -> None:
    whole = {name: (run.report / name).read_bytes() for name in REPORT_FILES}
    record = run.record.read_bytes()
    (run.report / "index.html").write_text("all is well")
    (run.report / "summary.md").unlink()
    assert [one.path for one in check_run(run, None).bad] == ["report/index.html", "report/summary.md"]
    report_again(run)
    assert {name: (run.report / name).read_bytes() for name in REPORT_FILES} == whole
    assert run.record.read_bytes() == record
    assert check_run(run, None).exit_code == 0


def test_what_is_no_run_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json: expected a file, found nothing"):
        report_again(RunFolder(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
