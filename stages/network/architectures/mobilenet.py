"""MobileNetV2."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from stages.network.architectures.initialisation import initialise_convolutions


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen 1×1, depthwise 3×3, narrow 1×1 without an activation (arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [] if expansion == 1 else [_conv_relu6(inputs, hidden, kernel=1)]
        self.conv = nn.Sequential(
            *widen,
            _conv_relu6(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return features [batch, outputs, height / stride, width / stride]."""
        y = cast(Tensor, self.conv(x))
        return x + y if self.has_shortcut else y


def _conv_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


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
        layers: list[nn.Module] = [_conv_relu6(channels, 32, kernel=3, stride=2)]
        inputs = 32
        for expansion, outputs, repeats, stride in self._BLOCKS:
            for repeat in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        layers.append(_conv_relu6(inputs, 1280, kernel=1))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width]."""
        return cast(Tensor, self.classifier(self.pool(self.features(image)).flatten(1)))
