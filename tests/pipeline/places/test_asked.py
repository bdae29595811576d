"""Asking files at places: what agrees, what saturates, and places that are not there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_models import build_model
from small_run import write_run

from foundation.child import child_environment
from foundation.errors import ExitCode, UsageError
from foundation.measurements import Measurement, Where
from foundation.places import PlaceRecord, read_place, read_places, with_earlier, write_place
from foundation.processor import detect_cpu
from foundation.progress import Silent
from foundation.record import read_record, write_record
from foundation.run_folder import RunFolder
from pipeline.custody.check import check_run
from pipeline.places import asked, of_run
from pipeline.places.asked import AskedFile, Inquiry, ask_places
from pipeline.places.keep import keep_places
from pipeline.places.reasons import why_otherwise
from pipeline.places.text import exit_code_of_places, notes_of
from stages.saliency_twin.twin_file import make_twin
from stages.validate.accuracy import AccuracySettings
from stages.validate.places.here import HERE
from stages.validate.places.measure import AskedImages
from stages.validate.places.place import Place
from stages.validate.places.protocol import Question
from stages.validate.places.settings import PlacesSettings

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8)).astype(np.uint8)
LABELS = np.arange(12) % 3


def crashing(tmp_path: Path) -> Place:
    script = tmp_path / "crash.py"
    script.write_text("import os\nos.kill(os.getpid(), 9)\n")
    return replace(HERE, kind="emulated", command=lambda job: [sys.executable, str(script), str(job)])


@pytest.fixture
def inquiry(tmp_path: Path) -> Inquiry:
    model = build_model(tmp_path / "fp32.onnx")
    file = AskedFile("fp32", model.path, model.sha256, make_twin(model.path, None, None, None))
    known = AskedImages(LABELS, ("a", "b", "c"), tuple(str(index) for index in range(12)))
    return Inquiry((file,), IMAGES, known, np.array([0, 1], np.int64), "d" * 64, AccuracySettings(), 20.0)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Place]:
    table = {
        "mirror": replace(HERE, what="a mirror"),
        "emulated": replace(HERE, kind="emulated"),
        "crash": crashing(tmp_path),
        "missing": replace(HERE, why_not=lambda: "missing: install it with `make`"),
    }
    monkeypatch.setattr(asked, "PLACES", table)
    monkeypatch.setattr(of_run, "PLACES", table)
    return table


def values(place: PlaceRecord) -> dict[str, float | None]:
    return {row.metric: row.value for row in place.measurements}


def test_a_mirror_agrees_in_everything(inquiry: Inquiry, places: dict[str, Place]) -> None:
    (found,) = ask_places(inquiry, ("mirror",), Silent())
    of = values(found)
    assert of["place_agreement"] == of["place_bit_equal"] == 1.0
    assert of["place_largest_difference"] == 0.0
    assert of["place_saliency_spearman"] == pytest.approx(1.0)
    assert of["place_logits_sqnr_db"] == pytest.approx(144.49, abs=0.01)
    (accuracy,) = (row for row in found.measurements if row.metric == "accuracy")
    assert accuracy.difference is not None
    assert (accuracy.difference.value, accuracy.n) == (0.0, 12)
    assert {row.where.place for row in found.measurements} == {"mirror"}
    assert (of["latency_p50_ms"] or 0) > 0
    assert of["latency_speedup"] == 1.0
    assert found.data_sha256 == "d" * 64
    assert exit_code_of_places([found], None) == ExitCode.PASSED


def test_no_time_comes_from_an_emulator(inquiry: Inquiry, places: dict[str, Place]) -> None:
    (found,) = ask_places(inquiry, ("emulated",), Silent())
    assert "latency_p50_ms" not in values(found)


def test_what_breaks_or_is_missing_costs_its_own_numbers(inquiry: Inquiry, places: dict[str, Place]) -> None:
    crash, missing, mirror = ask_places(inquiry, ("crash", "missing", "mirror"), Silent())
    assert set(values(crash).values()) == {None}
    assert "was killed by signal 9" in str(crash.measurements[0].reason)
    assert missing.reason == "missing: install it with `make`"
    assert values(mirror)["place_agreement"] == 1.0
    assert exit_code_of_places([crash, mirror], ExitCode.PASSED) == ExitCode.INCOMPLETE
    told = "\n".join(notes_of([crash, missing]))
    assert "killed by signal 9" in told
    assert "install it with `make`" in told


def test_a_place_becomes_part_of_a_run_and_its_gates_are_judged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    gate = {"metric": "place_agreement", "variant": "static-int8", "place": "arm64", "at_least": 0.995}
    write_record(run, replace(read_record(run), configuration={"gates": [gate]}))
    where = Where(split="test", place="arm64")
    row = Measurement("place_agreement", 0.96, "share", "static-int8", where, 50)
    found = PlaceRecord("arm64", "emulated", "ARM", read_record(run).data_sha256, {}, {"python": "3"}, (row,))
    record = keep_places(run, [found])
    assert [(one.status, one.value) for one in record.verdicts] == [("failed", 0.96)]
    assert record.exit_code == ExitCode.GATE_FAILED
    assert check_run(run, None).exit_code == ExitCode.PASSED
    page = (run.report / "index.html").read_text()
    assert "At other places the same files answered the same images" in page
    assert "96.0" in page


def test_a_failed_attempt_leaves_what_was_answered_before(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    where = Where(split="test", place="arm64")
    row = Measurement("place_agreement", 1.0, "share", "static-int8", where, 50)
    found = PlaceRecord("arm64", "emulated", "ARM", read_record(run).data_sha256, {}, {}, (row,))
    keep_places(run, [found])
    record = keep_places(run, [replace(found, measurements=(), reason="it hung")])
    assert [one.reason for one in read_places(run, record)] == [None]


def test_files_that_a_place_was_not_asked_about_now_keep_their_numbers(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for name, value in (("a", 0.9), ("b", 0.8), ("a", 0.7)):
        row = Measurement("place_agreement", value, "share", name, Where(split="test", place="arm64"), 50)
        found = PlaceRecord("arm64", "emulated", "ARM", "d" * 64, {name: name * 64}, {}, (row,))
        path = run.places / "arm64.json"
        write_place(run, with_earlier(found, read_place(path)) if path.exists() else found)
    joined = read_place(path)
    assert {one.variant: one.value for one in joined.measurements} == {"a": 0.7, "b": 0.8}
    assert joined.files == {"a": "a" * 64, "b": "b" * 64}


def test_a_run_that_was_edited_takes_no_place(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.measurements.write_text("[]")
    with pytest.raises(UsageError, match="expected sha256"):
        keep_places(run, [PlaceRecord("arm64", "emulated", "ARM", None, {}, {}, ())])


@pytest.mark.parametrize("maps", [0, 2])
def test_one_file_and_a_folder_of_images_need_no_run(tmp_path: Path, places: dict[str, Place], maps: int) -> None:
    model = build_model(tmp_path / "small.onnx", size=16)
    (tmp_path / "images").mkdir()
    for index, pixels in enumerate(np.random.default_rng(1).integers(0, 256, (4, 16, 16)).astype(np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    (found,) = of_run.verify_file(
        model.path, tmp_path / "images", PlacesSettings.model_construct(at=("mirror",), images=4, maps=maps), Silent()
    )
    assert values(found)["place_bit_equal"] == 1.0
    assert "accuracy" not in values(found)


def test_a_file_built_to_saturate_is_named_where_it_does(tmp_path: Path) -> None:
    path = saturating_file(tmp_path / "u8s8.onnx")
    question = Question("u8s8", path, {"image": np.full((2, 8), 255, np.uint8)}, ("logits",), 1)
    low = Measurement("place_logits_sqnr_db", 3.0, "dB", "u8s8", Where(place="x86-avx2"))
    (told,) = why_otherwise("x86-avx2", question, None, [low], [])
    assert told.startswith("saturates: this processor adds products of uint8 and int8 in 16 bits")
    assert "the head (100.0% of its outputs)" in told
    assert why_otherwise("arm64", question, None, [low], []) == ()
    assert why_otherwise("x86-avx2", question, None, [replace(low, value=140.0)], []) == ()


def test_nodes_that_fell_back_are_counted_and_named(tmp_path: Path) -> None:
    question = Question("f", tmp_path / "f.onnx", {}, (), 1)
    (told,) = why_otherwise(
        "openvino", question, {"OpenVINOExecutionProvider": {"Conv": 3}, "CPUExecutionProvider": {"Gemm": 1}}, [], []
    )
    assert told == "1 of 4 nodes fell back to the processor's own provider: Gemm × 1."
    assert why_otherwise("arm64", question, {"CPUExecutionProvider": {"Gemm": 1}}, [], []) == ()


@pytest.mark.parametrize(
    ("interval", "is_told"), [((0.97, 1.01), False), ((0.9, 0.99), True), ((1.1, 1.2), False), (None, True)]
)
def test_a_file_is_slower_where_the_interval_of_its_speed_says_so(
    tmp_path: Path, interval: tuple[float, float] | None, is_told: bool
) -> None:
    question = Question("int8", build_model(tmp_path / "small.onnx").path, {}, (), 1)
    times = [Measurement("latency_p50_ms", value, "ms", name) for name, value in (("int8", 0.326), ("fp32", 0.325))]
    speed = [] if interval is None else [Measurement("latency_speedup", 0.98, "×", "int8", ci95=interval)]
    told = why_otherwise("openvino", question, None, [times[0], *speed], [times[1]])
    assert any("slower there" in one for one in told) == is_told


@pytest.mark.parametrize("text", ["", "arm65", "arm64,,x86"])
def test_an_unknown_place_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--on: expected some of x86-avx2, arm64"):
        of_run.known_places(text)


def test_the_command_line_tells_what_is_here(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "places", "--json"],
        capture_output=True, text=True, check=True, env=child_environment({"XDG_CACHE_HOME": str(tmp_path)}),
    )  # fmt: skip
    import json

    found = {one["place"]: one for one in json.loads(done.stdout)}
    assert found["arm64"]["commands"][0].endswith("onnxruntime==1.24.4 numpy==2.4.6")
    assert found["node"]["installed"] is False
    assert found["wasm"]["kind"] == "real"
    assert found["qnn-htp"]["kind"] == "emulated"


@pytest.mark.long
def test_saturation_is_measured_on_the_processor_without_vnni(tmp_path: Path) -> None:
    from stages.validate.places import PLACES
    from stages.validate.places.asking import ask

    why_not = PLACES["x86-avx2"].why_not()
    if why_not is not None:
        pytest.skip(why_not)
    question = Question(
        "u8s8", saturating_file(tmp_path / "u8s8.onnx"), {"image": np.full((2, 8), 255, np.uint8)}, ("logits",), 1
    )
    here, there = (
        ask(name, place, [question]).outputs["u8s8"]["logits"]
        for name, place in (("here", HERE), ("x86-avx2", PLACES["x86-avx2"]))
    )
    if detect_cpu().target == "x86-vnni":
        assert here.max() == pytest.approx(255 * 127 * 8, rel=1e-6)
    assert there.max() == pytest.approx(32_767 * 4, rel=1e-6)


def saturating_file(path: Path) -> Path:
    """Write image → a linear layer of uint8 by int8 whose every pair of products is twice what 16 bits hold."""
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "one", "zero"], ["pixels"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero_signed"], ["kernel"]),
        helper.make_node("MatMul", ["pixels", "kernel"], ["sums"], name="the head"),
        helper.make_node("Identity", ["sums"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturates",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.full((8, 3), 127, np.int8), "weights"),
            numpy_helper.from_array(np.float32(1.0), "one"),
            numpy_helper.from_array(np.uint8(0), "zero"),
            numpy_helper.from_array(np.int8(0), "zero_signed"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path
