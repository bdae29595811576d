"""The settings of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pipeline.settings import Settings
from stages.network import NETWORKS, PactSettings


class SaliencyGuidedSettings(Settings):
    """Saliency-guided training (arXiv 2111.14338)."""

    masked_fraction: float = Field(0.5, gt=0, lt=1, description="share of each image's pixels replaced by noise")
    weight: float = Field(1.0, ge=0, description="λ, the weight of the Kullback-Leibler term")
    rank_by: Literal["magnitude", "signed"] = Field(
        "magnitude", description="rank pixels by |gradient| (the paper's text) or by its signed value (its code)"
    )


class TrainSettings(Settings):
    """The network and how it is trained."""

    network: str = Field("cnn-medium", description="architecture by name", json_schema_extra={"enum": list(NETWORKS)})
    pact: PactSettings | None = Field(PactSettings(), description="PACT's settings; null trains in plain float")
    saliency_guided: SaliencyGuidedSettings | None = Field(
        SaliencyGuidedSettings(), description="saliency-guided training's settings; null switches it off"
    )
    epochs: int = Field(20, ge=1, le=100_000, description="passes over the training images")
    batch_size: int = Field(64, ge=2, le=100_000, description="images per step")
    learning_rate: float = Field(0.05, gt=0, description="peak learning rate of SGD with momentum 0.9")
    weight_decay: float = Field(5e-4, ge=0, description="L2 coefficient of the weights")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises linearly")
    augment: Literal["none", "flip"] = Field("flip", description="random horizontal and vertical flips, or nothing")
    balance_classes: bool = Field(False, description="weight each class's loss by the inverse of its frequency")
    threads: int = Field(
        2,
        ge=1,
        le=1024,
        description="of the computation; another number gives other last bits, and so another network",
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of initial weights, order, flips and noise")

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        if name not in NETWORKS:
            raise ValueError(f"expected one of {', '.join(NETWORKS)}")
        return name
