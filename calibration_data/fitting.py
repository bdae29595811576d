"""From a frame of any size to the square that the network takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import Frame

Fit = Literal["pad", "stretch", "crop"]


@dataclass(frozen=True)
class ImageForm:
    """What every prepared image looks like.

    Attributes:
        size: height and width in pixels.
        channels: 1 (gray) or 3 (RGB).
        fit: "pad": whole image, black borders; "stretch": whole image, distorted; "crop": the central square.
    """

    size: int
    channels: int
    fit: Fit


def fit_frame(frame: Frame, form: ImageForm) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Bring a frame to a square; the mask takes the image's geometry, without interpolation.

    Args:
        frame: any height and width, 1 or 3 channels.
        form: of the result; gray is brightness by ITU-R 601.

    Returns:
        uint8 [channels, size, size] and bool [size, size] or None.
    """
    from PIL import Image

    size, channels, fit = form.size, form.channels, form.fit
    pixels = frame.pixels[:, :, 0] if frame.pixels.shape[2] == 1 else frame.pixels
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box, shown = (left, top, left + side, top + side), (size, size)
    else:
        box = (0, 0, width, height)
        scale = size / max(width, height)
        shown = (max(1, round(width * scale)), max(1, round(height * scale))) if fit == "pad" else (size, size)
    left, top = (size - shown[0]) // 2, (size - shown[1]) // 2
    inside = (slice(top, top + shown[1]), slice(left, left + shown[0]))

    square = np.zeros((size, size, channels), dtype=np.uint8)
    resized = np.asarray(image.resize(shown, Image.Resampling.BILINEAR, box=box))
    square[inside] = resized.reshape(shown[1], shown[0], channels)
    if frame.mask is None:
        return np.ascontiguousarray(square.transpose(2, 0, 1)), None
    mask = np.zeros((size, size), dtype=np.bool_)
    lesion = Image.fromarray(frame.mask.astype(np.uint8) * 255)
    mask[inside] = np.asarray(lesion.resize(shown, Image.Resampling.NEAREST, box=box)) > 0
    return np.ascontiguousarray(square.transpose(2, 0, 1)), mask
