"""The bodies of branches and loops as plain nodes, under names of their own."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, NodeProto, helper

from onnx_files.graph import rename_tensors
from stages.saliency_twin.decompositions import decompose


def body_nodes(body: GraphProto, prefix: str, inputs: Mapping[str, str]) -> tuple[list[NodeProto], list[str]]:
    """Return a body's nodes, fused ones replaced by what they stand for, and the names of its outputs.

    Args:
        body: of a branch or a loop; it is not changed.
        prefix: of the names of the tensors that it makes.
        inputs: from each of the body's inputs to the tensor that it stands for. What the body reads besides is taken
            from around it.
    """
    made = {tensor.name for tensor in body.initializer}
    made.update(name for node in body.node for name in node.output if name)
    copy = GraphProto()
    copy.CopyFrom(body)
    rename_tensors(copy, lambda name: inputs.get(name, f"{prefix}/{name}" if name in made else name))
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor, name=tensor.name) for tensor in copy.initializer
    ]
    nodes = [part for node in copy.node for part in decompose(node)]
    return [*constants, *nodes], [value.name for value in copy.output]
