"""One ONNX file in, one compiled file out: what it answers, what it says of itself, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign_files import classifier, padded_pixels, write, write_images
from onnx import TensorProto, helper
from told_table import shown

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import sha256_of_file
from foundation.progress import Silent
from onnx_files.preprocessing import METADATA_KEY, Preprocessing
from pipeline.one_file.auto import requests_of
from pipeline.one_file.compile_file import compile_file
from pipeline.one_file.input import preprocessing_for
from pipeline.one_file.options import CompileRequest, is_model, request_for, settings_for
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.text import compiled_table

MEAN, STD = "0.485,0.456,0.406", "0.229,0.224,0.225"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 24)


def compiled(model: onnx.ModelProto, images: Path | None, folder: Path, **options: object) -> CompiledFile:
    path = write(model, folder / "theirs.onnx")
    values = {"images": images, "method": "static", "mean": MEAN, "std": STD, "limit": 8, **options}
    if model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8:
        values |= {"mean": None, "std": None}
    return compile_file(request_for(path, values), Silent())


def refused(match: str, model: onnx.ModelProto, images: Path | None, folder: Path, **options: object) -> None:
    """Nothing is written where something is refused."""
    before = {path.name for path in folder.iterdir()} | {"theirs.onnx"}
    with pytest.raises(UsageError, match=match):
        compiled(model, images, folder, **options)
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "form",
    [
        {"opset": 11},
        {"opset": 13, "constant_nodes": True},
        {"opset": 21, "element_type": TensorProto.UINT8},
        {"layout": "NHWC"},
        {"layout": "NHWC", "element_type": TensorProto.UINT8},
        {"batch": 3},
        {"size": (24, 40)},
        {"channels": 1},
        {"softmax": True, "batch": 1},
    ],
    ids=str,
)
def test_static_answers_like_the_float_file(form: dict[str, object], images: Path, tmp_path: Path) -> None:
    channels = form.get("channels", 3)
    told = {} if channels == 3 else {"mean": "0.5", "std": "0.25"}
    found = compiled(classifier(**form), images, tmp_path, **told)  # type: ignore[arg-type]
    assert found.compiled.path == tmp_path / "theirs.static.onnx"
    assert (found.layers, found.float_layers) == (4, ())
    assert found.calibration_images == 8
    assert found.agreement is not None
    assert found.agreement.images == 16
    assert found.agreement.same_class is not None
    assert found.agreement.same_class >= 0.8
    assert found.agreement.logits_sqnr_db > 15
    assert found.compiled.size_bytes < 0.6 * found.source_bytes

    # The file on disk is the one described, and carries how its input is made.
    assert OnnxModel.read(found.compiled.path) == found.compiled
    assert found.compiled.parent_sha256 == sha256_of_file(tmp_path / "theirs.onnx")
    proto = onnx.load_model(found.compiled.path)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert Preprocessing.from_metadata(metadata) == found.preprocessing
    original = onnx.load_model(tmp_path / "theirs.onnx")
    assert list(proto.graph.input) == list(original.graph.input)
    assert list(proto.graph.output) == list(original.graph.output)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_chosen_rounding_answers_nearer_to_the_float_file(layout: str, images: Path, tmp_path: Path) -> None:
    plain, better = (
        compiled(classifier(layout=layout), images, tmp_path, recovery=name) for name in ("none", "rounding")
    )
    assert plain.agreement is not None
    assert better.agreement is not None
    assert plain.agreement.logits_sqnr_db is not None
    assert better.agreement.logits_sqnr_db is not None
    assert better.agreement.logits_sqnr_db > plain.agreement.logits_sqnr_db + 0.5
    (note,) = better.compiled.notes.recovery
    assert f"compensated rounding, logits SQNR {note.logits_sqnr_db_before:.1f} dB → " in shown(better)


def test_the_answers_compared_are_those_of_the_held_out_images(images: Path, tmp_path: Path) -> None:
    found = compiled(classifier(), images, tmp_path)
    assert found.folder is not None
    assert found.preprocessing is not None
    pixels = found.preprocessing.to_input(padded_pixels(images, found.folder.held_out.image_ids))
    expected, answered = (_run(path, pixels) for path in (tmp_path / "theirs.onnx", found.compiled.path))
    noise, signal = np.sum((answered - expected) ** 2), np.sum(expected**2)
    assert found.agreement is not None
    assert found.agreement.logits_sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=0.01)
    assert found.agreement.same_class == np.mean(answered.argmax(axis=1) == expected.argmax(axis=1))


def _run(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in pixels])


def test_the_same_request_gives_the_same_bytes(images: Path, tmp_path: Path) -> None:
    first, second = (
        compiled(classifier(), images, tmp_path, output=tmp_path / name) for name in ("a.onnx", "b.onnx")
    )
    contents = [path.compiled.path.read_bytes().replace(b"a.onnx", b"b.onnx") for path in (first, second)]
    assert len(contents[0]) == len(contents[1])
    assert first.folder is not None
    assert second.folder is not None
    assert first.folder.calibration.image_ids == second.folder.calibration.image_ids
    third = compiled(classifier(), images, tmp_path, output=tmp_path / "a.onnx")
    assert third.compiled.sha256 == first.compiled.sha256


@pytest.mark.parametrize("method", ["dynamic", "fp16", "weight-only", "weight_only"])
def test_methods_that_need_no_images_run_without(method: str, tmp_path: Path, images: Path) -> None:
    found = compiled(classifier(), None, tmp_path, method=method, mean=None, std=None, limit=None)
    assert found.agreement is None
    assert found.calibration_images == 0
    assert found.compiled.path.name == f"theirs.{method.replace('_', '-')}.onnx"
    with_images = compiled(classifier(), images, tmp_path, method=method)
    assert with_images.agreement is not None
    assert with_images.agreement.images == (16 if method == "fp16" else 8)  # it looks for what overflows on 8
    assert with_images.compiled.notes.method == method.replace("-", "_")


def test_metadata_of_our_own_is_enough(images: Path, tmp_path: Path) -> None:
    model = classifier(size=("h", "w"))
    told = Preprocessing("float32", (0.5,) * 3, (0.25,) * 3, 24)
    onnx.helper.set_model_props(model, told.to_metadata())
    found = compiled(model, images, tmp_path, mean=None, std=None)
    assert found.preprocessing == told
    # Options come before it.
    found = compiled(model, images, tmp_path, image_size="16x20", mean="127.5", std="255", scale=255)
    assert found.preprocessing == Preprocessing("float32", (0.5,) * 3, (1.0,) * 3, 16, 20)


def test_without_images_to_spare_agreement_is_not_measured(images: Path, tmp_path: Path) -> None:
    found = compiled(classifier(), images, tmp_path, limit=24)
    assert found.agreement is None
    assert found.as_json()["agreement"] is None
    assert found.calibration_images == 24


def test_weights_beside_the_model_are_taken_in(images: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "theirs.onnx"
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save_model(classifier(), path, **options)
    output = tmp_path / "small.onnx"
    values = {"images": images, "mean": MEAN, "std": STD, "limit": 8, "output": output}
    found = compile_file(request_for(path, values), Silent())
    assert found.source_bytes == path.stat().st_size + (tmp_path / "model" / "weights.bin").stat().st_size
    assert found.agreement is not None
    assert _run(output, np.zeros((1, 3, 24, 24), np.float32)).shape == (1, 5)


def test_the_summary_fits_eighty_columns(images: Path, tmp_path: Path) -> None:
    from rich.console import Console

    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", 12)
    (tmp_path / "images" / "broken.png").write_bytes(b"x" * 100)
    found = compiled(classifier(), tmp_path / "images", tmp_path, limit=13)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compiled_table(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    text = " ".join(text.replace("│", " ").split())
    assert "4 of 4 in integers, 0 in float" in text
    assert "calibrated on 12, compared on 0, 1 skipped (first: broken.png" in text
    assert "not measured: no image is left that was not calibrated on" in text
    json.dumps(found.as_json(), allow_nan=False)


# --- options ---


def test_a_model_is_told_from_a_configuration(tmp_path: Path) -> None:
    assert is_model(tmp_path / "missing.onnx")
    assert is_model(tmp_path / "missing.ONNX")
    assert not is_model(tmp_path / "missing.yaml")
    (tmp_path / "model").write_bytes(classifier().SerializeToString())
    (tmp_path / "config").write_text("name: mine\n# ≥ any text\n")
    assert is_model(tmp_path / "model")
    assert not is_model(tmp_path / "config")


def test_options_become_settings(tmp_path: Path) -> None:
    def settings(**options: object) -> dict[str, object]:
        return settings_for(request_for(tmp_path / "m.onnx", options), 9).model_dump()

    assert settings(calibration="entropy")["calibration"] == "entropy"
    assert (
        settings(calibration="moving-average", seed=3).items() >= {"calibration": "moving_average", "seed": 3}.items()
    )
    assert settings(method="static", bits=4, recovery="rounding")["recovery"]["compensated_rounding"]["images"] == 128
    assert settings(recovery="bias")["recovery"]["bias_correction"] is True
    assert settings()["images"] == 9
    assert settings(method="neural-compressor")["mode"] == "static"
    assert settings(method="weight-only", bits=4)["bits"] == 4
    assert settings(method="dynamic", target="x86-avx2")["reduce_range"] is True
    assert settings(method="dynamic", target="arm64")["reduce_range"] is False


def test_auto_asks_static_alone_for_a_recovery(tmp_path: Path) -> None:
    requests = requests_of(request_for(tmp_path / "m.onnx", {"recovery": "rounding"}))
    asked = {one.method: settings_for(one, 9).model_dump().get("recovery") for one in requests}
    assert asked["static"]["compensated_rounding"] is not None
    assert [asked[method] for method in ("dynamic", "weight-only")] == [None, None]


def test_options_that_do_not_go_together_are_refused(images: Path, tmp_path: Path) -> None:
    model = classifier()
    refused("--method: expected one of fp16, .*found 'int8'", model, images, tmp_path, method="int8")
    refused("--calibration: dynamic chooses no ranges", model, images, tmp_path, method="dynamic", calibration="mse")
    refused("--calibration: expected one of minmax, .*found 'best'", model, images, tmp_path, calibration="best")
    refused("--recovery: dynamic has no steps to take", model, images, tmp_path, method="dynamic", recovery="bias")
    refused("--recovery: tuned chooses the steps itself", model, images, tmp_path, method="tuned", recovery="bias")
    refused("--recovery: expected one of none, bias, rounding, found 'all'", model, images, tmp_path, recovery="all")
    refused("--bits: dynamic has no choice of bits", model, images, tmp_path, method="dynamic", bits=4)
    refused("--bits: expected 8 or 4, found 3", model, images, tmp_path, method="weight-only", bits=3)
    refused("--target: what fp16 writes is the same", model, images, tmp_path, method="fp16", target="arm64")
    refused("--target: expected one of x86-vnni, x86-avx2, arm64", model, images, tmp_path, target="riscv")
    refused("--layout: expected one of NCHW, NHWC", model, images, tmp_path, layout="CHW")
    refused("--fit: expected one of pad, stretch, crop", model, images, tmp_path, fit="zoom")
    refused("--seed: expected 0 or more", model, images, tmp_path, seed=-1)
    refused("--limit: expected 1 calibration image or more, found 0", model, images, tmp_path, limit=0)
    refused("--images: expected a folder of images to calibrate static on", model, None, tmp_path)
    refused("expected a folder, found nothing", model, tmp_path / "nowhere", tmp_path)


def refused_input(match: str, model: onnx.ModelProto, **options: object) -> None:
    values = {"mean": MEAN, "std": STD, **options}
    with pytest.raises(UsageError, match=match):
        preprocessing_for(model, request_for(Path("theirs.onnx"), values))


def test_how_pixels_become_the_input_is_never_guessed() -> None:
    model, any_size, pixels = classifier(), classifier(size=("h", "w")), classifier(element_type=TensorProto.UINT8)
    refused_input(
        r"theirs\.onnx: expected to know how pixels become its float input `image`, found nothing of it in its "
        r"metadata\. Give --mean and --std; for pixels scaled to 0…1 --mean 0 --std 1", model, mean=None, std=None
    )  # fmt: skip
    refused_input("Give --std; for", model, std=None)
    refused_input("--mean: expected numbers with commas between", model, mean="0.5;0.5")
    refused_input("--mean: expected numbers", model, mean="nan")
    refused_input("--std: expected positive values, found 0", model, std="0")
    refused_input("--std: expected positive values", model, std="0.1,0.1,-0.1")
    refused_input("for 3 channels of `image`, found 2", model, mean="0.1,0.2")
    refused_input("--scale: expected 1 or 255", model, scale=127)
    refused_input("Give --image-size 224", any_size)
    refused_input("--image-size: expected 224", any_size, image_size="1x2x3")
    refused_input("at most 4096 pixels", any_size, image_size="99999")
    refused_input("expected images of 24 × 24 .*found 32 × 32 in --image-size", model, image_size="32")
    refused_input("Only gray and RGB images are supported", classifier(channels=4))
    refused_input("--mean and --std: the model takes pixels of 0…255", pixels)
    onnx.helper.set_model_props(model, {METADATA_KEY: "{}"})
    refused_input("expected what edgeproof writes into `edgeproof.preprocessing`", model)


def test_a_mean_for_pixels_of_255_is_that_of_pixels_of_1() -> None:
    def told(**options: object) -> Preprocessing:
        return preprocessing_for(classifier(), request_for(Path("theirs.onnx"), options))[1]

    images = np.arange(2 * 3 * 24 * 24, dtype=np.uint8).reshape(2, 3, 24, 24)
    raw = told(mean="0", std="1", scale=255).to_input(images)
    assert np.allclose(raw, images, atol=1e-4)
    centred = told(mean="127.5", std="127.5", scale=255)
    assert centred == told(mean="0.5", std="0.5")
    assert (centred.to_input(images).min(), centred.to_input(images).max()) == (-1, 1)


# --- bad input ---


def test_weights_that_are_no_numbers_are_refused(images: Path, tmp_path: Path) -> None:
    broken = np.zeros((5, 128))
    broken[0, :3] = np.nan, np.inf, -np.inf
    for method in ("static", "fp16", "dynamic"):
        refused("expected finite weights, found 3 that are not", classifier(changed={"w4": broken}), images, tmp_path,
                method=method)  # fmt: skip
    # In a batch norm they reach the convolution that it is folded into.
    damaged = classifier(changed={"gamma": np.full(32, np.nan)})
    refused("expected finite weights, found", damaged, images, tmp_path)


def test_answers_that_are_no_numbers_are_refused(images: Path, tmp_path: Path) -> None:
    refused("expected finite answers, found NaN or infinity for 8 of 8 images",
            classifier(changed={"w4": np.full((5, 128), 3e38)}), images, tmp_path)  # fmt: skip


def test_answers_that_do_not_depend_on_the_image_are_refused(images: Path, tmp_path: Path) -> None:
    refused("expected answers that depend on the image, found the same for all of 8",
            classifier(changed={"w4": np.zeros((5, 128))}), images, tmp_path)  # fmt: skip


def test_images_without_content_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "black").mkdir()
    for index in range(3):
        Image.fromarray(np.zeros((9 + index, 9), np.uint8)).save(tmp_path / "black" / f"{index}.png")
    refused("every pixel of the 2 calibration images is 0", classifier(), tmp_path / "black", tmp_path, limit=2)


def test_a_layer_that_is_always_zero_does_no_harm(images: Path, tmp_path: Path) -> None:
    dead = classifier(changed={"b2": np.where(np.arange(32) < 16, -1e3, 0.1)})
    found = compiled(dead, images, tmp_path)
    assert found.agreement is not None
    assert found.agreement.logits_sqnr_db > 15


def test_models_that_are_no_classifier_of_images_are_refused(images: Path, tmp_path: Path) -> None:
    model = classifier()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("ReduceMean", ["image"], ["answers"], axes=[2, 3], keepdims=0))
    refused("expected convolutions or linear layers with float weights, found none", model, images, tmp_path)
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))
    refused("expected a model with one input, the image; found image, age", model, images, tmp_path)


def test_files_that_are_no_model_are_refused(images: Path, tmp_path: Path) -> None:
    for content in (b"", b"no model", classifier().SerializeToString()[:-5000]):
        path = tmp_path / "theirs.onnx"
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"theirs\.onnx: expected"):
            compile_file(CompileRequest(path, images, mean=MEAN, std=STD), Silent())
    with pytest.raises(UsageError, match="found no file"):
        compile_file(CompileRequest(tmp_path / "missing.onnx", images, mean=MEAN, std=STD), Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.onnx"]


def test_what_was_compiled_already_is_refused(images: Path, tmp_path: Path) -> None:
    found = compiled(classifier(), images, tmp_path)
    model = onnx.load_model(found.compiled.path)
    (tmp_path / "again").mkdir()
    refused("expected convolutions or linear layers with float weights", model, images, tmp_path / "again")


def test_nothing_that_stands_there_is_lost(images: Path, tmp_path: Path) -> None:
    model = classifier()
    (tmp_path / "labels.json").write_text('["cat", "dog"]')
    (tmp_path / "folder.onnx").mkdir()
    refused("another file stands there", model, images, tmp_path, output=tmp_path / "labels.onnx")
    refused("found the folder", model, images, tmp_path, output=tmp_path / "folder.onnx")
    refused(r"expected a name that ends in \.onnx", model, images, tmp_path, output=tmp_path / "out.bin")
    refused("Create it first", model, images, tmp_path, output=tmp_path / "new" / "out.onnx")
    refused("expected another file than the model", model, images, tmp_path, output=tmp_path / "theirs.onnx")
    assert (tmp_path / "labels.json").read_text() == '["cat", "dog"]'
