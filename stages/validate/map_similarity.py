"""How alike two saliency maps are, and how a map meets a mask, and how concentrated it is: one number per image.

Maps are [m, height, width], higher = more important. A constant map orders no pixels; where one of a pair is
constant, rank correlation and overlap are 0 rather than undefined.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]

TOP_SHARE = 0.1
_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
"""Gaussian window of 11×11 pixels, as in the paper."""
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2


def spearman(maps: Maps, reference_maps: Maps) -> Floats:
    """Return Spearman's rank correlation of the pixels per image, float64 [m]; ties get their average rank."""
    from scipy.stats import rankdata

    ranks, reference_ranks = (
        rankdata(stack.reshape(len(stack), -1), axis=1, method="average") for stack in (maps, reference_maps)
    )
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    reference_ranks = reference_ranks - reference_ranks.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.square(ranks).sum(axis=1) * np.square(reference_ranks).sum(axis=1))
    products = (ranks * reference_ranks).sum(axis=1)
    return cast("Floats", np.clip(np.where(scale > 0, products / np.where(scale > 0, scale, 1.0), 0.0), -1.0, 1.0))


def structural_similarity(maps: Maps, reference_maps: Maps) -> Floats:
    """Return the SSIM per image, float64 [m], of maps that are each normalised to 0…1.

    Wang et al. 2004, eq. 13: Gaussian window of 11×11 with σ = 1.5, K₁ = 0.01, K₂ = 0.03, L = 1, population
    variances. At the border the map is mirrored and every pixel counts, so that an 8×8 map has a value too. A
    constant map is normalised to 0.
    """
    from scipy.ndimage import gaussian_filter

    def blurred(stack: Floats) -> Floats:
        return cast(
            "Floats",
            gaussian_filter(stack, sigma=(0, _SSIM_SIGMA, _SSIM_SIGMA), radius=(0, _SSIM_RADIUS, _SSIM_RADIUS)),
        )

    x, y = normalised(maps), normalised(reference_maps)
    mean_x, mean_y = blurred(x), blurred(y)
    variance_x = blurred(x * x) - mean_x**2
    variance_y = blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _SSIM_C1) * (2 * covariance + _SSIM_C2)) / (
        (mean_x**2 + mean_y**2 + _SSIM_C1) * (variance_x + variance_y + _SSIM_C2)
    )
    return cast("Floats", similarity.mean(axis=(1, 2)))


def top_overlap(maps: Maps, reference_maps: Maps) -> Floats:
    """Return the share of the reference's top 10 % of pixels that are in the map's top 10 % too, float64 [m].

    k = ⌈10 % of the pixels⌉; of equal pixels the one that comes first in reading order is taken.
    """
    pixels = maps[0].size
    count = int(np.ceil(TOP_SHARE * pixels))

    def top(stack: Maps) -> Masks:
        flat = stack.reshape(len(stack), -1)
        chosen = np.argsort(-flat, axis=1, kind="stable")[:, :count]
        inside = np.zeros(flat.shape, dtype=bool)
        np.put_along_axis(inside, chosen, True, axis=1)
        return inside

    shared = (top(maps) & top(reference_maps)).sum(axis=1) / count
    return cast("Floats", np.where(_is_constant(maps) | _is_constant(reference_maps), 0.0, shared))


def pointing_hits(maps: Maps, masks: Masks, tolerance_px: int = 0) -> Floats:
    """Return 1 where a map's maximum lies inside the mask and 0 where it doesn't, float64 [m] (Zhang et al. 2018).

    Where several pixels share the maximum, the share of them that lies inside: a plateau has no first pixel.

    Args:
        maps: [m, height, width].
        masks: bool [m, height, width].
        tolerance_px: the Euclidean distance from the mask that still counts as inside; the paper's is 15.
    """
    from scipy.ndimage import distance_transform_edt

    if tolerance_px:
        # An empty mask is near nothing; the transform has no distance to give there.
        near = [mask.any() & (distance_transform_edt(~mask) <= tolerance_px) for mask in masks]
        masks = np.stack(near)
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    return cast("Floats", (highest & masks).sum(axis=(1, 2)) / highest.sum(axis=(1, 2)))


def mass_in_mask(maps: Maps, masks: Masks) -> Floats:
    """Return the share of a map's positive relevance inside the mask, float64 [m]; 0 where none is positive."""
    positive = np.maximum(maps.astype(np.float64), 0.0)
    total = positive.sum(axis=(1, 2))
    inside = np.where(masks, positive, 0.0).sum(axis=(1, 2))
    return cast("Floats", np.where(total > 0, inside / np.where(total > 0, total, 1.0), 0.0))


