"""Modules of stored constants: what the exporter sees in place of trained parameters."""

from __future__ import annotations

from typing import cast

import torch
import torch.ao.quantization.fx._decomposed  # defines torch.ops.quantized_decomposed
from torch import Tensor, nn

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor
_DEQUANTIZE_CHANNELS = torch.ops.quantized_decomposed.dequantize_per_channel
_INT32_MAX = 2**31 - 1


class ConstantClip(nn.Module):
    """clip(x, low, high)."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        """Return x clipped; any shape."""
        return x.clamp(self.low, self.high)


class ConstantAffine(nn.Module):
    """x·factor + shift, both per channel: a multiplication and an addition, in this order."""

    factor: Tensor
    shift: Tensor

    def __init__(self, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Return x scaled and shifted; [batch, channels, …]."""
        shape = (-1, *[1] * (x.dim() - 2))
        return x * self.factor.reshape(shape) + self.shift.reshape(shape)


class GridQuantizer(nn.Module):
    """QuantizeLinear and DequantizeLinear in uint8, with a bound that decides what ONNX Runtime fuses.

    Behind a layer the bound stands on the integers, where 8 bits need none: QuantizeLinear must follow the layer at
    once to become part of an integer convolution. Behind an addition or a pool it stands in front, in float, also at
    8 bits: fused, those would round ties in another way on every kind of processor.

    Args:
        scale: one step.
        zero_point: the integer that stands for 0; 128 on a signed grid.
        greatest: the greatest integer, up to 255.
        behind_layer: whether a convolution or linear layer gives the input.
        factor: on the input, 1 for none; it goes into the scale of QuantizeLinear.
    """

    def __init__(self, scale: float, zero_point: int, greatest: int, behind_layer: bool, factor: float) -> None:
        super().__init__()
        self.scale = scale
        self.zero_point = zero_point
        self.greatest = greatest
        self.behind_layer = behind_layer
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return x on the grid; any shape, float32."""
        integer_type = (self.zero_point, 0, 255, torch.uint8)
        if not self.behind_layer:
            # As Min, because a Clip that ends where the integers end would be taken out again.
            x = torch.minimum(x, torch.tensor((self.greatest - self.zero_point) * self.scale))
        integers = _QUANTIZE(x, self.scale / self.factor, *integer_type)
        if self.behind_layer and self.greatest < 255:
            integers = integers.clamp(max=self.greatest)
        return cast(Tensor, _DEQUANTIZE(integers, self.scale, *integer_type))


class DequantizedWeight(nn.Module):
    """A parametrization that ignores the float weight: the stored integers through DequantizeLinear."""

    integers: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, integers: Tensor, scale: Tensor, unsigned: bool) -> None:
        super().__init__()
        self.dtype = torch.uint8 if unsigned else torch.int8
        offset = 128 if unsigned else 0
        self.register_buffer("integers", (integers.to(torch.int16) + offset).to(self.dtype))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.full(scale.shape, offset, dtype=torch.int64))

    def forward(self, _: Tensor) -> Tensor:
        """Return the weight in float32."""
        bounds = (0, 255) if self.dtype == torch.uint8 else (-128, 127)
        return cast(Tensor, _DEQUANTIZE_CHANNELS(self.integers, self.scale, self.zero_point, 0, *bounds, self.dtype))


class DequantizedBias(nn.Module):
    """A parametrization that ignores the float bias: stored int32 through DequantizeLinear."""

    integers: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros(scale.shape, dtype=torch.int64))

    def forward(self, _: Tensor) -> Tensor:
        """Return the bias in float32."""
        bounds = (-_INT32_MAX - 1, _INT32_MAX)
        return cast(Tensor, _DEQUANTIZE_CHANNELS(self.integers, self.scale, self.zero_point, 0, *bounds, torch.int32))
