"""Where a variant's top-1 answer differs from fp32's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reports.facts import BASELINE, Facts, Predictions

MOST_IMAGES = 24


@dataclass(frozen=True)
class Changes:
    """How a variant's answers moved, in images.

    Attributes:
        broken: fp32 was right and the variant is wrong.
        mended: fp32 was wrong and the variant is right.
        otherwise: both are wrong, in different ways.
    """

    variant: str
    images: int
    broken: int
    mended: int
    otherwise: int

    @property
    def changed(self) -> int:
        """Images with another top-1 answer than fp32's."""
        return self.broken + self.mended + self.otherwise


@dataclass(frozen=True)
class Answer:
    """A variant's top-1 answer on one image."""

    variant: str
    label: str
    probability: float
    correct: bool


@dataclass(frozen=True)
class Disagreement:
    """One test image on which at least one variant answers otherwise than fp32.

    Attributes:
        index: position in the test split.
        truth: name of the true class.
        baseline: fp32's answer.
        others: the answers of the variants that differ.
    """

    index: int
    truth: str
    baseline: Answer
    others: tuple[Answer, ...]


def changes(facts: Facts) -> tuple[Changes, ...]:
    """Return the count of changed answers per variant; empty without fp32's predictions."""
    baseline, compared = _comparable(facts)
    if baseline is None:
        return ()
    right = baseline.top1 == baseline.labels
    result = []
    for variant, predictions in compared.items():
        moved = predictions.top1 != baseline.top1
        variant_right = predictions.top1 == predictions.labels
        broken, mended = int((moved & right).sum()), int((moved & variant_right).sum())
        result.append(Changes(variant, len(moved), broken, mended, int(moved.sum()) - broken - mended))
    return tuple(result)


def disagreements(facts: Facts) -> tuple[Disagreement, ...]:
    """Return every image with a changed answer: those that fp32 had right first, by falling certainty of fp32."""
    baseline, compared = _comparable(facts)
    if baseline is None:
        return ()
    moved = np.zeros(len(baseline.labels), dtype=bool)
    for predictions in compared.values():
        moved |= predictions.top1 != baseline.top1
    found = [_disagreement(facts, int(index), baseline, compared) for index in np.flatnonzero(moved)]
    return tuple(sorted(found, key=lambda d: (not d.baseline.correct, -d.baseline.probability, d.index)))


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


def _disagreement(facts: Facts, index: int, baseline: Predictions, compared: dict[str, Predictions]) -> Disagreement:
    others = tuple(
        _answer(facts, variant, predictions, index)
        for variant, predictions in compared.items()
        if predictions.top1[index] != baseline.top1[index]
    )
    truth = class_name(facts, int(baseline.labels[index]))
    return Disagreement(index, truth, _answer(facts, BASELINE, baseline, index), others)


def _answer(facts: Facts, variant: str, predictions: Predictions, index: int) -> Answer:
    label = int(predictions.top1[index])
    probability = float(predictions.probabilities[index, label])
    return Answer(variant, class_name(facts, label), probability, label == int(predictions.labels[index]))


def class_name(facts: Facts, label: int) -> str:
    """Return a class's name, or its number where the run names none."""
    return facts.classes[label] if 0 <= label < len(facts.classes) else f"class {label}"
