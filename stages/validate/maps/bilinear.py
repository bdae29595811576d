"""Bilinear interpolation along one axis, as a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bilinear(cells: int, pixels: int) -> NDArray[np.float64]:
    """Return the weights [pixels, cells] that draw a row of cells over a row of pixels.

    A cell's value holds at its centre and changes linearly from there to the next one; outside the outer centres it
    stays (half-pixel centres, torch's `align_corners=False`). A map is drawn by `rows @ map @ columns.T`.
    """
    position = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(cells)))
