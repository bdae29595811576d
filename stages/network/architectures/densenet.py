"""DenseNet-121."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.network.architectures.initialisation import initialise_convolutions

_GROWTH = 32
_BLOCKS = (6, 12, 24, 16)
_STEM_WIDTH = 64


class DenseBlock(nn.Module):
    """Layers that each see the outputs of all before them (Huang et al., arXiv 1608.06993, section 3)."""

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__()
        for number in range(layers):
            self.add_module(f"denselayer{number + 1}", _dense_layer(inputs + number * _GROWTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return features [batch, inputs + 32 · layers, height, width]."""
        for layer in self.children():
            x = torch.cat((x, layer(x)), 1)
        return x


def _dense_layer(inputs: int) -> nn.Sequential:
    hidden = 4 * _GROWTH
    return nn.Sequential(
        OrderedDict(
            norm1=nn.BatchNorm2d(inputs),
            relu1=nn.ReLU(),
            conv1=nn.Conv2d(inputs, hidden, 1, bias=False),
            norm2=nn.BatchNorm2d(hidden),
            relu2=nn.ReLU(),
            conv2=nn.Conv2d(hidden, _GROWTH, 3, padding=1, bias=False),
        )
    )


def _transition(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(),
            conv=nn.Conv2d(inputs, inputs // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


class DenseNet121(nn.Module):
    """DenseNet-121 (Huang et al., arXiv 1608.06993, table 1), the network of CheXNet.

    Args:
        channels: of the image.
        classes: number of logits.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(channels, _STEM_WIDTH, 7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNorm2d(_STEM_WIDTH),
                relu0=nn.ReLU(),
                pool0=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        width = _STEM_WIDTH
        for number, layers in enumerate(_BLOCKS, start=1):
            self.features.add_module(f"denseblock{number}", DenseBlock(width, layers))
            width += layers * _GROWTH
            if number < len(_BLOCKS):
                self.features.add_module(f"transition{number}", _transition(width))
                width //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width], 29 pixels or more."""
        x = F.relu(self.features(image))
        return cast(Tensor, self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1)))
