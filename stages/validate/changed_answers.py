"""Where a variant's answers differ from fp32's: another top-1 class, or another yes or no to a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.image_by_image import Answer, ChangedAnswer, ChangedAnswers, Changes
from stages.validate.answers import Predictions, decided, probabilities

MOST_IMAGES = 24
"""How many changed answers are kept with their image; the counts are of all."""

Integers = NDArray[np.integer]


def changed_answers(fp32: Predictions, others: Mapping[str, Predictions]) -> ChangedAnswers:
    """Return how many answers changed in each variant, and the first of them: those that fp32 had right and surest.

    Args:
        fp32: the baseline's answers.
        others: variant → its answers to the same images.
    """
    given = {name: _Given.of(predictions) for name, predictions in {"fp32": fp32, **others}.items()}
    baseline = given.pop("fp32")
    moved = np.zeros(baseline.answers.shape, dtype=bool)
    for of_variant in given.values():
        moved |= of_variant.answers != baseline.answers
    places = np.argwhere(moved)
    wrong = (baseline.answers != fp32.labels)[moved]
    order = np.lexsort((np.arange(len(places)), -baseline.sureness[moved], wrong))[:MOST_IMAGES]
    first = tuple(_changed_answer(tuple(places[at].tolist()), fp32.labels, baseline, given) for at in order)
    changes = tuple(_changes(name, one.answers, baseline.answers, fp32.labels) for name, one in given.items())
    return ChangedAnswers(changes, len(places), first)


@dataclass(frozen=True)
class _Given:
    """What a variant answered and the probability that it gave to each answer, both in the form of the labels.

    A file that gives the number of a class alone is equally sure of all of them, and no probability of it is told.
    """

    answers: Integers
    sureness: NDArray[np.float64]
    scored: bool

    @classmethod
    def of(cls, predictions: Predictions) -> _Given:
        task = predictions.task
        answers, shares = decided(predictions.logits, task), probabilities(predictions.logits, task)
        if task == "multi_label":
            return cls(answers, np.where(answers == 1, shares, 1 - shares), predictions.scored)
        return cls(answers, shares[np.arange(len(shares)), answers], predictions.scored)


def _changes(variant: str, answers: Integers, expected: Integers, truth: Integers) -> Changes:
    moved = answers != expected
    broken, mended = int((moved & (expected == truth)).sum()), int((moved & (answers == truth)).sum())
    return Changes(variant, moved.size, broken, mended, int(moved.sum()) - broken - mended)


def _changed_answer(
    at: tuple[int, ...], labels: Integers, baseline: _Given, others: Mapping[str, _Given]
) -> ChangedAnswer:
    differing = tuple(
        _answer(variant, given, at, labels)
        for variant, given in others.items()
        if given.answers[at] != baseline.answers[at]
    )
    label = at[1] if len(at) > 1 else None
    return ChangedAnswer(at[0], _truth(labels, at[0]), label, _answer("fp32", baseline, at, labels), differing)


def _answer(variant: str, given: _Given, at: tuple[int, ...], labels: Integers) -> Answer:
    answer = int(given.answers[at])
    probability = float(given.sureness[at]) if given.scored else None
    return Answer(variant, answer, probability, answer == int(labels[at]))


def _truth(labels: Integers, index: int) -> tuple[int, ...]:
    """Return an image's class, or every label that it has."""
    if labels.ndim == 1:
        return (int(labels[index]),)
    return tuple(np.flatnonzero(labels[index]).tolist())
