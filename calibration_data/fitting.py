"""From a frame of any size to the square, or other rectangle, that the network takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError, Frame

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
        bits: how many bits 16-bit gray images use; None while that is undecided.
        crop_share: of the short side, what "crop" keeps, above 0 to 1.
    """

    size: int
    channels: int
    fit: Fit
    width: int | None = None
    bits: int | None = None
    crop_share: float = 1.0


DEPTHS = (8, 10, 12, 14, 16)
"""What the bits in use are chosen from where nobody says how many."""


class UndecidedBitsError(Exception):
    """An image of 16 bits was met before it was decided how many of them are used."""


def bits_for(largest: int) -> int:
    """Return the smallest of `DEPTHS` that holds a value."""
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def largest_of_16_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> int:
    """Return the largest value of an image of 16 bits; 0 for one of 8."""
    return int(pixels.max(initial=0)) if pixels.dtype == np.uint16 else 0


def eight_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16], bits: int | None) -> NDArray[np.uint8]:
    """Return pixels of 0…255; of 16-bit pixels the highest eight of the bits that they use.

    Scanners write 10, 12 or 14 bits into files of 16. Taken for 16, they span a few dark levels; and told from each
    image by itself, brightness would change from image to image. So it is one number for a whole data set. The PNG
    chunk sBIT does not tell it: by the standard such values are stretched over 16 bits, which few writers do.

    Args:
        pixels: of any shape.
        bits: how many the 16-bit ones use; None while that is undecided.

    Raises:
        UndecidedBitsError: 16-bit pixels, and it is undecided.
        BadImageError: a value needs more bits than said.
    """
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value] # mypy cannot narrow by the dtype
    if bits is None:
        raise UndecidedBitsError
    largest = largest_of_16_bits(pixels)
    if largest >= 1 << bits:
        raise BadImageError(f"expected values of {bits} bits (`data.bits`), found {largest}")
    return (pixels >> (bits - 8)).astype(np.uint8)


def fit_frame(frame: Frame, form: ImageForm) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Bring a frame to a form; the mask takes the image's geometry, without interpolation.

    Args:
        frame: any height and width, 1 or 3 channels.
        form: of the result; gray is brightness by ITU-R 601.

    Returns:
        uint8 [channels, height, width] and bool [height, width] or None.

    Raises:
        UndecidedBitsError: 16 bits, and it is undecided how many of them are used.
        BadImageError: 16 bits, and a value needs more than are used.
    """
    from PIL import Image

    high, wide, channels, fit = form.size, form.width or form.size, form.channels, form.fit
    whole = eight_bits(frame.pixels, form.bits)
    pixels = whole[:, :, 0] if whole.shape[2] == 1 else whole
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if fit == "crop":
        scale = max(wide / width, high / height)
        share = form.crop_share
        kept = min(width, max(1, round(share * wide / scale))), min(height, max(1, round(share * high / scale)))
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
