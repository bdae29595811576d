"""The optimizer, the learning rate of each step, and the running mean of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from stages.network.quantizers import clip_bounds
from stages.train.settings import TrainSettings

_STEPS_DOWN = (0.3, 0.6)  # PACT's recipe: after 60 and 120 of 200 epochs


def build_optimizer(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimizer; the clips α have a group, and so an L2 coefficient, of their own."""
    alphas = clip_bounds(network)
    alpha_ids = {id(alpha) for alpha in alphas}
    # The paper's λ_α equals the weights' L2 coefficient; norms and biases decay like the rest, as in its recipe.
    weights = [parameter for parameter in network.parameters() if id(parameter) not in alpha_ids]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": settings.weight_decay}]
    if settings.pact:
        groups.append({"params": alphas, "weight_decay": settings.pact.clip_l2(settings.weight_decay)})
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Return the rate of a step: a linear rise to the peak, then half a cosine to zero or two steps of a tenth."""
    warmup = settings.warmup_fraction * steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    if settings.schedule == "step":
        return settings.learning_rate * 0.1 ** sum(step >= share * steps for share in _STEPS_DOWN)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def update_mean(mean: dict[str, Tensor], network: nn.Module, decay: float, updates: int) -> None:
    """Move the running mean of weights and statistics towards the network's, in place.

    Args:
        mean: name → tensor, as in the network's state.
        network: after an optimizer step.
        decay: of the mean; the first steps use less, (1 + t) / (10 + t), so that initial weights are soon forgotten.
        updates: how often the mean was updated before.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            mean[name].lerp_(tensor, 1 - decay)
        else:
            mean[name].copy_(tensor)
