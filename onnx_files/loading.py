"""An ONNX file as everybody works on it: without functions, its nodes named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from onnx_files.graph import forget_shapes, without_functions
from onnx_files.reading import read_model

if TYPE_CHECKING:
    from onnx import ModelProto


def load(model: OnnxModel) -> ModelProto:
    """Read a float ONNX file for quantization.

    Functions of its own are inlined (quantizers do not look into them), every node gets a name of its own (they
    address nodes by it), and what shape inference had noted is forgotten (they rewrite weights, and a stale shape
    stops them).

    Raises:
        UsageError: the file is missing, is no ONNX model, or keeps weights outside its folder.
    """
    proto = without_functions(read_model(model.path))
    forget_shapes(proto.graph)
    name_nodes(proto)
    return proto


def name_nodes(proto: ModelProto) -> None:
    """Give every node a name of its own, in place; names that are unique already stay."""
    taken = {node.name for node in proto.graph.node}
    seen: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)