def iou_at_mask_area(maps: Maps, masks: Masks) -> Floats:
    """Return the intersection over union of a mask with the map's k highest pixels, k the mask's own, float64 [m].

    No threshold has to be chosen, and a large lesion is no easier than a small one but for chance. With k pixels on
    either side it is h / (2 − h) of the share h that is hit, the "relevance rank accuracy" of Arras et al. 2022
    (Information Fusion 81:14). Where several pixels share the k-th value, each counts as the share of them
    that there is room for, so that a plateau has no first pixel.

    Args:
        maps: [m, height, width].
        masks: bool [m, height, width]; an empty one scores 0.
    """
    area = masks.sum(axis=(1, 2))
    hit = _inside_of_highest(maps, masks, area)
    return cast("Floats", hit / np.maximum(2 * area - hit, 1.0))


def topk_in_mask(maps: Maps, masks: Masks) -> Floats:
    """Return the share of a map's k highest pixels that lies inside the mask, k = ⌈10 % of the pixels⌉, float64 [m].

    The top-k intersection of Theiner et al. 2021 (arXiv 2104.14995). A mask of fewer than k pixels cannot be hit by
    all of them, so its best value is its area over k. Pixels that share the k-th value count as in
    `iou_at_mask_area`.
    """
    count = int(np.ceil(TOP_SHARE * maps[0].size))
    return _inside_of_highest(maps, masks, np.full(len(maps), count)) / count


def pixel_auroc(maps: Maps, masks: Masks) -> Floats:
    """Return the area under the ROC curve of a map's pixels for those of the mask, float64 [m].

    The probability that a pixel inside ranks above one outside, equal ones counting half (Mann and Whitney 1947).
    NaN where the mask is empty or holds every pixel.
    """
    from scipy.stats import rankdata

    ranks = rankdata(maps.reshape(len(maps), -1), axis=1, method="average")
    inside = masks.reshape(len(masks), -1)
    area = inside.sum(axis=1)
    pairs = area * (inside.shape[1] - area)
    above = np.where(inside, ranks, 0.0).sum(axis=1) - area * (area + 1) / 2
    return cast("Floats", np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan))


def sparseness(maps: Maps) -> Floats:
    """Return the Gini index of a map's magnitudes, float64 [m]; 0 of a constant map, 0 everywhere or not.

    Chalasani et al. 2020 (ICML, arXiv 1810.06583), section 3, after Hurley and Rickard 2009: with the magnitudes in
    ascending order, 1 − 2 Σ v₍ₖ₎ / ‖v‖₁ · (d − k + ½) / d. A single pixel of d gives 1 − 1/d.
    """
    magnitudes = np.sort(np.abs(maps.reshape(len(maps), -1).astype(np.float64)), axis=1)
    d = magnitudes.shape[1]
    total = magnitudes.sum(axis=1)
    weighted = (magnitudes * (d - np.arange(1, d + 1) + 0.5)).sum(axis=1) / d
    index = np.where(total > 0, 1 - 2 * weighted / np.where(total > 0, total, 1.0), 0.0)
    return cast("Floats", np.clip(index, 0.0, 1.0))


def magnitude_spearman(maps: Maps, other_maps: Maps) -> Floats:
    """Return Spearman's rank correlation of the magnitudes of two maps per image, float64 [m].

    The version "with absolute values" of Adebayo et al. 2018 (arXiv 1810.03292, section 4.1). A signed map that only
    turns its sign, as gradient × input may, shows the eye the same picture, and its signed correlation would hide it.
    """
    return spearman(np.abs(maps), np.abs(other_maps))


def normalised(maps: Maps) -> Floats:
    """Return each map stretched to 0…1, float64 of the same shape; a constant map becomes 0."""
    values = maps.astype(np.float64)
    lowest = values.min(axis=(1, 2), keepdims=True)
    span = values.max(axis=(1, 2), keepdims=True) - lowest
    return cast("Floats", (values - lowest) / np.where(span > 0, span, 1.0))


def _is_constant(maps: Maps) -> Masks:
    return cast("Masks", maps.max(axis=(1, 2)) == maps.min(axis=(1, 2)))


def _inside_of_highest(maps: Maps, masks: Masks, count: NDArray[np.int64]) -> Floats:
    """Return how many of a map's highest pixels, int64 [m] of them, lie inside the mask, float64 [m].

    Where several pixels share the last value, each counts as the share of them that there is room for.
    """
    flat, inside = maps.reshape(len(maps), -1), masks.reshape(len(masks), -1)
    lowest_place = np.maximum(flat.shape[1] - count, 0).clip(max=flat.shape[1] - 1)
    threshold = np.take_along_axis(np.sort(flat, axis=1), lowest_place[:, None], axis=1)
    above, tied = flat > threshold, flat == threshold
    share_of_tied = (count - above.sum(axis=1)) / tied.sum(axis=1)
    return cast("Floats", (above & inside).sum(axis=1) + share_of_tied * (tied & inside).sum(axis=1))
