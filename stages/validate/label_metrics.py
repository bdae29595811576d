"""What the logits of yes/no labels are worth: the same metrics for images that carry any number of labels.

A label's logit is its log-odds, so its probability is the sigmoid, and the answer is yes above 0 (probability 0.5, as
in MedMNIST's evaluator). Labels are int64 [n, classes] of 0 or 1, weights float64 [b, n] as in `metrics`.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.sums import Sums
from stages.validate.metrics import (
    area_under_precision_recall,
    area_under_roc,
    calibration_sums,
    weighted_mean,
)

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Logits = NDArray[np.float32]


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    """Return the probabilities of logits, float64 of the same shape; no logit is too large for it."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def accuracy(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Share of the (image, label) pairs that are decided correctly; the mean of the labels' accuracies."""
    return weighted_mean(((logits > 0) == (labels == 1)).mean(axis=1), weights)


def sensitivity(logits: Logits, labels: Labels, label_index: int, weights: Floats) -> Floats:
    """Share of the images with a label for which it is answered (its recall)."""
    present = labels[:, label_index] == 1
    return weighted_mean((logits[present, label_index] > 0).astype(np.float64), weights[:, present])


def specificity(logits: Logits, labels: Labels, label_index: int, weights: Floats) -> Floats:
    """Share of the images without a label for which it is not answered."""
    absent = labels[:, label_index] == 0
    return weighted_mean((logits[absent, label_index] <= 0).astype(np.float64), weights[:, absent])


def balanced_accuracy(logits: Logits, labels: Labels, label_index: int, weights: Floats) -> Floats:
    """Mean of a label's sensitivity and specificity."""
    parts = (function(logits, labels, label_index, weights) for function in (sensitivity, specificity))
    return cast("Floats", sum(parts) / 2)


def auroc(logits: Logits, labels: Labels, label_index: int, weights: Floats) -> Floats:
    """Area under the ROC curve of one label, scored by its logit."""
    return area_under_roc(logits[:, label_index].astype(np.float64), labels[:, label_index] == 1, weights)


def average_precision(logits: Logits, labels: Labels, label_index: int, weights: Floats) -> Floats:
    """Average precision of one label, scored by its logit."""
    scores = logits[:, label_index].astype(np.float64)
    return area_under_precision_recall(scores, labels[:, label_index] == 1, weights)


def expected_calibration_error(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Mean gap between the confidence in a yes or no and its accuracy, over all (image, label) pairs."""
    return expected_calibration_sums(logits, labels)(weights.T)


def expected_calibration_sums(logits: Logits, labels: Labels) -> Sums:
    """Return `expected_calibration_error` as a function of sums."""
    probability = sigmoid(logits)
    return calibration_sums(np.maximum(probability, 1 - probability), (logits > 0) == (labels == 1))


def squared_distances(logits: Logits, labels: Labels) -> Floats:
    """Mean over an image's labels of the squared distance between probability and truth, float64 [n], 0 to 1."""
    return np.asarray(np.square(sigmoid(logits) - labels).mean(axis=1))


def brier_score(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Mean over images and labels of the squared distance between probability and truth, 0 to 1 (Brier 1950)."""
    return weighted_mean(squared_distances(logits, labels), weights)


def agreement(logits: Logits, reference_logits: Logits, weights: Floats) -> Floats:
    """Share of the (image, label) pairs that both files decide alike."""
    return weighted_mean(((logits > 0) == (reference_logits > 0)).mean(axis=1), weights)
