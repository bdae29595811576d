"""A candidate timed at the place that the search compiles for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quantizable import float_proto, prepared_data, write_float_model
from small_models import build_model

from foundation.errors import StageError
from stages.search import at_place, candidates
from stages.search.at_place import place_for, speedup_at
from stages.search.study import TunedSettings
from stages.search.tuned import tune
from stages.validate.places import PLACES, turns
from stages.validate.places.here import HERE

IMAGE = np.zeros((1, 8, 8), np.uint8)


@pytest.fixture
def here_as_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_place, "PLACES", {**PLACES, "openvino": HERE})


def test_a_target_is_timed_at_its_real_place_where_that_is_installed(
    here_as_openvino: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    targets = ("auto", "x86-vnni", "x86-avx2", "arm64", "wasm", "openvino", "qnn-htp")
    assert [target for target in targets if place_for(target)] == ["openvino"]


def test_the_speed_of_a_file_against_itself_is_about_one_over_five_processes(
    here_as_openvino: None, tmp_path: Path
) -> None:
    path = build_model(tmp_path / "small.onnx").path
    found = speedup_at("openvino", path, path, IMAGE)
    assert found.n == 5
    assert found.ci95 is not None
    assert found.ci95[0] < found.value < found.ci95[1]
    assert 0.2 < found.value < 5


def test_a_file_that_the_place_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    breaks = replace(HERE, command=lambda job: ["python3", "-c", "import sys; sys.exit('no such operator')"])
    monkeypatch.setattr(at_place, "PLACES", {"openvino": breaks})
    path = build_model(tmp_path / "small.onnx").path
    with pytest.raises(StageError, match=r"openvino: .*no such operator"):
        speedup_at("openvino", path, path, IMAGE)


def test_a_search_says_where_it_timed_and_begins_anew_where_that_changes(
    here_as_openvino: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(turns, "PROCESSES", 2)
    monkeypatch.setattr(candidates, "MOST_SPREAD", math.inf)  # two processes tell little of a speed
    fp32 = write_float_model(tmp_path / "fp32.onnx", float_proto())
    settings = TunedSettings(
        accuracy_drop=1.0, agreement=0.0, saliency_spearman=-1.0, trials=1, images=16, scored_images=20,
        explained_images=6, latency_rounds=5, target="openvino",
    )  # fmt: skip
    journal = tmp_path / "tuned.search.jsonl"

    def searched() -> object:
        return tune(fp32, "tuned", settings, prepared_data(), tmp_path / "tuned.onnx", "a", lambda *_: None).notes

    assert searched().timed_at == "openvino"
    assert searched().search[0].measured.speedup.n == 2
    monkeypatch.setattr(at_place, "PLACES", {**PLACES, "openvino": replace(HERE, why_not=lambda: "not installed")})
    assert searched().timed_at is None
    names = {name for line in journal.read_text().splitlines() if (name := json.loads(line).get("study_name"))}
    assert names == {"a", "a timed at openvino"}
