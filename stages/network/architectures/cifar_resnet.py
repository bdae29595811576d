"""ResNet-8, -20, -32 and -56, for images of about 32 pixels."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from stages.network.architectures.initialisation import initialise_convolutions


class CifarBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters (option A of He et al., arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return features [batch, outputs, height / stride, width / stride]."""
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        if self.stride != 1 or self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(residual + x)


class CifarResNet(nn.Module):
    """The ResNet for small images of He et al. (arXiv 1512.03385, section 4.2): 6n + 2 layers.

    The state dict's names are those of github.com/akamaster/pytorch_resnet_cifar10, whose weights are published.

    Args:
        channels: of the image.
        classes: number of logits.
        blocks_per_stage: n; 3 gives ResNet-20.
    """

    def __init__(self, channels: int, classes: int, blocks_per_stage: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks_per_stage, 1)
        self.layer2 = _stage(16, 32, blocks_per_stage, 2)
        self.layer3 = _stage(32, 64, blocks_per_stage, 2)
        self.linear = nn.Linear(64, classes)
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width]."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return cast(Tensor, self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = CifarBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(CifarBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
