"""The settings of the images: which source, in which size, and how they are divided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self, Union

from pydantic import Field, model_validator

from calibration_data.dataset import Dataset, SourceSettings
from calibration_data.datasets import DATASETS
from calibration_data.fitting import Fit
from calibration_data.splits import SplitSettings
from foundation.files import sha256_of_json
from foundation.settings import Settings

if TYPE_CHECKING:
    AnySource = SourceSettings
else:  # every row of the table is a choice in the configuration
    AnySource = Annotated[
        Union[tuple(kind.settings for kind in DATASETS.values())],  # noqa: UP007
        Field(discriminator="name"),
    ]

SMALLEST_STD = 1e-3


class DataSettings(Settings):
    """Which images, in which size, and how they are divided."""

    source: AnySource = Field(description="where the images come from")
    image_size: int = Field(64, ge=8, le=1024, description="height and width of the network's input, in pixels")
    channels: Literal[1, 3] = Field(3, description="1: gray, 3: RGB")
    fit: Fit = Field("pad", description="how an image becomes square: black borders, stretched, or cropped")
    crop_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the short side that fit: crop keeps; 0.875 is resize to 256, centre crop of 224",
    )
    bits: Literal["auto"] | Annotated[int, Field(ge=8, le=16)] = Field(
        "auto",
        description="how many bits 16-bit gray images use, such as 12; auto: as many as the largest value of all "
        "images needs, out of 8, 10, 12, 14 and 16",
    )
    mean: Annotated[tuple[float, ...], Field(strict=False)] | None = Field(
        None, description="per channel, of pixels scaled to 0…1; default: computed from the training images"
    )
    std: Annotated[tuple[float, ...], Field(strict=False)] | None = Field(None, description="per channel, likewise")
    split: SplitSettings = Field(SplitSettings(), description="how the images are divided")
    bad_images: Literal["error", "skip"] = Field("error", description="what to do with an image that cannot be read")
    duplicates: Literal["error", "merge", "drop"] = Field(
        "error",
        description="equal images in two splits: an error; merge: keep them on one side; drop: also leave out of "
        "training and validation what the authors put into test as well",
    )
    workers: int | None = Field(
        None, ge=0, le=1024, description="processes that decode; 0: none; default: one per core where it pays"
    )

    @model_validator(mode="after")
    def _normalisation_fits(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: set both or neither")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{key} must have {self.channels} values, one per channel; it has {len(values)}")
        if self.std is not None and min(self.std) < SMALLEST_STD:
            raise ValueError(f"std must be at least {SMALLEST_STD}")
        return self


def open_source(settings: DataSettings) -> Dataset:
    """Return what the source offers.

    Raises:
        UsageError: the source is missing, or is none of its kind.
    """
    return DATASETS[settings.source.name].open(settings.source)


def source_fingerprint(settings: DataSettings) -> str:
    """Return a sha256 over the source's content, wherever its files lie; with the settings it is a cache's key.

    Raises:
        UsageError: the source is missing.
    """
    name = settings.source.name
    return sha256_of_json({"source": name, "content": DATASETS[name].fingerprint(settings.source)})


def source_module(settings: DataSettings) -> str:
    """Return the dotted name of the module that reads the source, for the identity of what is made from it."""
    return DATASETS[settings.source.name].open.__module__
