"""`edgeproof quantize MODEL.onnx --method tuned`: what the search says of a file, against ONNX Runtime and scipy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign_files import classifier, padded_pixels, write, write_images
from onnx import ModelProto, TensorProto, helper, numpy_helper
from scipy.stats import spearmanr
from told_table import shown

from calibration_data.image_folder import UnlabelledImages
from foundation.errors import UsageError
from foundation.note_parts import MeasuredNote
from foundation.progress import Progress, Silent
from pipeline.one_file.compile_file import compile_file
from pipeline.one_file.options import request_for, settings_for
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.tuned import share_out
from reports.formats import significant
from stages.saliency_twin.twin_file import make_twin

HELD_OUT = 10
FORMS = {
    "open": {},
    "nhwc": {"layout": "NHWC", "element_type": TensorProto.UINT8},
    "one": {"batch": 1, "softmax": True},
    "four": {"batch": 4},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 12 + HELD_OUT)


def tuned(model: ModelProto, images: Path, folder: Path, **options: object) -> CompiledFile:
    path = write(model, folder / "theirs.onnx")
    values = {"images": images, "method": "tuned", "limit": 12, "agreement": 0.5, "saliency_spearman": 0.0}
    if model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT:
        values |= {"mean": "0.5", "std": "0.25"}
    return compile_file(request_for(path, {**values, "trials": 2, **options}), Silent())


@pytest.fixture(scope="module", params=FORMS)
def found(request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory) -> CompiledFile:
    return tuned(classifier(**FORMS[request.param]), images, tmp_path_factory.mktemp(request.param))


def measured_of_chosen(compiled: CompiledFile) -> MeasuredNote:
    notes = compiled.compiled.notes
    (trial,) = [trial for trial in notes.search if trial.candidate == notes.chosen]
    assert trial.measured is not None
    return trial.measured


def run(path: Path, pixels: np.ndarray, output: str | None, targets: np.ndarray | None = None) -> np.ndarray:
    """Return one output for images that are given as the file wants them; the last one fills a batch up."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    inputs = pixels if entry.type == "tensor(uint8)" else (pixels.astype(np.float32) / 255 - 0.5) / np.float32(0.25)
    if entry.shape[-1] == 3:
        inputs = inputs.transpose(0, 2, 3, 1)
    parts = []
    for start in range(0, len(inputs), size):
        rows = np.minimum(np.arange(start, start + size), len(inputs) - 1)
        feed = {entry.name: np.ascontiguousarray(inputs[rows])}
        if targets is not None:
            feed["target"] = targets[rows]
        parts.append(session.run(None if output is None else [output], feed)[0])
    return np.concatenate(parts)[: len(inputs)]


def test_agreement_and_saliency_are_those_of_the_held_out_images(
    found: CompiledFile, images: Path, tmp_path: Path
) -> None:
    assert found.folder is not None
    pixels = padded_pixels(images, found.folder.held_out.image_ids)
    assert len(pixels) == HELD_OUT
    files = (found.source, found.compiled.path)
    expected, answered = (run(path, pixels, None) for path in files)
    same = float(np.mean(expected.argmax(axis=1) == answered.argmax(axis=1)))
    measured = measured_of_chosen(found)
    assert measured.score.agreement.value == same
    assert measured.score.agreement.n == HELD_OUT
    assert found.agreement is not None
    assert found.agreement.same_class == same
    assert measured.score.accuracy_drop is None

    twins = [make_twin(path, tmp_path / f"{number}.onnx", None, "answers") for number, path in enumerate(files)]
    gradients = [np.abs(run(twin, pixels, "saliency", expected.argmax(axis=1))) for twin in twins]
    channels = 1 if gradients[0].shape[1] == 3 else 3
    maps = [gradient.mean(axis=channels).reshape(HELD_OUT, -1) for gradient in gradients]
    assert maps[0].shape == (HELD_OUT, 24 * 24)
    correlation = np.mean([spearmanr(one, other).statistic for one, other in zip(*maps, strict=True)])
    # Theirs has a batch norm where the file that was compiled has it folded in: another rounding.
    assert measured.score.saliency_spearman.value == pytest.approx(correlation, abs=5e-3)
    assert measured.score.saliency_spearman.n == HELD_OUT


def test_the_file_has_the_form_of_the_model(found: CompiledFile) -> None:
    ours, theirs = (onnx.load(path) for path in (found.compiled.path, found.source))
    assert list(ours.graph.input) == list(theirs.graph.input)
    assert list(ours.graph.output) == list(theirs.graph.output)
    assert (found.layers, found.calibration_images) == (4, 12)
    assert found.compiled.notes.method == "tuned"
    names = {path.name for path in found.source.parent.iterdir()}
    assert names == {"theirs.onnx", "theirs.tuned.onnx", "theirs.tuned.json", "theirs.tuned.search.jsonl"}


