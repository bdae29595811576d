"""A network of the user's own with its weights, taken as it is: what was trained elsewhere is exported here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from foundation.artifacts import Checkpoint
from foundation.errors import UsageError
from foundation.settings import LocalPath, Settings
from stages.network import check_network_name

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData


class TorchSettings(Settings):
    """A PyTorch network that was trained elsewhere."""

    network: str = Field(description="your own `module:function` of (channels, classes), or an architecture by name")
    weights: LocalPath = Field(description="its weights: safetensors, or a PyTorch checkpoint of tensors alone")

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        check_network_name(name)
        return name


def take_network(settings: TorchSettings, data: PreparedData, path: Path, say: Callable[[str], None]) -> Checkpoint:
    """Build the network, put its weights into it, and write the checkpoint that everything else starts from.

    Args:
        settings: the network and its weights.
        data: the images: their classes, size and normalisation are the network's.
        path: the checkpoint to write.
        say: called with what the weights' file holds beside the network's tensors.

    Raises:
        UsageError: the network cannot be built, or the file lacks a tensor of it or has one of another shape.
    """
    from stages.network.checkpoint import NetworkSpec, save_checkpoint
    from stages.network.pretrained import build_pretrained

    spec = NetworkSpec(
        settings.network, data.classes, data.channels, data.image_size, data.mean, data.std, None, data.task
    )
    network, report = build_pretrained(spec, 0, settings.weights)
    if report.missing or report.mismatched:
        raise UsageError(
            f"{settings.weights}: expected every tensor of the network {settings.network!r} for {len(data.classes)} "
            f"classes, found that some do not fit. {report.text()}"
        )
    if report.unexpected:
        say(report.text())
    return save_checkpoint(path, spec, network.eval())
