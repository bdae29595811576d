"""A page over runs: a row for each, whatever it is, with ways to what there is of its report."""

from __future__ import annotations

import re
import webbrowser
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from small_run import accuracy, small_record, write_run
from typer.testing import CliRunner

from foundation.errors import ExitCode, UsageError
from foundation.record import Verdict, read_record, write_record
from foundation.run_folder import RunFolder
from pipeline.cli import app
from pipeline.custody.check import check_run
from pipeline.custody.report_again import report_again
from pipeline.custody.runs_index import write_index
from reports import index_of_runs


def run_of(root: Path, *verdicts: Verdict, code: int = 0, **changes: object) -> RunFolder:
    run = write_run(root, (accuracy(),), exit_code=code)
    record = replace(read_record(run), verdicts=verdicts, exit_code=ExitCode(code), **changes)
    write_record(run, record)
    return run


def rows_of(page: str) -> list[str]:
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in body.split("</tr>") if "<th" in row]


def test_each_run_has_its_decision_and_its_worst_gate(tmp_path: Path) -> None:
    good = (Verdict("fp32: accuracy ≥ 0.8", "passed", 0.9, 0.8, ""), Verdict("a ≤ 10", "passed", 9.9, 10.0, ""))
    bad = (*good, Verdict("b ≥ 0.5", "failed", 0.4, 0.5, ""), Verdict("c ≥ 0.5", "failed", 0.1, 0.5, ""))
    run_of(tmp_path / "monday", *good)
    run_of(tmp_path / "tuesday", *bad, code=1)
    report_again(RunFolder(tmp_path / "monday"))
    written = write_index([tmp_path / "monday", tmp_path / "tuesday"])
    assert (written.path, written.runs, written.unreadable) == (tmp_path / "index.html", 2, ())
    page = written.path.read_text(encoding="utf-8")
    monday, tuesday = rows_of(page)
    assert "a ≤ 10 passed" in monday
    assert "2 of 4" in tuesday
    assert "c ≥ 0.5 failed" in tuesday
    assert "not written" in tuesday
    links = [unquote(link) for link in re.findall(r'href="([^"#][^"]*)"', page)]
    assert links == [f"monday/report/{name}" for name in ("index.html", "summary.md", "report.json")]
    assert all((tmp_path / link).is_file() for link in links)


def test_the_same_runs_give_the_same_bytes_in_their_order_and_check_still_holds(tmp_path: Path) -> None:
    folders = [run_of(tmp_path / name).root for name in ("b", "a", "c")]
    first = write_index([*folders, folders[0]], tmp_path / "one.html").path.read_bytes()
    assert first == write_index(folders, tmp_path / "two.html").path.read_bytes()
    assert [row.split()[1] for row in rows_of(first.decode())] == ["b", "a", "c"]
    assert all(check_run(RunFolder(folder), None).exit_code == 0 for folder in folders)


def test_a_damaged_run_and_a_foreign_folder_have_their_row_without_a_path(tmp_path: Path) -> None:
    run = run_of(tmp_path / "damaged")
    run.record.write_text(run.record.read_text()[:200])
    (tmp_path / "foreign").mkdir()
    whole = run_of(tmp_path / "whole")
    written = write_index([run.root, tmp_path / "foreign", whole.root, tmp_path / "gone"])
    page = written.path.read_text(encoding="utf-8")
    assert len(written.unreadable) == 3
    assert ["Cannot be read" in row for row in rows_of(page)] == [True, True, False, True]
    assert str(tmp_path) not in page


def test_nothing_is_written_where_none_is_a_run_or_into_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="None of the 2 folders is a run that can be read"):
        write_index([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
    run = run_of(tmp_path / "run")
    with pytest.raises(UsageError, match="expected a place outside of a run"):
        write_index([run.root], run.report / "page.html")
    with pytest.raises(UsageError, match="expected the name of a file to write, found a folder"):
        write_index([run.root], tmp_path)
    page = tmp_path / "page.html"
    page.write_text("old")
    assert write_index([run.root, page], page).runs == 1
    with pytest.raises(UsageError, match="expected folders of runs, found files alone"):
        write_index([page])


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x>', "{{ 7*7 }}", "\x1b[31m", "a" * 5000])
def test_no_name_becomes_markup_or_a_way_elsewhere(tmp_path: Path, text: str) -> None:
    run = run_of(tmp_path / "run", Verdict(text, "failed", 0.1, 0.5, text), code=1, name=text, dataset=text)
    page = write_index([run.root]).path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert len(page) < 40_000


def test_a_thousand_runs_take_less_than_a_megabyte(tmp_path: Path) -> None:
    verdict = Verdict("static-int8: balanced_accuracy non-inferior to fp32, margin 0.02", "passed", 0.0, -0.02, "")
    record = small_record(verdicts=(verdict,) * 12, exit_code=ExitCode.PASSED, name="endoscopy-nightly")
    links = {name: f"nights/2026-01-01T02-00-00/report/{name}.html" for name in ("report", "summary", "JSON")}
    rows = [
        index_of_runs.listed(f"2026-01-{number}", record, "2026-01-01T02:31:00+00:00", links)
        for number in range(1000)
    ]
    page = index_of_runs.render(rows)
    assert len(rows_of(page)) == 1000
    assert len(page.encode()) < 1_000_000


def test_the_worst_gate_is_what_failed_by_most_then_what_could_not_be_judged() -> None:
    def gate(name: str, status: str, value: float | None, limit: float = 1.0) -> Verdict:
        return Verdict(name, status, value, limit, "")  # type: ignore[arg-type]

    passed, barely = gate("x ≥ 1", "passed", 2.0), gate("size ≤ 1", "passed", 0.99)
    unknown, failed, worse = gate("m", "missing", None), gate("y ≥ 1", "failed", 0.9), gate("s ≤ 1", "failed", 1.5)
    for gates, worst in (
        ((passed, barely), barely),
        ((passed, unknown), unknown),
        ((unknown, failed), failed),
        ((failed, worse), worse),
    ):
        assert index_of_runs.worst_gate(gates) is worst
    assert index_of_runs.worst_gate(()) is None


def test_the_command_ends_with_three_where_a_run_cannot_be_read(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    told = CliRunner().invoke(app, ["report", str(run.root), str(tmp_path / "gone")])
    assert told.exit_code == 3
    assert "gone" in told.stderr
    assert told.stdout.strip() == str(tmp_path / "index.html")


def test_a_browser_is_opened_on_request_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "run")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or False)
    assert CliRunner().invoke(app, ["report", str(run.root)]).exit_code == 0
    assert opened == []
    told = CliRunner().invoke(app, ["report", str(run.root), "--open"])
    assert told.exit_code == 0
    assert opened == [(run.report / "index.html").resolve().as_uri()]
    assert "No browser was found" in told.stderr
