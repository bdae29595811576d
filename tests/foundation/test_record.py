"""The record of a run and its measurements on disk: what is damaged is one sentence, whatever is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import small_record

from foundation import typed_files
from foundation.errors import ExitCode, UsageError
from foundation.measurements import Measurement, Where, read_measurements, write_measurements
from foundation.notes import ExportNotes
from foundation.record import (
    RunRecord,
    StageRecord,
    VariantRecord,
    Verdict,
    exit_code_of,
    read_record,
    record_adapter,
    write_record,
)
from foundation.run_folder import RunFolder
from foundation.sealed_files import write_sealed

JUDGED = Measurement("accuracy", 0.9, "share", "fp16", Where("cpu", "test"), 48, (0.8, 0.95), {"labels": "2 of 3"})
WHOLE = small_record(
    configuration={"gates": [{"metric": "accuracy"}], "train": {"rate": 0.1}},
    task="multi_class",
    classes=("polyp", "ulcer"),
    variants=(VariantRecord("fp16", "fp16", "quantize/fp16.onnx", "0" * 64, 5, None, {"a": [1]}, ExportNotes()),),
    stages=(
        StageRecord("train", None, "done", "k", {"data": "1"}, {"train/history.json": "2"}, 1.5, None),
        StageRecord("quantize", "fp16", "failed", "k", {}, {}, None, "no kernel"),
    ),
    verdicts=(
        Verdict("fp16: accuracy − fp32 ≥ 0", "passed", 0.0, 0.0, "…", JUDGED, replace(JUDGED, variant="fp32")),
    ),
    exit_code=ExitCode.INCOMPLETE,
)


def damaged(run: RunFolder, content: str | bytes) -> str:
    """Return the sentence for a `run.json` with this content."""
    run.record.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as caught:
        read_record(run)
    return str(caught.value)


def values(**changes: Any) -> str:
    written = record_adapter().dump_python(WHOLE, mode="json")
    return json.dumps({key: value for key, value in (written | changes).items() if value is not ...})


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_record(run, WHOLE)
    assert read_record(run) == WHOLE
    assert [stage.name for stage in WHOLE.stages] == ["train", "quantize/fp16"]
    assert [stage.name for stage in WHOLE.unfinished_stages] == ["quantize/fp16"]
    assert WHOLE.outputs == {"train/history.json": "2"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[]", "found list"),
        ("7", "found int"),
        ("null", "found NoneType"),
        ("{", "found EOF"),
        ("{}", "found format_version None"),
        (values(format_version=1), "found format_version 1"),
        (values(format_version=True), "found format_version True"),
        (values(stages=...), "stages: "),
        (values(task=...), "task: "),
        (values(exit_code=7), "exit_code: "),
        (values(classes="polyp"), "classes: "),
        (values(extra=1), "extra: "),
        (values(synthetic=1), "synthetic: "),
        (values(environment={}), "environment.edgeproof: "),
        (values(stages=[{"name": "train"}]), "stages.0."),
        (values(configuration={"rate": float("nan")}), "found expected value"),
        (values(configuration={"rate": 1.0}).replace("1.0", "1e999"), "found Out of range float"),
        (b'{"name": "\xff"}', "found invalid unicode"),
        ("[" * 200_000, "found recursion limit"),
        ('{"a":' * 200_000, "found recursion limit"),
        ("9" * 10_000, "found number out of range"),
    ],
)
def test_a_damaged_record_is_a_sentence_with_what_to_do(tmp_path: Path, content: str | bytes, found: str) -> None:
    said = damaged(RunFolder(tmp_path), content)
    assert f"{tmp_path}/run.json: expected the record of a run of format_version 3, " in said
    assert found in said
    assert said.endswith("Delete it and run again, or choose another folder for the run.")
    assert "\n" not in said


def test_a_variants_name_leads_to_no_other_folder(tmp_path: Path) -> None:
    (variant,) = record_adapter().dump_python(WHOLE, mode="json")["variants"]
    for name in ("../elsewhere", "a/b", "", "a\n", "A"):
        assert "variants.0.variant" in damaged(RunFolder(tmp_path), values(variants=[{**variant, "variant": name}]))


def test_a_file_too_large_to_be_a_record_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed_files, "MAX_BYTES", 1000)
    assert "found 1001 bytes, more than the 1000 that are read" in damaged(RunFolder(tmp_path), " " * 1001)


def test_what_is_no_file_or_is_not_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(UsageError, match=r"run\.json: expected a file, found nothing"):
        read_record(run)
    run.record.mkdir()
    with pytest.raises(UsageError, match=r"run\.json: expected the record of a run .*, found no file"):
        read_record(run)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_record_with_any_part_replaced_is_read_or_is_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    written = record_adapter().dump_python(WHOLE, mode="json")
    part: Any = written
    for _ in range(data.draw(st.integers(1, 4))):
        keys = list(part) if isinstance(part, dict) else list(range(len(part))) if isinstance(part, list) else []
        if not keys:
            break
        holder, key = part, data.draw(st.sampled_from(keys))
        part = holder[key]
    junk = st.sampled_from([None, True, -1, 2.5, "text", [], {}, [1], {"a": 1}])
    holder[key] = data.draw(junk)
    run = RunFolder(tmp_path)
    write_sealed(run.record, written)
    try:
        said = "" if isinstance(read_record(run), RunRecord) else "no record"
    except UsageError as error:
        said = str(error).replace("Delete it and run again, or choose another folder for the run.", "mend")
    assert said == "" or said.endswith("mend")


def test_measurements_survive_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "measurements.json"
    absent = Measurement("accuracy", None, "share", "inc-int8", remarks={"reason": "not installed"})
    write_measurements(path, [JUDGED, absent])
    assert read_measurements(path) == (JUDGED, absent)
    assert (absent.reason, JUDGED.reason) == ("not installed", None)
    assert set(json.loads(path.read_text())[0]) == {
        "metric", "value", "unit", "variant", "where", "n", "ci95", "remarks", "difference",
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[1]",
        '[{"metric": "accuracy"}]',
        '[{"metric": "a", "value": NaN, "unit": "share", "variant": "fp32"}]',
        '[{"metric": "a", "value": "1", "unit": "share", "variant": "fp32"}]',
        '[{"metric": "a", "value": 1, "unit": "share", "variant": "fp32", "settings": {}}]',
        '[{"metric": "a", "value": 1, "unit": "share", "variant": "fp32", "where": {"threads": "1"}}]',
    ],
)
def test_damaged_measurements_are_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "measurements.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"json: expected a list of measurements, .* run `edgeproof validate` again"):
        read_measurements(path)


def test_where_is_a_key_and_names_what_applies() -> None:
    where = Where("cpu", "test", threads=2, batch_size=1)
    assert {where: 1}[Where(provider="cpu", split="test", threads=2, batch_size=1)] == 1
    assert where != replace(where, threads=1)
    assert where.settings == {"threads": 2, "batch_size": 1}
    assert Where("cpu", "test").settings == {}


def test_incomplete_evidence_outranks_a_failed_gate() -> None:
    failed, missing = (Verdict("g", status, None, 1.0, "") for status in ("failed", "missing"))
    assert [exit_code_of(of, True) for of in ((), (failed,), (failed, missing))] == [0, 1, 3]
    assert exit_code_of((failed,), False) == ExitCode.INCOMPLETE
