"""A trained network on disk: tensors in safetensors, and in its metadata what is needed to build it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from foundation.artifacts import Checkpoint, Task
from foundation.errors import UsageError
from foundation.files import write_bytes
from foundation.typed_files import CLOSED
from foundation.user_code import names_a_function
from stages.network import NETWORKS, PactSettings, build_network
from stages.network.custom import check_logits
from stages.network.pact import insert_pact

_KEY = "edgeproof.network"
_LARGEST_IMAGE_SIZE = 4096
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that determines a network but its weights.

    Attributes:
        network: a row of `NETWORKS`, or the user's own `module:function`.
        classes: class names in the order of the logits.
        channels: of the image, 1 or 3.
        image_size: height and width in pixels.
        mean, std: the normalisation per channel, of pixels scaled to 0…1.
        pact: PACT's settings, or None for a network in plain float.
        task: whether the logits are one choice (softmax) or one yes or no each (sigmoid).
    """

    network: str
    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pact: PactSettings | None
    task: Task = "multi_class"

    __pydantic_config__ = CLOSED

    def build(self, seed: int) -> nn.Module:
        """Return the network with initial weights, with PACT in it where the specification says so.

        Raises:
            UsageError: as for `build_float`, or PACT cannot be put into the network.
        """
        return self.with_pact(self.build_float(seed))

    def build_float(self, seed: int) -> nn.Module:
        """Return the network with initial weights as it was written, without PACT.

        Raises:
            UsageError: the images are too small for it, or a user's own network cannot be built or gives no logits.
        """
        channels, classes = self.channels, len(self.classes)
        if self.network in NETWORKS and self.image_size < (least := NETWORKS[self.network].least_image_size):
            raise UsageError(
                f"train.network: {self.network!r} expects images of at least {least} pixels, found "
                f"{self.image_size}. Set `data.image_size` to {least} or more, or choose another network."
            )
        network = build_network(self.network, channels, classes, seed)
        if self.network not in NETWORKS:
            check_logits(network, self.network, channels, classes, self.image_size)
        return network

    def with_pact(self, network: nn.Module) -> nn.Module:
        """Return a network of `build_float` with PACT in it where the specification says so; weights are shared."""
        return insert_pact(network, self.pact, self.mean, self.std) if self.pact else network

    def to_text(self) -> str:
        """Return the specification as JSON."""
        values = asdict(self) | {"pact": self.pact.model_dump() if self.pact else None}
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> NetworkSpec:
        """Return what `to_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        from pydantic import TypeAdapter

        spec = TypeAdapter(cls).validate_json(text)
        lengths = {len(spec.mean), len(spec.std)}
        sized = 1 <= spec.image_size <= _LARGEST_IMAGE_SIZE and 1 <= len(spec.classes) <= _MOST_CLASSES
        if not sized or lengths != {spec.channels} or spec.channels not in (1, 3) or min(spec.std) <= 0:
            raise ValueError(
                f"images of {spec.image_size} px with {spec.channels} channels, and {lengths} of mean and std"
            )
        return spec


def save_checkpoint(path: Path, spec: NetworkSpec, network: nn.Module) -> Checkpoint:
    """Write a network's tensors and specification; the same network gives the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(network.state_dict().items())}
    write_bytes(path, save(tensors, metadata={_KEY: spec.to_text()}))
    return Checkpoint.at(path, spec.network)


def load_checkpoint(checkpoint: Checkpoint) -> tuple[NetworkSpec, nn.Module]:
    """Return the specification and the network, in evaluation mode, on the CPU.

    Args:
        checkpoint: written by `save_checkpoint`; a user's own network is built only if it is its `own_network`.

    Raises:
        UsageError: the file is no checkpoint of this program, its tensors do not fit the network it names, or it
            names code that the configuration does not.
    """
    try:
        with safe_open(checkpoint.path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        spec = NetworkSpec.from_text(metadata[_KEY])
    except Exception as error:  # safetensors and torch raise errors of many kinds on a damaged file
        raise UsageError(
            f"{checkpoint.path}: expected a checkpoint written by `edgeproof train`, found something else ({error}). "
            "Name one, or delete it and train again."
        ) from error
    if spec.network not in NETWORKS and spec.network != checkpoint.own_network:
        raise UsageError(_foreign_network(checkpoint.path, spec.network))
    network = spec.build(seed=0)
    try:
        network.load_state_dict(tensors)
    except Exception as error:  # as torch tells of shapes, and of types that cannot be cast
        raise UsageError(
            f"{checkpoint.path}: expected the tensors of the network {spec.network!r}, found others "
            f"({_briefly(str(error))}). Train again."
        ) from error
    return spec, network.eval()


def _briefly(reason: str, most: int = 300) -> str:
    words = " ".join(reason.split())  # PyTorch names every tensor, line by line
    return words if len(words) <= most else f"{words[:most]}…"


def _foreign_network(path: Path, network: str) -> str:
    if names_a_function(network):
        return (
            f"{path}: expected one of the networks {', '.join(NETWORKS)}, or the one that the configuration names, "
            f"found {network!r}. Loading it would run that module's code. If you trust it, set `train.network` to it."
        )
    return (
        f"{path}: expected one of the networks {', '.join(NETWORKS)}, found {network!r}. "
        "Train again with one of those."
    )
