"""Which nodes static quantization leaves in float, because integers would answer something else.

Integers of eight bits hold 256 steps of one range. A mask of -inf or -1e4 leaves the other values none of them; the
cube of an activation few; and a Clip is dropped by ONNX Runtime's writer in favour of the range behind it, which is
right only where that range says the same and nobody else looks at what came before.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from onnx_files.graph import GraphIndex, attributes_of, bounds_of, reads
from onnx_files.probes import Batches, runner

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_OF_SHAPE = frozenset(("Shape", "Size"))
_AVERAGES = frozenset(("GlobalAveragePool", "AveragePool", "ReduceMean", "ReduceSum", "GlobalLpPool", "LpPool"))
_STEPPED = frozenset(("Sign", "Round", "Floor", "Ceil"))
_LEAST_PEAK = 1e3
_TIMES_THE_REST = 1e3
"""A peak so far beyond the median of what is no peak leaves that less than one step of 256."""


def nodes_kept_float(proto: ModelProto, batches: Batches) -> tuple[str, ...]:
    """Return the names of the nodes that must not be quantized, in the order of the graph.

    Args:
        proto: the float graph, with names on its nodes.
        batches: the calibration images; the first batch is run, only where a constant or a Softmax gives reason to.
    """
    index = GraphIndex.of(proto.graph)
    extreme = extreme_tensors(proto, index, batches)
    shown = {value.name for value in proto.graph.input} - index.initializers.keys()
    extreme |= {
        name
        for node in proto.graph.node
        if node.op_type == "Softmax" and not extreme.isdisjoint(node.input)
        for name in node.output
    }
    kept = []
    for node in proto.graph.node:
        of_shape = node.op_type in _OF_SHAPE or shown.isdisjoint(reads(node))
        if not of_shape:
            shown.update(node.output)
        if (
            of_shape
            or not extreme.isdisjoint((*node.input, *node.output))
            or not is_removable(node, index)
            or _averages_powers(node, index)
            or _feeds_steps(node, index)
            or (node.op_type == "ConvTranspose" and attributes_of(node).get("group", 1) > 1)
        ):
            kept.append(node.name)
    return tuple(kept)


def is_removable(node: NodeProto, index: GraphIndex) -> bool:
    """Return whether the range of what comes out of a ReLU or Clip can stand for it; True for any other node."""
    if node.op_type not in ("Relu", "Clip"):
        return True
    low, high = bounds_of(node, index)
    # ONNX Runtime's writer does not look into branches and loops: these would see what came before.
    readers = index.readers.get(node.output[0], [])
    read_inside = any(node.output[0] not in reader.input for reader in readers)
    return low <= 0 <= high and node.input[0] not in index.outputs and not read_inside


def extreme_tensors(proto: ModelProto, index: GraphIndex, batches: Batches) -> set[str]:
    """Return the activations that hold infinity, or numbers beside which all others are nothing."""
    masked = [node for node in proto.graph.node if _brings_extremes(node, index)]
    if not masked:
        return set()
    names = [name for node in proto.graph.node for name in node.output if name]
    run = runner(proto, names)
    found = set()
    for feeds in islice(batches(), 1):
        for name, value in run(feeds).items():
            if value.dtype != np.float32 or not value.size:
                continue
            magnitude = np.abs(value)
            peak = float(magnitude.max())
            rest = magnitude[magnitude <= _LEAST_PEAK]
            if not np.isfinite(peak) or (rest.size and peak > max(_LEAST_PEAK, _TIMES_THE_REST * np.median(rest))):
                found.add(name)
    return found


def _brings_extremes(node: NodeProto, index: GraphIndex) -> bool:
    if node.op_type not in ("Add", "Sub", "Mul", "Where", "Pad", "Max", "Min", "Clip", "Concat"):
        return False
    values: Iterable[object] = (index.constant(name) for name in node.input if name)
    return any(
        isinstance(value, np.ndarray)
        and value.dtype == np.float32
        and value.size
        and not np.abs(value).max() <= _LEAST_PEAK
        for value in values
    )


def _averages_powers(node: NodeProto, index: GraphIndex) -> bool:
    if node.op_type not in _AVERAGES:
        return False
    makers = [index.producers.get(name) for name in node.input[:1]]
    neighbours = [*makers, *index.readers.get(node.output[0], [])]
    return any(other is not None and other.op_type == "Pow" for other in neighbours)


def _feeds_steps(node: NodeProto, index: GraphIndex) -> bool:
    return any(reader.op_type in _STEPPED for name in node.output for reader in index.readers.get(name, []))
