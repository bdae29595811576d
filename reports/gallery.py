"""The gallery: test images with fp32's map, each variant's, and the difference; the least alike first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.image_by_image import ShownImage
from reports import formats, tiles
from reports.facts import BASELINE, Facts

NO_FINDING = "no finding"
MOST_STRIPS = 8
"""Variants whose map stands below the large pictures of an image; the others are as like fp32's as these."""


@dataclass(frozen=True)
class Tile:
    """One picture: what lies over the image, and what it shows in words.

    Attributes:
        over: a `data:` address of a map; "" where the image stands alone.
        alt: text for a reader who cannot see it.
        title: a word or two above it.
        caption: a line below it.
    """

    over: str
    alt: str
    title: str
    caption: str


@dataclass(frozen=True)
class Card:
    """One test image and its maps.

    Attributes:
        key: part of its id.
        title: the image's name.
        truth: name of the true class, or of the true labels.
        explained: the label that the maps explain; "" where that is fp32's answer.
        why: why it was chosen.
        picture: a `data:` address of the image itself.
        outline: of the mask; "" where there is none.
        tiles: the image, fp32's map, the map that moved most, and where the two differ.
        strip: the other variants' maps.
    """

    key: str
    title: str
    truth: str
    explained: str
    why: str
    picture: str
    outline: str
    tiles: tuple[Tile, ...]
    strip: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """Saliency maps side by side.

    Attributes:
        method: how they were made.
        cards: one per chosen image.
        with_masks: whether a lesion's outline is drawn anywhere.
        compared: how many test images have maps.
    """

    method: str
    cards: tuple[Card, ...]
    with_masks: bool
    compared: int


def gallery(facts: Facts) -> Gallery | None:
    """Return the gallery; None where the run holds no maps or no images."""
    shown = facts.image_by_image.maps if facts.image_by_image else None
    if shown is None or facts.data is None or BASELINE not in facts.maps:
        return None
    images = [image for image in shown.images if image.index < len(facts.data.test)]
    cards = tuple(_card(facts, image) for image in images)
    with_masks = any(facts.data.test.has_mask[image.index] for image in images)
    return Gallery(shown.method, cards, with_masks, shown.compared)


def _card(facts: Facts, image: ShownImage) -> Card:
    assert facts.data is not None  # gallery asked
    test = facts.data.test
    name = facts.image_name(image.index)
    mask = test.masks[image.index] if test.has_mask[image.index] else None
    outlined = ", the lesion outlined" if mask is not None else ""
    by_likeness = sorted(
        (variant for variant in facts.variant_names if variant in facts.maps and variant != BASELINE),
        key=lambda variant: image.likeness.get(variant, 2.0),
    )
    large = [Tile("", f"Test image {name}{outlined}", "Image", "")]
    large.append(_tile(facts, BASELINE, image, name, outlined))
    if by_likeness:
        least = by_likeness[0]
        large += [_tile(facts, least, image, name, outlined), _difference(facts, least, image, name)]
    return Card(
        f"image-{image.index}",
        name,
        _truth_name(facts, _true_classes(test.labels, image.index)),
        _explained(facts, image.index),
        _why(image),
        tiles.photograph(test.images[image.index]),
        "" if mask is None else tiles.outline(mask),
        tuple(tile for tile in large if tile.over or tile.title == "Image" or tile.caption),
        tuple(_tile(facts, variant, image, name, outlined) for variant in by_likeness[1 : 1 + MOST_STRIPS]),
    )


def _tile(facts: Facts, variant: str, image: ShownImage, name: str, outlined: str) -> Tile:
    saliency = facts.maps[variant].of_image(image.index)
    if saliency is None:
        return Tile("", "", variant, formats.NOT_MEASURED)
    caption = _caption(variant, image.likeness.get(variant))
    alt = f"Saliency map of {variant} for {name}{outlined}: {caption}"
    return Tile(tiles.heat(saliency), alt, variant, caption)


def _difference(facts: Facts, variant: str, image: ShownImage, name: str) -> Tile:
    fp32, other = (facts.maps[of].of_image(image.index) for of in (BASELINE, variant))
    over = "" if fp32 is None or other is None else tiles.difference(other, fp32)
    alt = f"Where the map of {variant} says more (orange) and less (purple) than fp32's for {name}"
    return Tile(over, alt, f"{variant} − fp32", "orange more, purple less" if over else "")


def _why(image: ShownImage) -> str:
    if image.moved_most_in:
        return f"moved most in {', '.join(image.moved_most_in)}"
    return "typical" if image.likeness else "first of the set"


def _explained(facts: Facts, index: int) -> str:
    """Return the label that fp32's map of an image explains; "" where an image has one class."""
    if facts.task == "multi_class":
        return ""
    maps = facts.maps[BASELINE]
    return next((class_name(facts, int(maps.target[k])) for k in np.flatnonzero(maps.image_index == index)), "")


def _caption(variant: str, correlation: float | None) -> str:
    if variant == BASELINE:
        return "reference"
    if correlation is None:
        return "explains another class"
    return formats.equation("ρ", correlation)


def class_name(facts: Facts, label: int) -> str:
    """Return a class's name, or its number where the run names none."""
    return facts.record.classes[label] if 0 <= label < len(facts.record.classes) else f"class {label}"


def _true_classes(labels: NDArray[np.int64], index: int) -> tuple[int, ...]:
    return (int(labels[index]),) if labels.ndim == 1 else tuple(np.flatnonzero(labels[index]).tolist())


def _truth_name(facts: Facts, truth: tuple[int, ...]) -> str:
    """Return an image's class, or its labels one after another."""
    return ", ".join(class_name(facts, label) for label in truth) or NO_FINDING
