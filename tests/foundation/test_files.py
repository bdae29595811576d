"""Hashes and atomic writes: the old file or the new one, never half of one."""

import errno
import hashlib
import json
import os

import pytest

from foundation import files
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import (
    atomic_path,
    read_json,
    remove_leftovers,
    sha256_of_file,
    sha256_of_json,
    write_bytes,
    write_json,
)
from foundation.notes import GivenNotes
from foundation.run_folder import RunFolder
from foundation.typed_files import MAX_BYTES


def test_hash_of_json_ignores_the_order_of_keys_but_not_the_values():
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"\xc3\xa9"}').hexdigest()
    assert sha256_of_json({"b": "é", "a": [1, 2.5, None]}) == expected
    assert sha256_of_json({"b": "é", "a": [2.5, 1, None]}) != expected
    with pytest.raises(ValueError, match="not JSON compliant"):
        sha256_of_json(float("nan"))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_bytes(path, b"old")

    def fail_halfway():
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_our_own_leftovers_go(tmp_path):
    kept = [
        tmp_path / name
        for name in (".env.tmpl", ".ci.tmp.yaml", ".x.tmp", "a.edgeproof-partial", ".edgeproof-partial")
    ]
    (tmp_path / "sub").mkdir()
    kept.append(tmp_path / "sub" / ".report.edgeproof-partial-of-mine.html")
    for path in kept:
        path.write_text("somebody's")
    with atomic_path(tmp_path / "sub" / "model.onnx") as temporary:
        left = tmp_path / "sub" / temporary.name.replace("model", "other")
        left.write_bytes(b"what a kill leaves")
    kept.append(tmp_path / "sub" / "model.onnx")
    remove_leftovers(tmp_path)
    assert not left.exists()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_a_file_is_as_private_as_the_umask_says(tmp_path, mask, mode):
    earlier = os.umask(mask)
    try:
        write_bytes(tmp_path / "file", b"")
        assert os.umask(mask) == mask  # reading it changed nothing
    finally:
        os.umask(earlier)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path):
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")
    with pytest.raises(UsageError, match=r"file\.bin.*No space left.*untouched"), atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(UsageError, match="could not be written"):
        write_bytes(tmp_path / "file" / "x.bin", b"")


def test_json_is_readable_and_the_same_every_time(tmp_path):
    write_json(tmp_path / "a.json", {"z": 1, "a": "μ"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "μ",\n  "z": 1\n}\n'
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UsageError, match=r"b\.json: expected JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UsageError, match="found nothing"):
        read_json(tmp_path / "c.json")


def test_a_model_that_was_changed_after_it_was_made_is_refused(tmp_path):
    path = tmp_path / "given-int8.onnx"
    path.write_bytes(b"model")
    notes = GivenNotes(given_sha256="1" * 64, tools={"tensorflow": "2.19"})
    model = OnnxModel("given-int8", path, sha256_of_file(path), "0" * 64, {"x": 1}, notes)
    model.write_record()
    assert OnnxModel.read(path) == model
    assert json.loads(model.record_path.read_text())["size_bytes"] == 5
    path.write_bytes(b"mode1")
    with pytest.raises(UsageError, match="changed after it was made"):
        OnnxModel.read(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda record: record.pop("sha256"), r"sha256: field required"),
        (lambda record: record["notes"].pop("method"), r"notes: unable to extract tag using discriminator 'method'"),
        (lambda record: record["notes"].update(method="pact"), r"notes\.pact\.weight_bits: field required"),
        (lambda record: record["notes"].update(more=1), r"notes\.given\.more: extra inputs are not permitted"),
        (lambda record: record["notes"].update(tools=[]), r"notes\.given\.tools: input should be an object"),
    ],
)
def test_a_damaged_record_is_told_in_one_sentence(damage, said, tmp_path):
    path = tmp_path / "v.onnx"
    path.write_bytes(b"model")
    notes = GivenNotes(given_sha256="1" * 64, tools={})
    model = OnnxModel("v", path, sha256_of_file(path), None, notes=notes)
    model.write_record()
    record = json.loads(model.record_path.read_text())
    damage(record)
    model.record_path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=rf"v\.json: expected the record of a compiled file, .*\({said}.*Delete it"):
        OnnxModel.read(path)
    model.record_path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match=rf"found {MAX_BYTES + 1} bytes, more than the {MAX_BYTES} that are read"):
        OnnxModel.read(path)
    model.record_path.write_text("[]")
    with pytest.raises(UsageError, match=r"v\.json: expected the record of a compiled file"):
        OnnxModel.read(path)


def test_every_path_of_a_run_is_inside_it(tmp_path):
    run = RunFolder(tmp_path)
    paths = [run.record, run.data, run.checkpoint, run.history, run.fp32, run.model("x"), run.predictions("x")]
    paths += [run.maps("x", "occlusion"), run.measurements, run.image_by_image, run.report]
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert run.model("fp32") == tmp_path / "export" / "fp32.onnx"


def test_a_file_is_hashed_once_while_it_stays_as_it_is(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(
        files,
        "_read_sha256",
        lambda path: hashed.append(path) or hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    monkeypatch.setattr(files, "_SETTLED_SECONDS", -1.0)  # as if all files were old
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert {sha256_of_file(path) for _ in range(3)} == {hashlib.sha256(b"one").hexdigest()}
    assert len(hashed) == 1
    path.write_bytes(b"three")
    assert sha256_of_file(path) == hashlib.sha256(b"three").hexdigest()


def test_a_file_that_has_just_changed_is_hashed_anew(tmp_path):
    path = tmp_path / "a"
    for content in (b"one", b"two", b"six"):  # within one tick of the file system's clock
        path.write_bytes(content)
        assert sha256_of_file(path) == hashlib.sha256(content).hexdigest()
