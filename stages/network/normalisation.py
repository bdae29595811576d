"""From uint8 pixels to the network's input, in torch; the exported graph holds the same operations."""

from __future__ import annotations

from torch import Tensor, tensor


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (images / 255 − mean) / std as one multiplication and one addition per pixel.

    Args:
        images: uint8 [batch, channels, height, width].
        mean, std: per channel, of pixels scaled to 0…1.

    Returns:
        float32, the same shape.
    """
    factor = tensor([1 / (255 * s) for s in std], device=images.device).view(-1, 1, 1)
    offset = tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).view(-1, 1, 1)
    return images.float() * factor + offset