def test_the_search_is_told_in_eighty_columns_and_in_json(found: CompiledFile) -> None:
    text = shown(found)
    assert f"calibrated on 12, searched on {HELD_OUT}, compared on the same" in text
    assert "2 files tried, 2 shown to keep the limits (same class ≥ 50.0 %, saliency ≥ 0)" in text
    assert f"gradient maps of {HELD_OUT} images" in text
    assert "one thread, 30 pairs of queries" in text
    repairs = "equalization and bias correction" if found.compiled.notes.chosen.equalization else "no recovery"
    assert f"ranges by {found.compiled.notes.chosen.calibration}, {repairs}" in text
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert len(told["notes"]["search"]) == 2
    assert told["settings"]["trials"] == 2


@pytest.mark.parametrize(
    ("held_out", "scored", "compared"),
    [(10, 10, 10), (23, 23, 23), (24, 16, 8), (40, 27, 13), (300, 200, 100), (384, 256, 128), (500, 256, 128)],
)
def test_a_choice_is_compared_on_images_that_it_was_not_made_by(held_out: int, scored: int, compared: int) -> None:
    names = tuple(map(str, range(held_out)))
    images = UnlabelledImages(np.zeros((held_out, 1, 2, 2), np.uint8), names, names)
    searched, others = share_out(images, 256, 128)
    assert (len(searched), len(others)) == (scored, compared)
    assert bool(set(searched.image_ids) & set(others.image_ids)) == (held_out < 24)


def test_the_agreement_told_is_that_of_the_other_images(tmp_path: Path) -> None:
    images = write_images(tmp_path / "more", 12 + 30)
    found = tuned(classifier(), images, tmp_path, trials=1)
    assert found.folder is not None
    assert found.agreement is not None
    assert (found.scored_images, found.agreement.images) == (20, 10)
    pixels = padded_pixels(images, found.folder.held_out.image_ids[20:])
    expected, answered = (run(path, pixels, None) for path in (found.source, found.compiled.path))
    noise = np.sum((answered.astype(np.float64) - expected) ** 2)
    assert found.agreement.logits_sqnr_db == pytest.approx(
        10 * np.log10(np.sum(expected.astype(np.float64) ** 2) / noise), abs=1e-3
    )
    assert measured_of_chosen(found).score.agreement.n == 20


def test_a_larger_budget_goes_on_and_a_limit_is_kept(images: Path, tmp_path: Path) -> None:
    first = tuned(classifier(), images, tmp_path, trials=1).compiled.notes.search
    both = tuned(classifier(), images, tmp_path, trials=2, minutes=3.0).compiled.notes.search
    # A latency would not come out the same twice.
    assert both[0].measured.speedup.value == first[0].measured.speedup.value
    likeness = [trial.measured.score.saliency_spearman.value for trial in both]
    # What is shown of a file is less than its estimate, and a search of two files asks more of each than one of one.
    shown = [trial.measured.margins["saliency_spearman"] for trial in both]  # the limit is 0
    assert all(bound < value for bound, value in zip(shown, likeness, strict=True))
    assert both[0].measured.margins["saliency_spearman"] < first[0].measured.margins["saliency_spearman"]
    limit = float(np.mean(shown))
    strict = tuned(classifier(), images, tmp_path, trials=2, saliency_spearman=limit)
    assert [trial.within_limits for trial in strict.compiled.notes.search] == [bound >= limit for bound in shown]
    assert measured_of_chosen(strict).margins["saliency_spearman"] == pytest.approx(max(shown) - limit)


def test_of_limits_that_nothing_keeps_the_nearest_file_is_written_and_called_worse(
    images: Path, tmp_path: Path
) -> None:
    nearest = tuned(classifier(), images, tmp_path, trials=1, saliency_spearman=1.0)
    by = -measured_of_chosen(nearest).margins["saliency_spearman"]
    assert by > 1 - measured_of_chosen(nearest).score.saliency_spearman.value
    assert nearest.compiled.notes.misses == {"saliency_spearman": pytest.approx(by)}
    (told,) = [sentence for sentence in nearest.worse if "limit" in sentence]
    assert told.startswith("No file is shown to keep every limit, at an error rate of 5% for all files together: ")
    assert f"the best misses saliency by {significant(by, 2)} of ρ. " in told
    assert told.endswith("loosen --saliency-spearman (now 1.0), or take it with --accept-worse.")
    assert nearest.compiled.path.is_file()


