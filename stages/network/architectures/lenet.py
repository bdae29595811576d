"""LeNet-5, for digits of 28 or 32 pixels."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., Proc. IEEE 86, 1998, section II.B), with ReLU and max pooling as it is used today.

    C5 is the 5×5 convolution that it is in the paper; behind it stands a mean over space, which at 28 pixels does
    nothing and lets larger images through. The two pixels of padding make 28 of the paper's 32.

    Args:
        channels: of the image.
        classes: number of logits.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv3 = nn.Conv2d(6, 16, 5)
        self.conv5 = nn.Conv2d(16, 120, 5)
        self.fc6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width], 28 pixels or more."""
        x = F.max_pool2d(F.relu(self.conv1(image)), 2)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)
        x = F.adaptive_avg_pool2d(F.relu(self.conv5(x)), 1).flatten(1)
        return cast(Tensor, self.output(F.relu(self.fc6(x))))
