"""Fake quantization of weights: each method is a grid of integers q and a scale s, w ≈ s·q.

Where a grid has 2^k levels and no zero (DoReFa, SAWB, learned steps), its integers are the odd ones, −(2^k − 1), …,
−1, 1, …, 2^k − 1, in half steps. Up to seven bits they fit int8, so an integer convolution takes them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

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


OPTIMAL_CLIP: Mapping[int, float] = {2: 1.494, 3: 2.051, 4: 2.514, 5: 2.916, 6: 3.278, 7: 3.611}
"""Outermost of 2^k even levels, in standard deviations, that represent a normal distribution with least squared error
(Max, "Quantizing for Minimum Distortion", 1960, table II).
"""


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
    return _Grid(weight, _odd(values / scale, levels), _of_every_channel(scale, weight))


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
    """Learned steps on the weights: one per output channel, 2^k levels without a zero, as DoReFa's and SAWB's.

    The step's gradient is LSQ's (arXiv 1902.08153, equation 3 and section 2.2). LSQ itself takes one step per layer
    and −2^(k−1) … 2^(k−1) − 1, of whose four levels at 2 bits the lowest is hardly ever used.

    Args:
        bits: k, 2 to 7.
        weight: float32 [out, …], from which the steps start.
    """

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__()
        self.bits = bits
        self.rounding = True
        self.levels = 2**bits - 1  # half steps from zero to the outermost integer
        self.alpha = nn.Parameter(torch.ones(weight.shape[0]))
        self.fit(weight)

    def fit(self, weight: Tensor) -> None:
        """Let every channel end where a normal distribution of its size loses least, or at its largest weight."""
        channels = weight.detach().flatten(1)
        size = channels.square().mean(dim=1).sqrt()
        start = torch.minimum(OPTIMAL_CLIP[self.bits] * size, channels.abs().amax(dim=1))
        with torch.no_grad():
            self.alpha.copy_(start.clamp(min=_TINY))

    def scale(self, weight: Tensor) -> Tensor:
        """Return the scale of each output channel, float32 [out], positive."""
        step: Tensor = self.alpha.detach() / self.levels
        return step.clamp(min=_TINY)

    def integers(self, weight: Tensor) -> Tensor:
        """Return the weights as integers in int8, in the weight's own shape [out, …]."""
        return _odd(weight.detach() / per_channel(self.scale(weight), weight), self.levels).to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights clipped and, unless `rounding` is off, rounded."""
        # Section 2.2: the gradient of s is divided by √(values · levels). Here α = levels · s is the parameter; SGD
        # takes the same way through both when α's gradient is levels times that of s.
        values = weight[0].numel()
        of_gradient = self.levels**2 / math.sqrt(values * self.levels)
        alpha = self.alpha.detach()
        alpha = alpha + (self.alpha - alpha) * of_gradient
        step = per_channel((alpha / self.levels).clamp(min=_TINY), weight)
        counts = (weight / step).clamp(-self.levels, self.levels)
        if self.rounding:
            counts = counts + (_odd(counts.detach(), self.levels) - counts.detach())
        return counts * step

    def extra_repr(self) -> str:
        """Return what `print(network)` shows of it."""
        return f"bits={self.bits}, mean alpha={self.alpha.mean().item():.4g}"


AnyWeightQuantizer = WeightQuantizer | LearnedStepWeights


def weight_quantizer(name: WeightQuantizerName, bits: int, weight: Tensor) -> AnyWeightQuantizer:
    """Return the quantizer that the settings name, for weights [out, …].

    At 8 bits `lsq` is `symmetric`: nothing is left to gain, and at the learning rates that few bits train with a step
    of 8 bits runs away (the paper divides its rate by ten for them).
    """
    if name != "lsq":
        return WeightQuantizer(bits, name)
    return LearnedStepWeights(bits, weight) if bits < 8 else WeightQuantizer(bits)


def per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    """Return a scale [out] in the shape [out, 1, …] that multiplies weights [out, …]."""
    return scale.reshape(-1, *[1] * (weight.dim() - 1))


def _of_every_channel(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.clamp(min=_TINY).expand(weight.shape[0])


def _odd(counts: Tensor, levels: int) -> Tensor:
    """Return the nearest odd integers, −levels … levels; levels is odd."""
    steps = torch.round((counts + levels) / 2).clamp_(0, levels)
    return 2 * steps - levels