class Impatient(Silent):
    """Interrupts the search after four layers and one trial, as Ctrl-C would."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        def advance(done: int, total: int) -> None:
            if title == "compile tuned" and done == 5:
                raise KeyboardInterrupt

        yield advance


def test_an_interrupted_search_leaves_the_journal_alone(images: Path, tmp_path: Path) -> None:
    path = write(classifier(), tmp_path / "theirs.onnx")
    values = {"images": images, "method": "tuned", "limit": 12, "mean": "0.5", "std": "0.25", "trials": 2}
    with pytest.raises(KeyboardInterrupt):
        compile_file(request_for(path, values), Impatient())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs.onnx", "theirs.tuned.search.jsonl"]


# --- what is refused ---


def refused(match: str, model: ModelProto, images: Path, folder: Path, **options: object) -> None:
    before = {path.name for path in folder.iterdir()} | {"theirs.onnx"}
    with pytest.raises(UsageError, match=match):
        tuned(model, images, folder, **options)
    assert {path.name for path in folder.iterdir()} == before


def test_a_model_without_a_gradient_is_explained_by_occlusion_and_says_why(images: Path, tmp_path: Path) -> None:
    model = classifier()
    (relu, *_) = [node for node in model.graph.node if node.op_type == "Relu"]
    whole = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    relu.CopyFrom(helper.make_node("Resize", [*relu.input, "roi", "scales"], relu.output, name="strange", **whole))
    for name, values in (("roi", [0, 0, 0, 0, 1, 1, 1, 1]), ("scales", [1, 1, 1, 1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32), name))
    found = tuned(model, images, tmp_path, trials=1)
    notes = found.compiled.notes
    assert notes.map_method == "occlusion"
    assert notes.without_gradient.startswith("saliency of Resize `strange`: expected a resize of the whole image")
    likeness = measured_of_chosen(found).score.saliency_spearman
    assert 0.8 < likeness.value <= 1.0  # of eight bits
    text = shown(found)
    assert f"occlusion maps of {likeness.n} images" in text
    assert "so occlusion compares the files: saliency of Resize" in text


def test_too_few_images_are_counted(images: Path, tmp_path: Path) -> None:
    match = r"expected at least 8 images to score .* found 7 beside 15\. .* calibrate on fewer \(--limit 14\)"
    refused(match, classifier(), images, tmp_path, limit=15)
    few = write_images(tmp_path / "few", 5)
    refused(r"found 2 beside 3\. Give 32 images or more", classifier(), few, tmp_path, limit=None)


def test_models_that_cannot_be_compared_are_refused(images: Path, tmp_path: Path) -> None:
    one = classifier()
    one.graph.node.append(helper.make_node("ReduceMean", ["answers"], ["mean_answer"], axes=[1]))
    one.graph.output[0].CopyFrom(helper.make_tensor_value_info("mean_answer", TensorProto.FLOAT, ["n", 1]))
    refused(r"theirs\.onnx: expected two answers per image or more, found one", one, images, tmp_path)
    (tmp_path / "single").mkdir()
    single = classifier()
    single.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 128]), "shape"))
    (flatten,) = [node for node in single.graph.node if node.op_type == "Flatten"]
    flatten.CopyFrom(helper.make_node("Reshape", ["pooled", "shape"], ["features"]))
    refused("fails on them. Export it with a batch of 1", single, images, tmp_path / "single")


def test_nothing_that_stands_in_the_place_of_the_journal_is_lost(images: Path, tmp_path: Path) -> None:
    for content in (b"my notes\n", b"[1, 2]\n", b"no end of line"):
        (tmp_path / "small.search.jsonl").write_bytes(content)
        refused("something else stands there", classifier(), images, tmp_path, output=tmp_path / "small.onnx")
        assert (tmp_path / "small.search.jsonl").read_bytes() == content


def test_options_of_a_search_become_settings(tmp_path: Path) -> None:
    options = {"trials": 3, "minutes": 1.5, "agreement": 0.9, "saliency_spearman": 0.7, "target": "arm64", "seed": 4}
    found = settings_for(request_for(tmp_path / "m.onnx", {**options, "method": "tuned"}), 9).model_dump()
    assert found.items() >= {**options, "images": 9}.items()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"trials": 0}, r"--trials: input should be greater than or equal to 1, found 0\."),
        ({"minutes": 0.0}, r"--minutes: input should be greater than 0, found 0\.0\."),
        ({"minutes": float("nan")}, r"--minutes: input should be a finite number, found nan\."),
        ({"agreement": 1.5}, r"--agreement: input should be less than or equal to 1, found 1\.5\."),
        ({"saliency_spearman": -2.0}, r"--saliency-spearman: input should be greater than or equal to -1"),
        ({"calibration": "mse"}, "--calibration: tuned chooses the ranges itself"),
        ({"bits": 4}, "--bits: tuned has no choice of bits"),
        ({"method": "static", "trials": 3}, "--trials: static makes no search. .* use --method tuned"),
        ({"method": "fp16", "saliency_spearman": 0.5}, "--saliency-spearman: fp16 makes no search"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, object], match: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=match):
        settings_for(request_for(tmp_path / "m.onnx", {"method": "tuned", **options}), 9)
