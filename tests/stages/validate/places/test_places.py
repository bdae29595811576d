"""Every place that is installed here answers a small file; the others say how to install them."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_models import build_model

from foundation.errors import NotMeasuredError, StageError
from foundation.processor import Cpu
from stages.saliency_twin.twin_file import make_twin
from stages.validate.places import PLACES, openvino, wasm, x86_avx2
from stages.validate.places.asking import ask
from stages.validate.places.here import HERE
from stages.validate.places.place import MARKER, folder_of, marker_of, why_not_installed
from stages.validate.places.protocol import PlaceAnswer
from stages.validate.places.questions import ask_model, ask_twin

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.uint8)
TARGETS = np.zeros(3, np.int64)
WITHIN = {"x86-avx2": 1e-5, "arm64": 1e-5, "node": 1e-5, "wasm": 1e-5, "openvino": 1e-3, "openvino-bf16": 0.1}


def needed(name: str) -> None:
    why_not = PLACES[name].why_not()
    if why_not is not None:
        pytest.skip(why_not)


@pytest.mark.long
@pytest.mark.parametrize("name", PLACES)
def test_a_place_answers_as_here(name: str, tmp_path: Path) -> None:
    needed(name)
    model = build_model(tmp_path / "small.onnx")
    asked = ask_model("small", model.path, IMAGES, 1)
    there, here = (ask(one, place, [asked.question]) for one, place in ((name, PLACES[name]), ("here", HERE)))
    difference = np.abs(asked.logits(there.outputs["small"]) - asked.logits(here.outputs["small"])).max()
    assert difference <= WITHIN.get(name, 0.02)
    assert there.versions
    assert ("small" in there.times_ms) == (PLACES[name].kind == "real")


@pytest.mark.long
@pytest.mark.parametrize("name", ["x86-avx2", "arm64", "node", "wasm", "openvino"])
def test_a_twin_draws_there_what_it_draws_here(name: str, tmp_path: Path) -> None:
    needed(name)
    twin = make_twin(build_model(tmp_path / "small.onnx").path, None, None, None)
    asked = ask_twin("small", twin, IMAGES, TARGETS, 1)
    there, here = (ask(one, place, [asked.question]) for one, place in ((name, PLACES[name]), ("here", HERE)))
    maps = [asked.maps(one.outputs["small.saliency"]) for one in (there, here)]
    assert np.abs(maps[0] - maps[1]).max() <= 1e-6 * np.abs(maps[1]).max() + 1e-9


def test_unfused_leaves_a_batch_normalization_beside_its_convolution(tmp_path: Path) -> None:
    small = build_model(tmp_path / "small.onnx")
    model = onnx.load(small.path)
    number, convolution = next((at, node) for at, node in enumerate(model.graph.node) if node.op_type == "Conv")
    output, channels = convolution.output[0], len(numpy_helper.to_array(weights_of(model)[convolution.input[1]]))
    convolution.output[0] = "before"
    statistics = np.random.default_rng(1).uniform(0.5, 2, (4, channels)).astype(np.float32)
    names = ["gain", "offset", "mean", "variance"]
    model.graph.initializer.extend(map(numpy_helper.from_array, statistics, names))
    normalization = onnx.helper.make_node("BatchNormalization", ["before", *names], [output])
    model.graph.node.insert(number + 1, normalization)
    onnx.save(model, small.path)
    asked = ask_model("small", small.path, IMAGES, 1)
    unfused, here = (
        asked.logits(ask(name, place, [asked.question]).outputs["small"])
        for name, place in (("unfused", PLACES["unfused"]), ("here", HERE))
    )
    assert 0 < np.abs(unfused - here).max() <= 1e-5 * np.abs(here).max()  # folded into the weights here, by rounding


def weights_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def test_openvino_computes_in_what_its_place_says_and_names_an_operator_that_it_has_no_rule_for(
    tmp_path: Path,
) -> None:
    needed("openvino")
    small = build_model(tmp_path / "small.onnx")
    asked = ask_model("small", small.path, IMAGES, 1).question
    unknown = onnx.load(small.path)
    unknown.graph.node[-1].output[0] = "before"
    unknown.graph.node.append(
        onnx.helper.make_node("Blend", ["before"], [unknown.graph.output[0].name], domain="com.example")
    )
    unknown.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(unknown, tmp_path / "unknown.onnx")
    questions = [replace(asked, name="unknown", path=tmp_path / "unknown.onnx"), asked]
    found = ask("openvino", PLACES["openvino"], questions)
    assert found.errors == {"unknown": "OpenVINO has no rule for the operator com.example.Blend"}
    assert found.placements["small"]["OpenVINO in f32"]["Convolution"] > 0
    assert "openvino" in found.versions
    assert "onnxruntime" not in found.versions
    if PLACES["openvino-bf16"].why_not() is None:
        half = ask("openvino-bf16", PLACES["openvino-bf16"], [asked])
        assert half.placements["small"]["OpenVINO in bf16"]["Convolution"] > 0


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (("avx512_bf16",), None),
        (("amx_bf16",), None),
        (("avx512f", "avx512_vnni"), "with AVX512_BF16 or AMX, found one without"),
    ],
)
def test_bfloat16_is_asked_of_a_processor_that_has_it(
    features: tuple[str, ...], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "detect_cpu", lambda: Cpu("a processor", 2, features, "x86-vnni"))
    monkeypatch.setattr(openvino, "_why_not", lambda: None)
    why_not = PLACES["openvino-bf16"].why_not()
    assert why_not is None if told is None else told in str(why_not)


@pytest.mark.long
def test_qemu_without_the_right_processor_is_no_place(tmp_path: Path) -> None:
    needed("x86-avx2")
    place = replace(x86_avx2.PLACE, command=lambda job: x86_avx2.command_on("qemu64", job))
    question = ask_model("small", build_model(tmp_path / "small.onnx").path, IMAGES, 1).question
    with pytest.raises((NotMeasuredError, StageError), match=r"AVX2|signal 4|exit code"):
        ask("x86-avx2", place, [question])


@pytest.mark.parametrize(
    ("machine", "features", "told"),
    [
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), "found x86_64 with avx2, avx512_vnni, avx512f"),
        ("x86_64", ("avx2", "avx_vnni"), "found x86_64 with avx2, avx_vnni"),
        ("x86_64", (), "found x86_64 with none of them"),
        ("x86_64", None, "found x86_64 with none of them"),
        ("aarch64", ("avx2",), "found aarch64"),
    ],
)
def test_a_processor_that_adds_exactly_is_not_the_one_without_vnni(
    machine: str, features: tuple[str, ...] | None, told: str
) -> None:
    with pytest.raises(NotMeasuredError, match=told):
        x86_avx2.refuse_other_processors(PlaceAnswer(1, {}, machine, features, {}))
    x86_avx2.refuse_other_processors(PlaceAnswer(1, {}, "x86_64", ("avx2",), {}))


@pytest.mark.long
def test_a_browser_without_simd_says_so(tmp_path: Path) -> None:
    needed("wasm")
    without = ["--js-flags=--no-enable-sse4-1 --no-enable-ssse3 --no-enable-sse3"]
    place = replace(wasm.PLACE, command=lambda job: wasm.command_with(without, job))
    question = ask_model("small", build_model(tmp_path / "small.onnx").path, IMAGES, 1).question
    with pytest.raises(StageError, match="this browser has no WebAssembly SIMD, which onnxruntime-web needs"):
        ask("wasm", place, [question])


@pytest.mark.long
def test_a_browser_that_does_not_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("wasm")
    monkeypatch.setenv(wasm.OVERRIDE, str(shutil.which("false")))
    question = ask_model("small", build_model(tmp_path / "small.onnx").path, IMAGES, 1).question
    with pytest.raises(StageError, match="the browser ended by itself with exit code 1"):
        ask("wasm", wasm.PLACE, [question])


@pytest.mark.parametrize("name", PLACES)
def test_what_is_missing_is_told_with_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    why_not = PLACES[name].why_not()
    if PLACES[name].steps(tmp_path) or name == "x86-avx2":
        assert why_not is not None
        assert re.search(r"`[^`]+`|such a machine", why_not)


def test_a_half_made_installation_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    steps = lambda folder: [["npm", "install", "--prefix", str(folder), "onnxruntime-node@1.30.0"]]  # noqa: E731
    assert "found nothing" in str(why_not_installed("node", steps))
    folder = folder_of("node")
    folder.mkdir(parents=True)
    assert "half made" in str(why_not_installed("node", steps))
    (folder / MARKER).write_text(marker_of(steps(folder), folder).replace("1.30.0", "1.29.0"))
    assert "other versions" in str(why_not_installed("node", steps))
    (folder / "package").mkdir()
    (folder / "package" / "index.js").write_text("")
    (folder / MARKER).write_text(marker_of(steps(folder), folder))
    assert why_not_installed("node", steps) is None
    (folder / "package" / "index.pyc").write_text("")  # what running it leaves
    assert why_not_installed("node", steps) is None
    (folder / "package" / "index.js").unlink()
    assert "lost files" in str(why_not_installed("node", steps))
