"""Fake quantization of weights: each method is a grid of integers q and a scale s, w ≈ s·q.

Where a grid has 2^k levels and no zero (DoReFa, SAWB), its integers are the odd ones, −(2^k − 1), …, −1, 1, …,
2^k − 1, in half steps. Up to seven bits they fit int8, so an integer convolution takes them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stages.network.clip_function import clip_and_round
from stages.network.settings import WeightQuantizerName

StatelessMethod = Literal["symmetric", "dorefa", "sawb"]
_INT8_MAX = 127
_TINY = 1e-12  # scale of a tensor of zeros; no scale may be zero itself

SAWB_COEFFICIENTS: Mapping[int, tuple[float, float]] = {
    2: (3.12, 2.064),
    3: (7.509, 6.892),
    4: (12.68, 12.80),
    5: (17.74, 18.64),
}
"""(c1, c2) of α* = c1·sqrt(E[w²]) − c2·E[|w|] by bits; arXiv 1807.06964, as in its authors' fms-model-optimizer."""


@dataclass(frozen=True)
class _Grid:
    """Weights on a grid.

    Attributes:
        smooth: what is rounded, float32 [out, …]; carries the gradient.
        integers: float32 [out, …], whole numbers that fit int8.
        scale: float32 [out].
    """

    smooth: Tensor
    integers: Tensor
    scale: Tensor


def _symmetric(weight: Tensor, bits: int) -> _Grid:
    # No value is clipped, because the largest of each channel is the end of its scale.
    levels = 2 ** (bits - 1) - 1
    largest = weight.detach().flatten(1).abs().amax(dim=1)
    scale = torch.where(largest > 0, largest / levels, torch.ones_like(largest))
    return _Grid(weight, torch.round(weight.detach() / per_channel(scale, weight)), scale)


def _dorefa(weight: Tensor, bits: int) -> _Grid:
    # Equation 9: w_q = 2·quantize_k(tanh(w) / (2·max|tanh w|) + ½) − 1, here times max|w| as a constant. A batch norm
    # behind the layer cancels that; without one, weights at hand would otherwise lose their size.
    tanh = torch.tanh(weight)
    unit = tanh / tanh.abs().amax().clamp(min=_TINY)
    largest = weight.detach().abs().amax()
    levels = 2**bits - 1
    if levels > _INT8_MAX:  # 8 bits: one level fewer, so that there is a zero and int8 holds them
        levels = _INT8_MAX
        integers = torch.round(unit.detach() * levels)
    else:
        integers = 2 * torch.round((unit.detach() / 2 + 0.5) * levels) - levels
    return _Grid(unit * largest, integers, _of_every_channel(largest / levels, weight))


def _sawb(weight: Tensor, bits: int) -> _Grid:
    # One clip per layer; clipped weights keep their gradient. The paper's fit ends where nothing is left to clip.
    if bits not in SAWB_COEFFICIENTS:
        return _symmetric(weight, bits)
    values = weight.detach()
    c1, c2 = SAWB_COEFFICIENTS[bits]
    mean = values.abs().mean()
    # The coefficients are fitted to bell shapes; on weights of almost one magnitude α would be negative.
    alpha = (c1 * values.square().mean().sqrt() - c2 * mean).clamp(min=mean, max=values.abs().amax())
    levels = 2**bits - 1
    scale = (alpha / levels).clamp(min=_TINY)
    steps = torch.round((values / scale + levels) / 2).clamp_(0, levels)
    return _Grid(weight, 2 * steps - levels, _of_every_channel(scale, weight))


_METHODS: Mapping[StatelessMethod, Callable[[Tensor, int], _Grid]] = {
    "symmetric": _symmetric,
    "dorefa": _dorefa,
    "sawb": _sawb,
}


