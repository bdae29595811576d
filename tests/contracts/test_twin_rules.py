"""Every rule of the twin against finite differences in float64, or where rounding has none, against torch.autograd.

A case is a few lines of ONNX from `x` to `y`. A linear map with random weights makes logits of y. An operator in
`RULES` or `DECOMPOSITIONS` without a case fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from stages.saliency_twin.decompositions import DECOMPOSITIONS
from stages.saliency_twin.expansions import DEFINED_BY_THE_STANDARD, EXPANSIONS
from stages.saliency_twin.rules import RULES
from stages.saliency_twin.twin import build_twin

CLASSES = 3
DIRECTIONS = 8
STEP = 1e-5


@dataclass(frozen=True)
class Case:
    """One small graph.

    Attributes:
        rule: key in the tables.
        body: from x to y, in ONNX's text form.
        shape: of x.
        constants: drawn from a normal distribution by shape, or given.
        reference: from x to y in torch, where finite differences do not apply.
        opset: of ai.onnx.
        lowest: x is drawn between this and 2.
    """

    rule: str
    body: str
    shape: tuple[int, ...] = (2, 3, 6, 6)
    constants: dict[str, object] = field(default_factory=dict)
    reference: Callable[..., torch.Tensor] | None = None
    opset: int = 21
    lowest: float = -2.0


def scalar(value: float) -> NDArray[np.float64]:
    return np.array(value)


def whole(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


SQUARE = (2, 4, 4, 4)
ELEMENTWISE = {
    "Abs": "y = Abs(x)",
    "Elu": "y = Elu <alpha = 0.7> (x)",
    "Exp": "y = Exp(x)",
    "HardSigmoid": "y = HardSigmoid <alpha = 0.3, beta = 0.4> (x)",
    "HardSwish": "d = Add(x, x)  y = HardSwish(d)",
    "Identity": "y = Identity(x)",
    "LeakyRelu": "y = LeakyRelu <alpha = 0.2> (x)",
    "Mish": "y = Mish(x)",
    "Neg": "y = Neg(x)",
    "Relu": "y = Relu(x)",
    "Sigmoid": "y = Sigmoid(x)",
    "Softplus": "y = Softplus(x)",
    "Tanh": "y = Tanh(x)",
    "Dropout": "y = Dropout(x)",
    "Flatten": "y = Flatten(x)",
}
SCALE = 0.02


def clipped(
    x: torch.Tensor, scale: float = SCALE, zero: int = 3, least: int = -128, greatest: int = 127
) -> torch.Tensor:
    """Rounded to the grid; the gradient passes strictly between the range's ends."""
    low, high = (least - zero) * scale, (greatest - zero) * scale
    inside = ((x > low) & (x < high)).to(x.dtype)
    rounded = torch.fake_quantize_per_tensor_affine(x.detach().float(), scale, zero, least, greatest).to(x.dtype)
    return rounded + (x - x.detach()) * inside


QUANTIZER = {"s": np.float32(SCALE), "z": np.int8(3)}
WEIGHT = {"w": np.random.default_rng(3).integers(-100, 100, (4, 3, 3, 3), dtype=np.int8), "sw": np.float32(0.01)}
MATRIX = {"w": np.random.default_rng(3).integers(-100, 100, (6, 5), dtype=np.int8), "sw": np.float32(0.01)}
BIAS = np.array([40, -30, 20, 10], dtype=np.int32)
IN, OUT = "t = Tanh(x)  q = QuantizeLinear(t, s, z)", "y = DequantizeLinear(p, s, z)"


def microsoft(operator: str) -> str:
    return f"com.microsoft.{operator}"


def weight(constants: dict[str, object]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(constants["w"], dtype=np.float64)) * 0.01


