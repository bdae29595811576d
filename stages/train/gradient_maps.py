"""Gradient saliency of the PyTorch network, float or with its fake quantization."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.artifacts import Checkpoint
from stages.network.checkpoint import load_checkpoint
from stages.network.normalisation import normalise
from stages.network.quantizers import set_rounding


def gradient_maps(
    checkpoint: Checkpoint,
    images: NDArray[np.uint8],
    targets: NDArray[np.int64],
    rounding: bool,
    batch_size: int = 32,
) -> NDArray[np.float32]:
    """Return the magnitude of the target logit's gradient with respect to the image, averaged over channels.

    Source: Simonyan et al., arXiv 1312.6034.

    Args:
        checkpoint: the trained network.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.
        rounding: whether weights and activations are rounded to their grids (the network that PACT ships) or only
            clipped (the float network).
        batch_size: images per pass.

    Returns:
        float32 [n, height, width], 0 or more.
    """
    spec, network = load_checkpoint(checkpoint)
    set_rounding(network, rounding)
    torch.set_num_threads(1)  # the same maps whatever trained before in this process
    maps = []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(images[start : start + batch_size])
        batch = normalise(pixels, spec.mean, spec.std).requires_grad_(True)
        logits = network(batch)
        chosen = logits.gather(1, torch.from_numpy(targets[start : start + batch_size])[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, batch)
        maps.append(gradient.abs().mean(dim=1).numpy())
    return np.concatenate(maps)
