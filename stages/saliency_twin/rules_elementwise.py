"""Gradients of functions that act on each value by itself. g is the gradient of y, x the input."""

from __future__ import annotations

import math

import numpy as np

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.forward_graph import INTEGER_TYPES


def identity(graph: Backward, step: Step) -> Gradients:
    """dx = g."""
    return {0: step.gradient}


def dropout(graph: Backward, step: Step) -> Gradients:
    """In inference nothing is dropped: dx = g."""
    training = None if step.input(2) is None else graph.forward.constant(step.node.input[2])
    if step.input(2) is not None and (training is None or training.any()):
        raise refusal(step.node, "inference", "training_mode, which draws anew each time")
    return {0: step.gradient}


def cast(graph: Backward, step: Step) -> Gradients:
    """Another type holds the same value: dx = g, in float32 on either side."""
    return {0: step.gradient}


def negative(graph: Backward, step: Step) -> Gradients:
    """y = −x: dx = −g."""
    return {0: graph.times(step.gradient, -1)}


def relu(graph: Backward, step: Step) -> Gradients:
    """y = max(x, 0): dx = g where y > 0.

    Read from y, because ONNX Runtime computes it together with the convolution before and x is then nowhere.
    """
    return {0: graph.rectified(step.gradient, step.y)}


def leaky_relu(graph: Backward, step: Step) -> Gradients:
    """y = x for x > 0, else αx: dx = g or αg. For α > 0, y has the sign of x."""
    alpha = step.attribute("alpha", 0.01)
    above = graph.op("Greater", [graph.value(step.y if alpha > 0 else step.x), graph.scalar(0)])
    slopes = graph.op("Where", [above, graph.scalar(1), graph.scalar(alpha)])
    return {0: graph.op("Mul", [step.gradient, slopes])}


def prelu(graph: Backward, step: Step) -> Gradients:
    """y = x for x > 0, else x·slope: dx = g or g·slope."""
    above = graph.op("Greater", [graph.value(step.x), graph.scalar(0)])
    slopes = graph.op("Where", [above, graph.scalar(1), graph.value(step.node.input[1])])
    return {0: graph.op("Mul", [step.gradient, slopes])}


def clip(graph: Backward, step: Step) -> Gradients:
    """y = clip(x, a, b): dx = g where a < y < b.

    On a quantizer's integers the bounds belong to that quantizer, whose rule knows the value before rounding.
    """
    if graph.forward.types.get(step.x) in INTEGER_TYPES:
        return {0: step.gradient}
    low, high = (None if name is None else graph.value(name) for name in (step.input(1), step.input(2)))
    inside = graph.between(graph.value(step.y), low, high)
    return {0: step.gradient if inside is None else graph.masked(inside, step.gradient)}


def hard_sigmoid(graph: Backward, step: Step) -> Gradients:
    """y = clip(αx + β, 0, 1): dx = αg where 0 < y < 1."""
    inside = graph.between(graph.value(step.y), graph.scalar(0), graph.scalar(1))
    assert inside is not None
    return {0: graph.times(graph.masked(inside, step.gradient), step.attribute("alpha", 0.2))}


def hard_swish(graph: Backward, step: Step) -> Gradients:
    """y = x·clip(x/6 + 1/2, 0, 1): dx = g·(x/3 + 1/2) for |x| < 3, g above, 0 below."""
    x = graph.value(step.x)
    slope = graph.op("Add", [graph.op("Mul", [x, graph.scalar(1 / 3)]), graph.scalar(0.5)])
    outside = graph.op("Where", [graph.op("Greater", [x, graph.scalar(0)]), graph.scalar(1), graph.scalar(0)])
    inside = graph.op("Less", [graph.op("Abs", [x]), graph.scalar(3)])
    return {0: graph.op("Mul", [step.gradient, graph.op("Where", [inside, slope, outside])])}


def sigmoid(graph: Backward, step: Step) -> Gradients:
    """y = 1 / (1 + e^−x): dx = g·y·(1 − y)."""
    y = graph.value(step.y)
    return _product(graph, step, y, graph.op("Sub", [graph.scalar(1), y]))


def swish(graph: Backward, step: Step) -> Gradients:
    """y = x·σ(αx): dx = g·(σ + αx·σ·(1 − σ))."""
    scaled, alpha = graph.value(step.x), step.attribute("alpha", 1.0)
    if alpha != 1:
        scaled = graph.op("Mul", [scaled, graph.scalar(alpha)])
    gate = graph.op("Sigmoid", [scaled])
    bend = graph.op("Mul", [scaled, graph.op("Sub", [graph.scalar(1), gate])])
    return _product(graph, step, gate, graph.op("Add", [graph.scalar(1), bend]))


