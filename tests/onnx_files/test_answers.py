"""What an output holds, and the logits that it stands for."""

import json

import numpy as np
import onnx
import pytest
from foreign_files import CLASSES, classifier
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logit

from foundation.errors import UsageError
from onnx_files.answers import METADATA_KEY, AnswerForm
from onnx_files.judged_output import answer_form, chosen_output, explained_tensor

PROBABILITIES = AnswerForm("p", "probabilities", 3, 3)
rows = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3)


@given(st.lists(rows, min_size=1, max_size=5))
def test_probabilities_give_back_the_logits_up_to_a_constant(values):
    logits = np.array(values, np.float64)
    p = np.exp(log_softmax(logits, axis=1))
    found = PROBABILITIES.to_logits(p.astype(np.float32)).astype(np.float64)
    assert np.abs(found - log_softmax(logits, axis=1)).max() < 1e-4
    # A difference of the last bit may be lost: then both are the highest.
    answers = p.astype(np.float32).argmax(axis=1)
    assert (found[np.arange(len(found)), answers] == found.max(axis=1)).all()


@given(st.floats(1e-6, 1 - 1e-6))
def test_a_sigmoid_gives_its_log_odds(p):
    found = AnswerForm("p", "sigmoid", 2, 2).to_logits(np.array([[p, 0.5]], np.float64))
    assert found[0, 0] == pytest.approx(logit(p), rel=1e-3, abs=1e-5)
    assert found[0, 1] == pytest.approx(0, abs=1e-6)


def test_certainty_stays_finite_and_what_is_broken_stays_broken():
    found = PROBABILITIES.to_logits(np.array([[1, 0, 0], [np.nan, 0, 1]], np.float32))
    assert np.isfinite(found[0]).all()
    assert found[0].argmax() == 0
    assert np.isnan(found[1, 0])


def test_one_sigmoid_decides_between_two_classes():
    found = AnswerForm("p", "sigmoid", 1, 2).to_logits(np.array([[0.9], [0.1]], np.float32))
    assert found.shape == (2, 2)
    assert found.argmax(axis=1).tolist() == [1, 0]


def test_a_label_is_the_only_class_that_counts():
    found = AnswerForm("label", "label", 1, 4).to_logits(np.array([3, 0], np.int64))
    assert found.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


@pytest.mark.parametrize("number", [4, -1])
def test_a_number_that_is_no_class_is_refused(number):
    with pytest.raises(UsageError, match=f"`label`: expected the number of a class, 0 to 3, found {number}"):
        AnswerForm("label", "label", 1, 4).to_logits(np.array([3, number], np.int64))


def test_the_axes_of_a_pool_may_stay():
    found = AnswerForm("y", "logits", 3, 3).to_logits(np.zeros((2, 3, 1, 1), np.float32))
    assert found.shape == (2, 3)


@pytest.mark.parametrize("form", [PROBABILITIES, AnswerForm("x", "sigmoid", 1, 2), AnswerForm("y", "label", 1, 7)])
def test_the_metadata_keep_it(form):
    assert AnswerForm.from_metadata(form.to_metadata()) == form


def test_a_file_of_ours_says_nothing_and_holds_logits():
    assert AnswerForm.from_metadata({}) is None


@pytest.mark.parametrize(
    "text",
    ["[]", "null", "{", json.dumps({"output": "y", "kind": "odds", "width": 3, "classes": 3}),
     json.dumps({"output": "y", "kind": "logits", "width": 0, "classes": 0}), "[" * 100_000],
)  # fmt: skip
def test_a_damaged_entry_is_one_sentence(text):
    with pytest.raises(ValueError, match="expected what edgeproof writes"):
        AnswerForm.from_metadata({METADATA_KEY: text})


def form_of(model, output=None, kind=None, classes=None, width=CLASSES):
    return answer_form(model, onnx.__file__, output, kind, classes, width)


def test_the_graph_shows_what_its_output_holds():
    assert form_of(classifier()).kind == "logits"
    assert form_of(classifier(softmax=True)).kind == "probabilities"
    assert form_of(classifier(softmax=True), kind="logits").kind == "logits"  # its user knows better


def test_what_explains_a_probability_is_the_logit_before_it():
    assert explained_tensor(classifier(softmax=True), "probabilities") == "answers"
    assert explained_tensor(classifier(), "answers") == "answers"


def test_names_and_outputs_must_be_as_many():
    with pytest.raises(UsageError, match="to answer 7 classes, found 5 numbers per image"):
        form_of(classifier(), classes=7)
    with pytest.raises(UsageError, match="two or more classes, found 1 number per image"):
        form_of(classifier(), width=1)


def with_label(model):
    model.graph.output.append(onnx.helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["n"]))
    return model


def test_of_a_label_and_real_numbers_the_numbers_are_judged():
    assert chosen_output(with_label(classifier()), onnx.__file__, None).name == "answers"
    assert chosen_output(with_label(classifier()), onnx.__file__, "label").name == "label"
    with pytest.raises(UsageError, match="expected an output `labels`, found answers, label"):
        chosen_output(with_label(classifier()), onnx.__file__, "labels")


def test_a_label_needs_names():
    with pytest.raises(UsageError, match="expected names of the classes, since `label` gives the number of one"):
        form_of(with_label(classifier()), output="label")
    assert form_of(with_label(classifier()), output="label", classes=5).classes == 5
