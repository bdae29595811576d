"""Values of the forward half, for the rules to read without changing how ONNX Runtime runs it.

Where a reader more would keep the runtime from fusing a node into an integer operator, or from computing float16 in
float32, the logits would be others than the file's. Such values are computed a second time, in nodes that the runtime
neither fuses nor merges with the file's own.

One value may need another, and so on to the image: each function here is a generator that yields the name of a tensor
whose value it needs and is sent the name of that value, so that a network may be deeper than Python's stack
(`Backward.value` runs them).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from onnx_files.graph import attributes_of, rename_tensors
from stages.saliency_twin.forward_graph import KEEP_THE_GRID, ForwardGraph, inputs_of

Found = TypeVar("Found")
Computed = Generator[str, str, Found]
"""Yields the name of a forward tensor, is sent the name of its value; returns what is computed of them."""

FLOATS_TO_CAST = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_ONE_VALUE = ((), (1,))


class _Growing(Protocol):
    """What is asked of the backward half, to which the nodes are appended; `Backward` is one."""

    @property
    def forward(self) -> ForwardGraph:
        """The graph whose values are computed."""

    def op(self, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None) -> str:
        """Append a node with one output and return the output's name."""

    def outputs(
        self, op_type: str, inputs: Sequence[str], count: int, attributes: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Append a node with several outputs and return their names."""

    def note_value(self, name: str, value: str) -> None:
        """Remember the name of a forward tensor's value."""

    def scalar(self, value: float) -> str:
        """Return the name of a constant number."""

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a constant vector of integers."""


def value_of(graph: _Growing, name: str) -> Computed[str]:
    """Compute the name of a forward tensor's value, float32 if it is real, appending nodes if need be."""
    producer = graph.forward.index.producers.get(name)
    if producer is not None and producer.op_type == "DequantizeLinear":
        return (yield from _dequantized(graph, producer))
    if producer is None or name not in graph.forward.hidden:
        return _as_float(graph, name) if graph.forward.types.get(name) in FLOATS_TO_CAST else name
    exact = yield from _in_integers(graph, producer)
    if exact is not None:
        return exact
    inputs = yield from _values(producer.input)
    attributes = attributes_of(producer)
    if producer.op_type == "If":
        attributes = yield from _branches(graph, producer)
    elif producer.op_type == "Cast" and attributes["to"] in FLOATS_TO_CAST:
        attributes["to"] = TensorProto.FLOAT
    if len(producer.output) == 1:
        return graph.op(producer.op_type, inputs, attributes)
    values = graph.outputs(producer.op_type, inputs, len(producer.output), attributes)
    for output, value in zip(producer.output, values, strict=True):
        graph.note_value(output, value)
    return values[list(producer.output).index(name)]


def _branches(graph: _Growing, node: NodeProto) -> Computed[dict[str, GraphProto]]:
    # The bodies with the values of what they take from around them.
    values: dict[str, str] = {}
    for captured in inputs_of(node)[len(node.input) :]:
        values[captured] = yield captured
    found = {}
    for attribute in node.attribute:
        body = GraphProto()
        body.CopyFrom(attribute.g)
        rename_tensors(body, lambda read: values.get(read, read))
        found[attribute.name] = body
    return found


def _values(names: Iterable[str]) -> Computed[list[str]]:
    values = []
    for name in names:
        values.append((yield name) if name else "")  # noqa: PERF401 - a comprehension cannot yield
    return values


def _as_float(graph: _Growing, name: str) -> str:
    # ONNX Runtime computes float16 in float32 where all neighbours of a node do. A Cast would count as one that does
    # not, and the node before it would round: other logits. A Sum, which has no float16 kernel on CPUs, is such a
    # neighbour.
    same = graph.op("Sum", [name]) if name in graph.forward.varying else name
    return graph.op("Cast", [same], {"to": TensorProto.FLOAT})


def _dequantized(graph: _Growing, node: NodeProto) -> Computed[str]:
    scale = yield node.input[1]
    if node.input[0] not in graph.forward.varying:
        counts = yield from _constant_counts(graph, node)
        return graph.op("Mul", [counts, _along(graph, scale, node.input[1], node)])
    rounded = yield from _rounded_anew(graph, node)
    if rounded is not None:
        return graph.op("Mul", [rounded, scale])
    # The axis says nothing about one single scale. It keeps ONNX Runtime from merging this node with the file's own,
    # whose readers decide what runs in integers.
    return graph.op("DequantizeLinear", [node.input[0], scale, *node.input[2:]], {"axis": 0})


def _constant_counts(graph: _Growing, node: NodeProto) -> Computed[str]:
    """Compute q − z of a DequantizeLinear with constant q, float32; ONNX Runtime computes it once, at load."""
    counts = graph.op("Cast", [(yield node.input[0])], {"to": TensorProto.FLOAT})
    if len(node.input) < 3 or not node.input[2]:
        return counts
    zero = graph.op("Cast", [node.input[2]], {"to": TensorProto.FLOAT})
    return graph.op("Sub", [counts, _along(graph, zero, node.input[2], node)])


def _along(graph: _Growing, vector: str, original: str, node: NodeProto) -> str:
    # A scale or zero point per channel, shaped so that it broadcasts along its axis.
    shape, rank = graph.forward.shape(original), len(graph.forward.shape(node.input[0]))
    if len(shape) == rank > 1 and attributes_of(node).get("block_size", 0):
        return _of_blocks(graph, vector, node)
    if len(shape) != 1 or shape == (1,) or rank == 1:
        return vector
    axis = attributes_of(node).get("axis", 1) % rank
    return graph.op("Reshape", [vector, graph.integers([-1 if a == axis else 1 for a in range(rank)])])


def _of_blocks(graph: _Growing, vector: str, node: NodeProto) -> str:
    # A scale or zero point per block of values along an axis, repeated; the last block may be cut short.
    attributes, sizes = attributes_of(node), graph.forward.shape(node.input[0])
    axis, block = attributes.get("axis", 1) % len(sizes), attributes["block_size"]
    apart = graph.op("Unsqueeze", [vector, graph.integers([axis + 1])])
    ones = [1] * len(sizes)
    wider = graph.op("Expand", [apart, graph.integers([*ones[: axis + 1], block, *ones[axis + 1 :]])])
    flat = graph.op(
        "Reshape",
        [
            wider,
            graph.integers(
                [-1 if a == axis else 0 for a in range(axis + 1)]
                + [graph.forward.size(node.input[0], a) for a in range(axis + 1, len(sizes))]
            ),
        ],
    )
    end = graph.forward.size(node.input[0], axis)
    return graph.op("Slice", [flat, *(graph.integers([value]) for value in (0, end, axis))])


def _rounded_anew(graph: _Growing, node: NodeProto) -> Computed[str | None]:
    """Compute q − z of an int8 activation, rounded once more, or None where the file's own q may be read.

    On x86 ONNX Runtime turns int8 activations into uint8, but only those with one reader.
    """
    quantizer = graph.forward.index.producers.get(node.input[0])
    if quantizer is None or quantizer.op_type != "QuantizeLinear" or quantizer.input[0] in graph.forward.virtual:
        return None
    if graph.forward.types.get(node.input[0]) != TensorProto.INT8:
        return None
    given = graph.forward.constant(quantizer.input[2]) if len(quantizer.input) > 2 else np.zeros(1)
    if given is None or given.size != 1:
        return None
    zero = int(given.reshape(()))
    real = yield quantizer.input[0]
    steps = graph.op("Div", [real, (yield quantizer.input[1])])
    bounds = [graph.scalar(-128 - zero), graph.scalar(127 - zero)]
    return graph.op("Clip", [graph.op("Round", [steps]), *bounds])


def _in_integers(graph: _Growing, node: NodeProto) -> Computed[str | None]:
    """Compute a layer between integers as s_x·s_w·(conv(q_x − z_x, q_w − z_w) + q_b), or None for another.

    The sum is exact in float32 up to 2^24, like the integer kernel's, so that a value on a bound of the clip behind
    it (0, often) lies on that bound and not beside it.
    """
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    on_grid, w = _on_grid(graph, node.input[0]), _dequantizer(graph, node.input[1])
    attributes = attributes_of(node)
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
    if not on_grid or w is None or not plain or w.input[0] in graph.forward.varying:
        return None
    x = on_grid[0]
    if graph.forward.shape(x.input[1]) not in _ONE_VALUE:
        return None
    counts = yield from _in_steps(graph, on_grid)
    inputs = [counts, (yield from _constant_counts(graph, w))]
    x_scale = yield x.input[1]
    step = graph.op("Mul", [x_scale, (yield w.input[1])])
    if len(node.input) > 2 and node.input[2]:
        bias = _dequantizer(graph, node.input[2])
        if bias is None:
            inputs.append(graph.op("Div", [(yield node.input[2]), step]))
        else:
            inputs.append(graph.op("Cast", [bias.input[0]], {"to": TensorProto.FLOAT}))
    if graph.forward.shape(w.input[1]) not in _ONE_VALUE and node.op_type == "Conv":
        spatial = len(graph.forward.shape(w.input[0])) - 2
        step = graph.op("Reshape", [step, graph.integers([-1, *[1] * spatial])])
    # Divided, because ONNX Runtime moves a product behind a convolution into its weights: no integers any more.
    return graph.op("Div", [graph.op(node.op_type, inputs, attributes), graph.op("Reciprocal", [step])])


def _on_grid(graph: _Growing, name: str) -> list[NodeProto]:
    """Return the DequantizeLinear on whose grid every value of a tensor lies and the nodes behind it; [] for none."""
    nodes: list[NodeProto] = []
    producer = graph.forward.index.producers.get(name)
    while producer is not None and producer.op_type in KEEP_THE_GRID and producer.op_type != "Concat":
        nodes.append(producer)
        producer = graph.forward.index.producers.get(producer.input[0])
    if producer is None or producer.op_type != "DequantizeLinear":
        return []
    return [producer, *reversed(nodes)]


def _in_steps(graph: _Growing, nodes: list[NodeProto]) -> Computed[str]:
    # Values on a grid, counted in its steps: whole numbers.
    first, *behind = nodes
    rounded = yield from _rounded_anew(graph, first)
    counts = rounded or graph.op("DequantizeLinear", [first.input[0], graph.scalar(1), *first.input[2:]])
    for node in behind:
        others = yield from _values(node.input[1:])
        counts = graph.op(node.op_type, [counts, *others], attributes_of(node))
    return counts


def _dequantizer(graph: _Growing, name: str) -> NodeProto | None:
    node = graph.forward.index.producers.get(name)
    return node if node is not None and node.op_type == "DequantizeLinear" else None
