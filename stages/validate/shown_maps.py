"""Which test images show best what compilation did to the saliency: each variant's worst, and the ordinary ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foundation.explanations import Explanations
from foundation.image_by_image import ShownImage, ShownMaps
from stages.validate.map_similarity import spearman

MOST_MOVED = 6
TYPICAL = 3
_AT_ONCE = 64
"""Maps that are ranked at once; more would take gigabytes where many large images are explained."""

Likeness = dict[str, dict[int, float]]
"""Variant → test image → Spearman correlation with fp32's map."""


def maps_to_show(method: str, fp32: Explanations, others: Mapping[str, Explanations]) -> ShownMaps:
    """Return which images to show: for each variant the one where its map moved most, then the median ones.

    Args:
        method: how the maps were made.
        fp32: the baseline's maps.
        others: variant → its maps.
    """
    likeness = {variant: _likeness(fp32, maps) for variant, maps in others.items()}
    moved = _most_moved(likeness)
    chosen = [*moved.items(), *((index, ()) for index in _typical(likeness, set(moved)))]
    if not likeness:
        chosen = [(int(index), ()) for index in fp32.image_index[:TYPICAL]]
    images = tuple(
        ShownImage(
            index,
            tuple(moved_most_in),
            {variant: of_image[index] for variant, of_image in likeness.items() if index in of_image},
        )
        for index, moved_most_in in chosen
    )
    return ShownMaps(method, len(fp32.image_index), images)


def _likeness(fp32: Explanations, other: Explanations) -> dict[int, float]:
    """Return the rank correlation of each map with fp32's of the same image and class."""
    position = {at: k for k, at in enumerate(zip(other.image_index.tolist(), other.target.tolist(), strict=True))}
    pairs = [
        (k, position[at])
        for k, at in enumerate(zip(fp32.image_index.tolist(), fp32.target.tolist(), strict=True))
        if at in position and other.maps.shape[1:] == fp32.maps.shape[1:]
    ]
    found: dict[int, float] = {}
    for start in range(0, len(pairs), _AT_ONCE):
        mine, theirs = (list(side) for side in zip(*pairs[start : start + _AT_ONCE], strict=True))
        values = spearman(other.maps[theirs], fp32.maps[mine])
        found |= dict(zip(fp32.image_index[mine].tolist(), values.tolist(), strict=True))
    return found


def _most_moved(likeness: Likeness) -> dict[int, list[str]]:
    """Return each variant's lowest image → the variants whose it is; two may share one."""
    worst: dict[int, list[str]] = {}
    lowest: dict[int, float] = {}
    for variant, values in likeness.items():
        if values:
            index = min(values, key=lambda i: (values[i], i))
            worst.setdefault(index, []).append(variant)
            lowest[index] = min(values[index], lowest.get(index, 1.0))
    order = sorted(worst, key=lambda i: (lowest[i], i))[:MOST_MOVED]
    return {index: worst[index] for index in order}


def _typical(likeness: Likeness, shown: set[int]) -> list[int]:
    """Return the images whose likeness, averaged over the variants, lies nearest to its median."""
    per_image: dict[int, list[float]] = {}
    for values in likeness.values():
        for index, value in values.items():
            per_image.setdefault(index, []).append(value)
    if not per_image:
        return []
    averages = {index: float(np.mean(values)) for index, values in per_image.items()}
    median = float(np.median(list(averages.values())))
    rest = sorted((i for i in averages if i not in shown), key=lambda i: (abs(averages[i] - median), i))
    return sorted(rest[:TYPICAL])
