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

from onnx_files.graph import LAYER_TYPES, GraphIndex, attributes_of, bounds_of, reads
from onnx_files.probes import Batches, runner
from stages.quantize.rewrites.fences import FENCE

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_OF_SHAPE = frozenset(("Shape", "Size"))
_AVERAGES = frozenset(("GlobalAveragePool", "AveragePool", "ReduceMean", "ReduceSum", "GlobalLpPool", "LpPool"))
_HANDING_ON = _AVERAGES | {
    "Add",
    "Sub",
    "Mul",
    "Sum",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Expand",
}
_MADE_FOR_A_QUOTIENT = _AVERAGES | {"Add", "Mul", "Sub", "Softmax", "Sigmoid", "MatMul", "Where", "Concat"}
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
    kept, exponential = [], _exponentials(proto)
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
            or _is_by_vector(node, index)
            or any(FENCE in name for name in (node.name, *node.input[:1]))
            or _is_in_quotient(node, index)
            or (node.op_type not in LAYER_TYPES and not exponential.isdisjoint(node.input))
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
    from onnx import numpy_helper

    if node.op_type in (*LAYER_TYPES, "BatchNormalization"):
        return False
    values: Iterable[object] = (index.constant(name) for name in node.input if name)
    if node.op_type == "ConstantOfShape":
        values = [numpy_helper.to_array(value) for value in attributes_of(node).values()]
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


def _exponentials(proto: ModelProto) -> set[str]:
    """Return powers of e and their sums and products: small ones count as much as large ones in the end.

    A logarithm or a quotient, with which softened maxima and Mish end, brings them back to one range.
    """
    found: set[str] = set()
    for node in proto.graph.node:
        if node.op_type == "Exp" or (node.op_type in _HANDING_ON and not found.isdisjoint(node.input)):
            found.update(node.output)
    return found


def _is_in_quotient(node: NodeProto, index: GraphIndex) -> bool:
    """Return whether what a node makes goes into a quotient, a logarithm or a reciprocal, all steep near 0."""
    if node.op_type not in _MADE_FOR_A_QUOTIENT or (node.op_type == "MatMul" and _has_weight(node, index)):
        return False
    for reader in (reader for name in node.output for reader in index.readers.get(name, [])):
        if reader.op_type in ("Log", "Reciprocal"):
            return True
        if reader.op_type == "Div" and index.constant(reader.input[1]) is None:
            return True
        # Probabilities of which a mask leaves some, to be divided by their sum again.
        if node.op_type == "Softmax" and reader.op_type in ("Mul", "Where") and _is_in_quotient(reader, index):
            return True
    return False


def _has_weight(node: NodeProto, index: GraphIndex) -> bool:
    return any(index.constant(name) is not None for name in node.input)


def _is_by_vector(node: NodeProto, index: GraphIndex) -> bool:
    # A product with one vector has no output channels to give scales to, and hardly any weights.
    weight = index.initializers.get(node.input[1]) if node.op_type == "MatMul" else None
    return weight is not None and len(weight.dims) < 2


def _feeds_steps(node: NodeProto, index: GraphIndex) -> bool:
    return any(reader.op_type in _STEPPED for name in node.output for reader in index.readers.get(name, []))
