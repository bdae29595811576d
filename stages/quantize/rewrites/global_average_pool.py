"""A mean over all positions, written as the operator that ONNX Runtime computes in integers.

PyTorch's exporter writes global average pooling as ReduceMean, for which the runtime has no integer kernel: it turns
the last and widest activations into floats for it, and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_files.graph import GraphIndex, attributes_of
from stages.quantize.rewrites.node_by_node import Rewritten, Types, node_by_node

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def with_global_average_pool(proto: ModelProto) -> ModelProto:
    """Return the graph with GlobalAveragePool where a ReduceMean takes the mean over height and width.

    Such a node keeps its name and its output; where it drops the two axes, a Flatten follows. Others stay.

    Args:
        proto: the float graph; left as it is.
    """
    return node_by_node(proto, ("ReduceMean",), _as_pooling)


def _is_over_positions(node: NodeProto, index: GraphIndex, types: Types) -> bool:
    from onnx import TensorProto

    if node.input[0] not in types:
        return False
    read = types[node.input[0]]
    if read.elem_type != TensorProto.FLOAT or len(read.shape.dim) != 4:
        return False
    given = index.constant(node.input[1]) if len(node.input) > 1 else None
    axes = attributes_of(node).get("axes", []) if given is None else given.tolist()  # an attribute before opset 18
    return {axis % 4 for axis in axes} == {2, 3}


def _as_pooling(node: NodeProto, index: GraphIndex, types: Types) -> Rewritten | None:
    from onnx import helper

    if not _is_over_positions(node, index, types):
        return None
    output = node.output[0]
    if attributes_of(node).get("keepdims", 1):
        return [helper.make_node("GlobalAveragePool", node.input[:1], [output], node.name)], []
    pooled = f"{output}/pooled"
    nodes = [
        helper.make_node("GlobalAveragePool", node.input[:1], [pooled], node.name),
        helper.make_node("Flatten", [pooled], [output], f"{node.name}/flatten"),
    ]
    return nodes, []
