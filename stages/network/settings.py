"""The settings of quantization-aware training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foundation.settings import Settings

WeightQuantizerName = Literal["symmetric", "dorefa", "sawb", "lsq"]
ActivationQuantizerName = Literal["pact", "lsq"]


class LayerBits(Settings):
    """Bit widths of the layers that a pattern names; null keeps the network's own."""

    weight_bits: int | None = Field(None, ge=2, le=8, description="bits of these layers' weights")
    activation_bits: int | None = Field(None, ge=2, le=8, description="bits of the ReLUs that feed these layers")


class PactSettings(Settings):
    """PACT (arXiv 1805.06085), its weight quantizers and its learned-step successor."""

    weight_bits: int = Field(8, ge=2, le=8, description="bits of the weights, first and last layer excepted")
    activation_bits: int = Field(8, ge=2, le=8, description="bits behind each ReLU, first and last layer excepted")
    weight_quantizer: WeightQuantizerName = Field(
        "symmetric",
        description="symmetric: the largest weight of each output channel ends its scale; dorefa: tanh and 2^k "
        "levels, 255 at 8 bits (arXiv 1606.06160); sawb: a clip from the weights' statistics, as symmetric from "
        "6 bits on (arXiv 1807.06964); lsq: a learned step per output channel on 2^k levels, as symmetric at "
        "8 bits (after arXiv 1902.08153)",
    )
    activation_quantizer: ActivationQuantizerName = Field(
        "pact",
        description="how the clips learn: pact: the paper's gradient; lsq: learned step size (arXiv 1902.08153)",
    )
    layer_bits: dict[str, LayerBits] = Field(
        {},
        description="other bit widths for some layers: a pattern such as layer2.*.conv1 on the layer's name in the "
        "network, and its bits; a layer under two patterns takes the longer one's; first and last layer stay at 8",
    )
    shortcut_bits: int | None = Field(
        None,
        ge=2,
        le=8,
        description="bits of a ReLU's values where they go past the layers, into an addition or an average: 8 keeps "
        "shortcuts whole (after arXiv 1807.06964); null: the same as into the layers",
    )
    alpha_init: float = Field(
        10.0, gt=0, description="every clip's initial value; the paper starts large; lsq starts from the activations"
    )
    alpha_l2: float | None = Field(
        None,
        ge=0,
        description="L2 coefficient of the clips; null: pact takes the weight decay, as in its paper, lsq none",
    )

    def clip_l2(self, weight_decay: float) -> float:
        """Return the L2 coefficient of the clips; LSQ's are not drawn towards zero unless `alpha_l2` says so."""
        if self.alpha_l2 is not None:
            return self.alpha_l2
        return weight_decay if self.activation_quantizer == "pact" else 0.0