class WeightQuantizer(nn.Module):
    """A parametrization (torch.nn.utils.parametrize) of `weight` that puts it on a grid; nothing is learned.

    Args:
        bits: k, 2 to 8.
        method: `symmetric`: integers per output channel, s = max|w| / (2^(k−1) − 1); `dorefa`: arXiv 1606.06160,
            equation 9; `sawb`: arXiv 1807.06964.
    """

    def __init__(self, bits: int, method: StatelessMethod = "symmetric") -> None:
        super().__init__()
        self.bits = bits
        self.method: StatelessMethod = method
        self.rounding = True

    def scale(self, weight: Tensor) -> Tensor:
        """Return the scale of each output channel, float32 [out], positive."""
        return self._grid(weight).scale

    def integers(self, weight: Tensor) -> Tensor:
        """Return the weights as integers in int8, in the weight's own shape [out, …]."""
        return self._grid(weight).integers.to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights on their grid; rounding and SAWB's clip are straight-through.

        With `rounding` off, what would be rounded: DoReFa's tanh stays.
        """
        grid = self._grid(weight)
        if not self.rounding:
            return grid.smooth
        quantized = grid.integers * per_channel(grid.scale, weight)
        return grid.smooth + (quantized - grid.smooth.detach())

    def _grid(self, weight: Tensor) -> _Grid:
        return _METHODS[self.method](weight, self.bits)

    def extra_repr(self) -> str:
        """Return what `print(network)` shows of it."""
        return f"bits={self.bits}, method={self.method}"


class LearnedStepWeights(nn.Module):
    """LSQ (arXiv 1902.08153) on the weights: one learned step per layer, integers −2^(k−1) … 2^(k−1) − 1.

    Args:
        bits: k, 2 to 7.
        weight: float32 [out, …], from which the step starts.
    """

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__()
        self.bits = bits
        self.rounding = True
        self.levels = 2 ** (bits - 1) - 1
        self.lowest = -self.levels - 1
        self.alpha = nn.Parameter(learned_step_start(weight.detach(), self.levels))

    def scale(self, weight: Tensor) -> Tensor:
        """Return the scale of each output channel, float32 [out], positive; the same for all."""
        return _of_every_channel(self.alpha.detach() / self.levels, weight)

    def integers(self, weight: Tensor) -> Tensor:
        """Return the weights as integers in int8, in the weight's own shape [out, …]."""
        counts = weight.detach() / per_channel(self.scale(weight), weight)
        return counts.clamp_(self.lowest, self.levels).round_().to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights clipped and, unless `rounding` is off, rounded."""
        return clip_and_round(weight, self.alpha, self.lowest, self.levels, self.rounding, weight.numel())

    def extra_repr(self) -> str:
        """Return what `print(network)` shows of it."""
        return f"bits={self.bits}, alpha={self.alpha.item():.4g}"


AnyWeightQuantizer = WeightQuantizer | LearnedStepWeights


def weight_quantizer(name: WeightQuantizerName, bits: int, weight: Tensor) -> AnyWeightQuantizer:
    """Return the quantizer that the settings name, for weights [out, …].

    At 8 bits `lsq` is `symmetric`: nothing is left to gain, and at the learning rates that few bits train with a step
    of 8 bits runs away (the paper divides its rate by ten for them).
    """
    if name != "lsq":
        return WeightQuantizer(bits, name)
    return LearnedStepWeights(bits, weight) if bits < 8 else WeightQuantizer(bits)


def learned_step_start(values: Tensor, levels: int) -> Tensor:
    """Return LSQ's first α, levels times its step 2·E|v| / sqrt(levels) (section 2.1); never more than max|v|.

    The bound is ours: at 8 bits the rule alone would leave most levels unused.
    """
    magnitude = values.detach().abs()
    start = torch.minimum(2 * magnitude.mean() * levels**0.5, magnitude.amax())
    return torch.where(start > 0, start, torch.ones_like(start))


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """Return a scale [out] in the shape [out, 1, …] that multiplies weights [out, …]."""
    return scale.reshape(-1, *[1] * (weight.dim() - 1))


def _of_every_channel(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.clamp(min=_TINY).expand(weight.shape[0])