def mish(graph: Backward, step: Step) -> Gradients:
    """y = x·t, t = tanh(ln(1 + e^x)): dx = g·(t + x·(1 − t²)·σ(x))."""
    x = graph.value(step.x)
    t = graph.op("Tanh", [graph.op("Softplus", [x])])
    rest = graph.op("Sub", [graph.scalar(1), graph.op("Mul", [t, t])])
    bend = graph.op("Mul", [graph.op("Mul", [x, rest]), graph.op("Sigmoid", [x])])
    return _product(graph, step, graph.op("Add", [t, bend]))


def tanh(graph: Backward, step: Step) -> Gradients:
    """y = tanh x: dx = g·(1 − y²)."""
    y = graph.value(step.y)
    return _product(graph, step, graph.op("Sub", [graph.scalar(1), graph.op("Mul", [y, y])]))


def gelu(graph: Backward, step: Step) -> Gradients:
    """y = x·Φ(x): dx = g·(Φ(x) + x·φ(x)), or the derivative of the approximation by tanh."""
    x = graph.value(step.x)
    squared = graph.op("Mul", [x, x])
    if step.attribute("approximate", b"none") == b"tanh":
        # y = x·(1 + t)/2, t = tanh u, u = √(2/π)·(x + 0.044715·x³): y' = (1 + t)/2 + x·(1 − t²)·u'/2
        root = math.sqrt(2 / math.pi)
        cubic = graph.op("Add", [graph.op("Mul", [squared, graph.scalar(0.044715)]), graph.scalar(1)])
        t = graph.op("Tanh", [graph.op("Mul", [graph.op("Mul", [x, cubic]), graph.scalar(root)])])
        slope = graph.op("Mul", [squared, graph.scalar(3 * 0.044715 * root / 2)])
        slope = graph.op("Add", [slope, graph.scalar(root / 2)])
        rest = graph.op("Sub", [graph.scalar(1), graph.op("Mul", [t, t])])
        bend = graph.op("Mul", [graph.op("Mul", [x, rest]), slope])
        half = graph.op("Mul", [graph.op("Add", [t, graph.scalar(1)]), graph.scalar(0.5)])
        return _product(graph, step, graph.op("Add", [half, bend]))
    error = graph.op("Erf", [graph.op("Mul", [x, graph.scalar(math.sqrt(0.5))])])
    below = graph.op("Mul", [graph.op("Add", [error, graph.scalar(1)]), graph.scalar(0.5)])
    density = graph.op("Exp", [graph.op("Mul", [squared, graph.scalar(-0.5)])])
    bend = graph.op("Mul", [graph.op("Mul", [x, density]), graph.scalar(1 / math.sqrt(2 * math.pi))])
    return _product(graph, step, graph.op("Add", [below, bend]))


def erf(graph: Backward, step: Step) -> Gradients:
    """y = erf x: dx = g·(2/√π)·exp(−x²)."""
    x = graph.value(step.x)
    density = graph.op("Exp", [graph.op("Neg", [graph.op("Mul", [x, x])])])
    return {0: graph.times(graph.op("Mul", [step.gradient, density]), 2 / math.sqrt(math.pi))}


def elu(graph: Backward, step: Step) -> Gradients:
    """y = x for x > 0, else α(e^x − 1): dx = g, or g·(y + α)."""
    y, alpha = graph.value(step.y), step.attribute("alpha", 1.0)
    # For α > 0, y has the sign of x.
    above = graph.op("Greater", [y if alpha > 0 else graph.value(step.x), graph.scalar(0)])
    below = graph.op("Add", [y, graph.scalar(alpha)])
    return _product(graph, step, graph.op("Where", [above, graph.scalar(1), below]))


def softplus(graph: Backward, step: Step) -> Gradients:
    """y = ln(1 + e^x): dx = g·σ(x)."""
    return _product(graph, step, graph.op("Sigmoid", [graph.value(step.x)]))


def exponential(graph: Backward, step: Step) -> Gradients:
    """y = e^x: dx = g·y."""
    return _product(graph, step, graph.value(step.y))


def logarithm(graph: Backward, step: Step) -> Gradients:
    """y = ln x: dx = g / x."""
    return {0: graph.op("Div", [step.gradient, graph.value(step.x)])}


def square_root(graph: Backward, step: Step) -> Gradients:
    """y = √x: dx = g / 2y."""
    return {0: graph.times(graph.op("Div", [step.gradient, graph.value(step.y)]), 0.5)}


