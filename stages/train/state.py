"""The state of a training between two epochs, on disk: what a killed training goes on from."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundation.errors import StageError
from foundation.files import JSON, write_bytes

_MOST_UPDATES = 2**53


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
    """Write the state; `key` is the identity of the training."""
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
    write_bytes(path, content.getvalue())


def resume(state: State, path: Path, key: str) -> None:
    """Take up the state that `save_state` wrote under the same key; do nothing where there is none.

    Raises:
        StageError: the file is damaged.
    """
    if not path.exists():
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # torch names pickle protocols: nothing to a user
            record = torch.load(path, weights_only=True, map_location="cpu")
        if record["key"] != key:
            return
        epochs = [_epoch(values) for values in record["epochs"]]
        _check_tensors(record, state)
        _check_optimizer(record["optimizer"], state.optimizer)
        if not isinstance(record["updates"], int) or not 0 <= record["updates"] < _MOST_UPDATES:
            raise ValueError("a number of updates that is none")
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


def _epoch(values: Mapping[str, JSON]) -> Epoch:
    epoch = Epoch(**values)
    losses = (epoch.train_loss, epoch.validation_loss)
    finite = all(isinstance(number, float) and math.isfinite(number) for number in losses)
    if (
        not finite
        or not isinstance(epoch.score, float)
        or type(epoch.epoch) is not int
        or not isinstance(epoch.metric, str)
    ):
        raise ValueError("an epoch of other values")
    return epoch


def _check_tensors(record: Mapping[str, Any], state: State) -> None:
    """Check that what a state holds of the network is of this network."""
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in state.network.state_dict().items()}
    for part in ("network", "best", "mean"):
        found = {name: (tensor.shape, tensor.dtype) for name, tensor in record[part].items()}
        if found != expected and not (part == "mean" and not found):
            raise ValueError(f"other tensors in {part}")
        if not all(
            tensor.layout is torch.strided and tensor.device.type == "cpu" for tensor in record[part].values()
        ):
            raise ValueError(f"tensors of another kind in {part}")


def _check_optimizer(found: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Check that a state of the optimizer has its parameters and settings, and values in their shapes."""
    expected = optimizer.state_dict()["param_groups"]
    if [_kinds(group) for group in found["param_groups"]] != [_kinds(group) for group in expected]:
        raise ValueError("another optimizer")
    parameters = dict(enumerate(one for group in optimizer.param_groups for one in group["params"]))
    for number, values in found["state"].items():
        for value in values.values():
            shaped = isinstance(value, Tensor) and value.shape in ((), parameters[number].shape)
            if not shaped and not isinstance(value, int | float | None):
                raise ValueError("another shape in the optimizer")


def _kinds(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a group of parameters: numbers by their kind, since they change, all else as it is."""
    return {
        name: "a number" if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in group.items()
    }
