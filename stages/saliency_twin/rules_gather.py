"""Gradients of what takes values at places and of what puts them there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal

_OPSET_OF_ADDING_SCATTER = 16
_LARGEST_MATRIX = 1_000_000
"""Numbers of a matrix that gathers; beyond, places that are all different are gathered back."""


def gather(graph: Backward, step: Step) -> Gradients:
    """y = x at places along an axis: g at those places, summed where one was taken several times."""
    rank = len(graph.forward.shape(step.x))
    axis = step.attribute("axis", 0) % rank
    places = graph.forward.constant(step.node.input[1])
    if places is None:
        return {0: _added_along(graph, step, axis, rank)}
    length = graph.forward.size(step.x, axis)
    if places.ndim == 0:
        place = int(places) % length
        padding = [0] * (2 * rank)
        padding[axis], padding[rank + axis] = place, length - place - 1
        wider = graph.op("Unsqueeze", [step.gradient, graph.integers([axis])])
        return {0: graph.op("Pad", [wider, graph.integers(padding)])}
    gradient = step.gradient
    if places.ndim > 1:
        after = [graph.forward.size(step.x, a) for a in range(axis + 1, rank)]
        before = [0 if a < axis else places.size for a in range(axis + 1)]
        flat = graph.integers([*before, *after])
        gradient = graph.mapped(gradient, lambda g: graph.op("Reshape", [g, flat]))
        places = places.ravel()
    if places.size * length > _LARGEST_MATRIX and len(set((places % length).tolist())) == places.size:
        return {0: _put_back(graph, gradient, places % length, length, axis, rank)}
    # As a product with a matrix of zeros and ones along that axis.
    taken = np.zeros((places.size, length), dtype=np.float32)
    taken[np.arange(places.size), places.astype(np.int64) % length] = 1
    order = [*(a for a in range(rank) if a != axis), axis]
    last = graph.op("Transpose", [gradient], {"perm": order})
    back = [int(a) for a in np.argsort(order)]
    return {0: graph.op("Transpose", [graph.op("MatMul", [last, graph.constant(taken)])], {"perm": back})}


def _added_along(graph: Backward, step: Step, axis: int, rank: int) -> str:
    # At places that follow the batch: the axis and those of the places in front, added there, and back again.
    _require_adding_scatter(graph, step)
    places, number = graph.value(step.node.input[1]), len(graph.forward.shape(step.node.input[1]))
    ahead = [*range(axis, axis + number), *range(axis), *range(axis + number, rank - 1 + number)]
    gradient = graph.op("Transpose", [step.gradient], {"perm": ahead}) if axis else step.gradient
    order = [axis, *(a for a in range(rank) if a != axis)]
    zeros = _zeros(graph, step.x)
    zeros = graph.op("Transpose", [zeros], {"perm": order}) if axis else zeros
    indices = graph.op("Unsqueeze", [places, graph.integers([-1])])
    added = graph.op("ScatterND", [zeros, indices, gradient], {"reduction": "add"})
    return graph.op("Transpose", [added], {"perm": [int(a) for a in np.argsort(order)]}) if axis else added


def _zeros(graph: Backward, name: str) -> str:
    return graph.op("ConstantOfShape", [graph.op("Shape", [graph.value(name)])])


def _require_adding_scatter(graph: Backward, step: Step) -> None:
    if graph.forward.opset < _OPSET_OF_ADDING_SCATTER:
        expected = f"opset {_OPSET_OF_ADDING_SCATTER} or more, or constant places"
        raise refusal(
            step.node, expected, f"`{step.node.input[1]}`, which is computed, in opset {graph.forward.opset}"
        )


def _put_back(graph: Backward, gradient: str, places: NDArray[np.integer], length: int, axis: int, rank: int) -> str:
    # Each value was taken at most once: gathered back, from a zero behind the end where it was not taken.
    back = np.full(length, places.size, dtype=np.int64)
    back[places.astype(np.int64)] = np.arange(places.size)
    margin = [0] * (2 * rank)
    margin[rank + axis] = 1
    wider = graph.op("Pad", [gradient, graph.integers(margin)])
    return graph.op("Gather", [wider, graph.constant(back)], {"axis": axis})


def gather_elements(graph: Backward, step: Step) -> Gradients:
    """y = x at a place of its own for each value of y: g added at those places."""
    _require_adding_scatter(graph, step)
    attributes = {"axis": step.attribute("axis", 0), "reduction": "add"}
    inputs = [_zeros(graph, step.x), graph.value(step.node.input[1]), step.gradient]
    return {0: graph.op("ScatterElements", inputs, attributes)}


def gather_nd(graph: Backward, step: Step) -> Gradients:
    """y = slices of x at places over its first axes: g added at those places."""
    _require_adding_scatter(graph, step)
    if step.attribute("batch_dims", 0):
        raise refusal(step.node, "places in all of the batch", "batch_dims")
    inputs = [_zeros(graph, step.x), graph.value(step.node.input[1]), step.gradient]
    return {0: graph.op("ScatterND", inputs, {"reduction": "add"})}


def scatter_elements(graph: Backward, step: Step) -> Gradients:
    """y = x with values put or added at places: x gets g, 0 where it was replaced; the values get g at theirs."""
    axis = {"axis": step.attribute("axis", 0)}
    return _scattered(graph, step, "ScatterElements", "GatherElements", axis)


def scatter_nd(graph: Backward, step: Step) -> Gradients:
    """y = x with slices put at places over its first axes, or added: as `scatter_elements`."""
    return _scattered(graph, step, "ScatterND", "GatherND", {})


def _scattered(graph: Backward, step: Step, scatter: str, gather: str, attributes: dict[str, int]) -> Gradients:
    reduction = step.attribute("reduction", b"none")
    if reduction not in (b"none", b"add"):
        raise refusal(step.node, "values that replace others or are added", f"reduction {reduction.decode()}")
    places, gradients = graph.value(step.node.input[1]), {}
    if 0 in step.wanted:
        gradients[0] = step.gradient
        if reduction == b"none":
            inputs = [step.gradient, places, _zeros(graph, step.node.input[2])]
            gradients[0] = graph.op(scatter, inputs, attributes)
    if 2 in step.wanted:
        gradients[2] = graph.op(gather, [step.gradient, places], attributes)
    return gradients
