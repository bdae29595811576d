"""ResNet-18 and -50 in the form for ImageNet, and with a stem for small images."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from stages.network.architectures.initialisation import initialise_convolutions


class BasicBlock(nn.Module):
    """Two 3×3 convolutions (He et al., arXiv 1512.03385, figure 5 left); a 1×1 shortcut where shapes change."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [batch, width, height / stride, width / stride]."""
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions (figure 5 right), with the stride in the 3×3 one as torchvision has it."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [batch, 4 · width, height / stride, width / stride]."""
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """The residual network of He et al. (arXiv 1512.03385, table 1).

    Args:
        channels: of the image.
        classes: number of logits.
        block: `BasicBlock` or `Bottleneck`.
        blocks: blocks in each of the four stages; (2, 2, 2, 2) of `BasicBlock` give ResNet-18.
        small_images: whether the stem is a 3×3 convolution of stride 1 without max pooling, as is usual at 28 and 32
            pixels (MedMNIST's ResNet-18), in place of a 7×7 one of stride 2 with it.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        block: type[BasicBlock | Bottleneck],
        blocks: tuple[int, int, int, int],
        small_images: bool,
    ) -> None:
        super().__init__()
        kernel, stride = (3, 1) if small_images else (7, 2)
        self.conv1 = nn.Conv2d(channels, 64, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small_images else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, blocks[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, blocks[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, blocks[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, classes)
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width]."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(image))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast(Tensor, self.fc(self.avgpool(x).flatten(1)))


def _stage(block: type[BasicBlock | Bottleneck], inputs: int, width: int, repeats: int, stride: int) -> nn.Sequential:
    further = (block(width * block.expansion, width, 1) for _ in range(repeats - 1))
    return nn.Sequential(block(inputs, width, stride), *further)
