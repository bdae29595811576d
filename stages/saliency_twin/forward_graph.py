"""What the source's graph says of its tensors: who makes them, their shapes, and which of them carry a gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from foundation.errors import UsageError
from stages.saliency_twin.decompositions import decompose, operator_key

Dimension = int | str | None
"""A number, the name of a dynamic dimension, or nothing known."""

INTEGER_TYPES = frozenset((
    TensorProto.UINT4, TensorProto.INT4, TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16,
    TensorProto.INT16, TensorProto.UINT32, TensorProto.INT32, TensorProto.UINT64, TensorProto.INT64,
    TensorProto.BOOL,
))  # fmt: skip
_WITHOUT_DERIVATIVE = frozenset((
    "Shape", "Size", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not",
    "And", "Or", "Xor", "Sign", "Floor", "Ceil", "Round", "IsNaN", "IsInf", "NonZero", "OneHot",
    "ConstantOfShape", "Range", "EyeLike", "BitShift", "BitwiseAnd",
))  # fmt: skip
"""Their derivative is zero wherever there is one."""
_FOLLOWED_BY_QUANTIZER = frozenset(("Relu", "Clip", "LeakyRelu"))
"""What ONNX Runtime takes into an integer operator along with the quantizer behind it."""

_ON_PIXELS = frozenset(("Cast", "Add", "Sub", "Mul", "Div", "Identity", "Transpose", "Min", "Max", "Clip"))
"""What stands between an image and its quantizer."""
KEEP_THE_GRID = frozenset((
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Slice", "Split", "Concat",
    "MaxPool", "GlobalMaxPool", "Relu",
))  # fmt: skip
"""Their values are values of their inputs, or 0."""


@dataclass(frozen=True)
class ForwardGraph:
    """The graph that is differentiated.

    Attributes:
        nodes: in order, fused ones replaced by what they stand for.
        virtual: tensors of the decomposed nodes, which the file does not hold.
        types: ONNX element type of each tensor that is known.
        shapes: of each tensor that is known.
        initializers: the file's constants by name.
        image: name of the input.
        logits: name of the tensor that is explained.
        opset: of ai.onnx.
    """

    nodes: tuple[NodeProto, ...]
    virtual: frozenset[str]
    types: dict[str, int]
    shapes: dict[str, tuple[Dimension, ...]]
    initializers: dict[str, TensorProto]
    image: str
    logits: str
    opset: int

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """From each tensor's name to the node that makes it."""
        return {output: node for node in self.nodes for output in node.output if output}

    @cached_property
    def readers(self) -> dict[str, list[NodeProto]]:
        """From each tensor's name to the nodes that read it."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in reads(node):
                readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def varying(self) -> frozenset[str]:
        """Tensors that depend on an input of the model; every other one is a constant."""
        made = {name for node in self.nodes for name in node.output}
        varying: set[str] = set()
        for node in self.nodes:
            outside = any(name and name not in made and name not in self.initializers for name in reads(node))
            if outside or not varying.isdisjoint(reads(node)):
                varying.update(node.output)
        return frozenset(varying | {self.image})

    @cached_property
    def active(self) -> frozenset[str]:
        """Tensors that carry a gradient: they depend on the image, and the logits on them, through real values."""
        from_image = {self.image}
        for node in self.nodes:
            if not from_image.isdisjoint(reads(node)):
                from_image.update(self._differentiable_outputs(node))
        active = {self.logits} & from_image
        for node in reversed(self.nodes):
            if not active.isdisjoint(node.output):
                active.update(from_image.intersection(reads(node)))
        return frozenset(active)

    def _differentiable_outputs(self, node: NodeProto) -> list[str]:
        if node.op_type in _WITHOUT_DERIVATIVE:
            return []
        if node.op_type == "Cast" and self.types.get(node.input[0]) not in INTEGER_TYPES:
            return [name for name in node.output if self.types.get(name) not in INTEGER_TYPES]
        # Scales, masks and indices come behind; a scale that follows the image counts as a constant.
        return list(node.output) if node.op_type == "Split" else list(node.output[:1])

    def shape(self, name: str) -> tuple[Dimension, ...]:
        """Return a tensor's shape.

        Raises:
            UsageError: not even its rank can be inferred.
        """
        if name not in self.shapes:
            raise UsageError(
                f"expected a tensor whose shape can be inferred, found `{name}`{self._made_by(name)}. Export the "
                "model with fixed image sizes, or save it with inferred shapes."
            )
        return self.shapes[name]

    def size(self, name: str, axis: int) -> int:
        """Return the length of one axis.

        Raises:
            UsageError: it is dynamic.
        """
        found = self.shape(name)[axis]
        if not isinstance(found, int):
            raise UsageError(
                f"expected axis {axis} of `{name}`{self._made_by(name)} to have a fixed length, found {found!r}. "
                "Export the model with fixed image sizes; only the batch may be dynamic."
            )
        return found

    def _made_by(self, name: str) -> str:
        node = self.producers.get(name)
        return "" if node is None else f" (output of {node.op_type} `{node.name}`)"

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the content of a small constant, or None where the tensor is no constant that stands in the file."""
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])  # type: ignore[no-any-return]
        node = self.producers.get(name)
        if node is None or name in self.varying:
            return None
        if node.op_type == "Constant":
            return _content(node)
        if node.op_type in ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Concat", "Neg", "Mul"):
            inputs = [self.constant(read) for read in node.input]
            if all(value is not None for value in inputs):
                return _evaluated(node, [value for value in inputs if value is not None], self.opset)
        return None

    def hidden(self, name: str) -> bool:
        """Return whether a rule must not read this tensor itself, but compute it anew.

        It does not exist in the file, or it stands in front of a quantizer, and a reader more would keep ONNX Runtime
        from running the node before it in integers: the logits would be others.
        """
        if name in self.virtual:
            return True
        if self.types.get(name) in INTEGER_TYPES or name not in self.producers:
            return False
        readers = self.readers.get(name, [])
        return any(
            node.op_type == "QuantizeLinear"
            or (node.op_type in _FOLLOWED_BY_QUANTIZER and node.input[0] == name and self.hidden(node.output[0]))
            for node in readers
        )

    def slack(self, name: str) -> float:
        """Return by how much a value of this tensor may leave a quantizer's range and still count as inside.

        0 but on the image itself, which fills its range up to both ends by construction, and whose zero point's
        rounding moves that range by up to half a step: there, one step.

        Args:
            name: what a QuantizeLinear reads.
        """
        steps = [
            self.constant(node.input[1]) for node in self.readers.get(name, []) if node.op_type == "QuantizeLinear"
        ]
        if not steps or not self._is_pixels(name) or any(step is None or step.size != 1 for step in steps):
            return 0.0
        return max(float(step.reshape(())) for step in steps if step is not None)

    def _is_pixels(self, name: str) -> bool:
        """Return whether a tensor is the image, cast, shifted, scaled and bounded, and nothing more."""
        while name != self.image:
            node = self.producers.get(name)
            if node is None or node.op_type not in _ON_PIXELS:
                return False
            varying = [read for read in node.input if read in self.varying]
            if len(varying) != 1:
                return False
            name = varying[0]
        return True


