"""An ONNX graph of the plain operators in PyTorch, so that what is rounded in it can be learned.

Rounding passes the gradient through (Bengio et al., arXiv 1308.3432), and clips stop it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.errors import UsageError
from onnx_files.graph import GraphIndex, attributes_of
from onnx_files.publishing import sort_topologically

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor

Inputs = Sequence["Tensor | None"]


def run_in_torch(proto: ModelProto, feeds: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every tensor of a graph by its name.

    Args:
        proto: a graph that `refuse_what_torch_lacks` lets through, its nodes in order.
        feeds: its inputs.
        given: tensors that take the place of those of the same name: of initializers, or of what nodes make.
    """
    import torch
    from onnx import numpy_helper

    values = {
        tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        for tensor in proto.graph.initializer
        if tensor.name not in given
    }
    values |= {**feeds, **given}
    for node in proto.graph.node:
        if node.output[0] not in given:
            read = [values[name] if name else None for name in node.input]
            values[node.output[0]] = _OPERATORS[node.op_type](attributes_of(node), read)
    return values


def in_order(proto: ModelProto) -> ModelProto:
    """Return a copy of a graph whose nodes stand in the order in which they run.

    Raises:
        UsageError: an operator, or a form of one, is not known here.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(proto)
    sort_topologically(result.graph)
    index = GraphIndex.of(result.graph)
    for node in result.graph.node:
        if not _is_known(node, index):
            raise UsageError(
                f"recovery.reconstruction: expected a network of {', '.join(sorted(_OPERATORS))}, found "
                f"{node.op_type} in `{node.name}` (or a form of it that is not covered). Leave reconstruction out."
            )
    return result


def _is_known(node: NodeProto, index: GraphIndex) -> bool:
    attributes = attributes_of(node)
    if node.op_type not in _OPERATORS or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return False
    if node.op_type in ("Conv", "MaxPool", "AveragePool"):
        pads = attributes.get("pads", [0] * 4)
        plain = attributes.get("ceil_mode", 0) == 0 and len(pads) == 4
        return plain and (
            node.op_type != "AveragePool" or attributes.get("count_include_pad", 0) == 1 or not any(pads)
        )
    if node.op_type == "Gemm":
        return attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
    if node.op_type == "Pad" and attributes.get("mode", b"constant") != b"constant":
        return False
    if node.op_type in ("Pad", "Reshape", "ReduceMean", "Slice"):  # in older opsets some are attributes
        constant = all(not name or index.constant(name) is not None for name in node.input[1:])
        return constant and (len(node.input) > 1 or node.op_type == "ReduceMean")
    return True


def _quantize(_: Mapping[str, Any], read: Inputs) -> Tensor:
    import torch

    x, scale, zero = read[0], read[1], read[2]
    assert x is not None
    assert scale is not None
    assert zero is not None
    limits = torch.iinfo(zero.dtype)
    rounded: Tensor = _rounding().apply(x, scale, float(zero), limits.min, limits.max)
    return rounded


@cache
def _rounding() -> Any:
    """Return the function that rounds to steps: by hand, since autograd keeps and walks each of its five parts."""
    import torch

    class Rounding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, scale: Tensor, zero: float, low: int, high: int) -> Tensor:
            steps = (x / scale).round_().add_(zero)
            ctx.save_for_backward(x, scale)
            ctx.ends = (low - zero, high - zero)
            return steps.clamp_(low, high)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
            x, scale = ctx.saved_tensors
            low, high = ctx.ends
            inside = (x >= (low - 0.5) * scale) & (x <= (high + 0.5) * scale)
            of_x = torch.where(inside, gradient, 0) / scale
            return of_x, -(of_x * x).sum() / scale, None, None, None

    return Rounding


def _dequantize(attributes: Mapping[str, Any], read: Inputs) -> Tensor:
    steps, scale = read[0], read[1]
    zero = read[2] if len(read) > 2 else None
    assert steps is not None
    assert scale is not None
    shape = [1] * steps.ndim
    if scale.numel() > 1:
        shape[attributes.get("axis", 1)] = -1
    steps = steps.to(scale.dtype)
    return (steps if zero is None else steps - zero.to(scale.dtype).reshape(shape)) * scale.reshape(shape)


def _convolve(attributes: Mapping[str, Any], read: Inputs) -> Tensor:
    from torch.nn import functional

    x, weight, bias = read[0], read[1], read[2] if len(read) > 2 else None
    assert x is not None
    assert weight is not None
    strides, dilations = attributes.get("strides", 1), attributes.get("dilations", 1)
    padded = functional.pad(x, _pads(attributes))
    return functional.conv2d(padded, weight, bias, strides, 0, dilations, attributes.get("group", 1))


def _gemm(attributes: Mapping[str, Any], read: Inputs) -> Tensor:
    x, weight, bias = read[0], read[1], read[2] if len(read) > 2 else None
    assert x is not None
    assert weight is not None
    product = x @ (weight.T if attributes.get("transB", 0) else weight)
    return product if bias is None else product + bias


def _max_pool(attributes: Mapping[str, Any], read: Inputs) -> Tensor:
    from torch.nn import functional

    x = functional.pad(_first(read), _pads(attributes), value=-np.inf)
    return functional.max_pool2d(x, attributes["kernel_shape"], attributes.get("strides", 1))


def _average_pool(attributes: Mapping[str, Any], read: Inputs) -> Tensor:
    from torch.nn import functional

    x = functional.pad(_first(read), _pads(attributes))
    return functional.avg_pool2d(x, attributes["kernel_shape"], attributes.get("strides", 1))


def _mean(attributes: Mapping[str, Any], read: Inputs) -> Tensor:
    axes = attributes.get("axes") or (read[1].tolist() if len(read) > 1 and read[1] is not None else None)
    return _first(read).mean(axes, keepdim=bool(attributes.get("keepdims", 1)))


def _clip(attributes: Mapping[str, Any], read: Inputs) -> Tensor:
    low, high = ([*read[1:], None, None])[:2]
    return _first(read).clamp(
        attributes.get("min") if low is None else float(low), attributes.get("max") if high is None else float(high)
    )


def _reshape(_: Mapping[str, Any], read: Inputs) -> Tensor:
    x, shape = _first(read), read[1]
    assert shape is not None
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())])


def _slice(_: Mapping[str, Any], read: Inputs) -> Tensor:
    x, starts, ends, axes, steps = (*read, None, None)[:5]
    assert x is not None
    assert starts is not None
    assert ends is not None
    along = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), strides, strict=True):
        chosen = range(*slice(start, end, step).indices(x.shape[axis]))
        x = x.index_select(axis, starts.new_tensor(list(chosen)))
    return x


def _padded(_: Mapping[str, Any], read: Inputs) -> Tensor:
    from torch.nn import functional

    x, pads, value, axes = (*read, None, None)[:4]
    assert x is not None
    assert pads is not None
    sizes = pads.tolist()
    along = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    of_axis = {axis: (sizes[place], sizes[place + len(along)]) for place, axis in enumerate(along)}
    flat = [size for axis in reversed(range(x.ndim)) for size in of_axis.get(axis, (0, 0))]
    return functional.pad(x, flat, value=0.0 if value is None else float(value))


def _pads(attributes: Mapping[str, Any]) -> tuple[int, int, int, int]:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return left, right, top, bottom


def _first(read: Inputs) -> Tensor:
    assert read[0] is not None
    return read[0]


def _of_two(operator: str) -> Callable[[Mapping[str, Any], Inputs], Tensor]:
    def apply(_: Mapping[str, Any], read: Inputs) -> Tensor:
        import torch

        result: Tensor = getattr(torch, operator)(read[0], read[1])
        return result

    return apply


_OPERATORS: Mapping[str, Callable[[Mapping[str, Any], Inputs], Tensor]] = {
    "Add": _of_two("add"),
    "AveragePool": _average_pool,
    "Cast": lambda _, read: _first(read).float(),
    "Clip": _clip,
    "Conv": _convolve,
    "DequantizeLinear": _dequantize,
    "Div": _of_two("div"),
    "Flatten": lambda attributes, read: _first(read).flatten(attributes.get("axis", 1)),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, read: _first(read).mean((2, 3), keepdim=True),
    "Identity": lambda _, read: _first(read),
    "MatMul": _of_two("matmul"),
    "MaxPool": _max_pool,
    "Mul": _of_two("mul"),
    "Pad": _padded,
    "QuantizeLinear": _quantize,
    "ReduceMean": _mean,
    "Relu": lambda _, read: _first(read).relu(),
    "Reshape": _reshape,
    "Slice": _slice,
    "Sub": _of_two("sub"),
}
