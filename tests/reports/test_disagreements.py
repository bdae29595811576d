from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from small_run import small_record

from foundation.notes import ExportNotes
from foundation.record import VariantRecord
from reports.disagreements import changes, disagreements
from reports.facts import Facts, Predictions


def predictions(answers: list[int], labels: list[int], sureness: list[float]) -> Predictions:
    logits: NDArray[np.float32] = np.zeros((len(answers), 3), dtype=np.float32)
    logits[np.arange(len(answers)), answers] = sureness
    return Predictions(logits, np.array(labels))


def variants(*names: str) -> tuple[VariantRecord, ...]:
    return tuple(VariantRecord(name, name, "", "", 1, None, {}, ExportNotes()) for name in names)


def facts() -> Facts:
    labels = [0, 1, 2, 0, 1]
    return Facts(
        small_record(classes=("a", "b", "c"), variants=variants("fp16", "fp32")),
        predictions={
            "fp32": predictions([0, 1, 2, 1, 2], labels, [1, 2, 3, 4, 5]),
            "fp16": predictions([1, 2, 2, 0, 0], labels, [1, 1, 1, 1, 1]),
        },
    )


def test_changes_are_counted_by_what_they_did() -> None:
    (change,) = changes(facts())
    assert (change.changed, change.broken, change.mended, change.otherwise, change.answers) == (4, 2, 1, 1, 5)


def test_what_fp32_had_right_comes_first_the_surest_first() -> None:
    found = disagreements(facts())
    assert [item.index for item in found] == [1, 0, 4, 3]
    first = found[0]
    assert (first.truth, first.baseline.label, first.others[0].label) == ("b", "b", "c")
    assert first.baseline.probability == pytest.approx(np.exp(2) / (np.exp(2) + 2))


def test_without_fp32_nothing_is_compared() -> None:
    assert disagreements(Facts(small_record())) == changes(Facts(small_record())) == ()


def label_facts() -> Facts:
    labels = np.array([[1, 0], [0, 0]])
    logits = {"fp32": [[2.0, -1.0], [-3.0, 1.0]], "fp16": [[-0.5, -1.0], [-3.0, -2.0]]}
    return Facts(
        small_record(classes=("mass", "edema"), variants=variants(*logits), task="multi_label"),
        predictions={name: Predictions(np.array(of, np.float32), labels) for name, of in logits.items()},
    )


def test_yes_no_answers_are_compared_label_by_label() -> None:
    (change,) = changes(label_facts())
    assert (change.changed, change.broken, change.mended, change.otherwise, change.answers) == (2, 1, 1, 0, 4)
    first, second = disagreements(label_facts())
    assert (first.question, first.truth, first.baseline.label, first.others[0].label) == ("mass", "mass", "yes", "no")
    assert first.baseline.probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert first.others[0].probability == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert (second.question, second.truth, second.baseline.correct) == ("edema", "no finding", False)
