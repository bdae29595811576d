"""Gradients through rounding: straight-through, with zero where the range of the integers clips.

Bengio et al., arXiv 1308.3432; Choi et al. (PACT), arXiv 1805.06085, equation 3. The gradient of a tensor of integers
is that with respect to the integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.forward_graph import KEEP_THE_GRID

_AT_BOUND = 1 - 2**-22
"""α = scale · levels holds only up to float32's last digit; training counts what is closer as on the bound."""


def dequantize(graph: Backward, step: Step) -> Gradients:
    """y = s·(q − z): dq = g·s."""
    scale = graph.forward.constant(step.node.input[1])
    if scale is not None and scale.size == 1:
        return {0: graph.times(step.gradient, float(scale.reshape(())))}
    if graph.forward.shape(step.node.input[1]) in ((), (1,)):
        return {0: graph.op("Mul", [step.gradient, graph.value(step.node.input[1])])}
    raise refusal(step.node, "one scale for all of an activation", "several")


def quantize(graph: Backward, step: Step) -> Gradients:
    """q = clip(round(x/s) + z, a, b): dx = g/s where (a − z)·s < x < (b − z)·s.

    A Clip or Min on the integers behind it narrows a and b; on the image itself, a step outside is inside. Where x
    lies on the same grid already, nothing is clipped.
    """
    scale = graph.forward.constant(step.node.input[1])
    if scale is None or scale.size != 1:
        raise refusal(step.node, "one constant scale", "another")
    one_step = float(scale.reshape(()))
    zero = 0 if step.input(2) is None else _integer(graph, step.node.input[2], step)
    gradient = graph.times(step.gradient, 1 / one_step)
    if _on_grid(graph, step.x, step.node):
        return {0: gradient}
    least, greatest = _bounds(graph, step)
    slack = graph.forward.slack(step.x) / one_step
    # In float32, like the clip's own bounds.
    low, high = (
        float(np.float32(scale.reshape(())) * np.float32((bound - zero + reach) * _AT_BOUND))
        for bound, reach in ((least, -slack), (greatest, slack))
    )
    inside = graph.between(graph.value(step.x), graph.scalar(low), graph.scalar(high))
    assert inside is not None
    return {0: graph.masked(inside, gradient)}


def dynamic_quantize(graph: Backward, step: Step) -> Gradients:
    """q = round(x/s) + z with s and z from the range of x: dx = g/s. Nothing lies outside; s counts as a constant."""
    return {0: graph.op("Div", [step.gradient, graph.value(step.node.output[1])])}


def matmul_integer(graph: Backward, step: Step) -> Gradients:
    """Y = (A − z_a)·(B − z_b) in integers: dA = G·(B − z_b)ᵀ."""
    if step.wanted != {0}:
        raise refusal(step.node, "a constant second matrix", "one that depends on the image")
    b = graph.real(step.node.input[1])
    if step.input(3):
        b = graph.op("Sub", [b, graph.real(step.node.input[3])])
    rank = len(graph.forward.shape(step.node.input[1]))
    b = graph.op("Transpose", [b], {"perm": [*range(rank - 2), rank - 1, rank - 2]})
    return {0: graph.mapped(step.gradient, lambda g: graph.op("MatMul", [g, b]))}


def _bounds(graph: Backward, step: Step) -> tuple[int, int]:
    limits = np.iinfo(helper.tensor_dtype_to_np_dtype(graph.forward.types.get(step.y, TensorProto.UINT8)))
    least, greatest = int(limits.min), int(limits.max)
    readers = graph.forward.index.readers.get(step.y, [])
    if len(readers) == 1 and readers[0].op_type in ("Clip", "Min", "Max"):
        node = readers[0]
        others = [name for name in node.input if name != step.y]
        if node.op_type == "Clip":
            bounds = [*node.input[1:], "", ""][:2]
        else:
            bounds = ["", others[0]] if node.op_type == "Min" else [others[0], ""]
        if bounds[0]:
            least = max(least, _integer(graph, bounds[0], step))
        if bounds[1]:
            greatest = min(greatest, _integer(graph, bounds[1], step))
    return least, greatest


def _integer(graph: Backward, name: str, step: Step) -> int:
    value = graph.forward.constant(name)
    if value is None or value.size != 1:
        raise refusal(step.node, f"one constant in `{name}`", "several, or a computed one")
    return int(value.reshape(()))


def _on_grid(graph: Backward, name: str, quantizer: NodeProto) -> bool:
    # Whether every value is one of this quantizer's own, because it went through an equal one before.
    waiting = [name]
    while waiting:
        producer = graph.forward.index.producers.get(waiting.pop())
        if producer is None:
            return False
        if producer.op_type == "DequantizeLinear":
            parameters = zip(producer.input[1:], quantizer.input[1:], strict=False)
            if not all(_same(graph.forward.constant(a), graph.forward.constant(b)) for a, b in parameters):
                return False
        elif producer.op_type in KEEP_THE_GRID:
            waiting += [read for read in producer.input if read in graph.forward.varying]
        else:
            return False
    return True


def _same(a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b)
