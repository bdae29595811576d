"""Operators of ai.onnx that a few plainer ones of any opset stand for.

Norms are kept from 0, where they have no slope: there the plainer nodes hand 0 back instead of no number.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto

from onnx_files.graph import attributes_of
from stages.saliency_twin.forward_graph import ForwardGraph
from stages.saliency_twin.parts import Parts


def lp_normalization(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """x / (Σ|x|^p)^(1/p) along an axis, p being 1 or 2; 0 where the norm is."""
    given, parts, x = attributes_of(node), Parts(node), str(node.input[0])
    is_square = given.get("p", 2) == 2
    powers = parts.op("Mul", [x, x]) if is_square else parts.op("Abs", [x])
    total = parts.op("ReduceSum", [powers, parts.integers([given.get("axis", -1)])], {"keepdims": 1})
    safe = _above_zero(parts, total)
    return parts.finished("Div", [x, parts.op("Sqrt", [safe]) if is_square else safe])


def global_lp_pool(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """(Σ|x|^p)^(1/p) over all positions of a channel."""
    rank, power = len(forward.shapes.get(node.input[0], ())), attributes_of(node).get("p", 2)
    if rank < 3:
        return [node]
    parts = Parts(node)
    powers = parts.op("Pow", [parts.op("Abs", [node.input[0]]), parts.real(power)])
    total = parts.op("ReduceSum", [powers, parts.integers(range(2, rank))], {"keepdims": 1})
    root = parts.op("Pow", [_above_zero(parts, total), parts.real(1 / power)])
    return parts.finished("Where", [_is_above_zero(parts, total), root, parts.real(0)])


def shrink(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """x moved by a bias towards 0, and 0 between −λ and λ."""
    given, parts, x = attributes_of(node), Parts(node), str(node.input[0])
    limit, bias = given.get("lambd", 0.5), given.get("bias", 0.0)
    above = parts.op("Greater", [x, parts.real(limit)])
    below = parts.op("Less", [x, parts.real(-limit)])
    lower = parts.op("Where", [below, parts.op("Add", [x, parts.real(bias)]), parts.real(0)])
    return parts.finished("Where", [above, parts.op("Sub", [x, parts.real(bias)]), lower])


def mean_variance_normalization(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """(x − E x) / (√(E(x − E x)²) + 1e-9)."""
    rank = len(forward.shapes.get(node.input[0], ()))
    if not rank:
        return [node]
    axes = [axis % rank for axis in attributes_of(node).get("axes", [0, 2, 3])]
    shape = forward.shapes[node.input[0]]
    sizes = [shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        return [node]
    parts = Parts(node)
    count = math.prod(size for size in sizes if isinstance(size, int))

    def mean(name: str) -> str:
        total = parts.op("ReduceSum", [name, parts.integers(axes)], {"keepdims": 1})
        return parts.op("Mul", [total, parts.real(1 / count)])

    centred = parts.op("Sub", [node.input[0], mean(node.input[0])])
    deviation = parts.op("Sqrt", [_above_zero(parts, mean(parts.op("Mul", [centred, centred])))])
    return parts.finished("Div", [centred, parts.op("Add", [deviation, parts.real(1e-9)])])


def reduce_log_sum(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """ln Σx; the axes stand where the operator has them."""
    given, parts = attributes_of(node), Parts(node)
    keep = {"keepdims": given.get("keepdims", 1)}
    if "axes" in given:
        inputs = [node.input[0], parts.integers(given["axes"])]
    else:
        inputs, keep["noop_with_empty_axes"] = list(node.input), given.get("noop_with_empty_axes", 0)
    return parts.finished("Log", [parts.op("ReduceSum", inputs, keep)])


def modulo(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """a − b·trunc(a / b) of real numbers, as C's fmod; of integers the node itself."""
    if not attributes_of(node).get("fmod", 0):
        return [node]
    parts = Parts(node)
    ratio = parts.op("Div", list(node.input))
    whole = parts.op("Mul", [parts.op("Sign", [ratio]), parts.op("Floor", [parts.op("Abs", [ratio])])])
    return parts.finished("Sub", [node.input[0], parts.op("Mul", [node.input[1], whole])])


def compress(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """x at the places of an axis, or of all of x, where a constant holds."""
    chosen, axis = forward.constant(node.input[1]), attributes_of(node).get("axis")
    if chosen is None:
        return [node]
    parts, x = Parts(node), str(node.input[0])
    if axis is None:
        x = parts.op("Reshape", [x, parts.integers([-1])])
    return parts.finished("Gather", [x, parts.integers(np.flatnonzero(chosen).tolist())], {"axis": axis or 0})


def reverse_sequence(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """The first steps of each sequence backwards: step t of L is what stood at L − 1 − t, and behind L at t."""
    given, shape = attributes_of(node), forward.shapes.get(node.input[0], ())
    time, batch = given.get("time_axis", 0), given.get("batch_axis", 1)
    steps = shape[time] if shape else None
    if not isinstance(steps, int):
        return [node]
    parts, rank = Parts(node), len(shape)
    axes = [axis for axis in range(rank) if axis != time]
    places = parts.op("Unsqueeze", [parts.integers(range(steps)), parts.integers(axes)])
    lengths = parts.op("Unsqueeze", [node.input[1], parts.integers([axis for axis in range(rank) if axis != batch])])
    behind = parts.op("Sub", [parts.op("Sub", [lengths, parts.integer(1)]), places])
    taken = parts.op("Where", [parts.op("Less", [places, lengths]), behind, places])
    whole = parts.op("Expand", [taken, parts.op("Shape", [node.input[0]])])
    return parts.finished("GatherElements", [node.input[0], whole], {"axis": time})


def _is_above_zero(parts: Parts, name: str) -> str:
    return parts.op("Greater", [name, parts.real(0)])


def _above_zero(parts: Parts, name: str) -> str:
    """Return a tensor that is never below 0, with 1 in place of 0."""
    return parts.op("Where", [_is_above_zero(parts, name), name, parts.real(1)])
