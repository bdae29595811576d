from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from foundation.image_by_image import ChangedAnswers
from stages.validate.answers import Predictions, decided, probabilities
from stages.validate.changed_answers import MOST_IMAGES, changed_answers


def predictions(logits: NDArray[np.floating] | list[list[float]], labels: NDArray[np.int64]) -> Predictions:
    return Predictions("any", np.asarray(logits, np.float32), labels, Path("nowhere.npz"))


def of_classes(answers: list[int], labels: list[int], sureness: list[float]) -> Predictions:
    logits: NDArray[np.float32] = np.zeros((len(answers), 3), dtype=np.float32)
    logits[np.arange(len(answers)), answers] = sureness
    return predictions(logits, np.array(labels))


def found() -> ChangedAnswers:
    labels = [0, 1, 2, 0, 1]
    fp32 = of_classes([0, 1, 2, 1, 2], labels, [1, 2, 3, 4, 5])
    return changed_answers(fp32, {"fp16": of_classes([1, 2, 2, 0, 0], labels, [1, 1, 1, 1, 1])})


def test_changes_are_counted_by_what_they_did() -> None:
    (change,) = found().changes
    assert (change.variant, found().total) == ("fp16", 4)
    assert (change.changed, change.broken, change.mended, change.otherwise, change.answers) == (4, 2, 1, 1, 5)


def test_what_fp32_had_right_comes_first_the_surest_first() -> None:
    assert [item.index for item in found().first] == [1, 0, 4, 3]
    first = found().first[0]
    assert (first.truth, first.baseline.answer, first.others[0].answer, first.label) == ((1,), 1, 2, None)
    assert first.baseline.probability == pytest.approx(np.exp(2) / (np.exp(2) + 2))
    assert (first.baseline.correct, first.others[0].correct) == (True, False)


def test_the_number_of_a_class_has_no_probability() -> None:
    labels = [0, 1]
    fp32 = replace(of_classes([0, 1], labels, [1, 1]), scored=False)
    (first,) = changed_answers(fp32, {"fp16": of_classes([0, 0], labels, [1, 1])}).first
    assert first.baseline.probability is None
    assert first.others[0].probability == pytest.approx(np.e / (np.e + 2))


def test_of_many_the_first_are_kept_and_all_are_counted() -> None:
    labels = np.zeros(100, np.int64)
    fp32 = of_classes([0] * 100, labels.tolist(), list(range(100)))
    other = of_classes([1] * 100, labels.tolist(), [1.0] * 100)
    many = changed_answers(fp32, {"fp16": other, "int8": fp32})
    assert (many.total, len(many.first)) == (100, MOST_IMAGES)
    assert [item.index for item in many.first[:2]] == [37, 38]  # from 37 on a softmax of float64 is 1, whatever more
    assert [change.changed for change in many.changes] == [100, 0]
    assert [one.variant for one in many.first[0].others] == ["fp16"]


def test_without_another_variant_nothing_changes() -> None:
    alone = changed_answers(of_classes([0], [0], [1.0]), {})
    assert (alone.changes, alone.total, alone.first) == ((), 0, ())


def test_yes_no_answers_are_compared_label_by_label() -> None:
    labels = np.array([[1, 0], [0, 0]])
    fp32 = predictions([[2.0, -1.0], [-3.0, 1.0]], labels)
    both = changed_answers(fp32, {"fp16": predictions([[-0.5, -1.0], [-3.0, -2.0]], labels)})
    (change,) = both.changes
    assert (change.changed, change.broken, change.mended, change.otherwise, change.answers) == (2, 1, 1, 0, 4)
    first, second = both.first
    assert (first.label, first.truth, first.baseline.answer, first.others[0].answer) == (0, (0,), 1, 0)
    assert first.baseline.probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert first.others[0].probability == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert (second.label, second.truth, second.baseline.correct) == (1, (), False)


def test_probabilities_sum_to_1_even_for_huge_logits() -> None:
    logits = np.array([[1e4, 0.0], [-1e4, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(logits, "multi_class"), [[1, 0], [0, 1]], atol=1e-12)
    assert decided(logits, "multi_class").tolist() == [0, 1]


def test_a_labels_probability_is_its_sigmoid_and_above_half_is_yes() -> None:
    logits = np.array([[0.0, 800.0, -2.0]], dtype=np.float32)
    np.testing.assert_allclose(probabilities(logits, "multi_label"), [[0.5, 1.0, 1 / (1 + np.exp(2))]], atol=1e-12)
    assert decided(logits, "multi_label").tolist() == [[0, 1, 0]]
