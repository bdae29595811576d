"""Which test images show best what compilation did to the saliency: each variant's worst, and the ordinary ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reports.facts import BASELINE, Facts, SaliencyMaps

MOST_MOVED = 6
TYPICAL = 3


@dataclass(frozen=True)
class ChosenImage:
    """A test image to show.

    Attributes:
        index: position in the test split.
        why: for example "moved most in fp16".
    """

    index: int
    why: str


@dataclass(frozen=True)
class SaliencyChoice:
    """The images to show and every per-image correlation behind the choice.

    Attributes:
        images: those that moved most first, then typical ones.
        correlations: Spearman with fp32 per variant and test image, as `spearman` defines it.
        compared: test images with a map of fp32.
    """

    images: tuple[ChosenImage, ...]
    correlations: dict[str, dict[int, float]]
    compared: int


def choose_images(facts: Facts) -> SaliencyChoice:
    """Return which images to show: for each variant the one where its map moved most, then the median ones."""
    baseline = facts.saliency.get(BASELINE)
    if baseline is None or facts.data is None:
        return SaliencyChoice((), {}, 0)
    known = len(facts.data.test)
    correlations = {
        variant: {
            index: value for index, value in _correlations(baseline, facts.saliency[variant]).items() if index < known
        }
        for variant in facts.variant_names
        if variant != BASELINE and variant in facts.saliency
    }
    moved = _most_moved(correlations)
    shown = {image.index for image in moved}
    typical = _typical(correlations, shown)
    if not correlations:
        typical = tuple(ChosenImage(int(index), "first of the set") for index in baseline.image_index[:TYPICAL])
    return SaliencyChoice((*moved, *typical), correlations, len(baseline.image_index))


def map_of(maps: SaliencyMaps, index: int) -> NDArray[np.float32] | None:
    """Return the map of a test image, float32 [h, w]; None where there is none."""
    positions = np.flatnonzero(maps.image_index == index)
    return maps.maps[positions[0]] if len(positions) else None


def spearman(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the rank correlation of two maps of the same shape, ties at their mean rank.

    A constant map orders no pixels: its correlation is 0, as in the measurement `saliency_spearman`.
    """
    ranks = np.stack([_ranks(first), _ranks(second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = float(np.sqrt((ranks**2).sum(axis=1).prod()))
    return float(ranks[0] @ ranks[1]) / spread if spread > 0 else 0.0


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[position.ravel()], dtype=np.float64)


def _correlations(baseline: SaliencyMaps, other: SaliencyMaps) -> dict[int, float]:
    position = {(int(i), int(t)): k for k, (i, t) in enumerate(zip(other.image_index, other.target, strict=True))}
    found = {}
    for k, (index, target) in enumerate(zip(baseline.image_index, baseline.target, strict=True)):
        match = position.get((int(index), int(target)))
        if match is not None and other.maps[match].shape == baseline.maps[k].shape:
            found[int(index)] = spearman(baseline.maps[k], other.maps[match])
    return found


def _most_moved(correlations: dict[str, dict[int, float]]) -> tuple[ChosenImage, ...]:
    """Return each variant's lowest image; two variants may share one."""
    worst: dict[int, list[str]] = {}
    lowest: dict[int, float] = {}
    for variant, values in correlations.items():
        if values:
            index = min(values, key=lambda i: (values[i], i))
            worst.setdefault(index, []).append(variant)
            lowest[index] = min(values[index], lowest.get(index, 1.0))
    order = sorted(worst, key=lambda i: (lowest[i], i))[:MOST_MOVED]
    return tuple(ChosenImage(index, f"moved most in {', '.join(worst[index])}") for index in order)


def _typical(correlations: dict[str, dict[int, float]], shown: set[int]) -> tuple[ChosenImage, ...]:
    """Return the images whose correlation, averaged over the variants, lies nearest to its median."""
    per_image: dict[int, list[float]] = {}
    for values in correlations.values():
        for index, value in values.items():
            per_image.setdefault(index, []).append(value)
    if not per_image:
        return ()
    averages = {index: float(np.mean(values)) for index, values in per_image.items()}
    median = float(np.median(list(averages.values())))
    rest = sorted((i for i in averages if i not in shown), key=lambda i: (abs(averages[i] - median), i))
    return tuple(ChosenImage(index, "typical") for index in sorted(rest[:TYPICAL]))
