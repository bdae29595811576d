"""Every decision about every image that a share is made of, right or not: what intervals of shares are computed from.

Each function takes (logits, truth, class index) and returns float64 [strata, decisions per image, n], see
`intervals.proportions.Decisions`; the truth is the labels, or fp32's logits. The names are those of the metrics in
`metrics` and `label_metrics`, whose values they agree with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Logits = NDArray[np.float32]


def accuracy(logits: Logits, labels: Labels, _: int | None) -> Floats:
    """Return whether each image's highest logit is the label's."""
    return np.asarray(logits.argmax(axis=1) == labels, dtype=np.float64)[None, None]


def sensitivity(logits: Logits, labels: Labels, class_index: int) -> Floats:
    """Return whether each image of a class is answered with it."""
    return _asked(labels == class_index, logits.argmax(axis=1) == class_index)


def specificity(logits: Logits, labels: Labels, class_index: int) -> Floats:
    """Return whether each image of another class is not answered with this one."""
    return _asked(labels != class_index, logits.argmax(axis=1) != class_index)


def agreement(logits: Logits, reference_logits: Logits, _: int | None) -> Floats:
    """Return whether each image is answered as fp32 answers it."""
    same = logits.argmax(axis=1) == reference_logits.argmax(axis=1)
    return np.asarray(same, dtype=np.float64)[None, None]


def label_accuracy(logits: Logits, labels: Labels, _: int | None) -> Floats:
    """Return whether each yes or no is the label's."""
    return np.asarray((logits > 0) == (labels == 1), dtype=np.float64).T[None]


def label_sensitivity(logits: Logits, labels: Labels, label_index: int) -> Floats:
    """Return whether each image with a label is answered yes."""
    return _asked(labels[:, label_index] == 1, logits[:, label_index] > 0)


def label_specificity(logits: Logits, labels: Labels, label_index: int) -> Floats:
    """Return whether each image without a label is answered no."""
    return _asked(labels[:, label_index] == 0, logits[:, label_index] <= 0)


def label_balanced_accuracy(logits: Logits, labels: Labels, label_index: int) -> Floats:
    """Return a label's sensitivity and specificity as two strata."""
    return np.concatenate([of(logits, labels, label_index) for of in (label_sensitivity, label_specificity)])


def label_agreement(logits: Logits, reference_logits: Logits, _: int | None) -> Floats:
    """Return whether each yes or no is fp32's."""
    return np.asarray((logits > 0) == (reference_logits > 0), dtype=np.float64).T[None]


def _asked(asked: NDArray[np.bool_], right: NDArray[np.bool_]) -> Floats:
    return np.where(asked, right.astype(np.float64), np.nan)[None, None]
