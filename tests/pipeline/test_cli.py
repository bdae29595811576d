"""The command line as a user meets it: what it prints where, and the code that it ends with."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import write_run

COMMANDS = [
    "demo",
    "init",
    "run",
    "train",
    "export",
    "quantize",
    "validate",
    "report",
    "check",
    "sign",
    "nightly",
    "accept",
    "compare",
    "export-mlflow",
    "export-dicom",
    "verify",
    "places",
    "bundle",
    "import",
    "doctor",
]
ROOT = Path(__file__).resolve().parents[2]


def edgeproof(*arguments, cwd=None):
    environment = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


@pytest.fixture
def images(tmp_path):
    """Two classes of bright and dark noise, sixteen images each."""
    generator = np.random.default_rng(0)
    for label, level in (("bright", 180), ("dark", 60)):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(16):
            pixels = np.clip(generator.normal(level, 30, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "images"


def write_config(tmp_path, **data):
    values = {"name": "mine", "data": {"source": {"name": "folder", "root": "images"}, "image_size": 16, **data}}
    values["train"] = {"network": "cnn-small", "epochs": 1, "batch_size": 8, "threads": 1}
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(values))
    return path


def failed(result, code):
    """Check that a command ended with one sentence on stderr, and return it."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith("✓")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_lists_every_command_and_the_exit_codes():
    result = edgeproof("--help")
    assert result.returncode == 0
    assert all(re.search(rf"\b{command}\b", result.stdout) for command in COMMANDS)
    assert "3" in result.stdout.partition("Exit codes")[2]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_wrong_usage_ends_with_two():
    assert edgeproof("rnu", "x.yaml").returncode == 2
    assert edgeproof("run").returncode == 2


def test_a_missing_configuration_says_how_to_get_one(tmp_path):
    assert "edgeproof init" in failed(edgeproof("run", "absent.yaml", cwd=tmp_path), 2)


def test_debug_shows_where_it_came_from(tmp_path):
    result = edgeproof("--debug", "run", "absent.yaml", cwd=tmp_path)
    assert "Traceback" in result.stderr


def test_a_terminal_without_unicode_gets_escapes_and_no_traceback(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    answer = edgeproof("init")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "0\\u20261" in answer.stdout


def test_a_name_cannot_command_the_terminal():
    answer = edgeproof("run", "\x1b[31mred.yaml")
    assert answer.returncode == 2
    assert answer.stderr.startswith(r"error: \x1b[31mred.yaml: no such file.")


def test_schema_goes_to_stdout_as_json():
    assert json.loads(edgeproof("init", "--schema").stdout)["title"] == "edgeproof configuration"


def test_doctor_names_the_processor_and_prints_json():
    checks = json.loads(edgeproof("doctor", "--json").stdout)
    assert {"ok", "missing", "warning"} >= {check["status"] for check in checks}
    assert any(check["name"] == "int8 types" for check in checks)


def test_training_one_epoch_leaves_a_checkpoint_and_no_colours(tmp_path, images):
    result = edgeproof("train", write_config(tmp_path), "--run", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "train" / "checkpoint.safetensors").exists()
    assert "✓ train" in result.stderr
    assert "validation balanced accuracy" in result.stderr
    assert "\x1b" not in result.stderr + result.stdout


def spoil_with(name, content):
    def spoil(images):
        (images / "bright" / name).write_bytes(content)

    return spoil


def truncate(images):
    path = images / "dark" / "3.png"
    path.write_bytes(path.read_bytes()[:200])


def empty_class(images):
    (images / "blank").mkdir()


def one_class(images):
    for path in (images / "dark").iterdir():
        path.unlink()
    (images / "dark").rmdir()


def same_twice(images):
    for number in range(6):
        (images / "dark" / f"copy{number}.png").write_bytes((images / "dark" / "3.png").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_with("zero.png", b""), r"zero\.png"),
        (spoil_with("text.png", b"this is no image"), r"text\.png"),
        (spoil_with("gif.jpg", b"GIF89a" + bytes(20)), r"gif\.jpg"),
        (truncate, r"3\.png"),
        (empty_class, "blank"),
        (one_class, "bright"),
        (same_twice, "copy"),
    ],
    ids=["zero bytes", "text", "wrong type", "truncated", "empty class", "one class", "leak"],
)
def test_bad_images_end_with_two_and_name_the_file(tmp_path, images, spoil, named):
    spoil(images)
    message = failed(edgeproof("train", write_config(tmp_path), "--run", "run", cwd=tmp_path), 2)
    assert re.search(named, message)
    assert not (tmp_path / "run" / "run.json").exists()
    assert not list((tmp_path / "run").rglob("*.npz"))