def reads(node: NodeProto) -> list[str]:
    """Return the names of all tensors that a node reads, those in the bodies of its branches and loops included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
            names += [name for inner in graph.node for name in reads(inner)]
            names += [output.name for output in graph.output]
    return names


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def read_graph(model: ModelProto, image: str, logits: str) -> ForwardGraph:
    """Return what differentiation has to know of a checked model.

    Args:
        model: opset 13 or more.
        image: name of the input.
        logits: name of the tensor to explain.
    """
    nodes: list[NodeProto] = []
    virtual: set[str] = set()
    for node in model.graph.node:
        parts = decompose(node)
        nodes += parts
        virtual.update(name for part in parts for name in part.output if name not in node.output)
    inferred = _inferred(model, nodes)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred}
    shapes = {
        value.name: tuple(_dimension(d) for d in value.type.tensor_type.shape.dim)
        for value in inferred
        if value.type.tensor_type.HasField("shape")
    }
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    types |= {name: tensor.data_type for name, tensor in initializers.items()}
    shapes |= {name: tuple(tensor.dims) for name, tensor in initializers.items()}
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return ForwardGraph(tuple(nodes), frozenset(virtual), types, shapes, initializers, image, logits, opset)


def _inferred(model: ModelProto, nodes: Iterable[NodeProto]) -> list[Any]:
    plain = ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:]
    plain.graph.node.extend(nodes)
    # What a converter noted may be stale, or name a fused node's form.
    del plain.graph.value_info[:]
    graph = shape_inference.infer_shapes(plain, data_prop=True).graph
    return [*graph.input, *graph.value_info, *graph.output]


def _dimension(dimension: Any) -> Dimension:
    if dimension.HasField("dim_value"):
        return int(dimension.dim_value)
    return dimension.dim_param or None


def _content(node: NodeProto) -> NDArray[Any] | None:
    for name, value in attributes_of(node).items():
        if name == "value":
            return numpy_helper.to_array(value)  # type: ignore[no-any-return]
        if name in ("value_float", "value_floats"):
            return np.array(value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, dtype=np.int64)
    return None


def _evaluated(node: NodeProto, inputs: list[NDArray[Any]], opset: int) -> NDArray[Any] | None:
    from onnx.reference import ReferenceEvaluator

    plain = NodeProto()
    plain.CopyFrom(node)
    assert operator_key(plain) == plain.op_type
    plain.input[:] = [f"input_{number}" for number in range(len(inputs))]
    graph = helper.make_graph(
        [plain],
        "constant",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in zip(plain.input, inputs, strict=True)
        ],
        [helper.make_empty_tensor_value_info(plain.output[0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return ReferenceEvaluator(model).run(None, dict(zip(plain.input, inputs, strict=True)))[0]  # type: ignore[no-any-return]
