"""A convolution or linear layer with its batch norm, trained in float and evaluated in the integers that ship.

With s the weights' scale, q their integers, γ, β, μ, σ the batch norm's and x̂ = s_x·(q_x − z_x) the input,

    BN(conv(x̂, s·q)) = s_x·(s·|γ/σ|)·conv(q_x − z_x, sign(γ)·q) + (β − γμ/σ),

so the batch norm goes into the scale per channel, s·|γ/σ|, and into an int32 bias on the grid s_x·s·|γ/σ|. The
integers are those of training, up to the sign. Evaluating this form, rounding of the bias included, makes the
network's own answer the one of QLinearConv: what differs is float32's noise on ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.network.quantizers import ClipQuantizer, InputQuantizer
from stages.network.weight_quantizers import AnyWeightQuantizer, per_channel

Grid = ClipQuantizer | InputQuantizer
_INT32_MAX = 2**31 - 1
_EXACT_IN_FLOAT32 = 2**24
_SMALLEST_SCALE = 1e-30  # for a channel that batch norm multiplies by zero; no scale may be zero itself


@dataclass(frozen=True)
class LayerIntegers:
    """The integers of one layer.

    Attributes:
        weight: int8 [out, …].
        weight_scale: float32 [out].
        bias: int32 [out], or None.
        bias_scale: float32 [out], input scale × weight scale.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    bias_scale: Tensor


class QuantizedLayer(nn.Module):
    """One layer and the batch norm behind it.

    In training it is the two in sequence with fake-quantized weights; in evaluation it computes in integers.

    Args:
        layer: a convolution or linear layer; its `weight` gets the quantizer as a parametrization.
        norm: the batch norm that alone follows it, or None.
        grid: the quantizer on whose grid the input lies.
        output: the one that takes the result, or None for the logits.
        quantizer: of the weights.
    """

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.Module | None,
        grid: Grid,
        output: ClipQuantizer | None,
        quantizer: AnyWeightQuantizer,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.norm = norm
        self._neighbours = (grid, output)  # in a tuple, because they stand elsewhere and are no submodules
        parametrize.register_parametrization(layer, "weight", quantizer)

    @property
    def grid(self) -> Grid:
        """The quantizer on whose grid the input lies."""
        return self._neighbours[0]

    @property
    def _weight(self) -> parametrize.ParametrizationList:
        return cast(parametrize.ParametrizationList, self.layer.parametrizations.weight)  # type: ignore[union-attr]

    @property
    def quantizer(self) -> AnyWeightQuantizer:
        """The quantizer of the weights."""
        return cast(AnyWeightQuantizer, self._weight[0])

    @property
    def original_weight(self) -> Tensor:
        """The trained weight before rounding, float32 [out, …]."""
        return self._weight.original.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's result, [batch, out, …], float32; x lies on the input's grid."""
        if not self.training and self.quantizer.rounding:
            with torch.autocast(x.device.type, enabled=False):  # half precision cannot count to 255 · 127
                return self._in_integers(x.float())
        y = cast(Tensor, self.layer(x))
        return cast(Tensor, y if self.norm is None else self.norm(y))

    def integers(self) -> LayerIntegers:
        """Return the integers that ship, from the trained weight and the batch norm's running statistics."""
        input_scale = self.grid.scale.detach()
        weight, scale = self.quantizer.integers(self.original_weight), self.quantizer.scale(self.original_weight)
        bias = cast("Tensor | None", self.layer.bias)
        bias = None if bias is None else bias.detach().double()
        if self.norm is not None:
            factor, shift = _affine(self.norm)
            bias = shift if bias is None else bias * factor + shift
            weight = weight * per_channel(factor.sign().to(torch.int8), weight)
            scale = (scale.double() * factor.abs()).float().clamp(min=_SMALLEST_SCALE)
        if bias is None:
            return LayerIntegers(weight, scale, None, input_scale * scale)
        weight, scale = _with_room_for_bias(weight, scale, bias, input_scale)
        bias_scale = input_scale * scale
        rounded = torch.round(bias / bias_scale.double()).to(torch.int32)
        return LayerIntegers(weight, scale, rounded, bias_scale)

    def _in_integers(self, x: Tensor) -> Tensor:
        integers = self.integers()
        counts = x / self.grid.scale.detach()
        counts = counts + (counts.round() - counts).detach()
        weight = integers.weight.to(x.dtype)
        channels = (-1, *[1] * (weight.dim() - 2)) if weight.dim() > 2 else (-1,)
        if self.grid.greatest * weight.abs().flatten(1).sum(dim=1).max() <= _EXACT_IN_FLOAT32:
            sums = self._sums(counts, weight)
        else:  # in two halves of the bits, so that no partial sum is rounded
            coarse = (counts.detach() / 16).floor() * 16
            sums = self._sums(coarse, weight).double() + self._sums(counts - coarse, weight)
            sums = sums if integers.bias is not None else sums.to(x.dtype)
        if integers.bias is not None:
            # In float64, since a bias may need all 32 bits; then as ONNX Runtime turns an int32 into a float32.
            sums = (sums.double() + integers.bias.double().reshape(channels)).to(x.dtype)
        y = sums * integers.bias_scale.reshape(channels)
        output = self._neighbours[1]
        return y if output is None else _decide_ties(y, sums, integers.bias_scale.reshape(channels), output)

    def _sums(self, counts: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return F.linear(counts, weight)
        return cast(Tensor, cast(nn.Conv2d, self.layer)._conv_forward(counts, weight, None))


class FloatNorm(nn.Module):
    """A batch norm that stands behind no layer; evaluated as one multiplication and one addition per value.

    The exported file takes those same two steps, so that a value on a tie behind it falls on the same side.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised; [batch, channels, …]."""
        if self.training:
            return cast(Tensor, self.norm(x))
        factor, shift = (values.reshape(-1, *[1] * (x.dim() - 2)) for values in self.affine())
        return x * factor + shift

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return the factor and the shift of each channel, float32 [channels]."""
        factor, shift = _affine(self.norm)
        return factor.float(), shift.float()


def _decide_ties(y: Tensor, sums: Tensor, scale: Tensor, output: ClipQuantizer) -> Tensor:
    """Return y, moved onto the step that QLinearConv takes where float32's noise would make ours another one.

    QLinearConv rounds sums · (s_x·s_w / s_y); we round (sums · s_x·s_w) / s_y. The two differ on ties only.
    """
    step = output.scale
    theirs = torch.round(sums * (scale / step))
    ours = torch.round(y / step)
    return torch.where(theirs == ours, y, theirs * step)


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return γ/σ and β − γμ/σ of a batch norm, float64 [channels]."""
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    factor = cast(Tensor, norm.weight).detach().double() / (variance + cast(float, norm.eps)).sqrt()
    return factor, cast(Tensor, norm.bias).detach().double() - mean * factor


def _with_room_for_bias(weight: Tensor, scale: Tensor, bias: Tensor, input_scale: Tensor) -> tuple[Tensor, Tensor]:
    # A channel that batch norm almost switched off has so small a scale that its bias leaves int32. Its weights then
    # move to the coarser grid on which the bias fits.
    least = (bias.abs() / (_INT32_MAX * 0.99) / input_scale.double()).float()
    coarser = scale < least
    if not bool(coarser.any()):
        return weight, scale
    shrink = torch.where(coarser, scale / least.clamp(min=1e-38), torch.ones_like(scale))
    moved = torch.round(weight * per_channel(shrink, weight)).to(torch.int8)
    return moved, torch.where(coarser, least, scale)
