"""Random changes of the training images, in plain tensor operations, without a loop over images."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.train.settings import AugmentSettings

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of n images.

    Attributes:
        mirrored: bool [n, 2], left-right and upside down.
        shift: int64 [n, 2], rows and columns.
        angle: float32 [n], degrees.
        colour: float32 [n, 3], factors of brightness, contrast and saturation.
    """

    mirrored: Tensor
    shift: Tensor
    angle: Tensor
    colour: Tensor

    def part(self, chosen: slice, device: torch.device) -> Draws:
        """Return the draws of some of the images, on a device."""
        return Draws(*(getattr(self, field.name)[chosen].to(device) for field in fields(self)))


def draw(count: int, settings: AugmentSettings, generator: torch.Generator) -> Draws:
    """Draw for a whole batch, so that processes which share it can each take their part.

    Args:
        count: images of the batch.
        settings: how much.
        generator: on the CPU.
    """
    likely = torch.tensor([settings.flip != "none", settings.flip == "both"], dtype=torch.float32) / 2
    return Draws(
        mirrored=torch.rand(count, 2, generator=generator) < likely,
        shift=torch.randint(-settings.crop, settings.crop + 1, (count, 2), generator=generator),
        angle=settings.rotation_degrees * (2 * torch.rand(count, generator=generator) - 1),
        colour=1 + settings.colour * (2 * torch.rand(count, 3, generator=generator) - 1),
    )


def augment(images: Tensor, settings: AugmentSettings, draws: Draws) -> Tensor:
    """Return the images changed as drawn; what `settings` leaves out costs nothing.

    Args:
        images: uint8 [n, channels, height, width].
        settings: those that `draws` came from.
        draws: of these n images, on their device.

    Returns:
        uint8, or float32 in 0 to 255 after rotation or colour; the same shape.
    """
    if settings.flip != "none":
        for column, dimension in ((0, 3), (1, 2)):
            images = torch.where(draws.mirrored[:, column, None, None, None], images.flip(dimension), images)
    if settings.crop:
        images = _shifted(images, draws.shift, settings.crop)
    if settings.rotation_degrees:
        images = _rotated(images.float(), draws.angle)
    if settings.colour:
        images = _recoloured(images.float(), draws.colour)
    return images


def _shifted(images: Tensor, shift: Tensor, most: int) -> Tensor:
    n, channels, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    rows = torch.arange(height, device=images.device) + most + shift[:, :1]
    columns = torch.arange(width, device=images.device) + most + shift[:, 1:]
    image = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _rotated(images: Tensor, degrees: Tensor) -> Tensor:
    radians = torch.deg2rad(degrees)
    cosine, sine, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    turn = torch.stack([torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _recoloured(images: Tensor, factors: Tensor) -> Tensor:
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    if images.shape[1] == 3:
        luma = torch.tensor(_LUMA, device=images.device).view(3, 1, 1)
        gray = (images * luma).sum(dim=1, keepdim=True)
        images = gray + (images - gray) * saturation
    return images.clamp(0, 255)
