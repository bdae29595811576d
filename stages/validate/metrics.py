"""What the logits are worth: each metric as a function of arrays and of how often each image counts.

`weights` is float64 [b, n]: row i says how often each of the n images counts in sample i. One row of ones gives the
metric itself, the rows of `statistics.resampling_weights` give its bootstrap distribution; so estimate and interval
come from one definition. Every function returns float64 [b].
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Logits = NDArray[np.float32]

ECE_BINS = 15
SQNR_CEILING_DB = 20 * 24 * float(np.log10(2))
"""144.5 dB, the resolution of float32's 24-bit significand; identical logits would give infinity."""


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Return log-probabilities, float64 [n, classes], of logits [n, classes]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return cast("Floats", shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_odds(logits: NDArray[np.floating]) -> Floats:
    """Return each class's log p/(1−p), float64 [n, classes]: its logit minus the log-sum-exp of all others.

    It orders images as the probability does, but doesn't saturate where p rounds to 1; and unlike the bare logit it
    doesn't change when a constant is added to all logits.

    Args:
        logits: [n, classes], at least two classes.
    """
    values = logits.astype(np.float64)
    rows = np.arange(len(values))
    best = values.argmax(axis=1)
    highest = values[rows, best][:, None]
    terms = np.exp(values - highest)
    # Without the best class the sum still holds its 1, so nothing cancels…
    rest = highest + np.log(np.maximum(terms.sum(axis=1, keepdims=True) - terms, np.finfo(np.float64).tiny))
    # …and the best class itself is set against the others' own maximum.
    others = values.copy()
    others[rows, best] = -np.inf
    second = others.max(axis=1)
    rest[rows, best] = second + np.log(np.exp(others - second[:, None]).sum(axis=1))
    return cast("Floats", values - rest)


def _weighted_mean(values: Floats, weights: Floats) -> Floats:
    return cast("Floats", weights @ values / weights.sum(axis=1))


def accuracy(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Share of the images whose highest logit is the label's."""
    return _weighted_mean((logits.argmax(axis=1) == labels).astype(np.float64), weights)


def sensitivity(logits: Logits, labels: Labels, class_index: int, weights: Floats) -> Floats:
    """Share of a class's images that are answered with that class (its recall)."""
    of_class = labels == class_index
    hits = (logits.argmax(axis=1) == class_index)[of_class].astype(np.float64)
    return _weighted_mean(hits, weights[:, of_class])


def specificity(logits: Logits, labels: Labels, class_index: int, weights: Floats) -> Floats:
    """Share of the other classes' images that are not answered with this class."""
    others = labels != class_index
    rejections = (logits.argmax(axis=1) != class_index)[others].astype(np.float64)
    return _weighted_mean(rejections, weights[:, others])


def balanced_accuracy(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Unweighted mean of the classes' sensitivities; every class needs an image."""
    return cast(
        "Floats",
        np.mean([sensitivity(logits, labels, index, weights) for index in range(logits.shape[1])], axis=0),
    )


def area_under_roc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Probability that a positive image scores above a negative one, ties counted half (Mann-Whitney).

    Args:
        scores: float64 [n].
        positive: bool [n], neither all True nor all False.
        weights: float64 [b, n].
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    # Weight of the k lowest negatives, from k = 0 on.
    below = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    first = np.searchsorted(scores[negatives], scores[positive], side="left")
    last = np.searchsorted(scores[negatives], scores[positive], side="right")
    positives = weights[:, positive]
    wins = (positives * (below[:, first] + below[:, last])).sum(axis=1) / 2
    return cast("Floats", wins / (positives.sum(axis=1) * below[:, -1]))


def auroc(logits: Logits, labels: Labels, class_index: int, weights: Floats) -> Floats:
    """Area under the ROC curve of one class against the rest, scored by its log-odds."""
    return area_under_roc(log_odds(logits)[:, class_index], labels == class_index, weights)


def auroc_macro(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Unweighted mean of the classes' one-versus-rest AUROCs; every class needs an image."""
    return cast(
        "Floats", np.mean([auroc(logits, labels, index, weights) for index in range(logits.shape[1])], axis=0)
    )


def expected_calibration_error(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Mean gap between confidence and accuracy over 15 bins of equal width (Guo et al. 2017, eq. 3)."""
    confidence = np.exp(log_softmax(logits).max(axis=1))
    gap = (logits.argmax(axis=1) == labels) - confidence
    # Bin m holds ((m−1)/M, m/M], as in the paper.
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    in_bin = (bins[:, None] == np.arange(ECE_BINS)).astype(np.float64)
    return cast("Floats", np.abs(weights @ (in_bin * gap[:, None])).sum(axis=1) / weights.sum(axis=1))


def brier_score(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Mean squared distance between the probabilities and the one-hot label, 0 to 2 (Brier 1950)."""
    errors = np.exp(log_softmax(logits))
    errors[np.arange(len(labels)), labels] -= 1.0
    return _weighted_mean(np.square(errors).sum(axis=1), weights)


def agreement(logits: Logits, reference_logits: Logits, weights: Floats) -> Floats:
    """Share of the images for which both files give the same answer."""
    same = logits.argmax(axis=1) == reference_logits.argmax(axis=1)
    return _weighted_mean(same.astype(np.float64), weights)


def logits_sqnr_db(logits: Logits, reference_logits: Logits, weights: Floats) -> Floats:
    """Energy of the reference's logits over the energy of the difference, in dB, at most `SQNR_CEILING_DB`."""
    reference = reference_logits.astype(np.float64)
    signal = weights @ np.square(reference).sum(axis=1)
    noise = weights @ np.square(logits.astype(np.float64) - reference).sum(axis=1)
    ceiling = 10.0 ** (SQNR_CEILING_DB / 10)
    # No signal and no noise is 0/0: identical, so the ceiling. Noise without signal is −∞ dB: the floor is −ceiling.
    ratio = np.where(noise * ceiling <= signal, ceiling, signal / np.where(noise > 0, noise, 1.0))
    return cast("Floats", 10 * np.log10(np.maximum(ratio, 1 / ceiling)))
