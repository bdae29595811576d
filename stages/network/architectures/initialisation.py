"""Initial weights of the deep networks."""

from __future__ import annotations

from torch import nn


def initialise_convolutions(network: nn.Module) -> None:
    """Draw every convolution's weights by He's rule for ReLU (arXiv 1502.01852, eq. 14), fan out; biases start at 0.

    Args:
        network: changed in place; linear layers and batch norms keep what PyTorch gave them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
