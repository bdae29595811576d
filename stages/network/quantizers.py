"""Fake quantization of activations with learned clips: PACT, and LSQ as its successor.

Sources: Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks", arXiv 1805.06085;
Esser et al., "Learned Step Size Quantization", arXiv 1902.08153.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.network.clip_function import clip_and_round
from stages.network.settings import ActivationQuantizerName
from stages.network.weight_quantizers import LearnedStepWeights, WeightQuantizer

_SMALLEST_STEP = 1e-9

OFF_THE_TIE = 1 + 2**-18
"""Factor on averages before they are rounded. An average of integers often lies exactly between two steps, and every
kernel adds up float32 with another error; this moves it to one side by more than that and by far less than a step.
"""


class ClipQuantizer(nn.Module):
    """PACT: y = clip(x, 0, α), rounded to 2^k − 1 steps of α / (2^k − 1); α is learned.

    `signed` is for tensors that no ReLU precedes (the paper keeps those in float; an integer convolution needs a grid
    at its output): 2^(k−1) − 1 steps up to α and, as in two's complement, one more below zero.

    Args:
        bits: k, 2 to 8.
        alpha: initial clip, positive.
        signed: whether negative values pass.
        learning: the gradient of α, see `clip_and_round`.
    """

    def __init__(self, bits: int, alpha: float, signed: bool, learning: ActivationQuantizerName = "pact") -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.learning: ActivationQuantizerName = learning
        self.rounding = True
        self.averages = False  # whether the input is an average; `insert_pact` knows
        self.alpha = nn.Parameter(torch.tensor(alpha))

    @property
    def levels(self) -> int:
        """Number of steps between zero and α."""
        return int(2 ** (self.bits - 1) - 1) if self.signed else int(2**self.bits - 1)

    @property
    def lowest(self) -> int:
        """The least integer; two's complement has one more step below zero than above."""
        return -self.levels - 1 if self.signed else 0

    @property
    def greatest(self) -> int:
        """The greatest magnitude of an integer on this grid."""
        return max(self.levels, -self.lowest)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that passes."""
        alpha = self.alpha.detach()
        return float(alpha * self.lowest / self.levels), float(alpha)

    @property
    def scale(self) -> Tensor:
        """α / levels, a float32 scalar: the scale of the exported QuantizeLinear."""
        return self.alpha.detach() / self.levels

    def forward(self, x: Tensor) -> Tensor:
        """Return x clipped and, unless `rounding` is off, rounded; any shape, in x's own type."""
        if self.averages and self.rounding and not self.training:
            x = x * OFF_THE_TIE
        # LSQ, section 2.2, counts the features of a layer: those of one image, so that the batch plays no part.
        values = x[0].numel() if self.learning == "lsq" else 0
        return clip_and_round(x, self.alpha, self.lowest, self.levels, self.rounding, values)

    def extra_repr(self) -> str:
        """Return what `print(network)` shows of it."""
        return f"bits={self.bits}, alpha={self.alpha.item():.4g}, signed={self.signed}, learning={self.learning}"


class InputQuantizer(nn.Module):
    """The normalised image on 256 levels between its least and its greatest possible value; nothing is learned.

    Args:
        low: (0 − mean) / std of the channel where that is least; negative.
        high: (1 − mean) / std of the channel where that is greatest; positive.
    """

    scale: Tensor
    zero_point: Tensor
    greatest = 255
    """The greatest magnitude of an integer on this grid, its zero taken off."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.rounding = True
        scale = torch.tensor((high - low) / 255, dtype=torch.float32)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.round(-low / scale).to(torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return the image rounded straight-through; [batch, channels, height, width]."""
        if not self.rounding:
            return x
        with torch.no_grad():
            rounded = (x / self.scale).round_().add_(self.zero_point).clamp_(0, 255).sub_(self.zero_point)
            rounded.mul_(self.scale)
        return x + (rounded - x).detach() if x.requires_grad else rounded


def set_rounding(network: nn.Module, rounding: bool) -> None:
    """Switch the rounding of every quantizer in the network on or off; the clips stay."""
    for module in network.modules():
        if isinstance(module, ClipQuantizer | InputQuantizer | WeightQuantizer | LearnedStepWeights):
            module.rounding = rounding


def clip_bounds(network: nn.Module) -> list[nn.Parameter]:
    """Return every activation's α of the network, in the order of its modules."""
    return [module.alpha for module in network.modules() if isinstance(module, ClipQuantizer)]


def keep_clips_positive(network: nn.Module, least: float = 1e-3) -> None:
    """Hold every α at `least` or above, in place; an optimizer step on a small α could carry it through zero.

    The learned steps of weights, which are as small as the weights, stay above a bound of their own.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ClipQuantizer | LearnedStepWeights):
                module.alpha.clamp_(min=least if isinstance(module, ClipQuantizer) else _SMALLEST_STEP)


def learned_step_start(values: Tensor, levels: int) -> Tensor:
    """Return LSQ's first α, levels times its step 2·E|v| / sqrt(levels) (section 2.1); never more than max|v|.

    The bound is ours: at 8 bits the rule alone would leave most levels unused.
    """
    magnitude = values.detach().abs()
    start = torch.minimum(2 * magnitude.mean() * levels**0.5, magnitude.amax())
    return torch.where(start > 0, start, torch.ones_like(start))
