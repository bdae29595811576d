"""ONNX graphs as everybody asks about them: who makes and who reads a tensor, what is a layer, what is constant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

LAYER_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose weights make a network's size and most of its work."""

_ANSWERING = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "Reshape", "Flatten", "Squeeze", "Identity", "Transpose",
                        "GlobalAveragePool", "AveragePool", "ReduceMean", "ArgMax", "TopK", "ZipMap",
                        "Cast"))  # fmt: skip


@dataclass(frozen=True)
class GraphIndex:
    """Who makes and who reads what in a graph; built once, and out of date as soon as a name or a node changes.

    Attributes:
        nodes: by their names, which `load` makes unique.
        producers: from each tensor to the node that makes it.
        readers: from each tensor to the nodes that read it, in order; also in the bodies of their branches and loops.
        initializers: by their names.
        outputs: names of the graph's outputs.
    """

    nodes: Mapping[str, NodeProto]
    producers: Mapping[str, NodeProto]
    readers: Mapping[str, list[NodeProto]]
    initializers: Mapping[str, TensorProto]
    outputs: frozenset[str]

    @classmethod
    def of(cls, graph: GraphProto) -> GraphIndex:
        """Return the index of a graph as it is now."""
        readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(reads(node)):
                readers.setdefault(name, []).append(node)
        return cls(
            {node.name: node for node in graph.node},
            {name: node for node in graph.node for name in node.output if name},
            readers,
            {tensor.name: tensor for tensor in graph.initializer},
            frozenset(value.name for value in graph.output),
        )

    def only_reader(self, name: str) -> NodeProto | None:
        """Return the node that alone sees a tensor; None where none does, several do, or it is an output."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the content of an initializer or of a Constant node, None where a tensor is neither."""
        from onnx import numpy_helper

        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])  # type: ignore[no-any-return]
        node = self.producers.get(name)
        return None if node is None or node.op_type != "Constant" else content_of(node)


def bounds_of(node: NodeProto, index: GraphIndex) -> tuple[float, float]:
    """Return the lowest and the highest value that a node lets through.

    Args:
        node: a ReLU or Clip; any other lets everything through.
        index: of its graph. What that computes a bound from counts as infinite.
    """
    bounds = {"min": -float("inf"), "max": float("inf")}
    if node.op_type == "Relu":
        bounds["min"] = 0.0
    elif node.op_type == "Clip":
        bounds |= attributes_of(node)  # before opset 11
        for key, name in zip(bounds, node.input[1:], strict=False):
            given = index.constant(name)
            bounds[key] = bounds[key] if given is None else float(given.item())
    return bounds["min"], bounds["max"]


def reads(node: NodeProto) -> list[str]:
    """Return the names of all tensors that a node reads, those in the bodies of its branches and loops included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
            names += [name for inner in graph.node for name in reads(inner)]
            names += [output.name for output in graph.output]
    return names


def rename_tensors(graph: GraphProto, renamed: Callable[[str], str]) -> None:
    """Give tensors other names, in place, in the bodies of branches and loops too.

    Args:
        graph: the graph.
        renamed: from a name to the new one, or to itself.
    """
    for node in graph.node:
        for names in (node.input, node.output):
            if any(name and renamed(name) != name for name in names):
                names[:] = [renamed(name) if name else name for name in names]
        for attribute in node.attribute:
            for body in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                rename_tensors(body, renamed)
    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        if value.name and renamed(value.name) != value.name:
            value.name = renamed(value.name)


def forget_shapes(graph: GraphProto) -> None:
    """Drop what is noted of tensors and can be inferred anew, in place: all but what another domain's nodes make."""
    made = {name for node in graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    kept = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def content_of(constant: NodeProto) -> NDArray[Any] | None:
    """Return the content of a Constant node; None where it holds texts or a sparse tensor."""
    import numpy as np
    from onnx import numpy_helper

    ((name, value),) = attributes_of(constant).items()
    if name == "value":
        return numpy_helper.to_array(value)  # type: ignore[no-any-return]
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.array(value, dtype=types[name]) if name in types else None


def opset_of(model: ModelProto) -> int:
    """Return the version of ai.onnx that a model is written in, 0 where it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def without_functions(model: ModelProto) -> ModelProto:
    """Return a model without functions of its own; the model itself where it has none."""
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model) if model.functions else model


def normalisation_nodes(proto: ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes that turn pixels into a network's input: Cast, Mul, Add… on one single path."""
    index = GraphIndex.of(proto.graph)
    names: list[str] = []
    node = index.only_reader(proto.graph.input[0].name)
    while node is not None and node.op_type in ("Cast", "Sub", "Mul", "Div", "Add"):
        names.append(node.name)
        node = index.only_reader(node.output[0])
    return tuple(names)


def answer_nodes(proto: ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes between the last layer and the answers: an average over positions, a Softmax…

    In 256 steps the answers of many classes would tie, probabilities above all. A layer at the end is none of them.
    """
    producers = GraphIndex.of(proto.graph).producers
    names: list[str] = []
    for value in proto.graph.output:
        node = producers.get(value.name)
        while node is not None and node.op_type in _ANSWERING:
            names.append(node.name)
            node = producers.get(node.input[0])
    return tuple(names)


def layers(proto: ModelProto, model: OnnxModel) -> list[NodeProto]:
    """Return the nodes with float weights of their own, in order.

    Raises:
        UsageError: there are none, so there is nothing to quantize, or a weight is infinite or no number.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    initializers = GraphIndex.of(proto.graph).initializers
    weights = {name: tensor for name, tensor in initializers.items() if tensor.data_type == TensorProto.FLOAT}
    found = [node for node in proto.graph.node if node.op_type in LAYER_TYPES and node.input[1] in weights]
    for name in (name for node in found for name in node.input[1:3] if name in weights):
        wrong = int(np.count_nonzero(~np.isfinite(numpy_helper.to_array(weights[name]))))
        if wrong:
            raise UsageError(
                f"{model.path}: expected finite weights, found {wrong} that are not in `{name}`. "
                "Train the network anew with a lower learning rate, or choose an earlier checkpoint."
            )
    if not found:
        left = [node for node in proto.graph.node if node.op_type == "MatMul" and node.input[0] in weights]
        seen = f"only MatMul with the weight on its left (`{left[0].name}`)" if left else "none to quantize"
        raise UsageError(
            f"{model.path}: expected convolutions or linear layers with float weights, found {seen}. "
            + ("Export them as linear layers." if left else "Give the float export of a network.")
        )
    return found


def float_layers(proto: ModelProto, of: Iterable[NodeProto]) -> list[str]:
    """Return the names of those layers whose arithmetic a quantizer has left in float.

    Args:
        proto: the quantized graph, in QDQ or QOperator form.
        of: the layers of the float graph.
    """
    producers = GraphIndex.of(proto.graph).producers

    def is_float(node: NodeProto) -> bool:
        makers = [producers.get(name) for name in node.input[:2]]
        return any(maker is None or maker.op_type != "DequantizeLinear" for maker in makers)

    still_float = {node.name for node in proto.graph.node if node.op_type in LAYER_TYPES and is_float(node)}
    return [node.name for node in of if node.name in still_float]
