"""Saliency-guided training: the network must answer the same when the least salient features are noise.

Source: Ismail, Corrada Bravo, Feizi, "Improving Deep Learning Interpretability by Saliency Guided Training",
NeurIPS 2021, arXiv 2111.14338, algorithm 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.train.settings import SaliencyGuidedSettings


def saliency_guided_loss(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: SaliencyGuidedSettings,
    generator: torch.Generator,
    label_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return CE(f(X), y) + λ·KL(f(X) ‖ f(X̃)) and the logits f(X), from two forward passes and one input gradient.

    Args:
        network: normalised images to logits, in training mode.
        images: float32 [batch, channels, height, width].
        labels: int64 [batch].
        settings: masked fraction, λ, ranking.
        generator: source of the noise.
        label_weights: float32 [classes], weight of each class in the cross entropy, or None.

    Returns:
        The loss, a scalar with its graph, and the logits [batch, classes].

    One forward pass serves both the gradient and the loss, so the batch norms normalise with the batch's statistics
    and a pixel's gradient holds its small effect on the other images' logits as well. The authors' code spends a
    further pass in evaluation mode on it. The masked images, too, enter the running statistics, as in their code.
    """
    images = images.detach().requires_grad_(True)
    logits = network(images)
    true_class = logits.gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(true_class, images, retain_graph=True)
    masked = mask_least_salient(images.detach(), gradient, settings, generator)
    cross_entropy = F.cross_entropy(logits, labels, weight=label_weights)
    # F.kl_div(log q, log p) is KL(p ‖ q); both arguments are logarithms.
    divergence = F.kl_div(
        F.log_softmax(network(masked), dim=1), F.log_softmax(logits, dim=1), log_target=True, reduction="batchmean"
    )
    return cross_entropy + settings.weight * divergence, logits


def mask_least_salient(
    images: Tensor, gradient: Tensor, settings: SaliencyGuidedSettings, generator: torch.Generator
) -> Tensor:
    """Return the images with their least salient pixels drawn uniformly between the image's extremes, per channel.

    Args:
        images: float32 [batch, channels, height, width].
        gradient: of the true class's logit with respect to `images`, same shape.
        settings: `masked_fraction` of the pixels are replaced, the same ones in every channel.
        generator: source of the noise; on the same device as the images.
    """
    batch, _, height, width = images.shape
    scores = (gradient.abs() if settings.rank_by == "magnitude" else gradient).mean(dim=1).flatten(1)
    count = round(settings.masked_fraction * height * width)
    least = scores.topk(count, dim=1, largest=False, sorted=False).indices
    masked = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, least, True).view(batch, 1, height, width)
    low = images.amin(dim=(2, 3), keepdim=True)
    high = images.amax(dim=(2, 3), keepdim=True)
    noise = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return torch.where(masked, low + noise * (high - low), images)
