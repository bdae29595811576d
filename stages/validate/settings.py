"""The settings of the whole stage, one part per kind of measurement."""

from __future__ import annotations

from pydantic import Field

from foundation.settings import Settings
from stages.validate.accuracy import AccuracySettings
from stages.validate.latency_settings import LatencySettings
from stages.validate.operating_points import OperatingPointSettings
from stages.validate.places.settings import PlacesSettings
from stages.validate.robustness import RobustnessSettings
from stages.validate.saliency import SaliencySettings


class ValidateSettings(Settings):
    """What is measured of every variant, and how."""

    accuracy: AccuracySettings = Field(AccuracySettings(), description="answers to the test split")
    operating_points: OperatingPointSettings | None = Field(
        None, description="thresholds that are chosen with fp32 and kept for every file; null: none"
    )
    robustness: RobustnessSettings | None = Field(
        None, description="answers to images that are made worse in five ways at five strengths; null: not asked"
    )
    saliency: SaliencySettings = Field(
        SaliencySettings(), description="saliency maps: how they are made, and what they are worth"
    )
    latency: LatencySettings = Field(LatencySettings(), description="time and memory of queries")
    places: PlacesSettings = Field(
        PlacesSettings(), description="other processors, runtimes and devices that every file is asked at"
    )
