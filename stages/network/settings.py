"""The settings of quantization-aware training."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings import Settings


class PactSettings(Settings):
    """PACT (arXiv 1805.06085)."""

    weight_bits: int = Field(8, ge=2, le=8, description="bits of the weights, first and last layer excepted")
    activation_bits: int = Field(8, ge=2, le=8, description="bits behind each ReLU, first and last layer excepted")
    alpha_init: float = Field(10.0, gt=0, description="every clip's initial value; the paper starts large")
    alpha_l2: float | None = Field(
        None, ge=0, description="L2 coefficient of the clips; null takes the weight decay, as in the paper"
    )
