"""A small convolutional network for images of any size."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from torch import Tensor, nn


class BlockCnn(nn.Module):
    """Four blocks of 3×3 convolution with stride 2, batch norm and ReLU, then the mean over space and a linear layer.

    Args:
        channels: of the image.
        classes: number of logits.
        width: channels of the first block; each further one doubles them.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.Sequential(*(_block(a, b) for a, b in pairwise(widths)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width]."""
        return cast(Tensor, self.classifier(self.pool(self.blocks(image)).flatten(1)))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
