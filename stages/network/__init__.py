"""The network as an object: architectures by name, PACT put into them, and checkpoints.

Training and export both stand on this package; it stands on no stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.user_code import names_a_function
from stages.network.custom import build_custom
from stages.network.settings import PactSettings

if TYPE_CHECKING:
    from torch import nn


__all__ = ["NETWORKS", "Architecture", "PactSettings", "build_network", "check_network_name"]


@dataclass(frozen=True)
class Architecture:
    """A row of `NETWORKS`.

    Attributes:
        build: (channels of the image, number of classes) → module of normalised images to logits.
        description: one line for the command line and the report.
        least_image_size: smallest height and width in pixels that leave something to the last layer.
    """

    build: Callable[[int, int], nn.Module]
    description: str
    least_image_size: int = 1


def _block_cnn(width: int) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        from stages.network.architectures.block_cnn import BlockCnn

        return BlockCnn(channels, classes, width)

    return build


def _lenet5(channels: int, classes: int) -> nn.Module:
    from stages.network.architectures.lenet import LeNet5

    return LeNet5(channels, classes)


def _cifar_resnet(blocks_per_stage: int) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        from stages.network.architectures.cifar_resnet import CifarResNet

        return CifarResNet(channels, classes, blocks_per_stage)

    return build


def _resnet18(small_images: bool) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        from stages.network.architectures.resnet import BasicBlock, ResNet

        return ResNet(channels, classes, BasicBlock, (2, 2, 2, 2), small_images)

    return build


def _resnet50(channels: int, classes: int) -> nn.Module:
    from stages.network.architectures.resnet import Bottleneck, ResNet

    return ResNet(channels, classes, Bottleneck, (3, 4, 6, 3), small_images=False)


def _vgg(*widths: tuple[int, ...]) -> Callable[[int, int], nn.Module]:
    def build(channels: int, classes: int) -> nn.Module:
        from stages.network.architectures.vgg import Vgg

        return Vgg(channels, classes, widths)

    return build


def _mobilenet_v2(channels: int, classes: int) -> nn.Module:
    from stages.network.architectures.mobilenet import MobileNetV2

    return MobileNetV2(channels, classes)


def _densenet121(channels: int, classes: int) -> nn.Module:
    from stages.network.architectures.densenet import DenseNet121

    return DenseNet121(channels, classes)


_VGG11 = _vgg((64,), (128,), (256, 256), (512, 512), (512, 512))
_VGG16 = _vgg((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# The weights are counted with the ten or fewer classes of a usual task.
NETWORKS: Mapping[str, Architecture] = {
    "cnn-small": Architecture(_block_cnn(16), "four convolution blocks, 16 to 128 channels, 0.1 M weights"),
    "cnn-medium": Architecture(_block_cnn(32), "four convolution blocks, 32 to 256 channels, 0.4 M weights"),
    "lenet5": Architecture(_lenet5, "LeNet-5 with ReLU, for digits, 0.06 M weights", 28),
    "resnet8": Architecture(_cifar_resnet(1), "residual network for small images, 0.08 M weights"),
    "resnet20": Architecture(_cifar_resnet(3), "residual network for small images, 0.27 M weights"),
    "resnet32": Architecture(_cifar_resnet(5), "residual network for small images, 0.46 M weights"),
    "resnet56": Architecture(_cifar_resnet(9), "residual network for small images, 0.85 M weights"),
    "resnet18": Architecture(_resnet18(False), "residual network, 11.2 M weights, stride 32"),
    "resnet18-small": Architecture(_resnet18(True), "ResNet-18 for about 28 to 64 pixels, 11.2 M weights, stride 8"),
    "resnet50": Architecture(_resnet50, "residual network with bottlenecks, 23.5 M weights, stride 32"),
    "vgg11": Architecture(_VGG11, "plain convolutions, a light head, 9.2 M weights, stride 32", 32),
    "vgg16": Architecture(_VGG16, "plain convolutions, a light head, 14.7 M weights, stride 32", 32),
    "mobilenet_v2": Architecture(_mobilenet_v2, "inverted residuals, 2.2 M weights, stride 32"),
    "densenet121": Architecture(_densenet121, "densely connected layers, 7.0 M weights, stride 32", 29),
}


def check_network_name(name: str) -> None:
    """Accept a row of `NETWORKS`, or `module:function`, which is not imported here.

    Raises:
        ValueError: the name is neither.
    """
    if name not in NETWORKS and not names_a_function(name):
        raise ValueError(
            f"expected one of {', '.join(NETWORKS)}, or your own `module:function`, found {name!r}; "
            "the function is called as function(channels, classes) and returns a torch module"
        )


def build_network(name: str, channels: int, classes: int, seed: int) -> nn.Module:
    """Return a freshly initialised network; the same seed gives the same weights and leaves no trace behind.

    Args:
        name: a row of `NETWORKS`, or `module:function` from the user's own configuration, whose code is run.
        channels: of the image, 1 or 3.
        classes: number of logits.
        seed: of torch's generator, from which the initial weights are drawn.

    Raises:
        UsageError: the user's module is missing, or its function gives no network.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in NETWORKS:
            return NETWORKS[name].build(channels, classes)
        return build_custom(name, channels, classes)
