"""Every command of the README runs, and every file it names is there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from foreign_files import classifier, write, write_images
from PIL import Image

from stages.compilers import COMPILERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL) if not kind]


def commands(block):
    return [shlex.split(line) for line in block.splitlines() if line.startswith((".venv/bin/", "make "))]


def run(command, cwd):
    program = [sys.executable, "-m", "pipeline"] if command[0].endswith("/edgeproof") else command[:1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*program, *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


def test_the_two_commands_are_targets_of_the_makefile():
    targets = [command[1] for block in BLOCKS for command in commands(block) if command[0] == "make"]
    assert targets == ["demo", "test"]
    for target in targets:
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert planned.returncode == 0, planned.stderr


@pytest.mark.long
def test_a_run_on_ones_own_images_as_the_readme_says(tmp_path):
    generator = np.random.default_rng(0)
    for label, level in (("healthy", 170), ("lesion", 80)):
        folder = tmp_path / "path/to/images" / label
        folder.mkdir(parents=True)
        for number in range(100):
            pixels = np.clip(generator.normal(level, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
    (block,) = [block for block in BLOCKS if "init mine.yaml" in block]
    results = [run(command, tmp_path) for command in commands(block)]
    assert results[0].returncode == 0, results[0].stderr
    # Thirty test images are too few for the margin that `init` proposes, and the verdicts say so and how many tell.
    assert results[1].returncode == 3, results[1].stdout + results[1].stderr
    assert results[1].stdout.count("cannot be told with these 30 images; about 140 would tell") == 2
    assert "3 of 5 gates passed, 0 failed, 2 inconclusive, 0 missing" in results[1].stdout
    uri = re.search(r"report: file://(\S+)", results[1].stdout)[1]
    page = Path(uri).read_text(encoding="utf-8")
    assert page.count("<script>") == 1  # our own, whose digest is all that the page's policy lets run
    assert not re.search(r'(src|href)="(https?:)?//', page)
    measured = json.loads((tmp_path / "runs/mine/validate/measurements.json").read_text())
    (row,) = [
        m
        for m in measured
        if (m["metric"], m["variant"]) == ("accuracy", "pact-int8") and m["where"]["subgroup"] is None
    ]
    assert row["value"] >= 0.95
    assert row["n"] == 30


@pytest.mark.long
def test_a_file_is_judged_as_the_readme_says_and_opened_in_python(tmp_path):
    folder = tmp_path / "path/to/images"
    write_images(folder, 40)
    rng = np.random.default_rng(0)
    two = classifier(changed={"w4": rng.normal(0, 0.3, (2, 128)), "b4": np.zeros(2)})
    two.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    write(two, folder.parent / "model.onnx")
    (block,) = [block for block in BLOCKS if "run path/to/model.onnx" in block]
    (result,) = [run(command, tmp_path) for command in commands(block)]
    assert result.returncode in (0, 1), result.stdout + result.stderr
    assert (tmp_path / "runs/model/configuration.yaml").is_file()
    (block,) = [block for block in BLOCKS if "check runs/polyps" in block]
    (checked,) = [run([part.replace("polyps", "model") for part in command], tmp_path) for command in commands(block)]
    assert checked.returncode == 0, checked.stdout
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(example.replace("runs/polyps", "runs/model"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "occlusion" in done.stdout
    assert "static-int8" in done.stdout


def test_one_file_is_compiled_as_the_readme_says(tmp_path):
    folder = tmp_path / "path/to/images"
    write_images(folder, 40)
    model = write(classifier(), folder.parent / "model.onnx")
    (block,) = [block for block in BLOCKS if "quantize path/to/model.onnx" in block]
    (result,) = [run(command, tmp_path) for command in commands(block)]
    # So small a network may be slower by every method; then the file says so.
    assert result.returncode == int("No method keeps every limit" in result.stdout), result.stderr
    rows = dict(
        re.findall(r"^ (static|mixed|dynamic|weight-only) .*KiB.*dB +(\S.*\S) *$", result.stdout, re.MULTILINE)
    )
    assert rows.keys() - {"mixed"} == {"static", "dynamic", "weight-only"}
    assert list(rows.values()).count("chosen") == 1
    assert (tmp_path / "small.onnx").stat().st_size < model.stat().st_size
    assert "same class" in result.stdout
    assert "of 10 images" in result.stdout


def test_every_command_named_in_the_text_exists():
    named = set(re.findall(r"`edgeproof (\w+)", README))
    assert {"doctor", "run", "nightly", "accept"} <= named
    for name in named:
        assert run([".venv/bin/edgeproof", name, "--help"], ROOT).returncode == 0


def test_every_file_it_points_to_is_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    for folder in re.findall(r"^([a-z_]+/(?:[a-z]+/)?)  ", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_every_method_of_the_table_is_named():
    assert all(f"`{method}`" in README for method in COMPILERS)
