"""The nodes that stand for another one, under construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import NodeProto, TensorProto, helper


class Parts:
    """Collects nodes whose tensors are called after the first output of the node that they stand for."""

    def __init__(self, node: NodeProto) -> None:
        self.node = node
        self.nodes: list[NodeProto] = []
        self.prefix = next(name for name in node.output if name)

    def op(self, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None) -> str:
        """Append a node with one output and return the output's name."""
        return self.outputs(op_type, inputs, 1, attributes)[0]

    def outputs(
        self, op_type: str, inputs: Sequence[str], count: int, attributes: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        names = [f"{self.prefix}/part/{len(self.nodes)}/{number}" for number in range(count)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=self.node.name, **(attributes or {})))
        return names

    def real(self, value: float) -> str:
        """Return the name of a float32 scalar."""
        return self.op("Constant", [], {"value_float": float(value)})

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of an int64 vector."""
        content = helper.make_tensor("content", TensorProto.INT64, [len(values)], list(values))
        return self.op("Constant", [], {"value": content})

    def integer(self, value: int) -> str:
        """Return the name of an int64 scalar."""
        return self.op("Constant", [], {"value_int": int(value)})

    def split(self, name: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Return the names of a tensor's parts along an axis."""
        return self.outputs("Split", [name, self.integers(sizes)], len(sizes), {"axis": axis})

    def finished(
        self, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None
    ) -> list[NodeProto]:
        """Return the nodes with a last one, whose output is the first of the node that they stand for."""
        name = self.node.name
        self.nodes.append(helper.make_node(op_type, list(inputs), [self.prefix], name=name, **(attributes or {})))
        return self.nodes

    def done(self, outputs: Mapping[int, str]) -> list[NodeProto]:
        """Return the nodes, the outputs of the node that they stand for named as its own.

        Args:
            outputs: from an output's position to the tensor that holds it. Those that the node leaves out are not
                written.
        """
        for position, name in outputs.items():
            if position < len(self.node.output) and self.node.output[position]:
                own = self.node.output[position]
                self.nodes.append(helper.make_node("Identity", [name], [own], name=self.node.name))
        return self.nodes


def input_of(node: NodeProto, position: int) -> str:
    """Return the name of an input, empty where it is left out."""
    return str(node.input[position]) if position < len(node.input) else ""
