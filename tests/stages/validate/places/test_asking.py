"""The protocol: a reference place in a process of its own, and places that hang, crash, are killed or lie."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import build_model

from foundation.artifacts import OnnxModel
from foundation.errors import NotMeasuredError, StageError
from onnx_files.sessions import open_session, predict
from stages.saliency_twin.twin_file import make_twin
from stages.validate.maps.gradients import gradient_maps
from stages.validate.maps.queries import Twin
from stages.validate.places.asking import ask
from stages.validate.places.here import HERE
from stages.validate.places.place import Place
from stages.validate.places.questions import ask_model, ask_twin

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8)).astype(np.uint8)
TARGETS = np.array([0, 2, 1, 0, 1], np.int64)


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    return build_model(tmp_path / "small.onnx")


def place_that(program: str, tmp_path: Path) -> Place:
    """A place whose process runs a few lines of Python with the job's folder in `folder`."""
    script = tmp_path / "there.py"
    script.write_text(f"import json, os, pathlib, sys, time\nfolder = pathlib.Path(sys.argv[1])\n{program}\n")
    return replace(HERE, kind="emulated", command=lambda job: [sys.executable, str(script), str(job)])


def answer_with(files: dict[str, object]) -> str:
    answer = {"format_version": 1, "versions": {"a": "1"}, "machine": "m", "features": None, "files": files}
    return f"(folder / 'answer.json').write_text({json.dumps(json.dumps(answer))})"


def test_the_reference_place_answers_as_this_process_does(model: OnnxModel) -> None:
    asked = ask_model("small", model.path, IMAGES, 1)
    done: list[tuple[int, int]] = []
    found = ask("here", HERE, [asked.question], lambda *one: done.append(one))
    expected = predict(open_session(model.path, "cpu", 1), IMAGES, 1)
    assert np.array_equal(asked.logits(found.outputs["small"]), expected)
    assert done[-1] == (5, 5)
    assert len(found.times_ms["small"]) == 5
    assert sum(found.placements["small"]["CPUExecutionProvider"].values()) > 3
    assert set(found.versions) == {"onnxruntime", "numpy", "python"}


def test_a_twin_draws_the_same_maps_there(model: OnnxModel) -> None:
    twin = make_twin(model.path, None, None, None)
    asked = ask_twin("small", twin, IMAGES, TARGETS, 1)
    found = ask("here", HERE, [asked.question])
    assert np.array_equal(
        asked.maps(found.outputs["small.saliency"]),
        gradient_maps(Twin(open_session(twin, "cpu", 1), 1), IMAGES, TARGETS),
    )


def test_an_emulator_tells_no_time(model: OnnxModel) -> None:
    found = ask("slow", replace(HERE, kind="emulated"), [ask_model("small", model.path, IMAGES, 1).question])
    assert found.times_ms == {}


def test_a_file_that_fails_costs_itself_alone(model: OnnxModel, tmp_path: Path) -> None:
    broken = replace(ask_model("small", model.path, IMAGES, 1).question, name="broken", outputs=("no such",))
    found = ask("here", HERE, [broken, ask_model("small", model.path, IMAGES, 1).question])
    assert list(found.outputs) == ["small"]
    assert "no such" in found.errors["broken"]


@pytest.mark.parametrize(
    ("program", "stall_s", "told"),
    [
        ("time.sleep(60)", 0.5, "hung: it gave no sign of life for 0.5 s"),
        ("os.kill(os.getpid(), 9)", 20, r"was killed by signal 9 \(Killed\)"),
        ("os.abort()", 20, r"was killed by signal 6"),
        ("sys.exit('no memory left')", 20, "ended with exit code 1: no memory left"),
        ("pass", 20, "gave none"),
        ("(folder / 'answer.json').write_text('{')", 20, "found none that can be read"),
        ("(folder / 'answer.json').write_text('{\"format_version\": 2}')", 20, "found none that can be read"),
    ],
)
def test_a_place_that_gives_no_answer_says_how_it_ended(
    program: str, stall_s: float, told: str, model: OnnxModel, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=told):
        ask(
            "there",
            place_that(program, tmp_path),
            [ask_model("small", model.path, IMAGES, 1).question],
            stall_s=stall_s,
        )


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ({"file": "small.0.raw", "shape": [5, 3]}, r"found the shape \[5, 3\] in 0 bytes"),
        ({"file": "../small.0.raw", "shape": [5, 3]}, "in 0 bytes"),
        ({"file": "job.json", "shape": [4, 3]}, r"found the shape \[4, 3\]"),
        ({"file": "job.json", "shape": [5, 1 << 30]}, "bytes, found the shape"),
    ],
)
def test_an_answer_of_another_size_is_none(
    output: dict[str, object], told: str, model: OnnxModel, tmp_path: Path
) -> None:
    question = ask_model("small", model.path, IMAGES, 1).question
    whole = {"outputs": [{"name": "logits", "type": "float32", **output}]}
    found = ask("there", place_that(answer_with({"small": whole}), tmp_path), [question])
    assert found.outputs == {}
    assert "expected 5 answers" in found.errors["small"]
    assert re.search(told, found.errors["small"])


def test_what_was_answered_before_a_crash_counts(model: OnnxModel, tmp_path: Path) -> None:
    first = ask_model("first", model.path, IMAGES, 1).question
    second = replace(first, name="second")
    answered = {"outputs": [{"name": "logits", "file": "x.raw", "type": "float32", "shape": [5, 3]}]}
    program = (
        f"(folder / 'x.raw').write_bytes(bytes(60))\n{answer_with({'first': answered})}\nos.kill(os.getpid(), 11)"
    )
    found = ask("there", place_that(program, tmp_path), [first, second])
    assert found.outputs["first"]["logits"].shape == (5, 3)
    assert "was killed by signal 11" in found.errors["second"]


def test_a_place_of_another_kind_is_refused(model: OnnxModel) -> None:
    def refuse(answer: object) -> None:
        raise NotMeasuredError("there: expected another processor")

    with pytest.raises(NotMeasuredError, match="expected another processor"):
        ask("there", replace(HERE, check=refuse), [ask_model("small", model.path, IMAGES, 1).question])


def test_a_place_that_is_not_there_says_how_to_get_it(model: OnnxModel) -> None:
    missing: Callable[[], str] = lambda: "there: install it"  # noqa: E731
    with pytest.raises(NotMeasuredError, match="install it"):
        ask("there", replace(HERE, why_not=missing), [ask_model("small", model.path, IMAGES, 1).question])
