"""Gradients of normalisations, as they act in inference."""

from __future__ import annotations

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal


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


def _through_statistics(graph: Backward, step: Step, gradient: str, axes: list[int]) -> str:
    def mean(x: str) -> str:
        if graph.forward.opset >= 18:
            return graph.op("ReduceMean", [x, graph.integers(axes)], {"keepdims": 1})
        return graph.op("ReduceMean", [x], {"axes": axes, "keepdims": 1})

    x = graph.value(step.x)
    centred = graph.op("Sub", [x, mean(x)])
    variance = mean(graph.op("Mul", [centred, centred]))
    spread = graph.op("Sqrt", [graph.op("Add", [variance, graph.scalar(step.attribute("epsilon", 1e-5))])])
    normalised = graph.op("Div", [centred, spread])
    along = graph.op("Mul", [normalised, mean(graph.op("Mul", [gradient, normalised]))])
    rest = graph.op("Sub", [graph.op("Sub", [gradient, mean(gradient)]), along])
    return graph.op("Div", [rest, spread])
