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


def gather(graph: Backward, step: Step) -> Gradients:
    """y = x at constant places along an axis: g at those places, summed where one was taken several times."""
    rank = len(graph.forward.shape(step.x))
    axis = step.attribute("axis", 0) % rank
    places = graph.forward.constant(step.node.input[1])
    if places is None or places.ndim > 1:
        raise refusal(step.node, "one constant place or a list of them", f"`{step.node.input[1]}`")
    length = graph.forward.size(step.x, axis)
    if places.ndim == 0:
        place = int(places) % length
        padding = [0] * (2 * rank)
        padding[axis], padding[rank + axis] = place, length - place - 1
        wider = graph.op("Unsqueeze", [step.gradient, graph.integers([axis])])
        return {0: graph.op("Pad", [wider, graph.integers(padding)])}
    # As a product with a matrix of zeros and ones along that axis.
    taken = np.zeros((places.size, length), dtype=np.float32)
    taken[np.arange(places.size), places.astype(np.int64) % length] = 1
    order = [*(a for a in range(rank) if a != axis), axis]
    last = graph.op("Transpose", [step.gradient], {"perm": order})
    back = [int(a) for a in np.argsort(order)]
    return {0: graph.op("Transpose", [graph.op("MatMul", [last, graph.constant(taken)])], {"perm": back})}


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
