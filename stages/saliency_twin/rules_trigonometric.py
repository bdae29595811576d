"""Gradients of trigonometric and hyperbolic functions and their inverses; g is the gradient of y."""

from __future__ import annotations

from stages.saliency_twin.builder import Backward, Gradients, Step


def sine(graph: Backward, step: Step) -> Gradients:
    """y = sin x: dx = g·cos x."""
    return {0: graph.op("Mul", [step.gradient, graph.op("Cos", [graph.value(step.x)])])}


def cosine(graph: Backward, step: Step) -> Gradients:
    """y = cos x: dx = −g·sin x."""
    return {0: graph.times(graph.op("Mul", [step.gradient, graph.op("Sin", [graph.value(step.x)])]), -1)}


def tangent(graph: Backward, step: Step) -> Gradients:
    """y = tan x: dx = g·(1 + y²)."""
    return {0: graph.op("Mul", [step.gradient, _shifted_square(graph, step.y, 1, 1)])}


def hyperbolic_sine(graph: Backward, step: Step) -> Gradients:
    """y = sinh x: dx = g·cosh x."""
    return {0: graph.op("Mul", [step.gradient, graph.op("Cosh", [graph.value(step.x)])])}


def hyperbolic_cosine(graph: Backward, step: Step) -> Gradients:
    """y = cosh x: dx = g·sinh x."""
    return {0: graph.op("Mul", [step.gradient, graph.op("Sinh", [graph.value(step.x)])])}


def inverse_sine(graph: Backward, step: Step) -> Gradients:
    """y = asin x: dx = g / √(1 − x²)."""
    return {0: graph.op("Div", [step.gradient, graph.op("Sqrt", [_shifted_square(graph, step.x, -1, 1)])])}


def inverse_cosine(graph: Backward, step: Step) -> Gradients:
    """y = acos x: dx = −g / √(1 − x²)."""
    return {0: graph.times(inverse_sine(graph, step)[0], -1)}


def inverse_tangent(graph: Backward, step: Step) -> Gradients:
    """y = atan x: dx = g / (1 + x²)."""
    return {0: graph.op("Div", [step.gradient, _shifted_square(graph, step.x, 1, 1)])}


def inverse_hyperbolic_sine(graph: Backward, step: Step) -> Gradients:
    """y = asinh x: dx = g / √(x² + 1)."""
    return {0: graph.op("Div", [step.gradient, graph.op("Sqrt", [_shifted_square(graph, step.x, 1, 1)])])}


def inverse_hyperbolic_cosine(graph: Backward, step: Step) -> Gradients:
    """y = acosh x: dx = g / √(x² − 1)."""
    return {0: graph.op("Div", [step.gradient, graph.op("Sqrt", [_shifted_square(graph, step.x, 1, -1)])])}


def inverse_hyperbolic_tangent(graph: Backward, step: Step) -> Gradients:
    """y = atanh x: dx = g / (1 − x²)."""
    return {0: graph.op("Div", [step.gradient, _shifted_square(graph, step.x, -1, 1)])}


def _shifted_square(graph: Backward, name: str, factor: float, shift: float) -> str:
    value = graph.value(name)
    square = graph.op("Mul", [value, value])
    scaled = square if factor == 1 else graph.op("Mul", [square, graph.scalar(factor)])
    return graph.op("Add", [scaled, graph.scalar(shift)])
