"""A trained network that another one learns from: its answers, and what its blocks pass on the way to them.

Sources: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; Romero et al., "FitNets:
Hints for Thin Deep Nets", arXiv 1412.6550, whose student also learns to pass what the teacher passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foundation.artifacts import Checkpoint
from foundation.errors import UsageError
from stages.network.checkpoint import NetworkSpec, load_checkpoint
from stages.network.relus import block_ends, relu_modules
from stages.train.settings import DistillationSettings

_FEATURES = "train.distillation.feature_weight"
_QUIETEST = 1e-3  # of a layer's mean square over the batch: an image that it passes less of counts as passing this
_TINY = 1e-30  # no division by zero


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode, and the ReLUs at its blocks' ends where what they pass is asked for."""

    network: nn.Module
    relus: tuple[nn.Module, ...]


def load_teacher(settings: DistillationSettings, spec: NetworkSpec, device: torch.device) -> Teacher:
    """Return the teacher that the settings name.

    Raises:
        UsageError: there is no checkpoint, it is of other classes or images than the student's `spec`, or, where
            features are asked for, of another architecture.
    """
    path = settings.teacher
    if not path.is_file():
        raise UsageError(f"train.distillation.teacher: expected a checkpoint at {path}, found none. Mend the path.")
    try:
        found, network = load_checkpoint(Checkpoint.at(path, spec.network))
    except UsageError as error:
        raise UsageError(f"train.distillation.teacher: {error}") from error
    for key in ("classes", "channels", "image_size", "task", "mean", "std"):
        if getattr(found, key) != getattr(spec, key):
            raise UsageError(
                f"train.distillation.teacher: expected {key} {getattr(spec, key)!r}, found "
                f"{getattr(found, key)!r} in {path}. Take a teacher of the same classes and image form."
            )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        raise UsageError(
            f"train.distillation.teacher: expected finite weights, found NaN or infinite ones in {path}. "
            "Take another teacher."
        )
    if not settings.feature_weight:
        return Teacher(network.to(device), ())
    if found.network != spec.network:
        raise UsageError(
            f"{_FEATURES}: expected a teacher of the student's own network {spec.network!r}, found {found.network!r} "
            f"in {path}. Take a teacher of that network, or set it to 0."
        )
    network, relus = watched(network, spec)
    return Teacher(network.to(device), relus)


def watched(network: nn.Module, spec: NetworkSpec) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """Return a network of the same parameters, and its ReLUs at the ends of the blocks of `spec`'s architecture.

    Args:
        network: float or with PACT in it.
        spec: of the network.
    """
    network, relus = relu_modules(network, _FEATURES)
    return network, tuple(relus[number] for number in block_ends(spec.build_float(seed=0), _FEATURES))


@contextmanager
def features_of(relus: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that the first pass inside fills with what the ReLUs pass, in the order of execution."""
    features: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if len(features) < len(relus):  # saliency guidance makes a second pass, with masked images
            features.append(output)

    hooks = [relu.register_forward_hook(note) for relu in relus]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()


def feature_error(features: Sequence[Tensor], hints: Sequence[Tensor]) -> Tensor:
    """Return the squared error of the features, relative to the hints' squares, meaned over images and layers.

    Relative, because layers pass values of different sizes; per image, so that processes which share a batch can add
    theirs (but for images close to silent, whose floor is of our part). FitNets takes one layer and no division. A
    layer that passes nothing at all is left out.

    Args:
        features: the student's, float [batch, …] each, with their graph.
        hints: the teacher's, of the same shapes.

    Returns:
        A float32 scalar, 0 where all are equal, 1 where the student passes nothing.
    """
    errors = []
    for ours, theirs in zip(features, hints, strict=True):
        error = (ours.float() - theirs.float()).square().flatten(1).mean(dim=1)
        size = theirs.float().square().flatten(1).mean(dim=1)
        least = size.mean() * _QUIETEST
        errors.append((error * (least > 0) / torch.maximum(size, least.clamp(min=_TINY))).mean())
    return torch.stack(errors).mean()
