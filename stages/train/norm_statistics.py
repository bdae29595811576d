"""The batch norms' means and variances, taken anew over whole batches instead of trailing behind the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def norms_of(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that keep running statistics."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def retake_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set each batch norm's statistics to their plain mean over the batches; leave the network in evaluation mode.

    The running ones are those of the last ten batches or so, taken while the weights still moved, and of a running
    mean of the weights they are a mean of others' statistics ("PreciseBN": Wu and Johnson, arXiv 2105.07576).
    PyTorch's `update_bn` does the same, but with dropout, and by a momentum of None, which our batch norm over
    several processes does not take.

    Args:
        network: at least one batch norm; nothing else of it changes.
        batches: normalised images, float32 [n, channels, height, width], n at least 2, on the network's device; at
            least one batch, or nothing changes.
    """
    norms = norms_of(network)
    kept = [norm.momentum for norm in norms]
    network.train()  # quantized layers as well, which otherwise compute with the statistics already in their integers
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.eval()
    with torch.no_grad():
        for number, images in enumerate(batches, start=1):
            for norm in norms:
                norm.momentum = 1 / number  # which makes the running mean a plain one
            network(images)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    network.eval()
