"""What was found elsewhere, on the disk and held against the run of today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_run import small_record

from foundation.errors import UsageError
from foundation.measurements import Measurement, Where
from foundation.notes import ExportNotes
from foundation.places import PlaceRecord, measured_everywhere, read_place, read_places, write_place
from foundation.record import RunRecord, VariantRecord
from foundation.run_folder import RunFolder

TODAY = VariantRecord("fp32", "export", "export/fp32.onnx", "a" * 64, 10, None, {}, ExportNotes())


def record_of_today() -> RunRecord:
    return replace(small_record(), variants=(TODAY,))


def found_at(place: str, files: dict[str, str], **changed: object) -> PlaceRecord:
    rows = tuple(
        Measurement("place_agreement", 0.5, "share", name, Where(split="test", place=place), 4) for name in files
    )
    record = PlaceRecord(place, "emulated", "a place", None, files, {"onnxruntime": "1.24.4"}, rows)
    return replace(record, **changed)  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run, found = RunFolder(tmp_path), found_at("arm64", {"fp32": "a" * 64}, notes={"fp32": ("slow",)})
    assert read_place(write_place(run, found)) == found


def test_another_file_of_the_same_name_has_not_answered(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record, today = record_of_today(), TODAY
    write_place(run, found_at("arm64", {today.variant: today.sha256}))
    write_place(run, found_at("wasm", {today.variant: "0" * 64}))
    assert [one.place for one in read_places(run, record)] == ["arm64"]
    assert [(m.variant, m.where.place, m.value) for m in measured_everywhere(run, record)] == [
        (today.variant, "arm64", 0.5)
    ]


def test_answers_to_other_images_are_left_out(tmp_path: Path) -> None:
    run, record = RunFolder(tmp_path), record_of_today()
    write_place(run, found_at("arm64", {TODAY.variant: TODAY.sha256}, data_sha256="0" * 64))
    assert read_places(run, record) == ()


def test_a_file_that_speaks_of_another_place_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    path = write_place(run, found_at("arm64", {"fp32": "a" * 64}))
    with pytest.raises(UsageError, match="expected measurements of the place wasm, found some of arm64"):
        read_place(path.rename(path.with_name("wasm.json")))
