"""A foreign classifier becomes the baseline: its answers stay, and what it leaves open is told or refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign_files import CLASSES, classifier, write

from foundation.errors import UsageError
from onnx_files.sessions import open_session, predict
from stages.given.float_file import (
    class_names,
    given_sha256,
    read_float_file,
    read_given_file,
    refuse_changed_answers,
    write_float_file,
)
from stages.given.settings import OnnxSettings
from stages.saliency_twin.twin_file import make_twin

NAMES = ("ant", "bee", "cat", "dog", "eel")
IMAGES = np.random.default_rng(3).integers(0, 256, (6, 3, 24, 24), dtype=np.uint8)


def spelled(key):
    return f"`{key}`"


def taken(model, tmp_path, **options):
    tmp_path.mkdir(exist_ok=True)
    path = write(model, tmp_path / "theirs.onnx")
    settings = OnnxSettings(**{"path": path, "mean": (0.5,), "std": (0.25,), **options})
    return settings, write_float_file(read_given_file(settings, None, spelled), tmp_path / "run" / "fp32.onnx")


def as_onnxruntime_says(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def test_its_answers_stay_and_the_second_reading_is_the_first(tmp_path):
    settings, given = taken(classifier(), tmp_path, classes=NAMES)
    expected = as_onnxruntime_says(settings.path, (IMAGES.astype(np.float32) / 255 - 0.5) / 0.25)
    assert np.allclose(predict(open_session(given.model.path, "cpu", 1), IMAGES, 2), expected, atol=1e-4)
    refuse_changed_answers(settings, given, IMAGES)
    assert read_float_file(given.model.path) == given
    assert given.classes == NAMES
    assert given.model.notes.given_sha256 == given_sha256(settings.path)


def test_the_same_file_gives_the_same_bytes(tmp_path):
    first = taken(classifier(), tmp_path)[1].model.path.read_bytes()
    assert taken(classifier(), tmp_path)[1].model.path.read_bytes() == first


def test_probabilities_are_judged_as_the_logits_before_them(tmp_path):
    settings, given = taken(classifier(softmax=True), tmp_path)
    logits = predict(open_session(given.model.path, "cpu", 1), IMAGES, 1)
    p = as_onnxruntime_says(settings.path, (IMAGES.astype(np.float32) / 255 - 0.5) / 0.25)
    assert given.answers.kind == "probabilities"
    assert np.allclose(np.exp(logits), p, atol=1e-6)


def test_blue_first_is_another_input(tmp_path):
    settings, given = taken(classifier(), tmp_path, channel_order="BGR", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    mean, std = (np.array(values, np.float32)[:, None, None] for values in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    expected = as_onnxruntime_says(settings.path, (IMAGES[:, ::-1].astype(np.float32) / 255 - mean) / std)
    assert np.allclose(predict(open_session(given.model.path, "cpu", 1), IMAGES, 1), expected, atol=1e-4)


def test_a_fixed_batch_is_filled_up(tmp_path):
    _, given = taken(classifier(batch=4), tmp_path)
    _, free = taken(classifier(), tmp_path / "free")
    found, expected = (predict(open_session(one.model.path, "cpu", 1), IMAGES, 1) for one in (given, free))
    assert found.shape == (6, CLASSES)
    assert np.allclose(found, expected, atol=1e-5)


def test_nothing_is_guessed_of_the_input(tmp_path):
    with pytest.raises(UsageError, match=r"found nothing of it in its metadata\. Give `mean` and `std`"):
        taken(classifier(), tmp_path, mean=None, std=None)
    with pytest.raises(UsageError, match=r"one that takes any\. Give `image_size` 224"):
        taken(classifier(size=("h", "w")), tmp_path)


def test_an_input_that_is_no_image_and_two_inputs_are_refused(tmp_path):
    model = classifier()
    model.graph.input.append(onnx.helper.make_tensor_value_info("age", onnx.TensorProto.FLOAT, ["n", 1]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["age"], ["same_age"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("same_age", onnx.TensorProto.FLOAT, ["n", 1]))
    with pytest.raises(UsageError, match="expected a model with one input, the image; found image, age"):
        taken(model, tmp_path)


def test_answers_of_one_image_alone_are_not_trusted(tmp_path):
    settings, given = taken(classifier(changed={"w4": np.zeros((CLASSES, 128))}), tmp_path)
    with pytest.raises(UsageError, match="answers that depend on the image, found the same for all of 6 images"):
        refuse_changed_answers(settings, given, IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ant\nbee\nant\n", "each name once, found 'ant' in lines 1 and 3"),
        (b"ant\n\nbee\n", "a name in every line, found '' in line 2"),
        (b"ant\n", "names of two classes or more, found 1"),
        (b"\xff\xfe\x00", "expected a text file with one name a line"),
        (b"a\x1b[31m\nb\n", "a name in every line"),
        (None, "found no file"),
    ],
)
def test_names_come_one_a_line(tmp_path, content, message):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        class_names(OnnxSettings(path=tmp_path / "m.onnx", classes=path))


def test_names_may_end_with_an_empty_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffant\r\nbee\r\n\r\n", encoding="utf-8")
    assert class_names(OnnxSettings(path=tmp_path / "m.onnx", classes=path)) == ("ant", "bee")


def test_its_twin_explains_the_logit_before_a_softmax_and_one_output_of_several(tmp_path):
    model = classifier(softmax=True)
    model.graph.output.append(onnx.helper.make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, ["n", 128, 1, 1]))
    _, given = taken(model, tmp_path, output="probabilities")
    session = onnxruntime.InferenceSession(make_twin(given.model.path, None, None, None))
    inputs = given.preprocessing.to_input(IMAGES)
    found = session.run(None, {"image": inputs, "target": np.full(len(IMAGES), 2)})
    _, plain = taken(classifier(), tmp_path / "plain")
    reference = onnxruntime.InferenceSession(make_twin(plain.model.path, None, None, None))
    expected = reference.run(None, {"image": inputs, "target": np.full(len(IMAGES), 2)})
    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)
