"""A model comes through any door and gets the same report: an ONNX file, a PyTorch network, files of other tools."""

import json
import sys

import numpy as np
import onnx
import onnxruntime.quantization as ort_quantization
import pytest
import torch
import yaml
from foreign_files import CLASSES, classifier, write, write_images
from PIL import Image

from foundation.errors import ExitCode, UsageError
from foundation.measurements import read_measurements
from foundation.progress import Silent
from foundation.run_folder import RunFolder
from pipeline.configuration_file import parse_configuration, read_configuration
from pipeline.flow import compile_and_validate, run_until
from pipeline.one_file.options import request_for
from pipeline.one_file.run_file import CONFIGURATION_NAME, RunRequest, configuration_of, write_configuration
from stages.validate.answers import Predictions

NAMES = ("ant", "bee", "cat", "dog", "eel")
FORM = {"mean": "0.5", "std": "0.25"}
FAST = {
    "latency": {
        "warmup_queries": 1,
        "rounds": 5,
        "time_budget_s": 0.0,
        "queries_per_round": 2,
        "providers": ["cpu"],
        "threads": [1],
    },
    "saliency": {"images": 3, "methods": ["gradient"]},
}


def images_of(names, root, n=30):
    write_images(root, n)
    for old, new in zip(("first", "second"), names, strict=True):
        (root / old).rename(root / new)
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doors")
    model = write(classifier(), folder / "theirs.onnx")
    images = images_of(("bee", "eel"), folder / "images")
    (folder / "names.txt").write_text("\n".join(NAMES))
    inputs = iter([{"image": np.random.default_rng(1).normal(size=(1, 3, 24, 24)).astype(np.float32)}] * 4)

    class Reader(ort_quantization.CalibrationDataReader):
        def get_next(self):
            return next(inputs, None)

    ort_quantization.quantize_static(model, folder / "Other Tool.onnx", Reader())
    return folder, model, images


def quick(configuration):
    values = configuration.as_json()
    return parse_configuration({**values, "validation": {**values["validation"], **FAST}}, "test", None)


def request(files, **options):
    folder, model, images = files
    values = {"labels": folder / "names.txt", "given": (), "images": images, **options}
    return RunRequest(request_for(model, FORM), values["images"], values["labels"], values["given"])


def test_a_file_and_labelled_images_give_the_full_report(files, tmp_path):
    folder = files[0]
    configuration = configuration_of(request(files, given=[folder / "Other Tool.onnx"]))
    assert tuple(configuration.variants) == ("fp16", "dynamic-int8", "static-int8", "other-tool")
    assert {gate.variant for gate in configuration.gates} == set(configuration.variants)
    run = RunFolder(tmp_path / "run")
    outcome = compile_and_validate(quick(configuration), run, Silent())
    assert outcome.exit_code in (ExitCode.PASSED, ExitCode.GATE_FAILED)
    assert all(verdict.status != "missing" for verdict in outcome.verdicts)
    record = json.loads(run.record.read_text())
    assert record["classes"] == list(NAMES)
    (given,) = [variant for variant in record["variants"] if variant["variant"] == "other-tool"]
    assert given["method"] == "given"
    assert not run.checkpoint.exists()
    assert outcome.report.exists()
    labels = np.load(run.predictions("fp32"))["labels"]
    assert set(labels.tolist()) == {1, 4}  # bee and eel among the model's five

    # A second run recomputes nothing but latency.
    again = compile_and_validate(quick(configuration), run, Silent())
    assert again.exit_code == outcome.exit_code
    stages = json.loads(run.record.read_text())["stages"]
    assert {stage["status"] for stage in stages} == {"reused"}


def test_a_file_that_gives_the_number_of_a_class_is_judged_by_its_answers_alone(files, tmp_path):
    folder, _, images = files
    model = classifier()
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["answers"], ["number"], axis=1, keepdims=0))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("number", onnx.TensorProto.INT64, ["n"]))
    values = configuration_of(
        RunRequest(request_for(write(model, tmp_path / "number.onnx"), FORM), images, folder / "names.txt", ())
    ).as_json()
    values |= {"variants": {"fp16": values["variants"]["fp16"]}, "gates": []}
    values["validation"] |= {**FAST, "saliency": {"images": 3, "methods": ["gradient", "occlusion"]}}
    run = RunFolder(tmp_path / "run")
    compile_and_validate(parse_configuration(values, "test", None), run, Silent())
    found = {(one.variant, one.metric, one.where.method): one for one in read_measurements(run.measurements)}
    for variant in ("fp32", "fp16"):
        assert found[variant, "accuracy", None].value is not None
        assert found[variant, "sensitivity/bee", None].value is not None
        for name, method in (("auroc/bee", None), ("brier", None), ("deletion_auc", "occlusion")):
            assert found[variant, name, method].reason == "the model gives the number of a class, no scores"
    assert found["fp16", "agreement", None].value == 1.0
    assert found["fp16", "logits_sqnr_db", None].reason == "the model gives the number of a class, no scores"
    assert not Predictions.read("fp32", run.predictions("fp32")).scored


