"""What stands behind the shares: confusion matrices, ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.answer_documents import AnswersInDetail, Confusion, Curves, OperatingDot
from foundation.measurements import Measurement
from stages.validate.answers import Answers, decided
from stages.validate.suspicion import suspicions_of

MOST_POINTS = 40
"""Points of a curve that are kept; a chart of 200 pixels shows no more."""
MOST_CLASSES = 16
"""Classes whose curves are kept, the most frequent ones; a thousand charts are read by nobody."""

Floats = NDArray[np.float64]


def answers_in_detail(answers: Sequence[Answers], measurements: Sequence[Measurement]) -> AnswersInDetail:
    """Return what a report shows of the answers beside their measurements.

    Args:
        answers: of every file to the test images, fp32's first.
        measurements: of all of them.
    """
    fp32 = confusion(answers[0])
    confusions = [Confusion(answers[0].variant, _rows(fp32), None)]
    for one in answers[1:]:
        counts = confusion(one)
        confusions.append(Confusion(one.variant, _rows(counts), _rows(counts - fp32)))
    return AnswersInDetail(
        2,
        tuple(confusions),
        tuple(curve for one in answers if one.variant not in one.unscored for curve in _curves(one)),
        tuple(suspicions_of(answers[0], measurements)),
        got_worse(measurements),
    )


def confusion(answers: Answers) -> NDArray[np.int64]:
    """Return int64 [classes, classes] truth × answer; of labels [labels, 4]: true no, false yes, false no, yes."""
    given, classes = decided(answers.logits, answers.task), len(answers.classes)
    if answers.task == "multi_class":
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (answers.labels, given), 1)
        return counts
    truth = answers.labels == 1
    cells = (~truth & (given == 0), ~truth & (given == 1), truth & (given == 0), truth & (given == 1))
    return np.stack([cell.sum(axis=0) for cell in cells], axis=1).astype(np.int64)


def got_worse(measurements: Sequence[Measurement]) -> Mapping[str, tuple[str, ...]]:
    """Return the classes of each variant whose sensitivity's interval against fp32 lies below 0."""
    found: dict[str, tuple[str, ...]] = {}
    for one in measurements:
        family, _, of_class = one.metric.partition("/")
        interval = one.difference.ci95 if one.difference else None
        if family == "sensitivity" and one.where.subgroup is None and interval is not None and interval[1] < 0:
            found[one.variant] = (*found.get(one.variant, ()), of_class)
    return found


def _curves(answers: Answers) -> list[Curves]:
    images = [int(answers.positive(index).sum()) for index in range(len(answers.classes))]
    drawable = [i for i in answers.counted if 0 < images[i] < len(answers.labels)]
    kept = sorted(sorted(drawable, key=lambda i: (-images[i], i))[:MOST_CLASSES])
    return [_curves_of(answers, index) for index in kept]


def _curves_of(answers: Answers, index: int) -> Curves:
    from sklearn.metrics import precision_recall_curve, roc_curve

    positive, scores = answers.positive(index), answers.scores[:, index]
    false_positive, sensitivity, _ = roc_curve(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    given = decided(answers.logits, answers.task)
    called = given == index if answers.task == "multi_class" else given[:, index] == 1
    dot = OperatingDot(
        float(called[~positive].mean()),
        float(called[positive].mean()),
        float(positive[called].mean()) if called.any() else None,
    )
    return Curves(
        answers.variant,
        answers.classes[index],
        int(positive.sum()),
        int((~positive).sum()),
        _thinned(false_positive, sensitivity),
        _thinned(recall[::-1], precision[::-1]),
        dot,
    )


def _thinned(x: Floats, y: Floats) -> tuple[tuple[float, float], ...]:
    """Return at most `MOST_POINTS` of a curve's points, spread evenly along its length, its ends among them."""
    if len(x) > MOST_POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
        chosen = np.unique(np.searchsorted(length, np.linspace(0.0, length[-1], MOST_POINTS)).clip(0, len(x) - 1))
        x, y = x[chosen], y[chosen]
    return tuple((round(float(a), 4), round(float(b), 4)) for a, b in zip(x, y, strict=True))


def _rows(counts: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in counts.tolist())
