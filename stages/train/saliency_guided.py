"""Saliency-guided training: the network must answer the same when the least salient features are noise.

Source: Ismail, Corrada Bravo, Feizi, "Improving Deep Learning Interpretability by Saliency Guided Training",
NeurIPS 2021, arXiv 2111.14338, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from foundation.artifacts import Task
from stages.train.objectives import divergence, explained_score
from stages.train.settings import SaliencyGuidedSettings


def saliency_guided_terms(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    task: Task,
    settings: SaliencyGuidedSettings,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the logits f(X) and KL(f(X) ‖ f(X̃)), from two forward passes and one input gradient.

    Args:
        network: normalised images to logits, in training mode.
        images: float32 [batch, channels, height, width].
        labels: int64 [batch], or int64 [batch, classes] of 0 and 1.
        task: what the labels are.
        settings: masked fraction, ranking.
        noise: float32, uniform in [0, 1), the shape of `images`.

    Returns:
        The logits [batch, classes] and a scalar, both with their graph. The whole loss is CE(f(X), y) + λ·KL.

    One forward pass serves both the gradient and the loss, so the batch norms normalise with the batch's statistics
    and a pixel's gradient holds its small effect on the other images' logits as well. The authors' code spends a
    further pass in evaluation mode on it. The masked images stay out of the running statistics, into which their code
    takes them: no image of that kind is ever evaluated.
    """
    images = images.detach().requires_grad_(True)
    logits = network(images)
    (gradient,) = torch.autograd.grad(explained_score(logits, labels, task).sum(), images, retain_graph=True)
    masked = mask_least_salient(images.detach(), gradient, settings, noise)
    with _running_statistics_kept(network):
        masked_logits = network(masked)
    return logits, divergence(logits.float(), masked_logits.float(), task)


@contextmanager
def _running_statistics_kept(network: nn.Module) -> Iterator[None]:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def mask_least_salient(images: Tensor, gradient: Tensor, settings: SaliencyGuidedSettings, noise: Tensor) -> Tensor:
    """Return the images with their least salient pixels drawn uniformly between the image's extremes, per channel.

    Args:
        images: float32 [batch, channels, height, width].
        gradient: of the explained score with respect to `images`, same shape.
        settings: `masked_fraction` of the pixels are replaced, the same ones in every channel.
        noise: float32, uniform in [0, 1), same shape.
    """
    batch, _, height, width = images.shape
    scores = (gradient.abs() if settings.rank_by == "magnitude" else gradient).mean(dim=1).flatten(1)
    count = round(settings.masked_fraction * height * width)
    least = scores.topk(count, dim=1, largest=False, sorted=False).indices
    masked = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, least, True).view(batch, 1, height, width)
    low = images.amin(dim=(2, 3), keepdim=True)
    high = images.amax(dim=(2, 3), keepdim=True)
    return torch.where(masked, low + noise * (high - low), images)