def reciprocal(graph: Backward, step: Step) -> Gradients:
    """y = 1/x: dx = −g·y²."""
    y = graph.value(step.y)
    return {0: graph.times(graph.op("Mul", [graph.op("Mul", [step.gradient, y]), y]), -1)}


def absolute(graph: Backward, step: Step) -> Gradients:
    """y = |x|: dx = g·sign x."""
    return _product(graph, step, graph.op("Sign", [graph.value(step.x)]))


def power(graph: Backward, step: Step) -> Gradients:
    """y = x^p: dx = g·p·x^(p−1), dp = g·y·ln x, 0 where x is not above 0."""
    gradients: dict[int, str] = {}
    if 0 in step.wanted:
        gradients |= _power_of_base(graph, step)
    if 1 in step.wanted:
        x = graph.real(step.x)
        above = graph.op("Greater", [x, graph.scalar(0)])
        logarithm = graph.op("Log", [graph.op("Where", [above, x, graph.scalar(1)])])
        slope = graph.op("Mul", [graph.value(step.y), logarithm])
        gradients[1] = graph.summed_to(graph.op("Mul", [step.gradient, slope]), step.y, step.node.input[1])
    return gradients


def _power_of_base(graph: Backward, step: Step) -> Gradients:
    exponent = graph.real(step.node.input[1])
    found = graph.forward.constant(step.node.input[1])
    if found is not None and np.all(found == 2):
        slope = graph.op("Mul", [graph.value(step.x), graph.scalar(2)])
    else:
        less = graph.op("Sub", [exponent, graph.scalar(1)])
        slope = graph.op("Mul", [graph.op("Pow", [graph.value(step.x), less]), exponent])
    return {0: graph.summed_to(graph.op("Mul", [step.gradient, slope]), step.y, step.x)}


def selu(graph: Backward, step: Step) -> Gradients:
    """y = γx for x > 0, else γα(e^x − 1): dx = g·γ, or g·(y + γα)."""
    gamma = step.attribute("gamma", 1.0507009873554805)
    bend = gamma * step.attribute("alpha", 1.6732632423543772)
    above = graph.op("Greater", [graph.value(step.x), graph.scalar(0)])
    below = graph.op("Add", [graph.value(step.y), graph.scalar(bend)])
    return _product(graph, step, graph.op("Where", [above, graph.scalar(gamma), below]))


def celu(graph: Backward, step: Step) -> Gradients:
    """y = x for x > 0, else α(e^(x/α) − 1): dx = g, or g·(y/α + 1)."""
    y, alpha = graph.value(step.y), step.attribute("alpha", 1.0)
    below = graph.op("Add", [graph.op("Mul", [y, graph.scalar(1 / alpha)]), graph.scalar(1)])
    above = graph.op("Greater", [y, graph.scalar(0)])
    return _product(graph, step, graph.op("Where", [above, graph.scalar(1), below]))


def softsign(graph: Backward, step: Step) -> Gradients:
    """y = x / (1 + |x|): dx = g / (1 + |x|)²."""
    share = graph.op("Reciprocal", [graph.op("Add", [graph.op("Abs", [graph.value(step.x)]), graph.scalar(1)])])
    return _product(graph, step, share, share)


def thresholded_relu(graph: Backward, step: Step) -> Gradients:
    """y = x for x > α, else 0: dx = g where x > α."""
    above = graph.op("Greater", [graph.value(step.x), graph.scalar(step.attribute("alpha", 1.0))])
    return {0: graph.masked(above, step.gradient)}


def softmax(graph: Backward, step: Step) -> Gradients:
    """y = e^x / Σe^x: dx = y·(g − Σ g·y)."""
    y = graph.value(step.y)
    total = _sum(graph, graph.op("Mul", [step.gradient, y]), step)
    return {0: graph.op("Mul", [y, graph.op("Sub", [step.gradient, total])])}


def log_softmax(graph: Backward, step: Step) -> Gradients:
    """y = x − ln Σe^x: dx = g − e^y·Σg."""
    share = graph.op("Mul", [graph.op("Exp", [graph.value(step.y)]), _sum(graph, step.gradient, step)])
    return {0: graph.op("Sub", [step.gradient, share])}


def _sum(graph: Backward, gradient: str, step: Step) -> str:
    return graph.op("ReduceSum", [gradient, graph.integers([step.attribute("axis", -1)])], {"keepdims": 1})


def _product(graph: Backward, step: Step, *slopes: str) -> Gradients:
    gradient, factor = graph.peeled(step.gradient)
    for slope in slopes:
        gradient = graph.op("Mul", [gradient, slope])
    return {0: graph.times(gradient, factor)}
