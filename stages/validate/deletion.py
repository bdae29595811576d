"""Deletion and insertion: how fast the answer goes, or comes, as the most salient pixels are taken or given.

Source: Petsiuk et al., "RISE", BMVC 2018, arXiv 1806.07421, section 4.2. An image that lost its pixels lies off the
distribution that the network knows, so both scores mean something only beside those of a map that knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Maps = NDArray[np.floating]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
Probability = Callable[[Images, Indices], Floats]
"""From uint8 images [n, c, h, w] and target classes int64 [n] to the file's probability of each, float64 [n]."""

STEPS = 20
"""How many equal shares of the pixels change one after another."""
_BLUR_PX = 5
_LEAST_BLUR_PX = 2
_WIDTH_PX = 224


def deletion_auc(probability: Probability, images: Images, maps: Maps, targets: Indices, fill: Images) -> Floats:
    """Return the mean probability of the target while the most salient pixels go first; low is good.

    Args:
        probability: of the target, 0 to 1.
        images: uint8 [n, channels, height, width].
        maps: [n, height, width]; of equal pixels the one that comes first in reading order goes first.
        targets: int64 [n], the class that the maps explain.
        fill: uint8 that broadcasts to the images, what a pixel becomes: the data's mean, [channels, 1, 1].

    Returns:
        float64 [n], the area under the curve by the trapezoid rule, 0 to 1.
    """
    return _area(probability, images, np.broadcast_to(fill, images.shape), maps, targets)


def insertion_auc(probability: Probability, images: Images, maps: Maps, targets: Indices, start: Images) -> Floats:
    """Return the mean probability of the target while the most salient pixels come first; high is good.

    As `deletion_auc`, from the start to the image.
    """
    return _area(probability, np.broadcast_to(start, images.shape), images, maps, targets)


def blurred(images: Images) -> Images:
    """Return images uint8 [n, channels, height, width] without their details, the paper's start of an insertion.

    A Gaussian of 5 pixels' standard deviation at the 224 pixels of the paper's code, in proportion elsewhere but not
    below 2, or small images would stay as they are. A mean colour gives the network edges to see wherever pixels are
    given first; a blurred image does less so.
    """
    from scipy.ndimage import gaussian_filter

    sigma = max(_BLUR_PX * images.shape[-1] / _WIDTH_PX, _LEAST_BLUR_PX)
    smooth = gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma), mode="nearest")
    return np.asarray(np.clip(np.rint(smooth), 0, 255), dtype=np.uint8)


def _area(probability: Probability, start: Images, end: Images, maps: Maps, targets: Indices) -> Floats:
    n, height, width = maps.shape
    pixels = height * width
    rank = np.empty((n, pixels), dtype=np.int64)
    order = np.argsort(-maps.reshape(n, pixels), axis=1, kind="stable")
    np.put_along_axis(rank, order, np.arange(pixels)[None], axis=1)
    rank = rank.reshape(n, 1, height, width)
    curve = [
        probability(np.where(rank < round(pixels * step / STEPS), end, start), targets) for step in range(STEPS + 1)
    ]
    # A sum of ones may end a bit above 1.
    return cast("Floats", np.clip(np.trapezoid(np.stack(curve), dx=1 / STEPS, axis=0), 0.0, 1.0))
