"""Image classifiers by name: plain PyTorch modules that know nothing of quantization."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
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


class ResidualBlock(nn.Module):
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

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width]."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return cast(Tensor, self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen 1×1, depthwise 3×3, narrow 1×1 without an activation (arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [] if expansion == 1 else _conv_relu6(inputs, hidden, kernel=1)
        self.layers = nn.Sequential(
            *widen,
            *_conv_relu6(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return features [batch, outputs, height / stride, width / stride]."""
        y = cast(Tensor, self.layers(x))
        return x + y if self.has_shortcut else y


def _conv_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6()]


class MobileNetV2(nn.Module):
    """MobileNetV2 at width 1 (Sandler et al., arXiv 1801.04381, table 2).

    Args:
        channels: of the image.
        classes: number of logits.
    """

    # expansion, outputs, repeats, stride of the first
    _BLOCKS = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = _conv_relu6(channels, 32, kernel=3, stride=2)
        inputs = 32
        for expansion, outputs, repeats, stride in self._BLOCKS:
            for repeat in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        layers += _conv_relu6(inputs, 1280, kernel=1)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width]."""
        return cast(Tensor, self.classifier(self.pool(self.features(image)).flatten(1)))
