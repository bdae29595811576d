"""The state of a training between two epochs, on disk: what a killed training goes on from."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundation.errors import StageError
from foundation.files import JSON, write_bytes


@dataclass(frozen=True)
class Epoch:
    """What one epoch achieved.

    Attributes:
        epoch: its number, from 1.
        train_loss: mean over the training images, as minimised.
        validation_loss: of the labels alone.
        metric: name of the score.
        score: on the validation data; the best epoch has the greatest.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    metric: str
    score: float

    def as_json(self) -> dict[str, JSON]:
        """Return the epoch as the history holds it, the score under its metric's name."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "validation_loss": self.validation_loss,
            f"validation_{self.metric}": self.score,
        }

    def is_better_than(self, other: Epoch) -> bool:
        """Return whether the score is greater, or the loss less at the same score."""
        return (self.score, -self.validation_loss) > (other.score, -other.validation_loss)


@dataclass
class State:
    """Everything that a resumed training needs; changed by every step.

    Attributes:
        network: in training.
        optimizer: of its parameters.
        epochs: what was achieved so far.
        best: the tensors of the best epoch.
        mean: running mean of the tensors; empty where none is kept.
        updates: how often the mean was updated.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)
    updates: int = 0


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    """Return the network's tensors, copied."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def save_state(state: State, path: Path, key: str) -> None:
    """Write the state, behind a line with its digest; `key` is the identity of the training."""
    record: dict[str, JSON] = {
        "key": key,
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": state.best,
        "mean": state.mean,
        "updates": state.updates,
        "epochs": [asdict(epoch) for epoch in state.epochs],
    }
    # Through memory, because torch reports a full disk as a RuntimeError of its own.
    content = io.BytesIO()
    torch.save(record, content)
    write_bytes(path, _digest_line(content.getvalue()) + content.getvalue())


def resume(state: State, path: Path, key: str) -> None:
    """Take up the state that `save_state` wrote under the same key; do nothing where there is none.

    Raises:
        StageError: the file is damaged, or was edited.
    """
    if not path.exists():
        return
    try:
        line, _, content = path.read_bytes().partition(b"\n")
        if line + b"\n" != _digest_line(content):
            raise ValueError("another digest")
        with warnings.catch_warnings(action="ignore"):  # torch names pickle protocols: nothing to a user
            record = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        if record["key"] != key:
            return
        epochs = [Epoch(**values) for values in record["epochs"]]
        state.network.load_state_dict(record["network"])
        state.optimizer.load_state_dict(record["optimizer"] | {"state": _own(record["optimizer"]["state"])})
    except Exception as error:  # torch raises errors of many kinds on a damaged file
        raise StageError(
            f"{path}: expected the state of an interrupted training, found a damaged file ({type(error).__name__}). "
            "Delete it to train from the beginning."
        ) from error
    device = next(state.network.parameters()).device
    state.updates, state.epochs = record["updates"], epochs
    state.best = {name: tensor.to(device).clone() for name, tensor in record["best"].items()}
    state.mean = {name: tensor.to(device).clone() for name, tensor in record["mean"].items()}


def _own(values: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return an optimizer's state in memory of its own: in a file, many numbers can share one place."""
    return {
        number: {name: one.clone() if isinstance(one, Tensor) else one for name, one in of_parameter.items()}
        for number, of_parameter in values.items()
    }


def _digest_line(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