def float_constant(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(drawn(name, shape)).double()


def drawn(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(len(name) + sum(shape)).normal(0, 0.7, shape).astype(np.float32)


def unary(operator: str, attributes: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Case:
    body = f"{IN}  p = com.microsoft.{operator} {attributes} (q, s, z, s, z)  {OUT}"
    return Case(
        microsoft(operator), body, constants=QUANTIZER, reference=lambda x: clipped(function(clipped(torch.tanh(x))))
    )


def binary(operator: str, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Case:
    body = f"{IN}  r = QuantizeLinear(k, s, z)  p = com.microsoft.{operator}(q, s, z, r, s, z, s, z)  {OUT}"
    return Case(
        microsoft(operator), body, constants={**QUANTIZER, "k": (1, 3, 1, 6)},
        reference=lambda x: clipped(function(clipped(torch.tanh(x)), clipped(float_constant("k", (1, 3, 1, 6))))),
    )  # fmt: skip


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, bias: object = None) -> torch.Tensor:
    parts = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
    return F.scaled_dot_product_attention(*parts, attn_mask=bias).transpose(1, 2).flatten(2)


def rotated(x: torch.Tensor) -> torch.Tensor:
    (a, b), (c, s) = x.split(2, -1), (float_constant(name, (2, 5, 2))[:, None] for name in "cs")
    return torch.cat((a * c - b * s, a * s + b * c), -1)


def sampled(mode: str, padding: str, align: int) -> Case:
    """A grid that reaches beyond the image and follows it."""
    corners = bool(align)
    names = {"bilinear": "linear"}.get(mode, mode)
    body = (
        f"p = ReduceMean <keepdims = 0> (x, a)  t = Mul(p, k)  n = Add(t, g)  "
        f'y = GridSample <mode = "{names}", padding_mode = "{padding}", align_corners = {align}> (x, n)'
    )
    grid, slope = (2, 4, 5, 2), (2, 4, 5, 2)

    def reference(x: torch.Tensor) -> torch.Tensor:
        own = x.mean((1, 2, 3))[:, None, None, None] * float_constant("k", slope) + float_constant("g", grid) * 1.0
        return F.grid_sample(x, own, mode, padding, corners)

    constants = {"a": whole(1, 2, 3), "k": slope, "g": grid}
    body = body.replace("Mul(p, k)", "Mul(q, k)").replace("t = Mul", "q = Unsqueeze(p, a)  t = Mul")
    return Case("GridSample", body, constants=constants, reference=reference)


LOOPED = """m = ReduceMean <keepdims = 0> (x)
    l, s = Loop (n, , x) <body = one (int64 i, bool k, float[2,3,6,6] h) => (bool o, float[2,3,6,6] t, float r) {
        o = Identity(k)  f = Cast <to = 1> (i)  w = Mul(f, m)  a = Add(h, w)  t = Tanh(a)
        r = ReduceSum <keepdims = 0> (a)
    }>  u = ReduceSum <keepdims = 0> (s)  y = Mul(l, u)"""
SCANNED = """z = ReduceMean <keepdims = 0> (x, a)
    l, r = Scan (z, x) <
        num_scan_inputs = 1, scan_input_axes = [2], scan_output_axes = [1], scan_input_directions = [1],
        body = one (float[2,3] h, float[2,3,6] c) => (float[2,3] g, float[2,3,6] o) {
            u = Unsqueeze(h, v)  t = Mul(u, c)  o = Sin(t)  g = ReduceSum <keepdims = 0> (o, v)
    }>  w = Unsqueeze(l, a)  q = Transpose <perm = [0, 2, 1, 3]> (r)  y = Add(q, w)"""


def looped(x: torch.Tensor) -> torch.Tensor:
    state, total = x, torch.zeros(())
    for number in range(3):
        added = state + number * x.mean()
        state, total = torch.tanh(added), total + added.sum()
    return state * total


def scanned(x: torch.Tensor) -> torch.Tensor:
    state, rows = x.mean((2, 3)), []
    for number in reversed(range(x.shape[2])):
        rows.append(torch.sin(state[:, :, None] * x[:, :, number]))
        state = rows[-1].sum(2)
    return torch.stack(rows, 1).transpose(1, 2) + state[:, :, None, None]


def recurred(x: torch.Tensor) -> torch.Tensor:
    w, r, b = (float_constant(name, shape)[0] for name, shape in (("w", (1, 3, 4)), ("r", (1, 3, 3)), ("b", (1, 6))))
    state, rows = torch.zeros(x.shape[1], 3).double(), []
    for step in x:
        state = F.relu(step @ w.T + state @ r.T + b[:3] + b[3:])
        rows.append(state)
    return torch.stack(rows)


BRANCHED = """m = ReduceMean <keepdims = 0> (x)  c = Greater(m, b)
    p, q = If (c) <
        then_branch = one () => (float[2,3,6,6] d, float[2,3,6,6] e) { d = Mul(x, x)  e = Tanh(x) },
        else_branch = two () => (float[2,3,6,6] f, float[2,3,6,6] g) { h = Mul(x, m)  f = Sin(h)  g = Identity(h) }
    >  y = Mul(p, q)"""
RECURRENT = {"w": (1, 8, 4), "r": (1, 8, 2), "b": (1, 16)}

CASES = [
    Case("Attention", "y = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, k)", (2, 5, 8), {"k": (2, 5, 8)},
         lambda x: attended(x, x, float_constant("k", (2, 5, 8)), 2), opset=23),
    Case("Attention", "y = Attention <is_causal = 1> (q, x, x, k)", (2, 2, 5, 4),
         {"q": (2, 4, 5, 4), "k": (5, 5)},
         lambda x: F.scaled_dot_product_attention(
             float_constant("q", (2, 4, 5, 4)), *2 * [x.repeat_interleave(2, 1)],
             attn_mask=float_constant("k", (5, 5)) + torch.full((5, 5), -torch.inf).triu(1).double()),
         opset=23),
    Case("RotaryEmbedding", "y = RotaryEmbedding(x, c, s)", (2, 3, 5, 4), {"c": (2, 5, 2), "s": (2, 5, 2)}, rotated,
         opset=23),
    Case("CenterCropPad", "y = CenterCropPad <axes = [2, 3]> (x, s)", constants={"s": whole(3, 8)}),
    Case("MeanVarianceNormalization", "y = MeanVarianceNormalization <axes = [0, 2, 3]> (x)",
         reference=lambda x: (x - x.mean((0, 2, 3), True)) / x.std((0, 2, 3), keepdim=True, correction=0)),
    Case("ReduceLogSum", "p = Exp(x)  y = ReduceLogSum(p, a)", constants={"a": whole(1, 3)}),
    Case("Shrink", "y = Shrink <lambd = 0.4, bias = 0.2> (x)"),
    *(sampled(*options) for options in (("bilinear", "zeros", 0), ("bilinear", "border", 1), ("nearest", "zeros", 1),
                                        ("nearest", "border", 0), ("bilinear", "zeros", 1))),
    Case("CastLike", "c = CastLike(x, b)  y = Mul(c, c)", constants={"b": (1,)}),
    Case("GatherElements", "y = GatherElements <axis = 3> (x, i)",
         constants={"i": np.random.default_rng(0).integers(-6, 6, (2, 3, 6, 9))}),
    Case("GatherND", "y = GatherND(x, i)", constants={"i": np.array([[[0, 2], [1, -1]], [[1, 0], [0, 2]]])}),
    Case("Gather",
         "m = ReduceMean <keepdims = 0> (x, a)  v, i = TopK <axis = 0> (m, k)  y = Gather <axis = 1> (x, i)",
         constants={"a": whole(0, 2, 3), "k": whole(2)}),
    Case("ScatterElements", "t = Slice(x, o, p, q)  y = ScatterElements <axis = 3> (x, i, t)",
         constants={"o": whole(0), "p": whole(2), "q": whole(3),
                    "i": np.random.default_rng(0).permuted(np.tile(np.arange(6), (2, 3, 6, 1)), axis=3)[..., :2]}),
    Case("ScatterND", 'g = Gather(x, j)  t = Tanh(g)  y = ScatterND <reduction = "add"> (x, i, t)',
         constants={"i": np.array([[1], [1]]), "j": whole(0, 1)}),
    Case("ScatterND", "g = Gather(x, j)  t = Tanh(g)  y = ScatterND(x, i, t)",
         constants={"i": np.array([[1]]), "j": whole(0)}),
    Case("If", BRANCHED, constants={"b": np.float32(-10)}),
    Case("If", BRANCHED, constants={"b": np.float32(10)}),
    Case("Loop", LOOPED, constants={"n": np.int64(3)}, reference=looped),
    Case("Scan", SCANNED, constants={"a": whole(2, 3), "v": whole(2)}, reference=scanned),
    Case("RNN", 'y, l = RNN <hidden_size = 3, activations = ["Relu"]> (x, w, r, b)', (5, 2, 4),
         {"w": (1, 3, 4), "r": (1, 3, 3), "b": (1, 6)}, recurred),
    Case("GRU", "y, l = GRU <hidden_size = 2, linear_before_reset = 1> (x, w, r, b)", (5, 2, 4),
         {"w": (1, 6, 4), "r": (1, 6, 2), "b": (1, 12)}),
    Case("LSTM", "y, l, c = LSTM <hidden_size = 2> (x, w, r, b)", (5, 2, 4), RECURRENT),
    Case(microsoft("Attention"), "y = com.microsoft.Attention <num_heads = 2> (x, w, b)", (2, 5, 6),
         {"w": (6, 24), "b": (24,)},
         lambda x: attended(*(x @ float_constant("w", (6, 24)) + float_constant("b", (24,))).chunk(3, -1), 2)),
    Case(microsoft("MultiHeadAttention"),
         "k = MatMul(x, w)  y = com.microsoft.MultiHeadAttention <num_heads = 2> (x, k, k, b, , a)", (2, 5, 6),
         {"w": (6, 6), "b": (18,), "a": (1, 2, 5, 5)},
         lambda x: attended(x + float_constant("b", (18,))[:6], x @ float_constant("w", (6, 6)) +
                            float_constant("b", (18,))[6:12], x @ float_constant("w", (6, 6)) +
                            float_constant("b", (18,))[12:], 2, float_constant("a", (1, 2, 5, 5)))),
    Case(microsoft("FusedMatMul"),
         "y = com.microsoft.FusedMatMul <transA = 1, transB = 1, alpha = 0.5> (x, w)", (2, 5, 6), {"w": (4, 5)},
         lambda x: x.transpose(1, 2) @ float_constant("w", (4, 5)).T / 2),
    Case(microsoft("FastGelu"), "y = com.microsoft.FastGelu(x, b)", constants={"b": (6,)},
         reference=lambda x: F.gelu(x + float_constant("b", (6,)), approximate="tanh")),
    Case(microsoft("SkipLayerNormalization"),
         "t = Tanh(x)  n, , , u = com.microsoft.SkipLayerNormalization(x, t, s, b, c)  y = Mul(n, u)", (2, 5, 6),
         {"s": (6,), "b": (6,), "c": (6,)},
         lambda x: F.layer_norm(
             x + torch.tanh(x) + float_constant("c", (6,)), (6,), float_constant("s", (6,)),
             float_constant("b", (6,)), 1e-12) * (x + torch.tanh(x) + float_constant("c", (6,)))),
    *(Case(rule, body) for rule, body in ELEMENTWISE.items()),
    # The reference evaluator computes Erf in float32.
    Case("Erf", "y = Erf(x)", reference=torch.erf),
    Case("Gelu", "y = Gelu(x)", reference=F.gelu),
    Case("Add", "y = Add(x, b)", constants={"b": (3, 1, 6)}),
    Case("Add", "p = GlobalAveragePool(x)  t = Tanh(p)  y = Add(t, x)"),
    Case("Sum", "t = Tanh(x)  y = Sum(x, t, b)", constants={"b": (3, 1, 1)}),
    Case("Sub", "p = GlobalAveragePool(x)  t = Tanh(p)  y = Sub(x, t)"),
    Case("Mul", "p = GlobalAveragePool(x)  t = Sigmoid(p)  y = Mul(x, t)"),
    Case("Mul", "y = Mul(two, x)", constants={"two": scalar(2.5)}),
    Case("Mul", "s = Sigmoid(x)  y = Mul(s, x)", reference=F.silu),
    Case("Mul", "d = Tanh(x)  s = Sigmoid(d)  m = Mul(d, s)  y = Add(m, s)",
         reference=lambda x: F.silu(torch.tanh(x)) + torch.sigmoid(torch.tanh(x))),
    Case("Div", "p = GlobalAveragePool(x)  t = Exp(p)  y = Div(x, t)"),
    Case("Div", "y = Div(b, x)", constants={"b": (3, 1, 1)}, lowest=0.5),
    Case("Min", "y = Min(x, b)", constants={"b": (3, 1, 1)}),
    Case("Max", "t = Tanh(x)  y = Max(x, t, b)", constants={"b": scalar(0.3)}),
    # Two that are equal over a range share what one alone gets; one input is no choice.
    Case("Max", "r = Relu(x)  t = Clip(x, l)  y = Max(r, t)", constants={"l": scalar(-0.5)}),
    Case("Min", "r = Relu(x)  q = Relu(x)  y = Min(r, q, x)"),
    Case("Max", "y = Max(x)"),
    Case("Where", "c = Greater(x, b)  t = Tanh(x)  y = Where(c, t, x)", constants={"b": (1, 1, 1)}),
    Case("Pow", "y = Pow(x, p)", constants={"p": scalar(2)}),
    Case("Pow", "y = Pow(x, p)", constants={"p": scalar(1.7)}, lowest=0.5),
    Case("Sqrt", "y = Sqrt(x)", lowest=0.5),
    Case("Log", "y = Log(x)", lowest=0.5),
    Case("Reciprocal", "y = Reciprocal(x)", lowest=0.5),
    Case("Clip", "y = Clip(x, a, b)", constants={"a": scalar(-0.5), "b": scalar(1.0)}),
    Case("Clip", "y = Clip(x, , b)", constants={"b": scalar(0.2)}),
    Case("PRelu", "y = PRelu(x, b)", constants={"b": (3, 1, 1)}),
    Case("Gelu", 'y = Gelu <approximate = "tanh"> (x)'),
    Case("Swish", "y = Swish <alpha = 1.3> (x)", opset=24, reference=lambda x: x * torch.sigmoid(1.3 * x)),
    Case("Swish", "y = Swish(x)", opset=24, reference=F.silu),
    Case("Softmax", "y = Softmax <axis = 1> (x)"),
    Case("LogSoftmax", "y = LogSoftmax(x)"),
    Case("Cast", "h = Cast <to = 11> (x)  y = Cast <to = 1> (h)", reference=lambda x: x),
    # Convolutions: strides, dilations, groups, one-sided pads, automatic pads, few and many channels, one dimension.
    Case("Conv", "y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", (2, 8, 5, 5), {"w": (4, 8, 3, 3), "b": (4,)}),
    Case("Conv", "y = Conv <pads = [0, 1, 2, 1]> (x, w)", constants={"w": (4, 3, 3, 3)}),
    Case("Conv", "y = Conv <pads = [3, 3, 3, 3]> (x, w)", (2, 8, 5, 5), {"w": (4, 8, 3, 3)}),
    Case("Conv", "y = Conv <dilations = [2, 1], pads = [2, 0, 2, 1]> (x, w)", (2, 9, 6, 6), {"w": (4, 9, 3, 2)}),
    Case("Conv", "y = Conv <strides = [2, 3], pads = [1, 0, 0, 1]> (x, w)", (2, 3, 7, 8), {"w": (4, 3, 3, 3)}),
    Case("Conv", "y = Conv <strides = [2, 2]> (x, w)", (2, 3, 6, 6), {"w": (4, 3, 1, 1)}),
    Case("Conv", "y = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w)", (2, 4, 5, 5), {"w": (6, 2, 3, 3)}),
    Case("Conv", "y = Conv <group = 4, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", SQUARE, {"w": (8, 1, 3, 3)}),
    Case("Conv", "y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)", SQUARE, {"w": (4, 1, 3, 3)}),
    Case("Conv", 'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)', SQUARE, {"w": (4, 4, 3, 3)}),
    Case("Conv", 'y = Conv <auto_pad = "SAME_LOWER"> (x, w)', (2, 8, 4, 4), {"w": (4, 8, 2, 2)}),
    Case("Conv", 'y = Conv <auto_pad = "VALID"> (x, w)', (2, 8, 6, 6), {"w": (4, 8, 3, 3)}),
    Case("Conv", "y = Conv <strides = [2]> (x, w)", (2, 3, 9), {"w": (4, 3, 3)}),
    Case("ConvTranspose", "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> (x, w)",
         SQUARE, {"w": (4, 3, 3, 3)}),
    Case("ConvTranspose", "y = ConvTranspose <group = 2, dilations = [2, 1]> (x, w, b)", SQUARE,
         {"w": (4, 3, 3, 3), "b": (6,)},
         lambda x: F.conv_transpose2d(
             x, float_constant("w", (4, 3, 3, 3)), float_constant("b", (6,)), groups=2, dilation=(2, 1)
         )),
    Case("MatMul", "y = MatMul(x, w)", (2, 3, 4), {"w": (4, 5)}),
    Case("MatMul", "t = Transpose <perm = [0, 2, 1]> (x)  y = MatMul(t, x)", (2, 3, 4)),
    Case("MatMul", "y = MatMul(w, x)", (2, 3, 4, 5), {"w": (1, 3, 2, 4)}),
    Case("Gemm", "y = Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", (2, 6), {"w": (6, 5), "b": (5,)}),
    Case("Gemm", "y = Gemm <transB = 1> (x, w)", (2, 6), {"w": (5, 6)}),
    Case("Gemm", "t = Transpose(x)  y = Gemm <transA = 1, transB = 1> (t, w)", (2, 6), {"w": (5, 6)}),
    Case("Gemm", "t = Transpose(x)  u = Tanh(t)  y = Gemm <transA = 1> (u, t)", (2, 6)),
    Case("Gemm", "t = Tanh(x)  g = Gemm <transB = 1> (t, x)  y = Gemm <beta = 0.5> (g, x, t)", (2, 6)),
    Case("Gemm", "t = Transpose(x)  u = Tanh(x)  y = Gemm <transA = 1, transB = 1> (t, u)", (2, 6)),
    # Pools: overlapping windows, pads, gaps between windows, ceil_mode.
    Case("MaxPool", "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    Case("MaxPool", "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)", (2, 3, 7, 6)),
    Case("MaxPool", "y = MaxPool <kernel_shape = [3, 2]> (x)"),
    Case("MaxPool", "y = MaxPool <kernel_shape = [1, 2], strides = [2, 3]> (x)", (2, 3, 7, 8)),
    Case("MaxPool", "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)", (2, 3, 5, 5)),
    Case("MaxPool", "y = MaxPool <kernel_shape = [2, 2], strides = [1, 2], dilations = [2, 3]> (x)", (2, 3, 6, 7)),
    Case("MaxPool", "y = MaxPool <kernel_shape = [3], strides = [2]> (x)", (2, 3, 9)),
    Case("AveragePool", "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)", (2, 3, 7, 6)),
    Case("AveragePool", "y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)"),
    Case("AveragePool", "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)"),
    Case("AveragePool", "y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)",
         reference=lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)),
    Case("GlobalAveragePool", "y = GlobalAveragePool(x)"),
    Case("GlobalMaxPool", "y = GlobalMaxPool(x)"),
    Case("ReduceMean", "y = ReduceMean <keepdims = 0> (x, a)", constants={"a": whole(2, -1)}),
    Case("ReduceMean", "y = ReduceMean <axes = [1], keepdims = 1> (x)", opset=17),
    Case("ReduceSum", "y = ReduceSum <keepdims = 0> (x, a)", constants={"a": whole(1)}),
    Case("BatchNormalization", "y = BatchNormalization <epsilon = 0.01> (x, g, b, m, v)",
         constants={"g": (3,), "b": (3,), "m": (3,), "v": np.array([0.5, 1.0, 2.0])}),
    Case("LayerNormalization", "y = LayerNormalization <axis = -1> (x, g, b)", constants={"g": (6,), "b": (6,)}),
    Case("LayerNormalization", "y = LayerNormalization <axis = 2, epsilon = 0.1> (x, g)", constants={"g": (6, 6)},
         opset=17),
    Case("InstanceNormalization", "y = InstanceNormalization(x, g, b)", constants={"g": (3,), "b": (3,)}),
    Case("LRN", "y = LRN <size = 3, alpha = 0.5, beta = 0.8, bias = 0.7> (x)", (2, 5, 3, 3),
         reference=lambda x: F.local_response_norm(x, 3, 0.5, 0.8, 0.7)),
    # What only moves values.
    Case("Concat", "t = Tanh(x)  y = Concat <axis = -3> (x, t, x)"),
    Case("Split", "a, b, c = Split <axis = 1> (x, sizes)  t = Tanh(c)  y = Concat <axis = 1> (t, a)",
         (2, 6, 3, 3), {"sizes": whole(1, 2, 3)}),
    Case("Slice", "y = Slice(x, s, e, a)", constants={"s": whole(1, -4), "e": whole(9, -1), "a": whole(2, 3)}),
    Case("Slice", "y = Slice(x, s, e, a, p)",
         constants={"s": whole(1, -1), "e": whole(6, -(2**31)), "a": whole(2, 3), "p": whole(2, -3)}),
    Case("Gather", "y = Gather <axis = 2> (x, i)", constants={"i": np.array(1, dtype=np.int64)}),
    Case("Gather", "y = Gather <axis = 1> (x, i)", constants={"i": whole(2, 0, 2)}),
    Case("Reshape", "y = Reshape(x, r)", constants={"r": whole(0, -1, 4)}),
    Case("Squeeze", "p = GlobalAveragePool(x)  y = Squeeze(p, a)", constants={"a": whole(2, 3)}),
    Case("Unsqueeze", "y = Unsqueeze(x, a)", constants={"a": whole(1)}),
    Case("Transpose", "y = Transpose <perm = [0, 3, 1, 2]> (x)", (2, 3, 4, 5)),
    Case("Expand", "p = GlobalAveragePool(x)  y = Expand(p, r)", constants={"r": whole(1, 1, 2, 3)}),
    Case("DepthToSpace", "y = DepthToSpace <blocksize = 2> (x)", (2, 8, 3, 2)),
    Case("DepthToSpace", 'y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)', (2, 8, 3, 2)),
    Case("SpaceToDepth", "y = SpaceToDepth <blocksize = 2> (x)"),
    Case("Pad", "y = Pad(x, p)", constants={"p": whole(0, 0, 1, 2, 0, 0, 0, -1)},
         reference=lambda x: F.pad(x, (2, -1, 1, 0))),
    Case("Pad", 'y = Pad <mode = "reflect"> (x, p)', constants={"p": whole(0, 0, 1, 2, 0, 0, 3, 1)}),
    Case("Pad", 'y = Pad <mode = "edge"> (x, p, , a)', constants={"p": whole(1, 2, 3, 1), "a": whole(2, 3)}),
    Case("Resize", 'y = Resize <mode = "nearest"> (x, , f)', constants={"f": np.array([1, 1, 2, 3.0])}),
    Case("Resize", 'y = Resize <mode = "linear"> (x, , f)', constants={"f": np.array([1, 1, 1.5, 2.0])}),
    Case("Resize", 'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, , , r)',
         (2, 3, 4, 6), {"r": whole(2, 3, 7, 3)}),
    # Rounding: straight-through, 0 where the range clips.
    Case("QuantizeLinear", f"{IN}  y = DequantizeLinear(q, s, z)", constants=QUANTIZER | {"s": np.float32(0.005)},
         reference=lambda x: clipped(torch.tanh(x), 0.005)),
    Case("DequantizeLinear", f"{IN}  y = DequantizeLinear(q, s2, z)", constants=QUANTIZER | {"s2": np.float32(0.03)},
         reference=lambda x: 1.5 * clipped(torch.tanh(x))),
    Case("QuantizeLinear", f"{IN}  c = Clip(q, a, b)  y = DequantizeLinear(c, s, z)",
         constants=QUANTIZER | {"a": np.int8(-10), "b": np.int8(20)},
         reference=lambda x: clipped(torch.tanh(x), least=-10, greatest=20)),
    Case("DynamicQuantizeLinear", "q, s, z = DynamicQuantizeLinear(x)  c = Cast <to = 1> (q)  y = Mul(c, s)",
         reference=lambda x: x),
    Case("MatMulInteger", "q, s, z = DynamicQuantizeLinear(x)  i = MatMulInteger(q, w, z)  f = Cast <to = 1> (i)  "
         "k = Mul(s, sw)  y = Mul(f, k)", (2, 6), MATRIX, lambda x: x @ weight(MATRIX)),
    Case("ConvInteger", "q, s, z = DynamicQuantizeLinear(x)  i = ConvInteger <strides = [2, 2]> (q, w, z)  "
         "f = Cast <to = 1> (i)  k = Mul(s, sw)  y = Mul(f, k)",
         constants=WEIGHT, reference=lambda x: F.conv2d(x, weight(WEIGHT), stride=2)),
    Case("QLinearConv", f"{IN}  p = QLinearConv <pads = [1, 1, 1, 1]> (q, s, z, w, sw, zw, s, z, b)  {OUT}",
         constants=QUANTIZER | WEIGHT | {"zw": np.int8(0), "b": BIAS},
         reference=lambda x: clipped(
             F.conv2d(clipped(torch.tanh(x)), weight(WEIGHT), torch.from_numpy(BIAS * 1.0) * SCALE * 0.01, padding=1)
         )),
    Case("QLinearMatMul", f"{IN}  p = QLinearMatMul(q, s, z, w, sw, zw, s, z)  {OUT}", (2, 6),
         QUANTIZER | MATRIX | {"zw": np.int8(0)}, lambda x: clipped(clipped(torch.tanh(x)) @ weight(MATRIX))),
    Case(microsoft("QGemm"), f"{IN}  p = com.microsoft.QGemm(q, s, z, w, sw, zw, , s, z)  {OUT}", (2, 6),
         QUANTIZER | MATRIX | {"zw": np.int8(0)}, lambda x: clipped(clipped(torch.tanh(x)) @ weight(MATRIX))),
    Case(microsoft("QGemm"), f"{IN}  y = com.microsoft.QGemm(q, s, z, w, sw, zw)", (2, 6),
         QUANTIZER | MATRIX | {"zw": np.int8(0)}, lambda x: clipped(torch.tanh(x)) @ weight(MATRIX)),
    binary("QLinearAdd", torch.add),
    binary("QLinearMul", torch.mul),
    Case(microsoft("QLinearConcat"),
         f"{IN}  p = com.microsoft.QLinearConcat <axis = 1> (s, z, q, s, z, q, s, z)  {OUT}",
         constants=QUANTIZER, reference=lambda x: clipped(torch.tanh(x)).repeat(1, 2, 1, 1)),
    unary("QLinearGlobalAveragePool", "<channels_last = 0>", lambda x: x.mean((2, 3), keepdim=True)),
    unary("QLinearAveragePool", "<kernel_shape = [2, 2]>", lambda x: F.avg_pool2d(x, 2, 1)),
    unary("QLinearLeakyRelu", "<alpha = 0.1>", lambda x: F.leaky_relu(x, 0.1)),
    *(Case(rule, f"t = Tanh(x)  y = {rule}(t)") for rule in ("Acos", "Asin", "Atanh", "Tan")),
    *(Case(rule, f"y = {rule}(x)") for rule in ("Asinh", "Atan", "Cosh", "Sinh")),
    Case("Acosh", "e = Exp(x)  c = Add(e, o)  y = Acosh(c)", constants={"o": scalar(1.0)}),
    Case("Elu", "y = Elu <alpha = -0.7> (x)"),
    Case("Einsum", 'y = Einsum <equation = "bchw,h"> (x, w)', constants={"w": (6,)}),
    Case("Einsum", 'y = Einsum <equation = "...hw,wk->...hk"> (x, w)', constants={"w": (6, 4)}),
    Case("Einsum", 'y = Einsum <equation = "b...,b...->b..."> (x, x)'),
    Case("Einsum", 'y = Einsum <equation = "bchw,k->bhk"> (x, w)', constants={"w": (4,)}),
    Case("MatMul", "y = MatMul(x, w)", constants={"w": (6,)}),
    Case("MatMul", "m = MatMul(w, x)  r = ReduceMean <keepdims = 0> (x, a)  t = MatMul(m, r)  y = Unsqueeze(t, q)",
         constants={"w": (6,), "a": whole(0, 1, 2), "q": whole(-1)}),
    Case("Mean", "t = Tanh(x)  y = Mean(x, t, b)", constants={"b": (3, 1, 1)}),
    Case("ReduceSum", "y = ReduceSum <noop_with_empty_axes = 1> (x)"),
    Case("Resize", 'y = Resize <mode = "nearest", axes = [1, 3]> (x, , k)', (2, 4, 4, 3),
         {"k": np.array([2, 1.5], np.float32)}, opset=19),
    Case("Pad", "y = Pad(x, p)", constants={"p": whole(0, 1, -2, 1, 0, -1, 3, -1)},
         reference=lambda x: F.pad(x, (1, -1, -2, 3, 1, -1))),
    Case("DequantizeLinear", "q = DequantizeLinear <axis = 1, block_size = 3> (w, s, z)  y = MatMul(x, q)", (2, 6),
         {"w": np.arange(24, dtype=np.uint8).reshape(6, 4) % 15, "z": np.full((6, 2), 7, np.uint8),
          "s": np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(6, 2)},
         lambda x: x @ torch.from_numpy(((np.arange(24).reshape(6, 4) % 15) - 7.0) * np.repeat(
             np.linspace(0.1, 0.9, 12).reshape(6, 2), 3, axis=1)[:, :4])),
    Case("Col2Im", "y = Col2Im <strides = [2, 1], pads = [1, 0, 0, 1]> (x, i, k)", (2, 12, 9),
         {"i": whole(6, 3), "k": whole(3, 2)},
         lambda x: F.fold(F.pad(x, (0, 0)), (7, 4), (3, 2), stride=(2, 1))[:, :, 1:, :3]),
    Case("Celu", "y = Celu <alpha = 0.7> (x)"),
    Case("Cos", "y = Cos(x)"),
    Case("Sin", "y = Sin(x)"),
    Case("CumSum", "y = CumSum <exclusive = 1> (x, a)", constants={"a": np.int64(2)}),
    Case("CumSum", "y = CumSum <reverse = 1> (x, a)", constants={"a": np.int64(3)}),
    Case("Einsum", 'y = Einsum <equation = "bchw,hk->bkcw"> (x, w)', constants={"w": (6, 4)}),
    Case("Einsum", 'y = Einsum <equation = "bchw,bcvw->bhv"> (x, x)'),
    Case("GroupNormalization", "y = GroupNormalization <num_groups = 2> (x, s, b)", (2, 4, 6, 6),
         {"s": (4,), "b": (4,)},
         lambda x: F.group_norm(x, 2, float_constant("s", (4,)), float_constant("b", (4,)))),
    Case("Gather",
         "f = Reshape(x, m)  n = Shape(f)  k = Squeeze(n)  i = Range(o, k, p)  t = Gather(f, i)  y = Reshape(t, r)",
         constants={"m": np.array([-1]), "o": np.int64(0), "p": np.int64(3), "r": np.array([2, -1])}),
    Case("RMSNormalization", "y = RMSNormalization <axis = -2> (x, s)", constants={"s": (6, 6)},
         reference=lambda x: F.rms_norm(x, (6, 6), float_constant("s", (6, 6)), 1e-5), opset=23),
    Case("LpNormalization", "y = LpNormalization <axis = 1> (x)"),
    Case("LpNormalization", "y = LpNormalization <p = 1> (x)", (2, 7), opset=13,
         reference=lambda x: F.normalize(x, p=1, dim=-1)),
    # A vector of zeros, as behind a ReLU, has no direction; the others keep their slope.
    Case("LpNormalization", "r = Mul(x, m)  y = LpNormalization <axis = 1> (r)", (2, 3, 2, 2),
         constants={"m": np.array([[0.0, 1.0], [1.0, 1.0]])},
         reference=lambda x: F.normalize(x * torch.tensor([[0, 1], [1, 1]]), dim=1)),
    Case("GlobalLpPool", "y = GlobalLpPool (x)",
         reference=lambda x: torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)),
    Case("GlobalLpPool", "y = GlobalLpPool <p = 3> (x)", (2, 3, 5), opset=13,
         reference=lambda x: torch.linalg.vector_norm(x, 3, dim=2, keepdim=True)),
    Case("Shrink", "y = Shrink <lambd = 0.4, bias = 0.2> (x)", opset=13),
    Case("MeanVarianceNormalization", "y = MeanVarianceNormalization <axes = [1, -1]> (x)", opset=13,
         reference=lambda x: (x - x.mean((1, 3), True)) / x.std((1, 3), correction=0, keepdim=True)),
    Case("ReduceLogSum", "a = Exp(x)  y = ReduceLogSum <axes = [1, 2], keepdims = 0> (a)", opset=13),
    Case("Mod", "y = Mod <fmod = 1> (x, b)", constants={"b": scalar(0.7)}),
    Case("Mod", "t = Exp(x)  y = Mod <fmod = 1> (b, t)", constants={"b": scalar(-3.0)}),
    Case("Compress", "y = Compress <axis = 1> (x, k)", constants={"k": np.array([True, False, True])},
         reference=lambda x: x[:, [0, 2]]),
    Case("ReverseSequence", "y = ReverseSequence <time_axis = 1, batch_axis = 0> (x, n)", (2, 6, 3),
         constants={"n": whole(4, 6)},
         reference=lambda x: torch.stack([torch.cat([x[0, :4].flip(0), x[0, 4:]]), x[1].flip(0)])),
    Case("MaxPool", "y = MaxPool <kernel_shape = [2, 3], strides = [2, 3], storage_order = 1> (x)"),
    Case("LpPool", "y = LpPool <kernel_shape = [2, 2], strides = [2, 2], p = 3> (x)",
         reference=lambda x: F.avg_pool2d(x.abs() ** 3, 2).mul(4) ** (1 / 3)),
    Case("LpPool", "y = LpPool <kernel_shape = [3, 3], strides = [2, 2]> (x)",
         reference=lambda x: F.avg_pool2d(x**2, 3, 2).mul(9).sqrt()),
    Case("ReduceL1", "y = ReduceL1 (x, a)", constants={"a": np.array([1, 3])}),
    Case("ReduceL2", "y = ReduceL2 <keepdims = 0> (x, a)", constants={"a": np.array([1])}),
    Case("ReduceSumSquare", "y = ReduceSumSquare <keepdims = 0> (x, a)", constants={"a": np.array([-1])}),
    Case("ReduceLogSumExp", "y = ReduceLogSumExp (x, a)", constants={"a": np.array([1, 2])}),
    Case("ReduceMax", "y = ReduceMax <keepdims = 0> (x, a)", constants={"a": np.array([1, 2])}),
    Case("ReduceMax", "y = ReduceMax <axes = [2, 3]> (x)", opset=13),
    Case("ReduceMax", "r = Relu(x)  y = ReduceMax <keepdims = 0> (r, a)", constants={"a": np.array([3])},
         reference=lambda x: torch.amax(F.relu(x), 3)),
    Case("ReduceMin", "y = ReduceMin (x, a)", constants={"a": np.array([1])}),
    Case("Selu", "y = Selu(x)"),
    Case("Softsign", "y = Softsign(x)"),
    Case("ThresholdedRelu", "y = ThresholdedRelu <alpha = 0.5> (x)"),
    Case("Tile", "y = Tile(x, r)", constants={"r": np.array([1, 2, 1, 3])}),
    Case("TopK", "y, i = TopK <axis = 1> (x, k)", constants={"k": np.array([2])}),
    Case("Trilu", "y = Trilu <upper = 0> (x, k)", constants={"k": np.int64(1)}),
    Case("Pow", "p = Pow(b, x)  y = Add(p, x)", constants={"b": np.array([1.5])}),
    Case("Pow", "s = Sigmoid(x)  y = Pow(s, x)"),
    Case("Pow", "y = Pow(x, e)", constants={"e": np.array([3], dtype=np.int64)}),
    Case("Gather", "y = Gather <axis = 2> (x, i)", constants={"i": np.array([[0, 5, 2], [3, 3, -1]])}),
    Case("Resize", 'y = Resize <mode = "linear"> (x, , k)', (2, 4, 4, 3), {"k": np.array([1, 2, 2, 1], np.float32)}),
    Case("ConvTranspose", "y = ConvTranspose <strides = [2, 2], output_shape = [14, 14]> (x, w)",
         constants={"w": (3, 2, 3, 3)}, reference=lambda x: F.pad(
             F.conv_transpose2d(x, float_constant("w", (3, 2, 3, 3)), stride=2), (0, 1, 0, 1))),
    unary("QLinearSigmoid", "", torch.sigmoid),
    unary("QLinearSoftmax", "<axis = -1, opset = 21>", lambda x: torch.softmax(x, -1)),
    Case(microsoft("QuantizeLinear"), "t = Tanh(x)  p = com.microsoft.QuantizeLinear(t, s, z)  " + OUT,
         constants=QUANTIZER, reference=lambda x: clipped(torch.tanh(x))),
    Case(microsoft("DequantizeLinear"), f"{IN}  y = com.microsoft.DequantizeLinear(q, s, z)", constants=QUANTIZER,
         reference=lambda x: clipped(torch.tanh(x))),
    Case(microsoft("MatMulIntegerToFloat"),
         "q, s, z = DynamicQuantizeLinear(x)  y = com.microsoft.MatMulIntegerToFloat(q, w, s, sw, z)", (2, 6), MATRIX,
         lambda x: x @ weight(MATRIX)),
    Case(microsoft("Gelu"), "y = com.microsoft.Gelu(x)", reference=F.gelu),
    Case(microsoft("BiasGelu"), "y = com.microsoft.BiasGelu(x, b)", constants={"b": (6,)},
         reference=lambda x: F.gelu(x + float_constant("b", (6,)))),
    Case(microsoft("QuickGelu"), "y = com.microsoft.QuickGelu <alpha = 1.5> (x)",
         reference=lambda x: x * torch.sigmoid(1.5 * x)),
    Case(microsoft("FusedConv"),
         'y = com.microsoft.FusedConv <activation = "LeakyRelu", activation_params = [0.2]> (x, w, b)',
         constants={"w": (4, 3, 3, 3), "b": (4,)},
         reference=lambda x: F.leaky_relu(
             F.conv2d(x, float_constant("w", (4, 3, 3, 3)), float_constant("b", (4,))), 0.2
         )),
    Case(microsoft("FusedGemm"), 'y = com.microsoft.FusedGemm <activation = "Relu"> (x, w, b)', (2, 6),
         {"w": (6, 5), "b": (5,)},
         lambda x: F.relu(x @ float_constant("w", (6, 5)) + float_constant("b", (5,)))),
]  # fmt: skip


def test_every_operator_has_a_case() -> None:
    assert {case.rule for case in CASES} == set(RULES) | set(DECOMPOSITIONS) | set(
        EXPANSIONS
    ) | DEFINED_BY_THE_STANDARD
    for case in CASES:
        assert f"{case.rule} " in f"{case.body} ".replace("(", " ("), case


def constants_of(case: Case) -> dict[str, NDArray[np.generic]]:
    return {
        name: drawn(name, value) if isinstance(value, tuple) else np.asarray(value)
        for name, value in case.constants.items()
    }


def built(case: Case, dtype: type[np.floating], projection: NDArray[np.floating] | None) -> onnx.ModelProto:
    """Return the case as a model from x to y, or with a projection from x to logits."""
    elements = {np.float32: "float", np.float64: "double"}[dtype]
    shape = ", ".join(map(str, case.shape))
    logits = "flat = Flatten <axis = 1> (y)  logits = MatMul(flat, projection)" if projection is not None else ""
    output = f"{elements}[{case.shape[0]}, {CLASSES}] logits" if projection is not None else f"{elements}[?] y"
    statements = "\n".join((case.body + "  " + logits).replace(")  ", ")\n").splitlines())
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {case.opset}, "com.microsoft": 1]>'
        f" case ({elements}[{shape}] x) => ({output.replace('[?]', '[n]')}) {{ {statements} }}"
    )
    given = constants_of(case) | ({} if projection is None else {"projection": projection})
    for name, value in given.items():
        is_float = np.issubdtype(value.dtype, np.floating)
        model.graph.initializer.append(numpy_helper.from_array(value.astype(dtype) if is_float else value, name))
    return model


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.rule}" for i, case in enumerate(CASES)])
def test_a_rule_gives_the_derivative(case: Case) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(case.lowest, 2, case.shape).astype(np.float32)
    targets = rng.integers(0, CLASSES, case.shape[0])
    y = session(built(case, np.float32, None)).run(None, {"x": x})[0]
    projection = rng.normal(0, 1, (y[0].size, CLASSES)).astype(np.float32)
    model = built(case, np.float32, projection)

    twin = build_twin(model)
    logits, saliency, explained = session(twin).run(None, {"x": x, "target": targets})

    assert np.array_equal(logits, session(model).run(None, {"x": x})[0])
    assert np.array_equal(explained, targets)
    assert saliency.shape == x.shape
    assert saliency.dtype == np.float32
    if case.reference is not None:
        leaf = torch.from_numpy(x).double().requires_grad_()
        chosen = case.reference(leaf).flatten(1) @ torch.from_numpy(projection).double()
        (expected,) = torch.autograd.grad(chosen.gather(1, torch.from_numpy(targets)[:, None]).sum(), leaf)
        assert np.allclose(saliency, expected.numpy(), rtol=1e-4, atol=1e-5 * np.abs(expected.numpy()).max())
        return
    exact = ReferenceEvaluator(built(case, np.float64, projection.astype(np.float64)))

    def chosen_logits(at: NDArray[np.float64]) -> float:
        found = exact.run(None, {"x": at})[0]
        return float(found[np.arange(len(targets)), targets].sum())

    for _ in range(DIRECTIONS):
        direction = rng.normal(0, 1, case.shape)
        slope = (chosen_logits(x + STEP * direction) - chosen_logits(x - STEP * direction)) / (2 * STEP)
        found = float(np.sum(saliency.astype(np.float64) * direction))
        assert found == pytest.approx(slope, rel=2e-4, abs=2e-5 * float(np.linalg.norm(saliency)))
