"""Gradients of reductions that weigh what they take together; g is the gradient of y, repeated along their axes."""

from __future__ import annotations

import numpy as np

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.rules_convolution import spread
from stages.saliency_twin.rules_pooling import reduced_lengths, with_axes
from stages.saliency_twin.windows import channels, windows_of


def reduce_extreme(graph: Backward, step: Step) -> Gradients:
    """y = max x or min x: g in equal parts to all that equal y."""
    x, y = graph.value(step.x), with_axes(graph, step, graph.value(step.y))
    chosen = graph.op("Cast", [graph.op("Equal", [x, y])], {"to": 1})
    axes = list(reduced_lengths(graph, step))
    ties = graph.op("ReduceSum", [chosen, graph.integers(axes)], {"keepdims": 1}) if axes else chosen
    share = graph.op("Div", [with_axes(graph, step, step.gradient), ties])
    return {0: graph.op("Mul", [share, chosen])}


def reduce_l1(graph: Backward, step: Step) -> Gradients:
    """y = Σ|x|: dx = g·sign x."""
    return {0: graph.op("Mul", [with_axes(graph, step, step.gradient), graph.op("Sign", [graph.value(step.x)])])}


def reduce_l2(graph: Backward, step: Step) -> Gradients:
    """y = √Σx²: dx = g·x/y, 0 where y is 0."""
    y = with_axes(graph, step, graph.value(step.y))
    safe = graph.op("Where", [graph.op("Greater", [y, graph.scalar(0)]), y, graph.scalar(1)])
    share = graph.op("Div", [with_axes(graph, step, step.gradient), safe])
    return {0: graph.op("Mul", [share, graph.value(step.x)])}


def reduce_sum_square(graph: Backward, step: Step) -> Gradients:
    """y = Σx²: dx = 2g·x."""
    product = graph.op("Mul", [with_axes(graph, step, step.gradient), graph.value(step.x)])
    return {0: graph.times(product, 2)}


def reduce_log_sum_exp(graph: Backward, step: Step) -> Gradients:
    """y = ln Σe^x: dx = g·e^(x − y)."""
    y = with_axes(graph, step, graph.value(step.y))
    share = graph.op("Exp", [graph.op("Sub", [graph.value(step.x), y])])
    return {0: graph.op("Mul", [with_axes(graph, step, step.gradient), share])}


def lp_pool(graph: Backward, step: Step) -> Gradients:
    """y = (Σ|x|^p)^(1/p) over a window: dx = sign x·|x|^(p−1)·Σ g·y^(1−p) over the windows that see x."""
    if step.attribute("ceil_mode", 0):
        raise refusal(step.node, "windows within the image", "ceil_mode")
    power, number = float(step.attribute("p", 2)), channels(graph, step)
    windows = windows_of(graph, step, tuple(step.attribute("kernel_shape", [])))
    x, y = graph.value(step.x), graph.value(step.y)
    safe = graph.op("Where", [graph.op("Greater", [y, graph.scalar(0)]), y, graph.scalar(1)])
    inner = graph.op("Mul", [step.gradient, graph.op("Pow", [safe, graph.scalar(1 - power)])])
    weight = graph.constant(np.ones((number, 1, *windows.kernel), dtype=np.float32))
    shared = spread(graph, Step(step.node, (inner,), step.wanted), weight, windows, number)
    slope = graph.op("Pow", [graph.op("Abs", [x]), graph.scalar(power - 1)])
    return {0: graph.op("Mul", [graph.op("Mul", [shared, slope]), graph.op("Sign", [x])])}
