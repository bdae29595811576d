"""Gradients of averages, of sums and of the maximum over all positions; g is the gradient of the pooled value y."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.rules_convolution import spread
from stages.saliency_twin.windows import Windows, channels, sizes, windows_of


def average_pool(graph: Backward, step: Step) -> Gradients:
    """y = Σ over a window / its count: every value of the window gets g / count."""
    windows = windows_of(graph, step, tuple(step.attribute("kernel_shape", [])))
    counts = _counts(graph, step, windows)
    number = channels(graph, step)
    if counts.min() == counts.max():
        gradient = graph.times(step.gradient, 1 / float(counts.max()))
    else:
        gradient = graph.op("Mul", [step.gradient, graph.constant((1 / counts).astype(np.float32))])
    ones = graph.constant(np.ones((1, 1, *windows.kernel), dtype=np.float32))
    weight = graph.op("Expand", [ones, graph.integers([number, 1, *windows.kernel])])
    return {0: spread(graph, Step(step.node, (gradient,), step.wanted), weight, windows, number)}


def _counts(graph: Backward, step: Step, windows: Windows) -> NDArray[np.float64]:
    inputs, outputs = sizes(graph, step)
    counts = np.ones(1)
    for axis, (length, number) in enumerate(zip(inputs, outputs, strict=True)):
        starts = np.arange(number) * windows.strides[axis] - windows.begins[axis]
        positions = starts[:, None] + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        padded = step.attribute("count_include_pad", 0)
        least = -windows.begins[axis] if padded else 0
        # With ceil_mode a window may reach beyond the padding, which never counts.
        most = length + windows.ends[axis] if padded else length
        inside = ((positions >= least) & (positions < most)).sum(axis=1)
        counts = counts[..., None] * inside
    return counts.reshape(outputs)


def global_average_pool(graph: Backward, step: Step) -> Gradients:
    """y = mean over all positions: each gets g / count."""
    inputs, _ = sizes(graph, step)
    shape = graph.integers([1, 1, *inputs])
    gradient = graph.times(step.gradient, 1 / math.prod(inputs))
    return {0: graph.mapped(gradient, lambda g: graph.op("Expand", [g, shape]))}


def global_max_pool(graph: Backward, step: Step) -> Gradients:
    """y = max over all positions: g goes to the first that equals y."""
    inputs, _ = sizes(graph, step)
    count, number = math.prod(inputs), channels(graph, step)
    flat = graph.op("Reshape", [graph.real(step.x), graph.integers([-1, number, count])])
    first = graph.op(
        "ArgMax",
        [
            flat,
        ],
        {"axis": 2, "keepdims": 1},
    )
    chosen = graph.op("Equal", [first, graph.constant(np.arange(count, dtype=np.int64))])
    gradient = graph.op("Reshape", [step.gradient, graph.integers([-1, number, 1])])
    return {0: graph.shaped_like(graph.masked(chosen, gradient), step.x)}


def reduce_sum(graph: Backward, step: Step) -> Gradients:
    """y = Σx: every summand gets g."""
    return {0: repeated(graph, step)}


def reduce_mean(graph: Backward, step: Step) -> Gradients:
    """y = Σx / n: every summand gets g / n."""
    lengths = reduced_lengths(graph, step)
    return {0: repeated(graph, step, 1 / math.prod(lengths.values()))}


def reduced_lengths(graph: Backward, step: Step) -> dict[int, int]:
    """Return the axes that a reduction takes together, in order, and their lengths; empty where there are none."""
    rank = len(graph.forward.shape(step.x))
    given = step.attribute("axes", None)
    if step.input(1):
        constant = graph.forward.constant(step.node.input[1])
        if constant is None:
            raise refusal(step.node, "constant axes", f"computed ones in `{step.node.input[1]}`")
        given = constant.tolist()
    if not given and step.attribute("noop_with_empty_axes", 0):
        return {}
    axes = sorted(axis % rank for axis in given) if given else list(range(rank))
    return {axis: graph.forward.size(step.x, axis) for axis in axes}


def with_axes(graph: Backward, step: Step, name: str) -> str:
    """Return a tensor in a reduction's output's shape with the axes, of length 1, that the output may lack."""
    axes = list(reduced_lengths(graph, step))
    if not axes or step.attribute("keepdims", 1):
        return name
    return graph.mapped(name, lambda g: graph.op("Unsqueeze", [g, graph.integers(axes)]))


def repeated(graph: Backward, step: Step, factor: float = 1.0) -> str:
    """Return the gradient of a reduction's output times a factor, repeated over what was taken together."""
    lengths = reduced_lengths(graph, step)
    if not lengths:
        return step.gradient
    rank = len(graph.forward.shape(step.x))
    gradient = graph.times(step.gradient, factor)
    shape = graph.integers([lengths.get(axis, 1) for axis in range(rank)])
    wider = with_axes(graph, step, gradient)
    return graph.mapped(wider, lambda g: graph.op("Expand", [g, shape]))
