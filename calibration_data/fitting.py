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


@dataclass(frozen=True)
class Placement:
    """Where an image lies in a form.

    Attributes:
        box: left, top, right and bottom of the part of the image that is taken, in its pixels.
        left: of that part in the form, in the form's pixels.
        top: likewise.
        width: likewise.
        height: likewise.
    """

    box: tuple[int, int, int, int]
    left: int
    top: int
    width: int
    height: int


def placement(width: int, height: int, form: ImageForm) -> Placement:
    """Return where an image of a size lies in a form."""
    high, wide = form.size, form.width or form.size
    if form.fit == "crop":
        scale = max(wide / width, high / height)
        share = form.crop_share
        kept = min(width, max(1, round(share * wide / scale))), min(height, max(1, round(share * high / scale)))
        left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
        return Placement((left, top, left + kept[0], top + kept[1]), 0, 0, wide, high)
    scale = min(wide / width, high / height)
    shown = (wide, high)
    if form.fit == "pad":
        shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Placement((0, 0, width, height), (wide - shown[0]) // 2, (high - shown[1]) // 2, *shown)


def unfit_map(values: NDArray[np.float32], width: int, height: int, form: ImageForm) -> NDArray[np.float32]:
    """Bring a map over a form back onto the image that was fitted, by bilinear interpolation.

    Args:
        values: float32 [h, w] over the whole form, of its shape or any other.
        width: of the image in pixels.
        height: likewise.
        form: that the image was brought to.

    Returns:
        float32 [height, width]; 0 where the form shows nothing of the image.
    """
    from PIL import Image

    at = placement(width, height, form)
    x, y = values.shape[1] / (form.width or form.size), values.shape[0] / form.size
    inside = (at.left * x, at.top * y, (at.left + at.width) * x, (at.top + at.height) * y)
    size = (at.box[2] - at.box[0], at.box[3] - at.box[1])
    resized = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR, box=inside)
    whole = np.zeros((height, width), dtype=np.float32)
    whole[at.box[1] : at.box[3], at.box[0] : at.box[2]] = np.asarray(resized)
    return whole


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

    high, wide, channels = form.size, form.width or form.size, form.channels
    whole = eight_bits(frame.pixels, form.bits)
    pixels = whole[:, :, 0] if whole.shape[2] == 1 else whole
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    at = placement(*image.size, form)
    inside = (slice(at.top, at.top + at.height), slice(at.left, at.left + at.width))

    fitted = np.zeros((high, wide, channels), dtype=np.uint8)
    shown = (at.width, at.height)
    resized = np.asarray(image.resize(shown, Image.Resampling.BILINEAR, box=at.box))
    fitted[inside] = resized.reshape(at.height, at.width, channels)
    if frame.mask is None:
        return np.ascontiguousarray(fitted.transpose(2, 0, 1)), None
    mask = np.zeros((high, wide), dtype=np.bool_)
    lesion = Image.fromarray(frame.mask.astype(np.uint8) * 255)
    mask[inside] = np.asarray(lesion.resize(shown, Image.Resampling.NEAREST, box=at.box)) > 0
    return np.ascontiguousarray(fitted.transpose(2, 0, 1)), mask
