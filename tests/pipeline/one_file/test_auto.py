"""`edgeproof quantize MODEL.onnx` without a method: several are tried, one is kept, and all are told of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_files import classifier, write, write_images
from onnx import ModelProto
from onnx.parser import parse_model
from told_table import shown

from foundation.artifacts import OnnxModel
from foundation.errors import ExitCode, UsageError
from foundation.notes import AutoNotes
from foundation.progress import Silent
from pipeline.one_file import compile_file as compile_file_module
from pipeline.one_file.auto import requests_of
from pipeline.one_file.compile_file import compile_file
from pipeline.one_file.options import CompileRequest, request_for, settings_for
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.speed import Speed, speed_of

METHODS = ("static", "mixed", "dynamic", "weight_only")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 48)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say how many times as fast as the float file each method's file is, which lies in a folder of that name."""

    def plant(**ratios: float) -> None:
        def measured(reference: OnnxModel, compiled: Sequence[OnnxModel], *asked: object) -> tuple[Speed, ...]:
            found = [ratios.get(model.path.parent.name.replace("-", "_"), 1.0) for model in compiled]
            return tuple(speed_of(np.log([0.99 * ratio, ratio, 1.01 * ratio])) for ratio in found)

        monkeypatch.setattr(compile_file_module, "measure_speed", measured)

    return plant


def compiled(model: ModelProto, images: Path | None, folder: Path, **options: object) -> CompiledFile:
    path = write(model, folder / "theirs.onnx")
    values = {"images": images, "mean": "0.5", "std": "0.25", "limit": 8, **options}
    return compile_file(request_for(path, values), Silent())


def notes_of(found: CompiledFile) -> AutoNotes:
    assert isinstance(found.compiled.notes, AutoNotes)
    return found.compiled.notes


@pytest.mark.parametrize("fastest", METHODS)
def test_the_file_is_that_of_the_method_that_was_fastest(
    fastest: str, images: Path, tmp_path: Path, planted: Callable[..., None]
) -> None:
    planted(**{**dict.fromkeys(METHODS, 1.2), fastest: 1.9})
    found = compiled(classifier(), images, tmp_path, agreement=0.5)
    assert found.compiled.path == tmp_path / "theirs.auto.onnx"
    assert notes_of(found).chosen == fastest.replace("_", "-")
    assert notes_of(found).why == "the fastest"
    assert found.speed.ratio == pytest.approx(1.9, abs=1e-3)
    assert found.worse == ()
    assert OnnxModel.read(found.compiled.path) == found.compiled
    (tmp_path / "named").mkdir()
    output = tmp_path / "named" / "theirs.auto.onnx"
    by_name = compiled(classifier(), images, tmp_path, method=fastest, output=output)
    assert by_name.compiled.sha256 == found.compiled.sha256
    assert by_name.compiled.settings == found.compiled.settings


def test_every_method_is_told_of_in_the_record_and_on_the_terminal(
    images: Path, tmp_path: Path, planted: Callable[..., None]
) -> None:
    planted(static=1.9, mixed=1.3, dynamic=1.2, weight_only=1.0)
    found = compiled(classifier(), images, tmp_path, agreement=0.5)
    record = json.loads((tmp_path / "theirs.auto.json").read_text())
    methods = record["notes"]["methods"]
    assert [one["method"] for one in methods] == ["static", "mixed", "dynamic", "weight-only"]
    assert [one["speedup"]["value"] for one in methods] == pytest.approx([1.9, 1.3, 1.2, 1.0], abs=1e-3)
    assert [one["why_not"] for one in methods] == ["", "not as fast", "not as fast", "not as fast"]
    assert methods[0]["size_bytes"] == found.compiled.size_bytes
    assert methods[0]["logits_sqnr_db"] < methods[3]["logits_sqnr_db"]
    # 40 images are left over: two thirds choose, the others say what the choice is worth.
    assert {one["agreement"]["n"] for one in methods} == {27}
    assert found.agreement is not None
    assert (found.scored_images, found.agreement.images) == (27, 13)
    text = shown(found)
    assert "calibrated on 8, chosen on 27, compared on 13" in text
    assert "static: the fastest" in text
    assert "1.20×" in text
    assert "without VNNI" in text  # what is told of a static file is told of a chosen one too


