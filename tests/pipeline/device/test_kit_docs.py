"""The commands of docs/device-kit.md, as they stand there, on a run of the tests' own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from device_kits import LATENCY, write_kit_run

from foundation.places import place_path, read_place
from pipeline.device import golden
from pipeline.device.golden import DERIVATION

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "device-kit.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.split("\n")
]


def test_the_bound_in_the_docs_is_the_one_in_every_kit():
    assert "twice the largest deviation" in PAGE
    assert DERIVATION.startswith("Twice the largest deviation")
    assert golden._MARGIN == 2.0
    assert f"{golden._DRAWS} times" in DERIVATION
    assert "and four times with" in PAGE
    assert "2⁻¹⁸" in PAGE
    assert "2^-18" in DERIVATION
    assert f"4 to {golden.MOST_GOLDEN} golden images" in PAGE


@pytest.mark.long
def test_the_commands_run_as_they_stand_there(tmp_path: Path):
    run = write_kit_run(tmp_path / "runs" / "endoscopy")
    names = {"pact-int8": "fp32", "--variant fp32": "--variant fp32 --images generated"}
    skipped = ("npm ", "pip ", "python -m edgeproof.kit serve", "python fp32.kit.zip serve")
    done = []
    for line in filter(None, COMMANDS):
        for old, new in names.items():
            line = line.replace(old, new)
        if line.startswith(skipped):
            continue
        program, *arguments = line.split()
        start = [sys.executable, "-m", "pipeline"] if program == "edgeproof" else [sys.executable, "-I"]
        result = subprocess.run([*start, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, (line, result.stdout, result.stderr)
        done.append(arguments[0])
    assert done == ["bundle", "fp32.kit.zip", "import"]
    found = {one.metric: one.value for one in read_place(place_path(run, "ward-tablet")).measurements}
    assert found["place_agreement"] == 1.0
    assert found["latency_p50_ms"] is not None
    assert LATENCY["processes"] * LATENCY["rounds"] * LATENCY["queries_per_round"] == 250


def test_what_it_says_of_serving_is_what_the_program_takes():
    if shutil.which("python3") is None:
        pytest.skip("there is no python3 here")
    root = Path(__file__).resolve().parents[3]
    told = subprocess.run(
        [sys.executable, "-m", "edgeproof.kit", "serve", "--help"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in ("--lan", "--certificate", "--port"):
        assert option in told
    assert "serve pact-int8.kit.zip --lan" in PAGE
