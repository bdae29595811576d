"""`edgeproof quantize MODEL.onnx` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from foreign_files import classifier, write, write_images

from calibration_data.image_folder import CALIBRATION_IMAGES
from pipeline.one_file.options import METHODS
from stages.quantize.methods.static import StaticSettings
from stages.search.study import TunedSettings

NORMALISED = ("--mean", "0.5", "--std", "0.25")


def quantize(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", "quantize", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(classifier(), tmp_path / "theirs.onnx")


def test_a_file_is_compiled_and_described(model: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 12)
    output = tmp_path / "small.onnx"
    asked = (model, "--images", tmp_path / "images", *NORMALISED, "--accept-worse")  # so small a file may be slower
    result = quantize(*asked, "--method", "static", "--limit", 8, "--output", output, "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["output"] == str(output)
    assert told["size_bytes"] == {"before": model.stat().st_size, "after": output.stat().st_size}
    assert told["layers"] == {"total": 4, "float": []}
    assert told["agreement"]["images"] == 4
    assert told["speed"]["processes"] == 3
    assert told["speed"]["ci95"][0] <= told["speed"]["ratio"] <= told["speed"]["ci95"][1]
    assert told["settings"]["method"] == "static"
    assert json.loads((tmp_path / "small.json").read_text())["sha256"] == told["sha256"]

    chosen = json.loads(quantize(*asked, "--limit", 8, "--json").stdout)
    assert chosen["output"] == str(tmp_path / "theirs.auto.onnx")
    assert chosen["method"] == "auto"
    assert [one["method"] for one in chosen["notes"]["methods"]] == ["static", "mixed", "dynamic", "weight-only"]
    assert len(chosen["speed"]["of_processes"]) == 3

    table = quantize(*asked, "--method", "weight-only", "--bits", 4)
    assert table.returncode == 0, table.stderr
    assert max(map(len, table.stdout.splitlines())) <= 80
    assert "compared on 9" in table.stdout
    assert (tmp_path / "theirs.weight-only.onnx").is_file()


def test_help_names_every_method_and_the_defaults_of_the_settings() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "quantize", "--help"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    told = result.stdout
    for method in METHODS:
        assert method.replace("_", "-") in told
    for calibration in get_args(StaticSettings.model_fields["calibration"].annotation):
        assert calibration.replace("_", "-") in told
    lines = {line.split()[1]: line for line in told.splitlines() if line.startswith("│ --")}
    for name in ("trials", "minutes", "agreement", "saliency_spearman"):
        default = TunedSettings.model_fields[name].default
        assert f"(default: {default:g})" in lines[f"--{name.replace('_', '-')}"]
    assert f"(default: {CALIBRATION_IMAGES})" in lines["--limit"]
    assert "(default)" in lines["--calibration"].split(StaticSettings.model_fields["calibration"].default)[1]


def test_wrong_usage_ends_with_code_2_and_a_sentence(model: Path, tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        result = quantize(*arguments)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
        return " ".join(result.stderr.split())

    write_images(tmp_path / "images", 3)
    assert "Give --mean and --std" in told(model, "--images", tmp_path / "images")
    assert "--images: expected a folder of images to calibrate static on" in told(model, "--method", "static")
    assert "--images: expected a folder of images to choose a method by" in told(model)
    assert "expected a configuration with --run" in told(model, "--run", tmp_path)
    assert "--bits: expected 8 or 4, found 3." in told(model, "--method", "weight-only", "--bits", 3)
    static = ("--method", "static")
    assert "--saliency-spearman: static makes no search." in told(model, *static, "--saliency-spearman", 0.5)
    assert "--trials: auto makes no search." in told(model, "--trials", 3)
    assert "--bits: auto has no choice of bits." in told(model, "--bits", 4)
    config = tmp_path / "mine.yaml"
    config.write_text("name: mine\n")
    assert "expected a model (MODEL.onnx) with --images, --limit" in told(config, "--images", tmp_path, "--limit", 3)
    config.with_suffix(".onnx").write_text("name: mine\n")
    assert "expected an ONNX model, found something else" in told(config.with_suffix(".onnx"), "--method", "fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "mine.onnx", "mine.yaml", "theirs.onnx"]
