"""A graph written anew, node by node: what every rewrite of single operators shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from onnx_files.graph import GraphIndex
from onnx_files.shapes import with_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, TypeProto

Rewritten = tuple[list["NodeProto"], list["TensorProto"]]
"""Nodes that take a node's place, and their constants."""
Types = Mapping[str, "TypeProto.Tensor"]
"""Type and shape of the tensors that are known."""


def node_by_node(
    proto: ModelProto, operators: Collection[str], rewrite: Callable[[NodeProto, GraphIndex, Types], Rewritten | None]
) -> ModelProto:
    """Return the graph with what a rewrite makes of the nodes of some operators.

    Args:
        proto: the float graph; left as it is.
        operators: whose nodes are asked about.
        rewrite: what takes a node's place; None where it stays.
    """
    import onnx

    if all(node.op_type not in operators for node in proto.graph.node):
        return proto
    try:
        graph = with_shapes(proto).graph
    except UsageError:
        return proto  # `observed_tensors` says what is wrong with it
    types = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.input)}
    index = GraphIndex.of(proto.graph)
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    del model.graph.node[:]
    for node in proto.graph.node:
        found = rewrite(node, index, types) if node.op_type in operators else None
        nodes, constants = found or ([node], [])
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(constants)
    return model
