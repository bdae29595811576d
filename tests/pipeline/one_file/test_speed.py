"""A compiled file is timed beside the float file, and slower is said only where the whole interval says it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import classifier, write, write_images

from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.progress import Silent
from onnx_files.preprocessing import Preprocessing
from pipeline.one_file.compile_file import compile_file
from pipeline.one_file.options import request_for
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.speed import Speed, measure_speed
from pipeline.one_file.text import compiled_table

IMAGE = np.zeros((3, 24, 24), dtype=np.uint8)


class Process:
    """Answers as a worker does; every query takes the file's time times this process's own factor."""

    def __init__(self, milliseconds: Mapping[str, float], factor: float) -> None:
        self.milliseconds, self.factor, self.file = milliseconds, factor, ""

    def ask(self, message: Mapping[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        if message is None:
            return {"peak_memory_bytes": 1}
        if "queries" in message:
            took = self.milliseconds.get(self.file, 1.0) * self.factor
            return {"durations_ns": [int(1e6 * took)] * message["queries"]}
        self.file = Path(message.get("model", "")).stem
        if self.milliseconds.get(self.file) == 0:
            raise StageError("the worker ended with status 9")
        names = ("nodes_on_provider", "idle_memory_bytes", "load_ns", "preprocessing_ns", "first_inference_ns")
        return dict.fromkeys(names, 1)


def starting(milliseconds: Mapping[str, float]) -> tuple[list[Process], Callable[[], Any]]:
    started: list[Process] = []

    @contextmanager
    def start() -> Iterator[Process]:
        started.append(Process(milliseconds, 1.0))
        yield started[-1]

    return started, start


@pytest.fixture
def pair(tmp_path: Path) -> tuple[OnnxModel, OnnxModel]:
    import onnx

    model = classifier()
    onnx.helper.set_model_props(model, Preprocessing("float32", (0.5,) * 3, (0.25,) * 3, 24).to_metadata())
    paths = [write(model, tmp_path / f"{name}.onnx") for name in ("float", "small")]
    return OnnxModel("float", paths[0], "", None), OnnxModel("fp32", paths[1], "", None)


@pytest.mark.parametrize(
    ("milliseconds", "ratio", "slower"), [(2.0, 1.5, False), (6.0, 0.5, True), (3.1, 0.968, False)]
)
def test_the_ratio_is_that_of_the_two_times(
    pair: tuple[OnnxModel, OnnxModel], milliseconds: float, ratio: float, slower: bool
) -> None:
    started, start = starting({"float": 3.0, "small": milliseconds})
    reference, compiled = pair
    (found,) = measure_speed(reference, (compiled,), IMAGE, 1, lambda done, total: None, start)
    assert found.ratio == pytest.approx(ratio, abs=1e-3)
    assert found.ci95 == pytest.approx((ratio, ratio), abs=1e-3)
    assert (found.processes, found.is_slower) == (3, slower)
    assert len(started) == 9  # three of each file, and of the kernel


def test_a_file_that_cannot_be_timed_has_the_reason(pair: tuple[OnnxModel, OnnxModel]) -> None:
    _, start = starting({"float": 3.0, "small": 0})
    reference, compiled = pair
    (found,) = measure_speed(reference, (compiled,), IMAGE, 1, lambda done, total: None, start)
    assert found == Speed(None, None, 0, "the worker ended with status 9")
    assert not found.is_slower


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledFile:
    folder = tmp_path_factory.mktemp("speed")
    path = write(classifier(), folder / "theirs.onnx")
    values = {"images": write_images(folder / "images", 12), "mean": "0.5", "std": "0.25", "limit": 8}
    return compile_file(request_for(path, {**values, "method": "weight-only"}), Silent())


@pytest.mark.parametrize(
    ("speed", "told", "worse"),
    [
        (Speed(1.9, (1.7, 2.1), 3), "1.90× as fast (1.70–2.10×), one thread, 3 processes of each file", None),
        (Speed(1.1, (0.9, 1.3), 3), "not distinguishable (0.900–1.30×)", None),
        (Speed(0.95, (0.93, 0.97), 3), "0.950× as fast (0.930–0.970×)", None),
        (Speed(0.8, (0.7, 0.9), 3), "0.800× as fast", "slower than the float file: 0.800× as fast (0.700–0.900×)."),
        (Speed(None, None, 0, "it hung"), "not measured: it hung", None),
    ],
)
def test_the_speed_is_told_and_slower_is_worse(
    compiled: CompiledFile, speed: Speed, told: str, worse: str | None
) -> None:
    from rich.console import Console

    found = replace(compiled, speed=speed)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compiled_table(found))
    assert told in " ".join(console.export_text().replace("│", " ").split())
    assert found.worse == () if worse is None else worse in found.worse[0]
    assert found.as_json()["speed"]["ratio"] == speed.ratio