def test_a_faster_method_that_answers_otherwise_is_passed_over(
    images: Path, tmp_path: Path, planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(static=3.0, dynamic=1.1, weight_only=1.2)
    monkeypatch.setattr(compile_file_module, "measure_agreement", worse_for_static)
    found = compiled(classifier(), images, tmp_path, recovery="none")
    assert notes_of(found).file.method == "weight_only"
    static = notes_of(found).methods[0]
    assert static.misses == {"agreement": pytest.approx(0.95 - 0.9)}
    assert static.why_not == "answers otherwise"
    loosened = compiled(classifier(), images, tmp_path, agreement=0.9)
    assert notes_of(loosened).file.method == "static"
    assert [one.method for one in notes_of(loosened).methods] == ["static", "mixed", "dynamic", "weight-only"]


def test_a_file_that_would_be_the_fastest_but_for_its_answers_is_rounded_for_them(
    images: Path, tmp_path: Path, planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(**{"static": 3.0, "mixed": 2.0, "dynamic": 1.1, "weight_only": 1.2, "static, rounding": 2.9})
    monkeypatch.setattr(compile_file_module, "measure_agreement", worse_for_static)
    found = compiled(classifier(), images, tmp_path)
    assert notes_of(found).chosen == "static, rounding"
    assert [(one.method, one.why_not) for one in notes_of(found).methods] == [
        ("static", "answers otherwise"),
        ("mixed", "answers otherwise"),
        ("dynamic", "not as fast"),
        ("weight-only", "not as fast"),
        ("static, rounding", ""),
    ]
    assert found.speed.ratio == pytest.approx(2.9, abs=1e-3)  # its own, not that of the file before
    (tmp_path / "named").mkdir()
    output = tmp_path / "named" / "theirs.auto.onnx"
    by_name = compiled(classifier(), images, tmp_path, method="static", recovery="rounding", output=output)
    assert by_name.compiled.sha256 == found.compiled.sha256
    assert "static, rounding: the fastest" in shown(found)


def test_nothing_is_rounded_anew_where_it_would_make_no_file_faster(
    images: Path, tmp_path: Path, planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_file_module, "measure_agreement", worse_for_static)
    for ratios in ({"static": 0.9, "dynamic": 1.1}, {"static": 1.5, "mixed": 1.5, "dynamic": 1.6}):
        planted(**ratios)
        found = compiled(classifier(), images, tmp_path)
        assert notes_of(found).chosen == "dynamic"
        assert len(notes_of(found).methods) == 4


def worse_for_static(reference: Path, compiled: Path, *asked: object) -> object:
    from pipeline.one_file.agreement import Agreement

    same = 0.9 if compiled.parent.name in ("static", "mixed") else 1.0
    return Agreement(40, same, (same - 0.05, 1.0), 30.0, {"answers": 30.0})


def test_where_none_fits_the_nearest_is_written_marked_and_ends_with_code_1(
    images: Path, tmp_path: Path, planted: Callable[..., None]
) -> None:
    import typer

    from pipeline.commands import compile_model

    planted(static=0.5, mixed=0.5, dynamic=0.6, weight_only=0.9)
    found = compiled(classifier(), images, tmp_path, agreement=0.5)
    assert notes_of(found).file.method == "weight_only"
    assert notes_of(found).misses == {"speed": pytest.approx(0.1, abs=1e-3)}
    record = json.loads((tmp_path / "theirs.auto.json").read_text())
    assert record["notes"]["misses"] == notes_of(found).misses
    first, second = found.worse
    assert first == (
        "No method keeps every limit: the best, weight-only, misses speed by 10 %. Keep the float file, or take it "
        "with --accept-worse."
    )
    assert second.startswith("It is slower than the float file: 0.900× as fast")
    options = {"images": images, "mean": "0.5", "std": "0.25", "limit": 8, "agreement": 0.5}
    with pytest.raises(typer.Exit) as ended:
        compile_model(found.source, options, True, True)
    assert ended.value.exit_code == ExitCode.GATE_FAILED
    compile_model(found.source, options, True, True, accept_worse=True)  # ends without an exit: code 0


def only_small_layers() -> ModelProto:
    """Return a model of 45 weights, too few for weight-only."""
    model = parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> small (float[n, 3, 8, 8] image) => (float[n, 5] answers)'
        " { c = Conv (image, w) p = GlobalAveragePool (c) answers = Flatten (p) }"
    )
    weight = np.random.default_rng(0).normal(0, 1, (5, 3, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def test_a_method_that_can_make_no_file_is_told_with_its_reason_and_the_others_go_on(
    images: Path, tmp_path: Path, planted: Callable[..., None]
) -> None:
    planted(static=1.1, dynamic=1.5, weight_only=9.0)
    found = compiled(only_small_layers(), images, tmp_path, agreement=0.0)
    *made, weight_only = notes_of(found).methods
    assert [one.method for one in made if one.size_bytes is not None] == ["static", "dynamic"]
    assert weight_only.size_bytes is None
    assert weight_only.speedup is None
    assert weight_only.why_not.startswith("cannot be made: ")
    assert f"{tmp_path / 'theirs.onnx'}: expected a layer of 1024 weights or more" in weight_only.why_not
    text = shown(found)
    assert "weight-only – – – – cannot be made" in text


def test_a_mixed_file_turns_fewer_numbers_into_integers_and_is_refused_where_it_would_be_none(
    images: Path, tmp_path: Path, planted: Callable[..., None]
) -> None:
    planted()

    def conversions(method: str) -> int:
        found = compiled(classifier(), images, tmp_path, method=method)
        return sum(node.op_type == "QuantizeLinear" for node in onnx.load(found.compiled.path).graph.node)

    assert 0 < conversions("mixed") < conversions("static")
    with pytest.raises(UsageError, match="faster in float, and others in integers; found every layer is"):
        compiled(only_small_layers(), images, tmp_path, method="mixed")


def test_what_is_wrong_for_every_method_is_said_as_each_of_them_says_it(images: Path, tmp_path: Path) -> None:
    broken = np.zeros((5, 128))
    broken[0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(UsageError, match="expected finite weights, found 3 that are not"):
        compiled(classifier(changed={"w4": broken}), images, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.onnx"]


def test_without_images_to_compare_on_nothing_is_chosen(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found none beside 48\. .*calibrate on fewer \(--limit\)"):
        compiled(classifier(), images, tmp_path, limit=48)
    with pytest.raises(UsageError, match="--images: expected a folder of images to choose a method by"):
        compiled(classifier(), None, tmp_path, limit=None)


def test_options_go_to_the_methods_that_have_a_use_for_them(tmp_path: Path) -> None:
    request = CompileRequest(
        tmp_path / "m.onnx", calibration="entropy", target="x86-avx2", agreement=0.9, seed=4, limit=7
    )
    static, mixed, dynamic, weight_only = (settings_for(one, 9).model_dump() for one in requests_of(request))
    assert mixed == {**static, "float_regions": True}
    assert static.items() >= {"method": "static", "calibration": "entropy", "target": "x86-avx2", "seed": 4}.items()
    assert dynamic.items() >= {"method": "dynamic", "reduce_range": True}.items()
    assert weight_only.items() >= {"method": "weight_only", "bits": 8}.items()
    with pytest.raises(UsageError, match=r"--agreement: input should be less than or equal to 1, found 1\.5"):
        settings_for(CompileRequest(tmp_path / "m.onnx", agreement=1.5), 9)
    with pytest.raises(UsageError, match="--bits: auto has no choice of bits"):
        settings_for(CompileRequest(tmp_path / "m.onnx", bits=4), 9)
