"""ONNX files as the quantizers read and write them: checked, named, with their metadata carried over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from onnx_files.reading import read_model

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LAYER_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose weights make a network's size and most of its work."""

_ANSWERING = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "Reshape", "Flatten", "Squeeze", "Identity", "Transpose",
                        "GlobalAveragePool", "AveragePool", "ReduceMean"))  # fmt: skip


def load(model: OnnxModel) -> ModelProto:
    """Read a float ONNX file for quantization.

    Every node gets a name of its own (quantizers address nodes by it), and what shape inference had noted is
    forgotten (quantizers rewrite weights, and a stale shape stops them).

    Raises:
        UsageError: the file is missing, is no ONNX model, or keeps weights outside its folder.
    """
    proto = read_model(model.path)
    del proto.graph.value_info[:]
    _name_nodes(proto)
    return proto


def normalisation_nodes(proto: ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes that turn pixels into a network's input: Cast, Mul, Add… on one single path."""
    names: list[str] = []
    tensor = proto.graph.input[0].name
    while True:
        readers = [node for node in proto.graph.node if tensor in node.input]
        if len(readers) != 1 or readers[0].op_type not in ("Cast", "Sub", "Mul", "Div", "Add"):
            return tuple(names)
        names.append(readers[0].name)
        tensor = readers[0].output[0]


def answer_nodes(proto: ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes between the last layer and the answers: an average over positions, a Softmax…

    In 256 steps the answers of many classes would tie, probabilities above all. A layer at the end is none of them.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    names: list[str] = []
    for value in proto.graph.output:
        node = makers.get(value.name)
        while node is not None and node.op_type in _ANSWERING:
            names.append(node.name)
            node = makers.get(node.input[0])
    return tuple(names)


def layers(proto: ModelProto, model: OnnxModel) -> list[NodeProto]:
    """Return the nodes with float weights of their own, in order.

    Raises:
        UsageError: there are none, so there is nothing to quantize, or a weight is infinite or no number.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    weights = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    found = [node for node in proto.graph.node if node.op_type in LAYER_TYPES and node.input[1] in weights]
    for name in (name for node in found for name in node.input[1:3] if name in weights):
        wrong = int(np.count_nonzero(~np.isfinite(numpy_helper.to_array(weights[name]))))
        if wrong:
            raise UsageError(
                f"{model.path}: expected finite weights, found {wrong} that are not in `{name}`. "
                "Train the network anew with a lower learning rate, or choose an earlier checkpoint."
            )
    if not found:
        raise UsageError(
            f"{model.path}: expected convolutions or linear layers with float weights, found none to quantize. "
            "Give the float export of a network."
        )
    return found


def float_layers(proto: ModelProto, of: Iterable[NodeProto]) -> list[str]:
    """Return the names of those layers whose arithmetic a quantizer has left in float.

    Args:
        proto: the quantized graph, in QDQ or QOperator form.
        of: the layers of the float graph.
    """
    makers = {output: node.op_type for node in proto.graph.node for output in node.output}
    still_float = {
        node.name
        for node in proto.graph.node
        if node.op_type in LAYER_TYPES and {makers.get(name) for name in node.input[:2]} != {"DequantizeLinear"}
    }
    return [node.name for node in of if node.name in still_float]


def _name_nodes(proto: ModelProto) -> None:
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
