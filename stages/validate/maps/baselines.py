"""Maps that know nothing of the image: what a saliency score is worth only shows beside theirs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.validate.maps.occlusion import patch_corners, spread

Maps = NDArray[np.float32]


def random_maps(seed: int, shape: tuple[int, int, int], patch: int, stride: int) -> Maps:
    """Return maps that know nothing, at the resolution of occlusion maps: the baseline of every saliency score.

    Each patch gets a standard normal instead of a measured drop; so a random map is as smooth as a real one, and its
    overlap with anything is what chance gives. Patch and stride 1 give white noise, the baseline of gradient maps.

    Args:
        seed: of the draws.
        shape: (m, h, w).
        patch: side of the patch in pixels.
        stride: step between patches in pixels.

    Returns:
        float32 [m, h, w].
    """
    count, height, width = shape
    corners = patch_corners(height, width, patch, stride)
    drops = np.random.default_rng(seed).standard_normal((count, len(corners)))
    return spread(drops, corners, height, width, patch)


def centre_prior(shape: tuple[int, int, int]) -> Maps:
    """Return maps that know one thing, that photographers put their subject in the middle: a Gaussian around it.

    Its standard deviation is a quarter of the image's side, along each axis. Datasets with such a bias reward a map
    that looks at no image at all (Judd et al., ICCV 2009; Zhang et al., arXiv 1608.00507).

    Args:
        shape: (n, h, w).

    Returns:
        float32 [n, h, w], the same for each image, at most 1.
    """
    _, height, width = shape
    rows, columns = (
        np.exp(-0.5 * np.square((np.arange(side) - (side - 1) / 2) / (side / 4))) for side in (height, width)
    )
    return np.repeat(np.outer(rows, columns)[None].astype(np.float32), shape[0], axis=0)
