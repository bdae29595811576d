"""From a frame of any size to the square, or other rectangle, that the network takes."""

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
        size: height in pixels, and the width where `width` is None.
        channels: 1 (gray) or 3 (RGB).
        fit: "pad": whole image, black borders; "stretch": whole image, distorted; "crop": the central part of the
            form's shape, a square as a rule.
        width: in pixels; None for squares.
    """

    size: int
    channels: int
    fit: Fit
    width: int | None = None


def fit_frame(frame: Frame, form: ImageForm) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Bring a frame to a form; the mask takes the image's geometry, without interpolation.

    Args:
        frame: any height and width, 1 or 3 channels.
        form: of the result; gray is brightness by ITU-R 601.

    Returns:
        uint8 [channels, height, width] and bool [height, width] or None.
    """
    from PIL import Image

    high, wide, channels, fit = form.size, form.width or form.size, form.channels, form.fit
    pixels = frame.pixels[:, :, 0] if frame.pixels.shape[2] == 1 else frame.pixels
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if fit == "crop":
        scale = max(wide / width, high / height)
        kept = min(width, max(1, round(wide / scale))), min(height, max(1, round(high / scale)))
        left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
        box, shown = (left, top, left + kept[0], top + kept[1]), (wide, high)
    else:
        box = (0, 0, width, height)
        scale = min(wide / width, high / height)
        shown = (max(1, round(width * scale)), max(1, round(height * scale))) if fit == "pad" else (wide, high)
    left, top = (wide - shown[0]) // 2, (high - shown[1]) // 2
    inside = (slice(top, top + shown[1]), slice(left, left + shown[0]))

    fitted = np.zeros((high, wide, channels), dtype=np.uint8)
    resized = np.asarray(image.resize(shown, Image.Resampling.BILINEAR, box=box))
    fitted[inside] = resized.reshape(shown[1], shown[0], channels)
    if frame.mask is None:
        return np.ascontiguousarray(fitted.transpose(2, 0, 1)), None
    mask = np.zeros((high, wide), dtype=np.bool_)
    lesion = Image.fromarray(frame.mask.astype(np.uint8) * 255)
    mask[inside] = np.asarray(lesion.resize(shown, Image.Resampling.NEAREST, box=box)) > 0
    return np.ascontiguousarray(fitted.transpose(2, 0, 1)), mask
