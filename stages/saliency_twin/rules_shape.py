"""Gradients of operators that only move values: each goes back where it came from."""

from __future__ import annotations

import numpy as np

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal


def reshape(graph: Backward, step: Step) -> Gradients:
    """Reshape, Flatten, Squeeze, Unsqueeze: g in the shape of x."""
    return {0: graph.shaped_like(step.gradient, step.x)}


def transpose(graph: Backward, step: Step) -> Gradients:
    """y = x with its axes permuted: g with the inverse permutation."""
    rank = len(graph.forward.shape(step.x))
    order = step.attribute("perm", list(reversed(range(rank))))
    inverse = [int(axis) for axis in np.argsort(order)]
    return {0: graph.mapped(step.gradient, lambda g: graph.op("Transpose", [g], {"perm": inverse}))}


def concat(graph: Backward, step: Step) -> Gradients:
    """y = parts side by side: each gets its part of g."""
    rank = len(graph.forward.shape(step.y))
    axis = step.attribute("axis", 1) % rank
    gradients, start = {}, 0
    for position, name in enumerate(step.node.input):
        end = start + graph.forward.size(name, axis)
        if position in step.wanted:
            bounds = [graph.integers([value]) for value in (start, end, axis)]
            base, factor = graph.peeled(step.gradient)
            gradients[position] = graph.times(graph.op("Slice", [base, *bounds]), factor)
        start = end
    return gradients


def split(graph: Backward, step: Step) -> Gradients:
    """Parts of x: dx = their gradients side by side, 0 for a part that goes nowhere."""
    axis = step.attribute("axis", 0)
    parts = [
        graph.op("ConstantOfShape", [graph.op("Shape", [graph.value(name)])]) if gradient is None else gradient
        for name, gradient in zip(step.node.output, step.gradients, strict=True)
    ]
    return {0: graph.op("Concat", parts, {"axis": axis})}


def slice_(graph: Backward, step: Step) -> Gradients:
    """y = every n-th value of a range: g at those places, 0 elsewhere."""
    rank = len(graph.forward.shape(step.x))
    given = [None if step.input(p) is None else graph.forward.constant(step.node.input[p]) for p in range(1, 5)]
    starts, ends, axes, steps = (None if values is None else [int(v) for v in values] for values in given)
    if starts is None or ends is None:
        raise refusal(step.node, "constant bounds", "computed ones")
    axes = [axis % rank for axis in (range(len(starts)) if axes is None else axes)]
    gradient = step.gradient
    before, after = [0] * rank, [0] * rank
    for number, axis in enumerate(axes):
        stride = 1 if steps is None else steps[number]
        length = graph.forward.size(step.x, axis)
        taken = range(length)[slice(starts[number], _end(ends[number], stride), stride)]
        if stride < 0:
            bounds = [graph.integers([value]) for value in (-1, -(2**31), axis, -1)]
            gradient = graph.op("Slice", [gradient, *bounds])
            taken = taken[::-1]
        if abs(stride) > 1:
            gradient = _with_gaps(graph, gradient, step, axis, len(taken), abs(stride))
        before[axis] = taken[0]
        after[axis] = length - taken[0] - len(taken) * abs(stride)
    padding = graph.integers([*before, *after])
    return {0: graph.mapped(gradient, lambda g: graph.op("Pad", [g, padding]))}


def _end(end: int, stride: int) -> int | None:
    # ONNX writes "to before the first value" as a very small number, Python as None.
    return None if stride < 0 and end <= -(2**31) else end


def _with_gaps(graph: Backward, gradient: str, step: Step, axis: int, count: int, stride: int) -> str:
    # count values along an axis become count · stride, zeros between them.
    rank = len(graph.forward.shape(step.x))
    wider = graph.op("Unsqueeze", [gradient, graph.integers([axis + 1])])
    after = [0] * (2 * (rank + 1))
    after[rank + 1 + axis + 1] = stride - 1
    wider = graph.op("Pad", [wider, graph.integers(after)])
    # 0 keeps a dimension where the one before the joined pair is concerned; those behind it moved by one.
    first = graph.op("Shape", [gradient])
    factor = [1] * rank
    factor[axis] = stride
    return graph.op("Reshape", [wider, graph.op("Mul", [first, graph.integers(factor)])])


def tile(graph: Backward, step: Step) -> Gradients:
    """y = x repeated along its axes: the sum of g over the repetitions."""
    repeats = graph.forward.constant(step.node.input[1])
    if repeats is None:
        raise refusal(step.node, "constant repetitions", f"`{step.node.input[1]}`, which is computed")
    gradient = step.gradient
    for axis, number in reversed(list(enumerate(repeats.tolist()))):
        if number == 1:
            continue
        # [.., number · d, ..] to [.., number, d, ..]; axes before keep their size (0), those behind are known.
        shape = [0] * axis
        shape += [number, graph.forward.size(step.x, axis)]
        shape += [graph.forward.size(step.x, a) for a in range(axis + 1, len(repeats))]
        apart = graph.op("Reshape", [gradient, graph.integers(shape)])
        gradient = graph.op("ReduceSum", [apart, graph.integers([axis])], {"keepdims": 0})
    return {0: gradient}


def trilu(graph: Backward, step: Step) -> Gradients:
    """y = one triangle of x, 0 elsewhere: the same of g."""
    inputs = [step.gradient, *(step.node.input[1:2] if step.input(1) else ())]
    return {0: graph.op("Trilu", inputs, {"upper": step.attribute("upper", 1)})}


def cumulative_sum(graph: Backward, step: Step) -> Gradients:
    """y_i = Σ_{j ≤ i} x_j: dx_j = Σ_{i ≥ j} g_i, the same sum from the other end."""
    attributes = {"exclusive": step.attribute("exclusive", 0), "reverse": 1 - step.attribute("reverse", 0)}
    return {0: graph.mapped(step.gradient, lambda g: graph.op("CumSum", [g, step.node.input[1]], attributes))}


def top_k(graph: Backward, step: Step) -> Gradients:
    """y = the k largest or smallest of an axis: g at their places, 0 elsewhere."""
    zeros = graph.op("ConstantOfShape", [graph.op("Shape", [graph.value(step.x)])])
    attributes = {"axis": step.attribute("axis", -1)}
    if not step.node.output[1]:
        raise refusal(step.node, "the places beside the values", "the values alone")
    return {0: graph.op("ScatterElements", [zeros, step.node.output[1], step.gradient], attributes)}


def expand(graph: Backward, step: Step) -> Gradients:
    """y = x repeated along axes of length one: the sum of g over them."""
    return {0: graph.summed_to(step.gradient, step.y, step.x)}


def depth_to_space(graph: Backward, step: Step) -> Gradients:
    """Channels moved into blocks of positions, in DCR order or CRD: moved back."""
    block = step.attribute("blocksize", 1)
    if step.attribute("mode", b"DCR") == b"DCR":
        return {0: graph.op("SpaceToDepth", [step.gradient], {"blocksize": block})}
    number, height, width = (graph.forward.size(step.y, axis) for axis in (1, 2, 3))
    parts = graph.integers([-1, number, height // block, block, width // block, block])
    apart = graph.op("Transpose", [graph.op("Reshape", [step.gradient, parts])], {"perm": [0, 1, 3, 5, 2, 4]})
    return {0: graph.shaped_like(apart, step.x)}


def space_to_depth(graph: Backward, step: Step) -> Gradients:
    """Blocks of positions moved into channels: moved back."""
    return {0: graph.op("DepthToSpace", [step.gradient], {"blocksize": step.attribute("blocksize", 1)})}
