"""Clip, round, and learn the clip: the one autograd function under every quantizer of activations.

Everything is counted in steps, x / (α / levels), so that the bounds are plain integers: no value of α ever travels
from a GPU to Python, and clipping needs no tensor of bounds (which costs four times the plain clamp on a CPU).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

_AT_BOUND = 1 - 2**-22  # α / (α / levels) is levels only up to float32's last digit


class _ClipAndRound(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, lowest: int, levels: int, rounding: bool, values: int) -> Tensor:
        # In float32 whatever the type of x: bfloat16 could not tell the steps of an 8-bit grid apart.
        scale = alpha.float() / levels
        counts = (x.float() / scale).clamp_(lowest, levels)
        ctx.save_for_backward(counts.to(x.dtype))
        ctx.lowest, ctx.levels, ctx.values = lowest, levels, values
        # Divide, round half to even, multiply: the same three float32 steps as ONNX's QuantizeLinear and
        # DequantizeLinear, so that the exported file takes the same decision on every tie.
        y = counts.round().mul_(scale) if rounding else x.float().clamp(alpha * (lowest / levels), alpha)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        (counts,) = ctx.saved_tensors
        lowest, levels = ctx.lowest, ctx.levels
        # 0 at and beyond both bounds, the gradient between them, in one pass over memory.
        inside = torch.ops.aten.hardtanh_backward(gradient, counts, lowest * _AT_BOUND, levels * _AT_BOUND)
        if not ctx.needs_input_grad[1]:
            return inside, None, None, None, None, None
        if ctx.values:
            by_alpha = _learned_step_gradient(gradient, inside, counts, levels, ctx.values)
        else:
            by_alpha = _pact_gradient(gradient, inside, counts, lowest, levels)
        return inside if ctx.needs_input_grad[0] else None, by_alpha, None, None, None, None


def _pact_gradient(gradient: Tensor, inside: Tensor, counts: Tensor, lowest: int, levels: int) -> Tensor:
    # dy/dα is 1 from α on and 0 below (equation 3); rounding is straight-through and adds nothing.
    if lowest == 0:
        beyond = torch.ops.aten.threshold_backward(gradient, counts, levels * _AT_BOUND)
        return cast(Tensor, beyond.sum(dtype=torch.float32))
    # The mirrored form: what is clipped moves with α by its own bound's share, levels or lowest over levels.
    return (gradient - inside).mul_(counts).sum(dtype=torch.float32) / levels


def _learned_step_gradient(gradient: Tensor, inside: Tensor, counts: Tensor, levels: int, values: int) -> Tensor:
    # Equation 3: with v in steps, dy/ds = round(v) − v between the bounds and the bound itself beyond them. `counts`
    # are clipped, so the difference vanishes beyond; the second term adds the bound there.
    error = (counts.round() - counts).mul_(gradient)
    by_step = error.add_((gradient - inside).mul_(counts)).sum(dtype=torch.float32)
    # Section 2.2 scales the gradient of s by 1 / sqrt(values · levels). Here α = levels · s is the parameter; SGD
    # takes the same way through both when α's gradient is levels times that of s.
    return by_step * (levels / math.sqrt(values * levels))


def clip_and_round(x: Tensor, alpha: Tensor, lowest: int, levels: int, rounding: bool, values: int) -> Tensor:
    """Return x clipped to [α · lowest / levels, α] and rounded to steps of α / levels, in x's own type.

    The gradient of x passes between the bounds, of α as in PACT or LSQ. It may be taken several times over one
    forward pass (saliency-guided training does), so nothing saved is changed.

    Args:
        x: any shape, floating point.
        alpha: scalar, positive.
        lowest: the least integer, 0 or negative.
        levels: the greatest integer.
        rounding: off, x is only clipped.
        values: 0 for PACT's gradient of α; for LSQ's the number of values that share the step, which scales it.
    """
    y = _ClipAndRound.apply(x, alpha, lowest, levels, rounding, values)  # type: ignore[no-untyped-call]
    return cast(Tensor, y)