def test_the_configuration_is_written_out_and_is_the_same(files, tmp_path):
    configuration = configuration_of(request(files))
    path = write_configuration(configuration, tmp_path)
    assert path.name == CONFIGURATION_NAME
    assert read_configuration(path) == configuration
    assert yaml.safe_load(path.read_text())["model"]["onnx"]["mean"] == [0.5]


def left_in(folder):
    """Return what a run left behind, but for the lock that it held."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def test_outputs_that_nobody_named_must_be_as_many_as_the_classes(files, tmp_path):
    configuration = configuration_of(request(files, labels=None))
    with pytest.raises(UsageError, match=r"expected names of its 5 outputs, since the images have 2 classes"):
        run_until("export", configuration, RunFolder(tmp_path), None, Silent())
    assert left_in(tmp_path) == []


def test_a_class_that_the_model_does_not_know_is_refused(files, tmp_path):
    images = images_of(("bee", "eal"), tmp_path / "images", 6)
    configuration = configuration_of(request(files, images=images))
    with pytest.raises(UsageError, match=r"class 'eal' of the images: .*model's 5 classes, .*did you mean 'eel'\?"):
        run_until("export", configuration, RunFolder(tmp_path / "run"), None, Silent())
    assert left_in(tmp_path / "run") == []


def test_a_class_that_an_official_split_lacks_is_told_of_a_given_model(files, tmp_path):
    images_of(("bee", "eel"), tmp_path / "images" / "train", 12)
    for path in images_of(("bee", "eel"), tmp_path / "images" / "test", 4).glob("eel/*"):
        path.unlink()
    for path in (tmp_path / "images" / "test").glob("*/*"):  # other bytes than the training images'
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
    said = []

    class Told(Silent):
        def say(self, text):
            said.append(text)

    configuration = configuration_of(request(files, images=tmp_path / "images"))
    assert run_until("export", configuration, RunFolder(tmp_path / "run"), None, Told()) == ExitCode.PASSED
    assert "! The official test split has no image of class 'eel': nothing is measured of that." in said


def test_fewer_names_than_outputs_are_refused(files, tmp_path):
    (tmp_path / "three.txt").write_text("bee\neel\nant\n")
    configuration = configuration_of(request(files, labels=tmp_path / "three.txt"))
    with pytest.raises(UsageError, match=r"expected `answers` to answer 3 classes, found 5 numbers per image"):
        run_until("export", configuration, RunFolder(tmp_path / "run"), None, Silent())
    assert left_in(tmp_path / "run") == []


def test_a_missing_given_file_is_told_before_any_work(files, tmp_path):
    configuration = configuration_of(request(files, given=[tmp_path / "gone.onnx"]))
    with pytest.raises(UsageError, match=r"variants\.gone\.path: expected an ONNX file, found none"):
        run_until("validate", configuration, RunFolder(tmp_path / "run"), None, Silent())
    assert not (tmp_path / "run" / "export").exists()


NETWORK = """
from torch import nn

def build(channels, classes):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, classes))
"""


@pytest.fixture
def network(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "net_of_mine.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    import net_of_mine

    torch.manual_seed(0)
    weights = net_of_mine.build(3, 2).state_dict()
    yield weights
    sys.modules.pop("net_of_mine", None)


def torch_configuration(weights, images, **data):
    values = {
        "source": {"name": "folder", "root": str(images)},
        "image_size": 24,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    model = {"torch": {"network": "net_of_mine:build", "weights": str(weights)}}
    return parse_configuration({"name": "t", "data": {**values, **data}, "model": model}, "test", None)


def test_a_network_with_its_weights_is_exported_as_it_is(network, files, tmp_path):
    torch.save(network, tmp_path / "weights.pt")
    run = RunFolder(tmp_path / "run")
    configuration = torch_configuration(tmp_path / "weights.pt", files[2])
    assert run_until("export", configuration, run, None, Silent()) == ExitCode.PASSED
    import net_of_mine

    from onnx_files.sessions import open_session, predict

    module = net_of_mine.build(3, 2).eval()
    module.load_state_dict(network)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 24, 24), dtype=np.uint8)
    with torch.no_grad():
        expected = module((torch.from_numpy(images).float() / 255 - 0.5) / 0.25).numpy()
    found = predict(open_session(run.fp32, "cpu", 1), images, 4)
    assert np.allclose(found, expected, atol=1e-5)


def test_weights_that_lack_a_tensor_are_refused(network, files, tmp_path):
    del network["4.bias"]
    torch.save(network, tmp_path / "weights.pt")
    configuration = torch_configuration(tmp_path / "weights.pt", files[2])
    with pytest.raises(UsageError, match=r"expected every tensor of the network .* some do not fit"):
        run_until("export", configuration, RunFolder(tmp_path / "run"), None, Silent())


def test_a_model_of_another_size_than_the_images_is_refused(files, tmp_path):
    values = configuration_of(request(files)).as_json()
    values["data"]["image_size"] = 32
    with pytest.raises(UsageError, match=r"images of 24 × 24 .*, found 32 × 32 in `model\.onnx\.image_size`"):
        run_until("export", parse_configuration(values, "test", None), RunFolder(tmp_path), None, Silent())


def test_five_outputs(files):
    assert len(NAMES) == CLASSES
