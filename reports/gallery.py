"""The pictures on the page: saliency maps side by side, and the images whose answer changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.image_by_image import Answer, ChangedAnswer, ShownImage
from reports import formats, overlays
from reports.facts import BASELINE, Facts

NO_FINDING = "no finding"


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
        method: how they were made.
        columns: variant names, the baseline first.
        rows: one per chosen image.
        with_masks: whether a lesion's outline is drawn anywhere.
        compared: how many test images have maps.
    """

    method: str
    columns: tuple[str, ...]
    rows: tuple[GridRow, ...]
    with_masks: bool
    compared: int


@dataclass(frozen=True)
class AnswerRow:
    """A variant's answer in words, and the probability that it gave to it, where it gives any."""

    variant: str
    label: str
    probability: float | None
    correct: bool


@dataclass(frozen=True)
class ChangedImage:
    """A changed answer with its picture.

    Attributes:
        title: the image's name.
        picture: the image.
        truth: name of the true class, or of the true labels.
        question: the label that was decided; "" where an image has one class.
        answers: fp32's, and those that differ from it.
    """

    title: str
    picture: Picture
    truth: str
    question: str
    answers: tuple[AnswerRow, ...]


def saliency_grid(facts: Facts) -> Grid | None:
    """Return the grid of maps; None where the run holds no maps or no images."""
    shown = facts.image_by_image.maps if facts.image_by_image else None
    if shown is None or facts.data is None or BASELINE not in facts.maps:
        return None
    images = [image for image in shown.images if image.index < len(facts.data.test)]
    columns = tuple(variant for variant in facts.variant_names if variant in facts.maps)
    rows = tuple(_grid_row(facts, image, columns) for image in images)
    with_masks = any(facts.data.test.has_mask[image.index] for image in images)
    return Grid(shown.method, columns, rows, with_masks, shown.compared)


def changed_images(facts: Facts) -> tuple[ChangedImage, ...]:
    """Return the first images whose answer changed."""
    if facts.image_by_image is None:
        return ()
    return tuple(_changed_image(facts, changed) for changed in facts.image_by_image.answers.first)


def _grid_row(facts: Facts, image: ShownImage, columns: tuple[str, ...]) -> GridRow:
    assert facts.data is not None  # saliency_grid asked
    test = facts.data.test
    name, pixels = facts.image_name(image.index), test.images[image.index]
    mask = test.masks[image.index] if test.has_mask[image.index] else None
    outline = ", the lesion outlined" if mask is not None else ""
    pictures = []
    for variant in columns:
        saliency = facts.maps[variant].of_image(image.index)
        if saliency is None:
            pictures.append(Picture("", "", formats.NOT_MEASURED))
            continue
        url = overlays.data_url(overlays.overlay(pixels, saliency, mask))
        caption = _caption(variant, image.likeness.get(variant))
        pictures.append(Picture(url, f"Saliency map of {variant} for {name}{outline}: {caption}", caption))
    return GridRow(
        name,
        _truth_name(facts, _true_classes(test.labels, image.index)),
        _explained(facts, image.index),
        _why(image),
        Picture(overlays.data_url(overlays.picture(pixels, mask)), f"Test image {name}{outline}", ""),
        tuple(pictures),
    )


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
    return f"ρ = {formats.score(correlation)}"


def _changed_image(facts: Facts, changed: ChangedAnswer) -> ChangedImage:
    truth = _truth_name(facts, changed.truth)
    question = "" if changed.label is None else class_name(facts, changed.label)
    answers = tuple(_answer_row(facts, changed, answer) for answer in (changed.baseline, *changed.others))
    if facts.data is None or changed.index >= len(facts.data.test):
        return ChangedImage(f"test image {changed.index}", Picture("", "", ""), truth, question, answers)
    test = facts.data.test
    name = facts.image_name(changed.index)
    mask = test.masks[changed.index] if test.has_mask[changed.index] else None
    url = overlays.data_url(overlays.picture(test.images[changed.index], mask))
    return ChangedImage(name, Picture(url, f"Test image {name}", ""), truth, question, answers)


def _answer_row(facts: Facts, changed: ChangedAnswer, answer: Answer) -> AnswerRow:
    yes_no = "yes" if answer.answer else "no"
    label = class_name(facts, answer.answer) if changed.label is None else yes_no
    return AnswerRow(answer.variant, label, answer.probability, answer.correct)


def class_name(facts: Facts, label: int) -> str:
    """Return a class's name, or its number where the run names none."""
    return facts.record.classes[label] if 0 <= label < len(facts.record.classes) else f"class {label}"


def _true_classes(labels: NDArray[np.int64], index: int) -> tuple[int, ...]:
    return (int(labels[index]),) if labels.ndim == 1 else tuple(np.flatnonzero(labels[index]).tolist())


def _truth_name(facts: Facts, truth: tuple[int, ...]) -> str:
    """Return an image's class, or its labels one after another."""
    return ", ".join(class_name(facts, label) for label in truth) or NO_FINDING
