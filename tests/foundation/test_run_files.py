"""The files of a run against its record: what was changed, is missing, was added, or leads elsewhere."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import write_run

from foundation.errors import UsageError
from foundation.record import FileRecord, RunRecord, read_record, write_record
from foundation.run_files import CheckedFile, add_to_record, check_files, refuse_changed, why_unverified
from foundation.run_folder import RunFolder

IMAGES = "data/test.images.npy"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run")


def bad(run: RunFolder) -> list[CheckedFile]:
    return [one for one in check_files(run, read_record(run)) if one.state != "intact"]


def test_a_run_as_it_was_written_is_intact(run: RunFolder) -> None:
    found = check_files(run, read_record(run))
    assert [(one.path, one.state) for one in found] == [(IMAGES, "intact"), ("validate/measurements.json", "intact")]
    assert found[0].size_bytes == 6
    refuse_changed(run, read_record(run))


def test_every_bad_file_is_listed_with_both_digests(run: RunFolder) -> None:
    (run.root / IMAGES).write_bytes(b"Images")
    run.measurements.unlink()
    (run.root / "notes").mkdir()
    (run.root / "notes" / "mine.txt").write_text("mine")
    old, new, mine = (hashlib.sha256(content).hexdigest() for content in (b"images", b"Images", b"mine"))
    missing = read_record(run).files["validate/measurements.json"].sha256
    assert bad(run) == [
        CheckedFile(IMAGES, "changed", 6, old, new),
        CheckedFile("notes/mine.txt", "unrecorded", 4, None, mine),
        CheckedFile("validate/measurements.json", "missing", None, missing, None),
    ]
    sentence = (
        rf"{IMAGES}: expected sha256 {old[:12]} as recorded, found {new[:12]}\. It was changed .* run again\. "
        rf"2 more are not as recorded\. `edgeproof check {run.root}` lists all\."
    )
    with pytest.raises(UsageError, match=sentence):
        refuse_changed(run, read_record(run))
    with pytest.raises(UsageError, match=rf"notes/mine\.txt: .* another one of sha256 {mine[:12]}\. Move it out"):
        refuse_changed(run, read_record(run), besides=(IMAGES,))
    with pytest.raises(UsageError, match=rf"expected a file of sha256 {missing[:12]} as recorded, found nothing\."):
        refuse_changed(run, read_record(run), besides=(IMAGES, "notes/mine.txt"))


def test_a_file_of_the_same_size_and_time_is_found(run: RunFolder) -> None:
    path = run.root / IMAGES
    status = path.stat()
    path.write_bytes(b"imageS")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [one.path for one in bad(run)] == [IMAGES]


def test_what_nothing_reads_is_none_of_the_runs(run: RunFolder) -> None:
    (run.root / ".lock").write_text("{}")
    (run.root / ".cache").mkdir()
    (run.root / ".cache" / "x").write_text("x")
    run.signature.write_bytes(b"s")
    assert bad(run) == []


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/hostname", "data/../../outside.txt", "a\0b"])
def test_a_record_leads_nowhere_else(run: RunFolder, path: str) -> None:
    (run.root.parent / "outside.txt").write_text("outside")
    record = read_record(run)
    digest = hashlib.sha256(b"outside").hexdigest()
    led = replace(record, files={**record.files, path: FileRecord(digest, 7)})
    (found,) = [one for one in check_files(run, led) if one.state != "intact"]
    assert (found.path, found.state, found.found_sha256) == (path, "unusable", None)


def test_links_folders_and_pipes_in_a_files_place_are_no_files(run: RunFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "test.images.npy").write_bytes(b"images")
    (run.root / IMAGES).unlink()
    (run.root / IMAGES).symlink_to(outside / "test.images.npy")
    (run.root / "more").symlink_to(outside)
    run.measurements.unlink()
    os.mkfifo(run.measurements)
    assert {one.path: one.state for one in bad(run)} == {
        IMAGES: "unusable", "more": "unusable", "validate/measurements.json": "unusable"
    }  # fmt: skip
    assert "found what is none or cannot be read" in bad(run)[0].sentence


def test_files_that_come_later_are_recorded_once(run: RunFolder) -> None:
    added = run.root / "configuration.yaml"
    added.write_text("name: small\n")
    add_to_record(run, (added,))
    assert bad(run) == []
    written = run.record.stat().st_mtime_ns
    add_to_record(run, (added,))
    assert run.record.stat().st_mtime_ns == written


def former(run: RunFolder) -> RunRecord:
    """Return the run's record as format 2 had it, which named the outputs of the stages alone."""
    write_record(run, replace(read_record(run), format_version=2, files={}))
    return read_record(run)


def test_a_run_of_the_former_format_is_read_and_verified_as_far_as_it_goes(run: RunFolder) -> None:
    assert why_unverified(read_record(run)) is None
    record = former(run)
    assert [one.path for one in check_files(run, record)] == [IMAGES]
    assert "has format 2, which names the stages' outputs alone" in str(why_unverified(record))
    run.measurements.write_text("[]")
    refuse_changed(run, record)
    (run.root / IMAGES).write_bytes(b"others")
    with pytest.raises(UsageError, match="It was changed after the run wrote it"):
        refuse_changed(run, record)
    add_to_record(run, (run.measurements,))
    assert read_record(run).files == {}
