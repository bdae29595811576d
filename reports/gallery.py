"""The pictures on the page: saliency maps side by side, and the images whose answer changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reports import formats, overlays
from reports.disagreements import MOST_IMAGES, Disagreement, class_name, disagreements, truth_name
from reports.facts import BASELINE, Facts
from reports.saliency_choice import ChosenImage, SaliencyChoice, choose_images, map_of


@dataclass(frozen=True)
class Picture:
    """One picture with what it shows in words.

    Attributes:
        url: a `data:` address; "" where there is no picture.
        alt: text for a reader who cannot see it.
        caption: short text below it.
    """

    url: str
    alt: str
    caption: str


@dataclass(frozen=True)
class GridRow:
    """One test image and its maps.

    Attributes:
        title: the image's name.
        truth: name of the true class, or of the true labels.
        explained: the label that the maps explain; "" where that is fp32's answer.
        why: why it was chosen.
        original: the image itself.
        maps: one picture per column of the grid.
    """

    title: str
    truth: str
    explained: str
    why: str
    original: Picture
    maps: tuple[Picture, ...]


@dataclass(frozen=True)
class Grid:
    """Saliency maps side by side.

    Attributes:
        columns: variant names, the baseline first.
        rows: one per chosen image.
        with_masks: whether a lesion's outline is drawn anywhere.
        compared: how many test images have maps.
    """

    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    with_masks: bool
    compared: int


@dataclass(frozen=True)
class ChangedImage:
    """A disagreement with its picture."""

    disagreement: Disagreement
    picture: Picture
    title: str


def saliency_grid(facts: Facts) -> Grid | None:
    """Return the grid of maps; None where the run holds no maps or no images."""
    if facts.data is None or BASELINE not in facts.saliency:
        return None
    choice = choose_images(facts)
    columns = tuple(variant for variant in facts.variant_names if variant in facts.saliency)
    rows = tuple(_grid_row(facts, image, columns, choice) for image in choice.images)
    with_masks = any(facts.data.test.has_mask[image.index] for image in choice.images)
    return Grid(columns, rows, with_masks, choice.compared)


def changed_images(facts: Facts) -> tuple[tuple[ChangedImage, ...], int]:
    """Return the first images whose answer changed, and how many there are in all."""
    found = disagreements(facts)
    return tuple(_changed_image(facts, item) for item in found[:MOST_IMAGES]), len(found)


def _grid_row(facts: Facts, image: ChosenImage, columns: tuple[str, ...], choice: SaliencyChoice) -> GridRow:
    assert facts.data is not None  # saliency_grid asked
    test = facts.data.test
    name, pixels = test.image_ids[image.index], test.images[image.index]
    mask = test.masks[image.index] if test.has_mask[image.index] else None
    outline = ", the lesion outlined" if mask is not None else ""
    pictures = []
    for variant in columns:
        saliency = map_of(facts.saliency[variant], image.index)
        if saliency is None:
            pictures.append(Picture("", "", formats.NOT_MEASURED))
            continue
        url = overlays.data_url(overlays.overlay(pixels, saliency, mask))
        caption = _caption(variant, choice.correlations.get(variant, {}).get(image.index))
        pictures.append(Picture(url, f"Saliency map of {variant} for {name}{outline}: {caption}", caption))
    return GridRow(
        name,
        truth_name(facts, test.labels, image.index),
        _explained(facts, image.index),
        image.why,
        Picture(overlays.data_url(overlays.picture(pixels, mask)), f"Test image {name}{outline}", ""),
        tuple(pictures),
    )


def _explained(facts: Facts, index: int) -> str:
    """Return the label that fp32's map of an image explains; "" where an image has one class."""
    if facts.task == "multi_class":
        return ""
    maps = facts.saliency[BASELINE]
    return next((class_name(facts, int(maps.target[k])) for k in np.flatnonzero(maps.image_index == index)), "")


def _caption(variant: str, correlation: float | None) -> str:
    if variant == BASELINE:
        return "reference"
    if correlation is None:
        return "explains another class"
    return f"ρ = {formats.score(correlation)}"


def _changed_image(facts: Facts, item: Disagreement) -> ChangedImage:
    if facts.data is None or item.index >= len(facts.data.test):
        return ChangedImage(item, Picture("", "", ""), f"test image {item.index}")
    test = facts.data.test
    name = test.image_ids[item.index]
    mask = test.masks[item.index] if test.has_mask[item.index] else None
    url = overlays.data_url(overlays.picture(test.images[item.index], mask))
    return ChangedImage(item, Picture(url, f"Test image {name}", ""), name)
