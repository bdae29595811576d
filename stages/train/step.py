"""One training step's loss: our part of the batch, changed and normalised, through the network and its teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calibration_data.prepared import PreparedData
from stages.network.checkpoint import NetworkSpec
from stages.network.normalisation import normalise
from stages.train import augmentation, processes
from stages.train.batches import Batch
from stages.train.objectives import distilled, label_loss
from stages.train.saliency_guided import saliency_guided_terms
from stages.train.settings import TrainSettings
from stages.train.teacher import Teacher, feature_error, features_of


@dataclass(frozen=True)
class Loop:
    """What stays the same from step to step.

    Attributes:
        network: as the processes train it together.
        relus: the network's own whose features are held against the teacher's; empty where none are.
        label_weights: float32 [classes] on `device`, of each class in the loss; None counts all alike.
    """

    data: PreparedData
    settings: TrainSettings
    spec: NetworkSpec
    device: torch.device
    network: nn.Module
    relus: tuple[nn.Module, ...]
    teacher: Teacher | None
    label_weights: Tensor | None

    @property
    def steps_per_epoch(self) -> int:
        """Batches that an epoch's images make; the last may be a part of one."""
        return math.ceil(len(self.data.train) / self.settings.batch_size)

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.steps_per_epoch * self.settings.epochs


def step_loss(
    loop: Loop, batch: Batch, step: int, generator: torch.Generator, noise_generator: torch.Generator
) -> Tensor:
    """Return the mean loss over our part of a batch, a float32 scalar with its graph.

    Args:
        loop: the network, in training mode, and what it is trained with.
        batch: our part of it.
        step: how many steps were done before, of all epochs.
        generator: of the augmentation, on the CPU.
        noise_generator: of the noise that saliency guidance masks with, on the loop's device.
    """
    settings, spec = loop.settings, loop.spec
    hinted = settings.distillation is not None and step < settings.distillation.feature_share * loop.steps
    labels = batch.labels.to(loop.device, non_blocking=True)
    images = augmented(loop, batch, generator)
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    precision = torch.autocast(loop.device.type, torch.bfloat16, enabled=settings.mixed_precision)
    with precision, features_of(loop.relus if hinted else ()) as features:
        if settings.saliency_guided is None:
            logits, divergence = loop.network(images).float(), None
        else:
            shape = (batch.size, *images.shape[1:])
            noise = torch.rand(shape, generator=noise_generator, device=loop.device)[processes.part_of(batch.size)]
            logits, divergence = saliency_guided_terms(
                loop.network, images, labels, spec.task, settings.saliency_guided, noise
            )
            logits = logits.float()
        if loop.teacher is not None:
            with torch.no_grad(), features_of(loop.teacher.relus if hinted else ()) as hints:
                answers = loop.teacher.network(images).float()
    loss = label_loss(logits, labels, spec.task, settings.label_smoothing, loop.label_weights)
    if settings.distillation is not None:
        loss = distilled(
            loss, logits, answers, spec.task, settings.distillation.weight, settings.distillation.temperature
        )
        if features:
            loss = loss + settings.distillation.feature_weight * feature_error(features, hints)
    if divergence is not None and settings.saliency_guided is not None:
        loss = loss + settings.saliency_guided.weight * divergence
    return loss


def augmented(loop: Loop, batch: Batch, generator: torch.Generator) -> Tensor:
    """Return our part of a batch, changed as drawn for the whole of it, and normalised; float32, on `loop.device`."""
    settings = loop.settings.augment
    draws = augmentation.draw(batch.size, settings, generator).part(processes.part_of(batch.size), loop.device)
    pixels = batch.images.to(loop.device, non_blocking=True)
    return normalise(augmentation.augment(pixels, settings, draws), loop.spec.mean, loop.spec.std)
