"""The page on exports: its commands and its programs run as they stand there, and its tables are whole."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from dicom_sample import explained_run, scans
from small_run import MEASUREMENTS, VARIANT, accuracy, write_run
from typer.testing import CliRunner

from foundation.notes import ExportNotes
from foundation.record import VariantRecord, read_record, write_record
from foundation.run_files import record_of_file
from foundation.run_folder import RunFolder
from pipeline.cli import app
from pipeline.custody.check import check_run
from pipeline.custody.report_again import report_again
from reports import REPORT_FILES, report_json

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the page speaks of: two runs with reports, and one on DICOM files."""
    folder = tmp_path_factory.mktemp("page")
    for name, value in (("monday", 0.9), ("tuesday", 0.85)):
        run = write_run(folder / "runs" / name, (*MEASUREMENTS[2:], accuracy(value)))
        path = run.model(VARIANT)
        path.parent.mkdir()
        path.write_bytes(b"onnx")
        where = path.relative_to(run.root).as_posix()
        record = read_record(run)
        variant = VariantRecord(VARIANT, "static", where, "0" * 64, 4, None, {}, ExportNotes())
        files = {**record.files, where: record_of_file(path)}
        write_record(run, replace(record, variants=(variant,), files=files))
        report_again(run)
    explained_run(folder / "runs" / "thorax", scans(folder / "scans" / "thorax"))
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "report.schema.json", folder / "docs")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs_and_leaves_the_runs_as_they_were(
    command: str, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra, package in (("export-mlflow", "mlflow"), ("export-dicom", "highdicom")):
        if extra in command:
            pytest.importorskip(package, reason=f"{package} is an extra")
    monkeypatch.chdir(prepared)
    name, *arguments = shlex.split(command)
    assert name == "edgeproof"
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == (1 if "compare" in command else 0), told.output
    assert told.stdout
    for run in (prepared / "runs").iterdir():
        if run.is_dir():
            assert check_run(RunFolder(run), None).exit_code == 0


@pytest.mark.parametrize("program", PROGRAMS, ids=["report.json", "measurements.csv"])
def test_every_program_runs(
    program: str, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(prepared)
    exec(compile(program, "docs/exports.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_page_names_every_file_of_the_report_and_every_format() -> None:
    assert set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE)) == set(REPORT_FILES)
    versions = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert versions == list(range(1, report_json.FORMAT_VERSION + 1))
