"""Test images, saliency maps and outlines as small pictures that the page lays over each other.

An image is written once, as JPEG, and a map as its own few pixels with a palette whose opacity grows with the
saliency; the page stacks them. So a map costs a kilobyte or two instead of thirty, and is enlarged without loss.
"""

from __future__ import annotations

import base64
import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_PIXELS = 192
"""Longest side of a test image on the page."""
MAP_PIXELS = 64
"""Longest side of a map on the page; what is coarser stays as it is."""
OUTLINE_PIXELS = 192
QUALITY = 88
COLOUR_MAP = "inferno"
"""Perceptually even and readable with every kind of colour blindness."""
DIFFERENCE_MAP = "PuOr"
"""Purple for less, orange for more: told apart with every kind of colour blindness."""
FULLY_OPAQUE = 0.85
_LEVELS = 84
"""Steps of a map's colours: more than an eye tells apart, and half the bytes of 255."""

Floats = NDArray[np.float64]


def photograph(image: NDArray[np.uint8], most: int = MOST_PIXELS) -> str:
    """Return a test image as a `data:` address of a JPEG.

    Args:
        image: uint8 [channels, height, width], one or three channels.
        most: longest side in pixels.
    """
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0)) if image.shape[0] == 3 else image[0]
    shown = Image.fromarray(pixels)
    if max(shown.size) > most:
        shown = shown.resize(_within(shown.size, most), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def heat(saliency: NDArray[np.float32]) -> str:
    """Return a map as a `data:` address of a PNG, from clear to pale yellow.

    Negative saliency counts as none, and each map is scaled to its own maximum, because fidelity is about where a
    network looks and not about the gradient's or the occlusion's magnitude.

    Args:
        saliency: float32 [h, w], any size.
    """
    level = (np.rint(_own_scale(saliency) * _LEVELS) * (255.0 / _LEVELS)).astype(np.uint8)
    return _indexed(_shrunk(level), _heat_palette(), _heat_opacity())


def difference(variant: NDArray[np.float32], fp32: NDArray[np.float32]) -> str:
    """Return where a variant's map says more (orange) and less (purple) than fp32's, each on its own scale.

    Args:
        variant: float32 [h, w].
        fp32: of the same shape; another shape gives "".
    """
    if variant.shape != fp32.shape:
        return ""
    change = _own_scale(variant) - _own_scale(fp32)
    level = np.rint(127.5 + np.rint(change * (_LEVELS // 2)) * (127.5 / (_LEVELS // 2))).astype(np.uint8)
    return _indexed(_shrunk(level), _difference_palette(), _difference_opacity())


def outline(mask: NDArray[np.bool_]) -> str:
    """Return a mask's outline as a `data:` address, white within black, clear elsewhere; "" of an empty mask.

    Args:
        mask: bool [height, width].
    """
    if not mask.any():
        return ""
    soft = Image.fromarray(mask.astype(np.uint8) * 255)
    soft = soft.resize(_within(soft.size, OUTLINE_PIXELS), Image.Resampling.BILINEAR)
    inside = np.asarray(soft) >= 128
    index = np.zeros(inside.shape, np.uint8)
    # White within black is visible on every ground, and stays so in a black-and-white print.
    index[_ring(inside, 3)] = 1
    index[_ring(inside, 1)] = 2
    return _indexed(index, bytes((0, 0, 0, 0, 0, 0, 255, 255, 255)), bytes((0, 255, 255)))


def _own_scale(saliency: NDArray[np.float32]) -> Floats:
    strength = np.nan_to_num(np.clip(saliency.astype(np.float64), 0.0, None), nan=0.0, posinf=0.0)
    highest = strength.max(initial=0.0)
    return strength / highest if highest > 0 else strength


def _shrunk(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if max(level.shape) <= MAP_PIXELS:
        return level
    picture = Image.fromarray(level)
    return np.asarray(picture.resize(_within(picture.size, MAP_PIXELS), Image.Resampling.BILINEAR))


def _within(size: tuple[int, int], most: int) -> tuple[int, int]:
    """Return a size of the same shape whose longest side is `most`."""
    longest = max(size)
    return max(1, round(size[0] * most / longest)), max(1, round(size[1] * most / longest))


def _indexed(index: NDArray[np.uint8], palette: bytes, opacity: bytes) -> str:
    picture = Image.fromarray(index)
    picture.putpalette(palette)  # makes it "P"
    stream = io.BytesIO()
    picture.save(stream, format="PNG", transparency=opacity, optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _ring(inside: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    grown, shrunk = inside.copy(), inside.copy()
    for _ in range(reach):
        grown, shrunk = _spread(grown), ~_spread(~shrunk)
    return grown & ~shrunk


def _spread(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(area, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


@functools.cache
def _colours(name: str) -> bytes:
    import matplotlib

    return np.rint(matplotlib.colormaps[name](np.arange(256))[:, :3] * 255.0).astype(np.uint8).tobytes()


def _heat_palette() -> bytes:
    return _colours(COLOUR_MAP)


@functools.cache
def _heat_opacity() -> bytes:
    return np.rint(255.0 * FULLY_OPAQUE * np.sqrt(np.arange(256) / 255.0)).astype(np.uint8).tobytes()


def _difference_palette() -> bytes:
    return bytes(
        byte for colour in reversed(list(zip(*[iter(_colours(DIFFERENCE_MAP))] * 3, strict=True))) for byte in colour
    )


@functools.cache
def _difference_opacity() -> bytes:
    distance = np.abs(np.arange(256) / 127.5 - 1.0)
    return np.rint(255.0 * FULLY_OPAQUE * np.sqrt(distance)).astype(np.uint8).tobytes()
