"""Nodes that ONNX Runtime's optimizer makes something wrong of between integers, fenced off from it.

Integer convolutions run channels last, so the optimizer moves a Transpose through what lies between them. Through a
Pad or Resize of named axes it moves one wrongly, and a cubic Resize has no kernel for that order: the file does not
load, or fails on every image. It moves none through a Reshape, even one that changes nothing. A dilated AveragePool
becomes an integer pool that knows no dilations, unless something else stands between it and the integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_files.graph import GraphIndex, attributes_of
from stages.quantize.rewrites.node_by_node import Rewritten, Types, node_by_node

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FENCE = "/fence"
"""In the names of the nodes that stand around."""


def with_fences(proto: ModelProto) -> ModelProto:
    """Return the graph with fences around such nodes; all that is computed stays the same to the last bit.

    Args:
        proto: the float graph; left as it is.
    """
    return node_by_node(proto, ("Pad", "Resize", "AveragePool"), _fenced)


def _fenced(node: NodeProto, index: GraphIndex, types: Types) -> Rewritten | None:
    import numpy as np
    from onnx import helper, numpy_helper

    if node.input[0] not in types or FENCE in node.input[0]:
        return None
    if node.op_type == "AveragePool":
        if set(attributes_of(node).get("dilations", [1])) == {1}:
            return None
        fence, more, constants = "Neg", [], []
    else:
        rank = len(types[node.input[0]].shape.dim)
        if not rank or not _is_moved_wrongly(node):
            return None
        name = f"{node.output[0]}{FENCE}/shape"
        fence, more = "Reshape", [name]
        constants = [numpy_helper.from_array(np.zeros(rank, np.int64), name)]
    before, behind = f"{node.output[0]}{FENCE}/before", f"{node.output[0]}{FENCE}/behind"
    inner = helper.make_node(node.op_type, [before, *node.input[1:]], [behind], node.name)
    inner.attribute.extend(node.attribute)
    return [
        helper.make_node(fence, [node.input[0], *more], [before], f"{node.name}{FENCE}/before"),
        inner,
        helper.make_node(fence, [behind, *more], [node.output[0]], f"{node.name}{FENCE}/behind"),
    ], constants


def _is_moved_wrongly(node: NodeProto) -> bool:
    given = attributes_of(node)
    if node.op_type == "Pad":
        return len(node.input) > 3
    return given.get("mode", b"nearest") == b"cubic" or "axes" in given or bool(given.get("antialias", 0))
