"""VGG-11 and VGG-16 with batch norm and a light head."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from stages.network.architectures.initialisation import initialise_convolutions


class Vgg(nn.Module):
    """The convolutions of VGG (Simonyan and Zisserman, arXiv 1409.1556, table 1) with batch norm behind each.

    `features` is torchvision's `vgg11_bn` and `vgg16_bn`. The three linear layers behind it, 123.6 of VGG-16's
    138.4 million weights, are replaced by the mean over space and one linear layer: they fit one image size only, and
    no edge device wants half a gigabyte. A published checkpoint therefore brings no weights for `classifier`.

    Args:
        channels: of the image.
        classes: number of logits.
        widths: output channels of the 3×3 convolutions of each of the five stages; a 2×2 max pooling ends a stage.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for stage in widths:
            for outputs in stage:
                # The bias is idle before a batch norm; published checkpoints have it.
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [batch, classes] of normalised images [batch, channels, height, width], 32 pixels or more."""
        return cast(Tensor, self.classifier(self.pool(self.features(image)).flatten(1)))
