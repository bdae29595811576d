"""Gradients of normalisations, as they act in inference."""

from __future__ import annotations

import math

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.windows import sizes


def batch_normalization(graph: Backward, step: Step) -> Gradients:
    """y = γ·(x − μ)/√(σ² + ε) + β with stored statistics: dx = g·γ/√(σ² + ε)."""
    if step.attribute("training_mode", 0):
        raise refusal(step.node, "stored statistics", "training_mode")
    scale, variance = (graph.value(step.node.input[position]) for position in (1, 4))
    spread = graph.op("Sqrt", [graph.op("Add", [variance, graph.scalar(step.attribute("epsilon", 1e-5))])])
    factor = graph.op("Div", [scale, spread])
    behind = len(graph.forward.shape(step.x)) - 2
    factor = graph.op("Reshape", [factor, graph.integers([-1, *[1] * behind])])
    return {0: graph.mapped(step.gradient, lambda g: graph.op("Mul", [g, factor]))}


def layer_normalization(graph: Backward, step: Step) -> Gradients:
    """y = γ·x̂ + β, x̂ = (x − mean)/√(var + ε) over the last axes; with h = g·γ: dx = (h − mean h − x̂·mean(h·x̂))/√…."""
    rank = len(graph.forward.shape(step.x))
    axes = list(range(step.attribute("axis", -1) % rank, rank))
    scaled = graph.op("Mul", [step.gradient, graph.value(step.node.input[1])])
    return {0: _through_statistics(graph, step, scaled, axes)}


def instance_normalization(graph: Backward, step: Step) -> Gradients:
    """As layer normalisation, over the positions of each image and channel."""
    rank = len(graph.forward.shape(step.x))
    scale = graph.op("Reshape", [graph.value(step.node.input[1]), graph.integers([-1, *[1] * (rank - 2)])])
    scaled = graph.op("Mul", [step.gradient, scale])
    return {0: _through_statistics(graph, step, scaled, list(range(2, rank)))}


def group_normalization(graph: Backward, step: Step) -> Gradients:
    """As layer normalisation, over the channels of a group and their positions."""
    channels, rank = graph.forward.size(step.x, 1), len(graph.forward.shape(step.x))
    groups = step.attribute("num_groups", 1)
    scale = graph.op("Reshape", [graph.value(step.node.input[1]), graph.integers([channels, *[1] * (rank - 2)])])
    scaled = graph.op("Mul", [step.gradient, scale])
    parts = graph.integers([0, groups, -1])
    x, scaled = (graph.op("Reshape", [name, parts]) for name in (graph.value(step.x), scaled))
    return {0: graph.shaped_like(_through_statistics(graph, step, scaled, [2], x), step.x)}


def rms_normalization(graph: Backward, step: Step) -> Gradients:
    """y = γ·x̂, x̂ = x/r, r = √(mean x² + ε) over the last axes; with h = g·γ: dx = (h − x̂·mean(h·x̂))/r."""
    rank = len(graph.forward.shape(step.x))
    axes = list(range(step.attribute("axis", -1) % rank, rank))
    h, x = graph.op("Mul", [step.gradient, graph.value(step.node.input[1])]), graph.value(step.x)
    squares = _mean(graph, graph.op("Mul", [x, x]), axes)
    root = graph.op("Sqrt", [graph.op("Add", [squares, graph.scalar(step.attribute("epsilon", 1e-5))])])
    normalised = graph.op("Div", [x, root])
    along = graph.op("Mul", [normalised, _mean(graph, graph.op("Mul", [h, normalised]), axes)])
    return {0: graph.op("Div", [graph.op("Sub", [h, along]), root])}


def local_response(graph: Backward, step: Step) -> Gradients:
    """y = x·D^−β, D = k + α/n·Σx² over n channels: dx = g·D^−β − 2αβ/n·x·Σ(g·x·D^(−β−1)), Krizhevsky et al. 2012."""
    size, beta = step.attribute("size", 1), step.attribute("beta", 0.75)
    alpha, bias = step.attribute("alpha", 1e-4), step.attribute("bias", 1.0)
    before, after = (size - 1) // 2, size // 2

    def mean_over_channels(x: str, begin: int, end: int) -> str:
        channels = graph.forward.size(step.x, 1)
        flat = graph.op("Reshape", [x, graph.integers([-1, 1, channels, math.prod(sizes(graph, step)[0])])])
        window = {"kernel_shape": [size, 1], "pads": [begin, 0, end, 0], "count_include_pad": 1}
        return graph.shaped_like(graph.op("AveragePool", [flat], window), step.x)

    x = graph.value(step.x)
    squares = mean_over_channels(graph.op("Mul", [x, x]), before, after)
    base = graph.op("Add", [graph.op("Mul", [squares, graph.scalar(alpha)]), graph.scalar(bias)])
    scaled = graph.op("Mul", [step.gradient, graph.op("Pow", [base, graph.scalar(-beta)])])
    # A window that reaches `after` channels up is seen from below by as many.
    shared = mean_over_channels(graph.op("Div", [graph.op("Mul", [scaled, x]), base]), after, before)
    rest = graph.op("Mul", [graph.op("Mul", [x, shared]), graph.scalar(2 * alpha * beta)])
    return {0: graph.op("Sub", [scaled, rest])}


def _mean(graph: Backward, x: str, axes: list[int]) -> str:
    if graph.forward.opset >= 18:
        return graph.op("ReduceMean", [x, graph.integers(axes)], {"keepdims": 1})
    return graph.op("ReduceMean", [x], {"axes": axes, "keepdims": 1})


def _through_statistics(
    graph: Backward, step: Step, gradient: str, axes: list[int], values: str | None = None
) -> str:
    def mean(x: str) -> str:
        return _mean(graph, x, axes)

    x = graph.value(step.x) if values is None else values
    centred = graph.op("Sub", [x, mean(x)])
    variance = mean(graph.op("Mul", [centred, centred]))
    spread = graph.op("Sqrt", [graph.op("Add", [variance, graph.scalar(step.attribute("epsilon", 1e-5))])])
    normalised = graph.op("Div", [centred, spread])
    along = graph.op("Mul", [normalised, mean(graph.op("Mul", [gradient, normalised]))])
    rest = graph.op("Sub", [graph.op("Sub", [gradient, mean(gradient)]), along])
    return graph.op("Div", [rest, spread])
