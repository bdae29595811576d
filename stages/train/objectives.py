"""What is minimised, for either task: one choice among classes (softmax), or a yes or no per label (sigmoid)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foundation.artifacts import Task

_GREATEST_WEIGHT = 50.0  # of a label that hardly occurs; more would let a handful of images rule the loss


def label_loss(logits: Tensor, labels: Tensor, task: Task, smoothing: float, weights: Tensor | None) -> Tensor:
    """Return the mean loss over the images: cross entropy, or binary cross entropy meaned over the labels.

    Args:
        logits: float32 [batch, classes].
        labels: int64 [batch], or int64 [batch, classes] of 0 and 1.
        task: which of the two.
        smoothing: share of each label spread over the classes (or halfway between no and yes).
        weights: float32 [classes] of each class's images, or of each label's positives; None counts all alike.
    """
    if task == "multi_class":
        # Not PyTorch's mean, which divides by the batch's weights: processes that share a batch could not add theirs.
        return F.cross_entropy(logits, labels, weights, label_smoothing=smoothing, reduction="sum") / len(labels)
    targets = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)


def divergence(logits: Tensor, others: Tensor, task: Task) -> Tensor:
    """Return KL(p ‖ q), meaned over the images, of the answers p = f(logits) and q = f(others).

    Of a multi-label task it is the sum over the labels of the divergence of the two yes-or-no answers.
    """
    if task == "multi_class":
        # F.kl_div(log q, log p) is KL(p ‖ q); both arguments are logarithms.
        return F.kl_div(
            F.log_softmax(others, dim=1), F.log_softmax(logits, dim=1), log_target=True, reduction="batchmean"
        )
    terms = [
        F.kl_div(F.logsigmoid(sign * others), F.logsigmoid(sign * logits), log_target=True, reduction="batchmean")
        for sign in (1, -1)
    ]
    return terms[0] + terms[1]


def explained_score(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return what saliency explains, float32 [batch]: the true class's logit, or the sum over the true labels.

    An image without a label is explained by its highest logit: the finding that it came closest to.
    """
    if task == "multi_class":
        return logits.gather(1, labels[:, None])[:, 0]
    of_labels = (logits * labels).sum(dim=1)
    return torch.where(labels.any(dim=1), of_labels, logits.amax(dim=1))


def distilled(loss: Tensor, logits: Tensor, teacher: Tensor, task: Task, weight: float, temperature: float) -> Tensor:
    """Return (1 − w)·loss + w·T²·KL(teacher/T ‖ logits/T) (Hinton et al., arXiv 1503.02531, section 2)."""
    soft = divergence(teacher / temperature, logits / temperature, task)
    return (1 - weight) * loss + weight * temperature**2 * soft


def loss_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return float32 [classes]: n / (classes · count) of each class, or negatives over positives of each label."""
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=classes)
        weights = len(labels) / (classes * np.maximum(counts, 1))
    else:
        positives = labels.sum(axis=0)
        weights = (len(labels) - positives) / np.maximum(positives, 1)
    return torch.from_numpy(np.minimum(weights, _GREATEST_WEIGHT).astype(np.float32))
