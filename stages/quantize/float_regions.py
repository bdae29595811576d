"""Regions that integers do not speed up: where turning numbers into integers and back costs more than it saves.

An operator without an integer kernel is an island of float: what it reads becomes floats for it, and what it makes
integers again. Around many of them (LayerNormalization and GELU in transformers, batch norm behind a ReLU) the layers
between are too small to earn that back, and the whole region is faster in float. Which, is a minimum cut: every node
is on the side of integers or of floats and costs its time there, every tensor between the sides costs its conversion,
and the cut of least total time is exact for these times (Greig et al., JRSS B 1989; Stone 1977 for programs).

The times are a rough table, the same on every machine, so that the same settings give the same file; whether the
file is faster is measured on the machine, where several are tried. They are fits to ONNX Runtime's profiles of eight
classifiers at 64 px on an AMD EPYC with VNNI, one thread.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import UsageError
from onnx_files.graph import LAYER_TYPES, GraphIndex, attributes_of
from onnx_files.shapes import with_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_NODE_NS = (2000.0, 4000.0)
"""Of any node, whatever it does, in float and in integers."""
_DENSE_NS, _DEPTHWISE_NS = (0.026, 0.010), (0.027, 0.052)
"""Of a multiplication, in float and in integers."""
_ELEMENT_NS: Mapping[str, tuple[float, float]] = {
    "Add": (0.13, 0.16),
    "Mul": (0.14, 0.23),
    "Sigmoid": (0.30, 0.24),
    "LeakyRelu": (0.13, 0.24),
    "HardSigmoid": (0.10, 0.39),
    "HardSwish": (0.20, 0.62),
    "Div": (0.20, 0.23),
    **dict.fromkeys(("PRelu", "BatchNormalization"), (0.20, 0.30)),
    "Softmax": (1.0, 3.7),
    "AveragePool": (0.1, 0.1),
    "GlobalAveragePool": (0.06, 0.03),
    "MaxPool": (0.2, 0.1),
    "Resize": (0.3, 0.1),
    "Concat": (0.2, 0.05),
    "Where": (0.3, 0.1),
    **dict.fromkeys(("Transpose", "Slice", "Split", "Gather", "Pad"), (0.4, 0.3)),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Relu", "Clip"), (0.0, 0.0)),
}
"""Of an element, in float and in integers, of the operators that have a kernel for both."""
_NODES = {"HardSigmoid": 2, "HardSwish": 3}
"""Into how many nodes `with_integer_elementwise` turns an operator, where that is not one."""
_FUSED = frozenset(("HardSigmoid", "HardSwish", "Sigmoid", "LeakyRelu", "BatchNormalization"))
"""What ONNX Runtime fuses with a convolution before it in float."""
_QUANTIZE_NS, _DEQUANTIZE_NS = 0.136, 0.086
"""Of an element."""
_FREE = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Relu", "Clip"))
"""Views, and what is fused with the layer before it."""
_ACTIVATION_NS = 0.1
"""Of an element of a ReLU or Clip by itself, in float."""
_NEVER = 1 << 40


def nodes_faster_float(proto: ModelProto, kept: Collection[str]) -> tuple[str, ...]:
    """Return the names of the nodes to leave in float, in the order of the graph.

    Args:
        proto: the float graph, with names on its nodes.
        kept: names of nodes that stay in float in any case.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    try:
        shaped = with_shapes(proto)
    except UsageError:
        return ()  # whoever quantizes says what is wrong with it
    edges = _Edges(proto, shaped, frozenset(kept))
    rows, columns, capacities = zip(*edges.all(), strict=True)
    size = edges.count
    graph = coo_array((np.array(capacities, np.int64), (rows, columns)), shape=(size, size)).tocsr()
    graph.data = np.minimum(graph.data, np.iinfo(np.int32).max // 4)
    flow = maximum_flow(graph.astype(np.int32), _INTEGERS, _FLOATS).flow
    residual = graph.astype(np.int32) - flow
    residual.data = np.maximum(residual.data, 0)
    residual.eliminate_zeros()
    in_integers = set(breadth_first_order(residual, _INTEGERS, return_predecessors=False).tolist())
    return tuple(node.name for node in proto.graph.node if edges.places[node.name] not in in_integers)


_INTEGERS, _FLOATS = 0, 1


class _Edges:
    """The network whose minimum cut is sought."""

    def __init__(self, proto: ModelProto, shaped: ModelProto, kept: Collection[str]) -> None:
        self._proto, self._kept = proto, kept
        self._index = GraphIndex.of(proto.graph)
        self._shapes = {
            value.name: [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
            for value in (*shaped.graph.value_info, *shaped.graph.input, *shaped.graph.output)
        }
        self.places = {node.name: number + 2 for number, node in enumerate(proto.graph.node)}
        self.count = len(self.places) + 2

    def all(self) -> list[tuple[int, int, int]]:
        """Return from where to where, and what the edge costs in ns when it is cut."""
        found = []
        for node in self._proto.graph.node:
            place, (in_float, in_integers) = self.places[node.name], self._nanoseconds(node)
            found += [(_INTEGERS, place, round(in_float)), (place, _FLOATS, min(round(in_integers), _NEVER))]
            maker = self._index.producers.get(node.input[0]) if node.input else None
            if node.op_type in ("Relu", "Clip") and maker is not None:  # free only where it runs with what it follows
                own = _NODE_NS[0] + _ACTIVATION_NS * self._elements(node.output[0])
                found += [(self.places[maker.name], place, round(own))]
        inputs = [value.name for value in self._proto.graph.input if value.name not in self._index.initializers]
        makers = {name: self.places[node.name] for node in self._proto.graph.node for name in node.output if name}
        for name, maker in (dict.fromkeys(inputs, _FLOATS) | makers).items():
            readers = [self.places[node.name] for node in self._index.readers.get(name, [])]
            readers += [_FLOATS] if name in self._index.outputs else []
            found += self._conversions(name, maker, readers) if readers else []
        return [edge for edge in found if edge[2] > 0]

    def _conversions(self, name: str, maker: int, readers: list[int]) -> list[tuple[int, int, int]]:
        elements = self._elements(name)
        to_float, to_integers = self.count, self.count + 1
        self.count += 2
        node = self._index.producers.get(name)
        # A linear layer in integers hands out floats at no cost.
        free = node is not None and node.op_type in ("Gemm", "MatMul")
        dequantize = 0.0 if free else _NODE_NS[0] + _DEQUANTIZE_NS * elements
        return [
            (maker, to_float, round(dequantize)),
            (to_integers, maker, round(_NODE_NS[0] + _QUANTIZE_NS * elements)),
            *((to_float, reader, _NEVER) for reader in readers),
            *((reader, to_integers, _NEVER) for reader in readers),
        ]

    def _nanoseconds(self, node: NodeProto) -> tuple[float, float]:
        """Return what a node takes in float and in integers; infinite where it cannot."""
        if node.name in self._kept or not self._has_integers(node):
            return 0.0, float(_NEVER)
        if node.op_type in _FREE:
            return 0.0, 0.0
        units, each = self._elements_of(node), _ELEMENT_NS.get(node.op_type)
        if each is None:
            units, is_depthwise = self._multiplications(node)
            each = _DEPTHWISE_NS if is_depthwise else _DENSE_NS
        in_integers = _NODES.get(node.op_type, 1) * _NODE_NS[1] + each[1] * units
        maker = self._index.producers.get(node.input[0])
        if node.op_type in _FUSED and maker is not None and maker.op_type == "Conv":
            return 0.0, in_integers
        return _NODE_NS[0] + each[0] * units, in_integers

    def _has_integers(self, node: NodeProto) -> bool:
        if node.op_type == "Div":
            return self._index.constant(node.input[1]) is not None
        return node.op_type in LAYER_TYPES or node.op_type in _ELEMENT_NS

    def _elements_of(self, node: NodeProto) -> float:
        return max(self._elements(name) for name in (*node.input, *node.output) if name)

    def _multiplications(self, node: NodeProto) -> tuple[float, bool]:
        outputs = self._elements(node.output[0])
        weight = self._index.initializers.get(node.input[1])
        if node.op_type == "Conv" and weight is not None:
            return outputs * float(np.prod(weight.dims[1:])), weight.dims[1] == 1 < weight.dims[0]
        if node.op_type == "ConvTranspose" and weight is not None:
            return self._elements(node.input[0]) * float(np.prod(weight.dims[1:])), False
        read = self._shapes.get(node.input[0]) or [1]
        return outputs * float(read[-2 if attributes_of(node).get("transA") else -1]), False

    def _elements(self, name: str) -> float:
        return float(np.prod(self._shapes.get(name, [0])))
