"""Several processes training one network, as `torchrun` starts them: who we are, what each one takes, what is shared.

One process leads: it does the whole command and calls the others when it comes to training; they wait for that and
write nothing.

The numbers are those of one process with the whole batch: the batch norms see the whole batch's statistics, every
process draws for the whole batch and takes its part, and the loss is divided by the whole batch's size. What remains
is the order of sums, which moves float weights by about 1e-7; where activations are rounded, it decides a tie now and
then, and quantized weights drift apart as those of two thread counts do.
"""

from __future__ import annotations

import gc
import os
from datetime import timedelta
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

_PATIENCE = timedelta(days=1)


def count() -> int:
    """Return how many processes train together; 1 without `torchrun`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return our number among them; 0 leads: it alone writes files."""
    return int(os.environ.get("RANK", "0"))


def tell(message: object) -> None:
    """Send the waiting processes what to train on, or None to let them go; for the one that leads.

    Waits for all of them. Does nothing where there are none.
    """
    if count() > 1:
        _meet()
        dist.broadcast_object_list([message], src=0, device=torch.device("cpu"))
        if message is None:
            _part()


def told() -> object:
    """Wait for what the leading process sends."""
    _meet()
    received: list[object] = [None]
    dist.broadcast_object_list(received, src=0, device=torch.device("cpu"))
    if received[0] is None:
        _part()
    return received[0]


def wait() -> None:
    """Wait until all processes have come here; torchrun ends all the others as soon as one of them fails."""
    if count() > 1:
        dist.barrier()


def _part() -> None:
    # What still holds on to the group must go before it, and nobody may leave while another is still talking:
    # otherwise a thread of the group outlives it, and the process aborts as it ends.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def _meet() -> None:
    if not dist.is_initialized():
        # The others wait for as long as the leading one prepares the images.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)


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


def average(value: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes, the same in all of them; it carries no gradient."""
    if count() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / count()


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
    return DistributedDataParallel(network, forward_sync_buffers=False)


def _batch_norm_over_processes(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    dtype, x = x.dtype, x.float()  # in bfloat16, as of mixed precision, sums over a batch lose their digits
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
    return (centred * scale.view(shape) + norm.bias.view(shape)).to(dtype)


class _Sum(Function):
    """The sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum(x: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(x))  # type: ignore[no-untyped-call]
