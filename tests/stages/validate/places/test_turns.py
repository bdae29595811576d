"""Times at places: fresh processes in turns, what they are worth, and files that break there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import build_model

from stages.validate.places.here import HERE
from stages.validate.places.place import Place
from stages.validate.places.questions import ask_model
from stages.validate.places.turns import PROCESSES, QUERIES, TimedFile, measure_times, time_in_turns

# Answers with the times 4, 4, … of fp32 and 2, 2, … of any other; "broken" breaks in its third process.
PROGRAM = """
import json, pathlib, sys
folder, log = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
(one,) = json.loads((folder / "job.json").read_text())["files"]
with log.open("a") as stream:
    stream.write(one["name"] + chr(10))
if one["name"] == "broken" and log.read_text().count("broken") == 3:
    sys.exit("no more")
n = one["inputs"][0]["shape"][0]
(folder / "x.raw").write_bytes(bytes(12 * n))
outputs = [{"name": "logits", "file": "x.raw", "type": "float32", "shape": [n, 3]}]
files = {one["name"]: {"outputs": outputs, "times_ms": [4.0 if one["name"] == "fp32" else 2.0] * n}}
answer = {"format_version": 1, "versions": {}, "machine": "m", "features": None, "files": files}
(folder / "answer.json").write_text(json.dumps(answer))
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    script = tmp_path / "there.py"
    script.write_text(PROGRAM)
    return replace(HERE, command=lambda job: [sys.executable, str(script), str(job), str(tmp_path / "log")])


def test_every_round_has_a_process_of_each_file_and_a_broken_file_costs_itself(place: Place, tmp_path: Path) -> None:
    images = np.zeros((4, 1, 8, 8), np.uint8)
    asked = ask_model("fp32", build_model(tmp_path / "small.onnx").path, images, 1).question
    questions = [asked, replace(asked, name="int8"), replace(asked, name="broken")]
    done: list[tuple[int, int]] = []
    timed = time_in_turns("there", place, questions, lambda *one: done.append(one))
    assert done[-1] == (15, 15)
    asked_in_turn = (tmp_path / "log").read_text().split()
    assert {name: asked_in_turn.count(name) for name in ("fp32", "int8", "broken")} == {
        "fp32": 5, "int8": 5, "broken": 3,
    }  # fmt: skip
    assert [sorted(asked_in_turn[first : first + 3]) for first in (0, 3, 6)] == [["broken", "fp32", "int8"]] * 3
    rows = measure_times("there", timed, dict.fromkeys(timed, 1))
    found = {(row.variant, row.metric): row for row in rows}
    assert found["int8", "latency_p50_ms"].value == 2.0
    assert found["int8", "latency_p50_ms"].n == PROCESSES * QUERIES == 150
    assert found["int8", "latency_speedup"].value == pytest.approx(2.0)
    assert found["int8", "latency_speedup"].n == 5
    assert found["broken", "latency_p50_ms"].value is None
    assert "exit code 1: no more" in str(found["broken", "latency_speedup"].reason)


def test_processes_that_differ_widen_the_interval_and_queries_do_not_narrow_it() -> None:
    apart = np.repeat(np.array([[1.0], [1.1], [1.2], [1.3], [1.4]]), QUERIES, axis=1)
    rows = measure_times("there", {"one": TimedFile(apart)}, {"one": 1})
    (p50,) = rows  # without fp32 there is nothing to be faster than
    assert p50.value == pytest.approx(1.2)
    assert p50.ci95 is not None
    assert p50.ci95[0] < 1.1
    assert p50.ci95[1] > 1.3