def test_bad_images_are_skipped_and_counted_on_request(tmp_path, images):
    truncate(images)
    spoil_with("zero.png", b"")(images)
    result = edgeproof("train", write_config(tmp_path, bad_images="skip"), "--run", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "2 images could not be read" in result.stderr
    manifest = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())
    assert len(manifest["skipped"]) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["report", "nowhere"], "run.json"),
        (["accept", "nowhere"], "run.json"),
        (["check", "nowhere"], "run.json"),
        (["compare", "nowhere", "elsewhere"], "run.json"),
        (["report", "nowhere", "elsewhere"], "run.json"),
        (["export-mlflow", "nowhere"], "run.json"),
        (["export-dicom", "nowhere", "--images", "images", "--output", "out"], "run.json"),
        (["init", "mine.yaml"], "already a file"),
        (["init", "--dataset", "imagenet"], "imagenet"),
        (["quantize", "mine.yaml", "--variant", "nope"], "nope"),
    ],
)
def test_commands_on_things_that_are_not_there(tmp_path, arguments, named):
    write_config(tmp_path)
    assert named in failed(edgeproof(*arguments, cwd=tmp_path), 2)


def test_an_edited_run_is_told_by_every_command_that_trusts_it(tmp_path):
    run = write_run(tmp_path / "run")
    write_run(tmp_path / "other")
    whole = edgeproof("check", run.root)
    assert whole.returncode == 0, whole.stderr
    assert max(map(len, whole.stdout.splitlines())) <= 80
    run.measurements.write_text(run.measurements.read_text().replace('"value": 0.9,', '"value": 0.9999,'))
    other = tmp_path / "other"
    for arguments in (
        ["report", run.root],
        ["accept", run.root],
        ["compare", run.root, other],
        ["compare", other, run.root],
    ):
        message = failed(edgeproof(*arguments), 2)
        assert re.search(
            r"measurements\.json: expected sha256 \w{12} as recorded, found \w{12}\. It was changed", message
        )
    checked = edgeproof("check", run.root, "--json")
    assert checked.returncode == 2
    values = json.loads(checked.stdout)
    assert (values["exit_code"], [one["state"] for one in values["files"]]) == (2, ["intact", "changed"])


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs to mount a tiny disk")
def test_a_full_disk_is_one_sentence(tmp_path, images):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this system does not let a test mount a disk")
    try:
        message = failed(edgeproof("train", write_config(tmp_path, image_size=64), "--run", disk, cwd=tmp_path), 2)
        assert "No space left" in message
        assert not list(disk.rglob("*.edgeproof-partial*"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("verify", "nope", "--on", "node"), "nope: expected a run folder or an ONNX file, found nothing"),
        (("verify", ".", "--on", "mars"), "expected some of x86-avx2"),
        (("import", "{run}", "nope.json"), "nope.json: expected the device.json that a kit wrote, found nothing"),
        (("nightly", "--minutes", "5", "one.yaml"), "--minutes: expected several configurations, found one"),
    ],
)
def test_a_path_that_is_not_there_is_told_by_what_was_expected(tmp_path, arguments, told):
    write_run(tmp_path / "run")
    result = edgeproof(*(one.format(run="run") for one in arguments), cwd=tmp_path)
    assert result.returncode == 2
    assert told in " ".join(result.stderr.split())
