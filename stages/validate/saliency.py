"""Which test images are explained by which methods.

Every variant's map of an image explains the same class, see `explained.explained_classes`, so that two maps explain
the same statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from foundation.progress import Progress
from stages.validate.maps.methods import SALIENCY_METHODS, MapFunction
from stages.validate.maps.settings import MapSettings

if TYPE_CHECKING:
    MethodName = str
else:  # every row of the table of methods is a choice
    MethodName = Literal[tuple(SALIENCY_METHODS)]

Maps = NDArray[np.float32]
Images = NDArray[np.uint8]
Indices = NDArray[np.int64]


class SaliencySettings(MapSettings):
    """Which test images are explained, by which methods, and how finely."""

    methods: Annotated[tuple[MethodName, ...], Field(strict=False)] = Field(
        ("occlusion", "gradient"),
        min_length=1,
        description="how the maps are made; the first one's are shown and stand in the overview",
    )
    images: int = Field(64, ge=1, le=10_000, description="test images to explain, spread over the classes")
    pointing_tolerance_px: int = Field(
        0, ge=0, le=1000, description="pixels from the mask within which the pointing game counts a maximum as a hit"
    )
    insertion_start: Literal["mean", "blur"] = Field(
        "mean", description="what insertion begins with: the mean colour, or the blurred image"
    )
    sanity_draws: int = Field(
        5,
        ge=1,
        le=100,
        description="random orders of fp32's weights behind the sanity check, a map of each image each",
    )
    sanity_cascade: int = Field(
        0,
        ge=0,
        le=100,
        description="steps in which fp32's weights become random from the answer down, a map of each image each; 0: "
        "not made",
    )
    sensitivity_samples: int = Field(
        0, ge=0, le=1000, description="noisy copies of each image for max-sensitivity, a map each; 0: not measured"
    )
    sensitivity_radius: int = Field(5, ge=1, le=255, description="how far the noise may move a pixel, in gray values")
    resamples: int = Field(2000, ge=1000, le=100_000, description="bootstrap resamples behind an interval")
    seed: int = Field(
        0,
        ge=0,
        le=2**32 - 1,
        description="seed of the choice of images, of random maps, weights and masks, and of the bootstrap",
    )

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for index, name in enumerate(methods) if name in methods[:index]]
        if twice:
            raise ValueError(f"expected each method once, found {twice[0]!r} twice; remove one of them")
        return methods


def explain(explainer: MapFunction, images: Images, targets: Indices, at_once: int, progress: Progress) -> Maps:
    """Return the maps of images, some at a time, so that one can watch.

    Args:
        explainer: a method, opened for a file.
        images: uint8 [m, channels, h, w].
        targets: int64 [m], the class to explain.
        at_once: images per call, at least 1.
        progress: called with (images done, images in all).

    Returns:
        float32 [m, h, w].

    Raises:
        StageError: a value is not finite.
    """
    parts = []
    for start in range(0, len(images), at_once):
        parts.append(explainer(images[start : start + at_once], targets[start : start + at_once]))
        progress(min(start + at_once, len(images)), len(images))
    return np.concatenate(parts)
