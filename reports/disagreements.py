"""Where a variant's answers differ from fp32's: another top-1 class, or another yes or no to a label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reports.facts import BASELINE, Facts, Predictions

MOST_IMAGES = 24
NO_FINDING = "no finding"


@dataclass(frozen=True)
class Changes:
    """How a variant's answers moved.

    Attributes:
        answers: how many were compared: one per image, or one per image and label.
        broken: fp32 was right and the variant is wrong.
        mended: fp32 was wrong and the variant is right.
        otherwise: both are wrong, in different ways; a yes or no cannot be.
    """

    variant: str
    answers: int
    broken: int
    mended: int
    otherwise: int

    @property
    def changed(self) -> int:
        """Answers that are not fp32's."""
        return self.broken + self.mended + self.otherwise


@dataclass(frozen=True)
class Answer:
    """A variant's answer, and the probability that it gives to it."""

    variant: str
    label: str
    probability: float
    correct: bool


@dataclass(frozen=True)
class Disagreement:
    """One test image, or one label of it, on which at least one variant answers otherwise than fp32.

    Attributes:
        index: position in the test split.
        truth: name of the true class, or of the true labels.
        question: the label that was decided; "" where an image has one class.
        baseline: fp32's answer.
        others: the answers of the variants that differ.
    """

    index: int
    truth: str
    question: str
    baseline: Answer
    others: tuple[Answer, ...]


def changes(facts: Facts) -> tuple[Changes, ...]:
    """Return the count of changed answers per variant; empty without fp32's predictions."""
    baseline, compared = _comparable(facts)
    if baseline is None:
        return ()
    answers, truth = _answers(baseline), baseline.labels
    right = answers == truth
    result = []
    for variant, predictions in compared.items():
        of_variant = _answers(predictions)
        moved = of_variant != answers
        broken, mended = int((moved & right).sum()), int((moved & (of_variant == truth)).sum())
        result.append(Changes(variant, moved.size, broken, mended, int(moved.sum()) - broken - mended))
    return tuple(result)


def disagreements(facts: Facts) -> tuple[Disagreement, ...]:
    """Return every changed answer: those that fp32 had right first, by falling certainty of fp32."""
    baseline, compared = _comparable(facts)
    if baseline is None:
        return ()
    answers = _answers(baseline)
    moved = np.zeros(answers.shape, dtype=bool)
    for predictions in compared.values():
        moved |= _answers(predictions) != answers
    found = [_disagreement(facts, tuple(at), baseline, compared) for at in np.argwhere(moved).tolist()]
    return tuple(sorted(found, key=lambda d: (not d.baseline.correct, -d.baseline.probability, d.index)))


def _answers(predictions: Predictions) -> NDArray[np.int64]:
    """Return the answered classes [n], or the decisions [n, classes] as 0 or 1."""
    return predictions.top1 if predictions.task == "multi_class" else predictions.decisions.astype(np.int64)


def _comparable(facts: Facts) -> tuple[Predictions | None, dict[str, Predictions]]:
    baseline = facts.predictions.get(BASELINE)
    if baseline is None:
        return None, {}
    same_images = {
        variant: facts.predictions[variant]
        for variant in facts.variant_names
        if variant in facts.predictions
        and variant != BASELINE
        and np.array_equal(facts.predictions[variant].labels, baseline.labels)
    }
    return baseline, same_images


def _disagreement(
    facts: Facts, at: tuple[int, ...], baseline: Predictions, compared: dict[str, Predictions]
) -> Disagreement:
    others = tuple(
        _answer(facts, variant, predictions, at)
        for variant, predictions in compared.items()
        if _answers(predictions)[at] != _answers(baseline)[at]
    )
    question = class_name(facts, at[1]) if len(at) > 1 else ""
    truth = truth_name(facts, baseline.labels, at[0])
    return Disagreement(at[0], truth, question, _answer(facts, BASELINE, baseline, at), others)


def _answer(facts: Facts, variant: str, predictions: Predictions, at: tuple[int, ...]) -> Answer:
    answer = int(_answers(predictions)[at])
    correct = answer == int(predictions.labels[at])
    if len(at) > 1:
        probability = float(predictions.probabilities[at])
        return Answer(variant, "yes" if answer else "no", probability if answer else 1 - probability, correct)
    return Answer(variant, class_name(facts, answer), float(predictions.probabilities[at[0], answer]), correct)


def class_name(facts: Facts, label: int) -> str:
    """Return a class's name, or its number where the run names none."""
    return facts.record.classes[label] if 0 <= label < len(facts.record.classes) else f"class {label}"


def truth_name(facts: Facts, labels: NDArray[np.int64], index: int) -> str:
    """Return an image's class, or its labels one after another, by the labels of its split."""
    if labels.ndim == 1:
        return class_name(facts, int(labels[index]))
    return ", ".join(class_name(facts, label) for label in np.flatnonzero(labels[index]).tolist()) or NO_FINDING
