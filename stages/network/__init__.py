"""The network as an object: architectures by name, PACT put into them, and checkpoints.

Training and export both stand on this package; it stands on no stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.network.settings import PactSettings

if TYPE_CHECKING:
    from torch import nn


__all__ = ["NETWORKS", "Architecture", "PactSettings", "build_network"]


@dataclass(frozen=True)
class Architecture:
    """A row of `NETWORKS`.

    Attributes:
        build: (channels of the image, number of classes) → module of normalised images to logits.
        description: one line for the command line and the report.
    """

    build: Callable[[int, int], nn.Module]
    description: str


def _block_cnn(width: int) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        from stages.network.architectures import BlockCnn

        return BlockCnn(channels, classes, width)

    return build


def _cifar_resnet(blocks_per_stage: int) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        from stages.network.architectures import CifarResNet

        return CifarResNet(channels, classes, blocks_per_stage)

    return build


def _mobilenet_v2(channels: int, classes: int) -> nn.Module:
    from stages.network.architectures import MobileNetV2

    return MobileNetV2(channels, classes)


NETWORKS: Mapping[str, Architecture] = {
    "cnn-small": Architecture(_block_cnn(16), "four convolution blocks, 16 to 128 channels, 0.1 M weights"),
    "cnn-medium": Architecture(_block_cnn(32), "four convolution blocks, 32 to 256 channels, 0.4 M weights"),
    "resnet8": Architecture(_cifar_resnet(1), "residual network for small images, 0.08 M weights"),
    "resnet20": Architecture(_cifar_resnet(3), "residual network for small images, 0.27 M weights"),
    "mobilenet_v2": Architecture(_mobilenet_v2, "inverted residuals, 2.2 M weights, stride 32"),
}


def build_network(name: str, channels: int, classes: int, seed: int) -> nn.Module:
    """Return a freshly initialised network; the same seed gives the same weights and leaves no trace behind.

    Args:
        name: a row of `NETWORKS`.
        channels: of the image, 1 or 3.
        classes: number of logits.
        seed: of the initial weights.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name].build(channels, classes)
