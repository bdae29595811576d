from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foundation.answer_documents import read_answers, write_answers
from foundation.measurements import Measurement, PairedDifference, Where
from stages.validate.answers import Answers, Predictions
from stages.validate.answers_in_detail import MOST_POINTS, answers_in_detail, confusion, got_worse

CLASSES = ("a", "b", "c")


def answers(variant: str, logits: list[list[float]], labels: list[object], scored: bool = True) -> Answers:
    given = Predictions(variant, np.array(logits, np.float32), np.array(labels, np.int64), Path("x"), scored)
    return Answers.of(given, CLASSES[: len(logits[0])], [str(k) for k in range(len(labels))])


FP32 = answers("fp32", [[2, 1, 0], [0, 2, 1], [0, 1, 2], [1, 2, 0]], [0, 1, 2, 0])
INT8 = answers("int8", [[1, 2, 0], [0, 2, 1], [0, 1, 2], [2, 1, 0]], [0, 1, 2, 0])


def test_rows_are_the_truth_and_columns_the_answers() -> None:
    assert confusion(FP32).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    found = answers_in_detail([FP32, INT8], ())
    assert found.confusions[0].minus_fp32 is None
    assert found.confusions[1].minus_fp32 == ((0, 0, 0), (0, 0, 0), (0, 0, 0))


def test_of_labels_a_row_is_true_no_false_yes_false_no_true_yes() -> None:
    of_labels = answers("fp32", [[1, -1], [1, 1], [-1, -1], [-1, 1]], [[1, 1], [0, 1], [0, 0], [1, 0]])
    assert confusion(of_labels).tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]


def test_a_curve_leads_from_corner_to_corner_and_the_dot_is_the_answer() -> None:
    """Of class a: its images score 2 − … and 1 − …; one is called a, none of the others is."""
    curves = {(one.variant, one.of_class): one for one in answers_in_detail([FP32, INT8], ()).curves}
    one = curves["fp32", "a"]
    assert (one.positives, one.negatives) == (2, 2)
    assert (one.roc[0], one.roc[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert (one.dot.false_positive, one.dot.sensitivity, one.dot.precision) == (0.0, 0.5, 1.0)
    assert curves["fp32", "b"].dot.precision == 0.5


def test_a_long_curve_keeps_its_ends_and_its_area() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5000)
    margin = rng.normal(labels * 1.5, 1.0)
    logits = np.stack([-margin, margin], axis=1)
    (_, one) = answers_in_detail([answers("fp32", logits.tolist(), labels.tolist())], ()).curves
    assert len(one.roc) <= MOST_POINTS
    x, y = np.array(one.roc).T
    assert (one.roc[0], one.roc[-1]) == ((0.0, 0.0), (1.0, 1.0))
    order = np.argsort(margin)
    ranks = np.empty(5000)
    ranks[order] = np.arange(5000)
    positives = labels == 1
    area = (ranks[positives].mean() - (positives.sum() - 1) / 2) / (~positives).sum()
    assert np.trapezoid(y, x) == pytest.approx(area, abs=0.003)


def test_a_file_that_gives_no_scores_has_no_curves() -> None:
    silent = answers("int8", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], [0, 1, 2, 0], scored=False)
    assert {one.variant for one in answers_in_detail([FP32, silent], ()).curves} == {"fp32"}


def test_a_class_got_worse_where_its_interval_says_so() -> None:
    def of(name: str, high: float) -> Measurement:
        change = PairedDifference(-0.1, (-0.2, high), "tango", 50, 50)
        return Measurement(f"sensitivity/{name}", 0.5, "share", "int8", Where("cpu", "test"), 50, difference=change)

    assert got_worse([of("a", -0.01), of("b", 0.01)]) == {"int8": ("a",)}


def test_a_weak_baseline_is_doubted() -> None:
    weak = Measurement("balanced_accuracy", 0.35, "share", "fp32", Where("cpu", "test"), 90, (0.25, 0.45))
    assert "is not above chance, 0.333" in answers_in_detail([FP32], [weak]).doubts[0]
    labels = answers("fp32", [[1, -1], [1, 1], [-1, -1], [-1, 1]], [[1, 1], [0, 1], [0, 0], [1, 0]])
    area = Measurement("auroc_macro", 0.563, "share", "fp32", Where("cpu", "test"), 200, (0.508, 0.615))
    assert "0.563 (95 % 0.508 to 0.615)" in answers_in_detail([labels], [area]).doubts[0]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = answers_in_detail([FP32, INT8], ())
    write_answers(tmp_path / "answers.json", found)
    assert read_answers(tmp_path / "answers.json") == found
