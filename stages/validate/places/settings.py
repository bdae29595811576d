"""Which places are asked, and about how many images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from foundation.settings import Settings
from stages.validate.places import KnownPlace


class PlacesSettings(Settings):
    """Where every file is asked besides, and how much."""

    at: Annotated[tuple[KnownPlace, ...], Field(strict=False)] = Field(
        (), description="the places: see `edgeproof places`; one that is not installed makes the evidence incomplete"
    )
    images: int = Field(200, ge=1, le=100_000, description="test images to ask about, spread over the classes")
    maps: int = Field(16, ge=0, le=10_000, description="of them, those that each file's saliency twin explains there")
    stall_s: float = Field(
        300.0, gt=0, le=86_400, description="seconds without a sign of life after which a place has hung"
    )
