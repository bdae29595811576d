"""Several processes training one network, as `torchrun` starts them: who we are, what each one takes, what is shared.

The numbers are those of one process with the whole batch: the batch norms see the whole batch's statistics, every
process draws for the whole batch and takes its part, and the loss is divided by the whole batch's size.
"""

from __future__ import annotations

import os
from functools import partial
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def count() -> int:
    """Return how many processes train together; 1 without `torchrun`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return our number among them; 0 leads: it alone writes files."""
    return int(os.environ.get("RANK", "0"))


def join(device: torch.device) -> None:
    """Meet the other processes; waits for all of them. Does nothing where there are none, or if we have met."""
    if count() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def part_of(size: int) -> slice:
    """Return which images of a batch are ours; contiguous, and as equal in number as can be."""
    edges = [size * number // count() for number in range(count() + 1)]
    return slice(edges[rank()], edges[rank() + 1])


def share_of_loss(size: int) -> float:
    """Return the factor of a mean over our part of a batch, so that gradients averaged over the processes are those
    of the mean over the batch.
    """
    ours = part_of(size)
    return float((ours.stop - ours.start) * count() / size)


def together(network: nn.Module) -> nn.Module:
    """Return the network as the processes train it together; itself where there is one process.

    Gradients are averaged by PyTorch's DistributedDataParallel. Buffers are left alone, because the batch norms
    already agree on theirs.
    """
    if count() == 1:
        return network
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            # Not SyncBatchNorm, which refuses to run on a CPU.
            module.forward = partial(_batch_norm_over_processes, module)  # type: ignore[method-assign]
    return DistributedDataParallel(network, broadcast_buffers=False)


def _batch_norm_over_processes(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    axes = [0, *range(2, x.dim())]
    shape = (1, -1, *[1] * (x.dim() - 2))
    n = torch.tensor(float(x.numel() / x.shape[1]), device=x.device)
    dist.all_reduce(n)
    mean = _sum(x.sum(axes)) / n
    centred = x - mean.view(shape)
    variance = _sum(centred.square().sum(axes)) / n
    with torch.no_grad():
        running_mean, running_var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        momentum = cast(float, norm.momentum)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * n / (n - 1), momentum)
        cast(Tensor, norm.num_batches_tracked).add_(1)
    scale = (variance + norm.eps).rsqrt() * norm.weight
    return centred * scale.view(shape) + norm.bias.view(shape)


def _sum(x: Tensor) -> Tensor:
    return cast(Tensor, all_reduce(x))  # type: ignore[no-untyped-call]
