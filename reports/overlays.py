"""Test images and saliency maps as small PNGs; the same arrays give the same bytes."""

from __future__ import annotations

import base64
import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 160
"""Width and height of a picture in pixels; more than the page shows, for sharp print."""

COLOUR_MAP = "inferno"
"""Perceptually even and readable with every kind of colour blindness."""

FULLY_OPAQUE = 0.85


def data_url(picture: Image.Image) -> str:
    """Return a picture as a `data:` address of a PNG in true colour; a palette would draw false edges."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def picture(image: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> Image.Image:
    """Return a test image, with the lesion's outline where there is a mask.

    Args:
        image: uint8 [channels, height, width], one or three channels.
        mask: bool [height, width].
    """
    return _outlined(_enlarged(image), mask)


def overlay(
    image: NDArray[np.uint8], saliency: NDArray[np.float32], mask: NDArray[np.bool_] | None = None
) -> Image.Image:
    """Return a saliency map in colour over the grey image.

    Negative saliency counts as none, and each map is scaled to its own maximum, because fidelity is about where a
    network looks and not about the gradient's or the occlusion's magnitude.

    Args:
        image: uint8 [channels, height, width].
        saliency: float32 [h, w], any size.
        mask: bool [height, width]; its outline is drawn.
    """
    strength = np.nan_to_num(np.clip(saliency.astype(np.float64), 0.0, None), nan=0.0, posinf=0.0)
    highest = strength.max(initial=0.0)
    if highest > 0:
        strength = strength / highest
    small = Image.fromarray(np.rint(strength * 255).astype(np.uint8))
    level = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    grey = np.asarray(_enlarged(image).convert("L"), dtype=np.float64)[:, :, None]
    opacity = FULLY_OPAQUE * np.sqrt(level / 255.0)[:, :, None]
    blended = grey * (1 - opacity) + _palette()[level] * opacity
    return _outlined(Image.fromarray(np.rint(blended).astype(np.uint8)), mask)


def _enlarged(image: NDArray[np.uint8]) -> Image.Image:
    channels = image if image.shape[0] == 3 else np.repeat(image[:1], 3, axis=0)
    full = Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))
    return full.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _outlined(shown: Image.Image, mask: NDArray[np.bool_] | None) -> Image.Image:
    if mask is None or not mask.any():
        return shown
    soft = Image.fromarray(mask.astype(np.uint8) * 255).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    inside = np.asarray(soft) >= 128
    pixels = np.array(shown)
    # White within black is visible on every ground, and stays so in a black-and-white print.
    pixels[_ring(inside, 3)] = (0, 0, 0)
    pixels[_ring(inside, 1)] = (255, 255, 255)
    return Image.fromarray(pixels)


def _ring(inside: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    grown, shrunk = inside.copy(), inside.copy()
    for _ in range(reach):
        grown, shrunk = _spread(grown), ~_spread(~shrunk)
    return grown & ~shrunk


def _spread(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(area, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


@functools.cache
def _palette() -> NDArray[np.float64]:
    import matplotlib

    colours = matplotlib.colormaps[COLOUR_MAP](np.arange(256))
    return np.asarray(colours[:, :3] * 255.0, dtype=np.float64)
