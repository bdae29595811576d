"""How good the network is on validation data: the loss, and the score that the best epoch is chosen by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration_data.prepared import PreparedSplit
from foundation.artifacts import Task
from stages.network.checkpoint import NetworkSpec
from stages.network.normalisation import normalise
from stages.train.objectives import label_loss

SCORE_OF: dict[Task, str] = {"multi_class": "balanced_accuracy", "multi_label": "auroc_macro"}
"""The metric that the best epoch is chosen by."""


def evaluate(
    network: nn.Module, split: PreparedSplit, spec: NetworkSpec, batch_size: int = 256
) -> tuple[float, float]:
    """Return the loss and the score, in float32 and evaluation mode.

    The score is balanced accuracy (mean recall of the classes present); of a multi-label task the mean AUROC of the
    labels that occur and don't always occur, or 0.5 where there are none.
    """
    network.eval()
    device = next(network.parameters()).device
    logits = []
    with torch.no_grad():
        for start in range(0, len(split), batch_size):
            pixels = torch.from_numpy(split.images[start : start + batch_size]).to(device)
            logits.append(network(normalise(pixels, spec.mean, spec.std)).float().cpu())
    scores = torch.cat(logits)
    loss = label_loss(scores, torch.from_numpy(split.labels), spec.task, 0.0, None).item()
    if not torch.isfinite(scores).all():
        return float("nan"), 0.0
    return loss, _mean_auroc(scores, split.labels) if spec.task == "multi_label" else _recall(scores, split.labels)


def _recall(scores: Tensor, labels: NDArray[np.int64]) -> float:
    correct = scores.argmax(1).numpy() == labels
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def _mean_auroc(scores: Tensor, labels: NDArray[np.int64]) -> float:
    from sklearn.metrics import roc_auc_score

    measurable = [label for label in range(labels.shape[1]) if 0 < labels[:, label].sum() < len(labels)]
    return float(np.mean([roc_auc_score(labels[:, label], scores[:, label]) for label in measurable] or [0.5]))
