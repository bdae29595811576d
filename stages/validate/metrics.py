"""What the logits of one class per image are worth, and what any logits are compared by.

Each metric is a function of arrays and of how often each image counts; `label_metrics` has those of yes/no labels.

`weights` is float64 [b, n]: row i says how often each of the n images counts in sample i; one row of ones gives the
metric itself. What is bootstrapped is a function of weighted sums, see `intervals.sums`, and its estimate is taken
from them too; so estimate and interval come from one definition. Every function returns float64 [b], NaN where a
sample has no image to say it of.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals.sums import Sums

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
    """Return each class's log p/(1−p) by softmax, float64 [n, classes]: its logit minus the others' log-sum-exp.

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


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotients of two arrays [b], NaN where the denominator is 0."""
    undefined = np.full(len(numerator), np.nan)
    return cast("Floats", np.divide(numerator, denominator, out=undefined, where=denominator > 0))


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Return the mean of values [m] in each sample of weights [b, m]."""
    return ratio(weights @ values, weights.sum(axis=1))


def accuracy(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Share of the images whose highest logit is the label's."""
    return weighted_mean((logits.argmax(axis=1) == labels).astype(np.float64), weights)


def sensitivity(logits: Logits, labels: Labels, class_index: int, weights: Floats) -> Floats:
    """Share of a class's images that are answered with that class (its recall)."""
    of_class = labels == class_index
    hits = (logits.argmax(axis=1) == class_index)[of_class].astype(np.float64)
    return weighted_mean(hits, weights[:, of_class])


def specificity(logits: Logits, labels: Labels, class_index: int, weights: Floats) -> Floats:
    """Share of the other classes' images that are not answered with this class."""
    others = labels != class_index
    rejections = (logits.argmax(axis=1) != class_index)[others].astype(np.float64)
    return weighted_mean(rejections, weights[:, others])


def _negatives_below(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Return for each positive image the weight of the negatives below it and of those not above it, and of all."""
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    # Weight of the k lowest negatives, from k = 0 on.
    lowest = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, negatives], axis=1, out=lowest[:, 1:])
    first = np.searchsorted(scores[negatives], scores[positive], side="left")
    last = np.searchsorted(scores[negatives], scores[positive], side="right")
    return lowest[:, first], lowest[:, last], lowest[:, -1]


def area_under_roc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Probability that a positive image scores above a negative one, ties counted half (Mann-Whitney).

    Args:
        scores: float64 [n].
        positive: bool [n].
        weights: float64 [b, n].
    """
    below, not_above, total = _negatives_below(scores, positive, weights)
    positives = weights[:, positive]
    wins = (positives * (below + not_above)).sum(axis=1) / 2
    return ratio(wins, positives.sum(axis=1) * total)


def area_under_precision_recall(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Mean over the positive images of the precision at their score (average precision, without interpolation).

    Args:
        scores: float64 [n]; images of the same score come in together.
        positive: bool [n].
        weights: float64 [b, n].
    """
    return precision_recall_sums(scores, positive)(weights.T)


def precision_recall_sums(scores: Floats, positive: NDArray[np.bool_]) -> Sums:
    """Return the average precision as a function of sums, see `area_under_precision_recall`.

    Precision is asked at the positives' scores alone. So the images between two of them are one sum, and what scores
    below all of them is none.
    """
    from scipy.sparse import csr_array

    levels = np.unique(scores[positive])[::-1]  # the highest first
    # The first level that lets an image in; a negative of the same score comes in with it.
    at = len(levels) - np.searchsorted(levels[::-1], scores, side="right")
    counts = at < len(levels)
    rows = (at + np.where(positive, 0, len(levels)))[counts]
    images = np.flatnonzero(counts)
    terms = csr_array((np.ones(len(images), np.float32), (rows, images)), shape=(2 * len(levels), len(scores)))
    return Sums(terms, _average_precision)


def _average_precision(sums: Floats) -> Floats:
    levels = len(sums) // 2
    positives = sums[:levels]
    hits, called = (np.cumsum(part, axis=0, dtype=np.float64) for part in (positives, positives + sums[levels:]))
    # A level that a sample leaves out counts nothing, whatever the precision there.
    precision = hits / np.maximum(called, np.finfo(np.float64).tiny)
    return ratio((positives * precision).sum(axis=0), positives.sum(axis=0))


def auroc(logits: Logits, labels: Labels, class_index: int, weights: Floats) -> Floats:
    """Area under the ROC curve of one class against the rest, scored by its log-odds."""
    return area_under_roc(log_odds(logits)[:, class_index], labels == class_index, weights)


def average_precision(logits: Logits, labels: Labels, class_index: int, weights: Floats) -> Floats:
    """Average precision of one class against the rest, scored by its log-odds."""
    return area_under_precision_recall(log_odds(logits)[:, class_index], labels == class_index, weights)


def calibration_sums(confidence: Floats, correct: NDArray[np.bool_]) -> Sums:
    """Mean gap between confidence and accuracy over 15 bins of equal width (Guo et al. 2017, eq. 3), of sums.

    Args:
        confidence: float64 [n, answers], 0 to 1, in each of an image's answers.
        correct: bool [n, answers].
    """
    # Bin m holds ((m−1)/M, m/M], as in the paper.
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    images, answers = confidence.shape
    places = (bins * images + np.arange(images)[:, None]).ravel()
    gaps = np.bincount(places, (correct - confidence).ravel(), ECE_BINS * images).reshape(ECE_BINS, images)
    terms = np.concatenate([gaps, np.full((1, images), float(answers))])
    return Sums(terms, lambda sums: ratio(np.abs(sums[:-1]).sum(axis=0), sums[-1]))


def gap_of_calibrated(confidence: Floats) -> float:
    """Return the gap that a perfectly calibrated file with these confidences would show on so many answers by chance.

    In each bin the difference of right answers and confidences is then about normal with variance Σ c(1−c), and the
    mean of its magnitude √(2/π) of its standard deviation: what is biased upwards in an ECE near 0.

    Args:
        confidence: float64 [n, answers].
    """
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1).ravel()
    variances = np.bincount(bins, weights=(confidence * (1 - confidence)).ravel(), minlength=ECE_BINS)
    return float(np.sqrt(2 / np.pi * variances).sum()) / confidence.size


def expected_calibration_error(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Mean gap between the confidence in the answers and their accuracy, see `calibration_sums`."""
    return expected_calibration_sums(logits, labels)(weights.T)


def expected_calibration_sums(logits: Logits, labels: Labels) -> Sums:
    """Return `expected_calibration_error` as a function of sums."""
    confidence = np.exp(log_softmax(logits).max(axis=1))
    return calibration_sums(confidence[:, None], (logits.argmax(axis=1) == labels)[:, None])


def squared_distances(logits: Logits, labels: Labels) -> Floats:
    """Squared distance between each image's probabilities and the one-hot label, float64 [n], 0 to 2."""
    errors = np.exp(log_softmax(logits))
    errors[np.arange(len(labels)), labels] -= 1.0
    return np.asarray(np.square(errors).sum(axis=1))


def brier_score(logits: Logits, labels: Labels, weights: Floats) -> Floats:
    """Mean squared distance between the probabilities and the one-hot label, 0 to 2 (Brier 1950)."""
    return weighted_mean(squared_distances(logits, labels), weights)


def agreement(logits: Logits, reference_logits: Logits, weights: Floats) -> Floats:
    """Share of the images for which both files give the same answer."""
    same = logits.argmax(axis=1) == reference_logits.argmax(axis=1)
    return weighted_mean(same.astype(np.float64), weights)


def logits_sqnr_db(logits: Logits, reference_logits: Logits, weights: Floats) -> Floats:
    """Energy of the reference's logits over the energy of the difference, in dB, at most `SQNR_CEILING_DB`."""
    return sqnr_sums(logits, reference_logits)(weights.T)


def sqnr_sums(logits: Logits, reference_logits: Logits) -> Sums:
    """Return `logits_sqnr_db` as a function of sums."""
    reference = reference_logits.astype(np.float64)
    noise = logits.astype(np.float64) - reference
    energies = [np.square(part).sum(axis=1) for part in (reference, noise)]
    return Sums(np.stack(energies), _decibels)


def _decibels(energies: Floats) -> Floats:
    signal, noise = energies
    ceiling = 10.0 ** (SQNR_CEILING_DB / 10)
    # No signal and no noise is 0/0: identical, so the ceiling. Noise without signal is −∞ dB: the floor is −ceiling.
    ratio = np.where(noise * ceiling <= signal, ceiling, signal / np.where(noise > 0, noise, 1.0))
    return cast("Floats", 10 * np.log10(np.maximum(ratio, 1 / ceiling)))
