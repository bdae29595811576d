"""Fake quantization with learned clips: PACT for activations, symmetric per-channel integers for weights.

Source: Choi et al., "PACT: Parameterized Clipping Activation for Quantized Neural Networks", arXiv 1805.06085.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function


class _ClipAndRound(Function):
    """PACT's forward and backward pass (paper, equations 1 to 3), with a mirrored form for signed tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, levels: int, signed: bool, rounding: bool) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.levels, ctx.signed = levels, signed
        clipped = x.clamp(_low(alpha, levels) if signed else torch.zeros_like(alpha), alpha)
        if not rounding:
            return clipped
        # Divide, round half to even, multiply: the same three float32 steps as ONNX's QuantizeLinear and
        # DequantizeLinear, so that the exported file takes the same decision on every tie.
        scale = alpha / levels
        return clipped.div_(scale).round_().mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, alpha = ctx.saved_tensors
        low = _low(alpha, ctx.levels) if ctx.signed else torch.zeros_like(alpha)
        gradient_x = gradient_alpha = None
        if ctx.needs_input_grad[0]:
            # 0 at and beyond both bounds, the gradient between them, in one pass over memory.
            gradient_x = torch.ops.aten.hardtanh_backward(gradient, x, float(low), float(alpha))
        if ctx.needs_input_grad[1]:
            # dy/dα is 1 from α on and 0 below (equation 3); rounding is straight-through and adds nothing.
            gradient_alpha = torch.where(x >= alpha, gradient, 0).sum()
            if ctx.signed:
                below = torch.where(x <= low, gradient, 0).sum()
                gradient_alpha = gradient_alpha - below * (ctx.levels + 1) / ctx.levels
            gradient_alpha = gradient_alpha.reshape(alpha.shape)
        return gradient_x, gradient_alpha, None, None, None


def _low(alpha: Tensor, levels: int) -> Tensor:
    # Two's complement has one more step below zero than above; using it lets an integer type's own end be the clip.
    return -alpha * (levels + 1) / levels


def _clip_and_round(x: Tensor, alpha: Tensor, levels: int, signed: bool, rounding: bool) -> Tensor:
    return cast(Tensor, _ClipAndRound.apply(x, alpha, levels, signed, rounding))  # type: ignore[no-untyped-call]


class ClipQuantizer(nn.Module):
    """PACT: y = clip(x, 0, α), rounded to 2^k − 1 steps of α / (2^k − 1); α is learned.

    `signed` is for tensors that no ReLU precedes (the paper keeps those in float; an integer convolution needs a grid
    at its output): 2^(k−1) − 1 steps up to α and, as in two's complement, one more below zero.

    Args:
        bits: k, 2 to 8.
        alpha: initial clip, positive.
        signed: whether negative values pass.
    """

    def __init__(self, bits: int, alpha: float, signed: bool) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        self.rounding = True
        self.alpha = nn.Parameter(torch.tensor(alpha))

    @property
    def levels(self) -> int:
        """Number of steps between zero and α."""
        return int(2 ** (self.bits - 1) - 1) if self.signed else int(2**self.bits - 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that passes."""
        alpha = self.alpha.detach()
        return (float(_low(alpha, self.levels)) if self.signed else 0.0), float(alpha)

    @property
    def scale(self) -> Tensor:
        """α / levels, a float32 scalar: the scale of the exported QuantizeLinear."""
        return self.alpha.detach() / self.levels

    def forward(self, x: Tensor) -> Tensor:
        """Return x clipped and, unless `rounding` is off, rounded; any shape, float32."""
        return _clip_and_round(x, self.alpha, self.levels, self.signed, self.rounding)

    def extra_repr(self) -> str:
        """Return what `print(network)` shows of it."""
        return f"bits={self.bits}, alpha={self.alpha.item():.4g}, signed={self.signed}"


class InputQuantizer(nn.Module):
    """The normalised image on 256 levels between its least and its greatest possible value; nothing is learned.

    Args:
        low: (0 − mean) / std of the channel where that is least; negative.
        high: (1 − mean) / std of the channel where that is greatest; positive.
    """

    scale: Tensor
    zero_point: Tensor

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
        rounded = (x / self.scale).round().add(self.zero_point).clamp(0, 255).sub(self.zero_point) * self.scale
        return x + (rounded - x).detach()


class WeightQuantizer(nn.Module):
    """Symmetric integers of k bits per output channel: w ≈ s·round(w / s), s = max|w| / (2^(k−1) − 1).

    A parametrization (torch.nn.utils.parametrize) of `weight`; the rounding is straight-through. No value is clipped,
    because the largest of each channel is the end of its scale.

    Args:
        bits: k, 2 to 8.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.rounding = True

    @property
    def levels(self) -> int:
        """The greatest integer, 2^(k−1) − 1."""
        return int(2 ** (self.bits - 1) - 1)

    def scale(self, weight: Tensor) -> Tensor:
        """Return the scale of each output channel, float32 [out]; 1 for a channel of zeros."""
        largest = weight.detach().flatten(1).abs().amax(dim=1)
        return torch.where(largest > 0, largest / self.levels, torch.ones_like(largest))

    def integers(self, weight: Tensor) -> Tensor:
        """Return the weights as integers in int8, in the weight's own shape [out, …]."""
        scale = self.scale(weight).reshape(-1, *[1] * (weight.dim() - 1))
        return torch.round(weight.detach() / scale).to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights on their grid; the gradient passes unchanged."""
        if not self.rounding:
            return weight
        scale = self.scale(weight).reshape(-1, *[1] * (weight.dim() - 1))
        return weight + (torch.round(weight.detach() / scale) * scale - weight.detach())


def set_rounding(network: nn.Module, rounding: bool) -> None:
    """Switch the rounding of every quantizer in the network on or off; the clips stay."""
    for module in network.modules():
        if isinstance(module, ClipQuantizer | InputQuantizer | WeightQuantizer):
            module.rounding = rounding


def clip_bounds(network: nn.Module) -> list[nn.Parameter]:
    """Return every α of the network, in the order of its modules."""
    return [module.alpha for module in network.modules() if isinstance(module, ClipQuantizer)]


def keep_clips_positive(network: nn.Module, least: float = 1e-3) -> None:
    """Hold every α at `least` or above, in place; an optimizer step on a small α could carry it through zero."""
    with torch.no_grad():
        for alpha in clip_bounds(network):
            alpha.clamp_(min=least)
