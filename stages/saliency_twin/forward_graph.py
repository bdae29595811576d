"""What the source's graph says of its tensors: who makes them, their shapes, and which of them carry a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from foundation.errors import UsageError
from onnx_files.graph import GraphIndex, opset_of, reads
from onnx_files.shapes import with_shapes
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
    "ConstantOfShape", "Range", "EyeLike", "BitShift", "BitwiseAnd", "Hardmax",
))  # fmt: skip
"""Their derivative is zero wherever there is one."""
_NUMBERS_AT = {"OneHot": 2, "Range": 0}
"""From which input on these hand real numbers on, if they follow the image, which hardly any file does."""
_FIRST_OUTPUT_ALONE = frozenset(("DynamicQuantizeLinear", "MaxPool", "Dropout", "TopK"))
"""Their other outputs are scales, masks and indices; a scale that follows the image counts as a constant."""
_FOLLOWED_BY_QUANTIZER = frozenset(("Relu", "Clip", "LeakyRelu"))
"""What ONNX Runtime takes into an integer operator along with the quantizer behind it."""
_FOLDED = frozenset(("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Concat", "Neg", "Mul"))
"""What a constant may be made of others with."""

_MOST_OF_SIZES = 1000
"""Numbers of a constant whose values, and not only its shape, may bear on other shapes."""
_ON_PIXELS = frozenset(("Cast", "Add", "Sub", "Mul", "Div", "Identity", "Transpose", "Min", "Max", "Clip"))
"""What stands between an image and its quantizer."""
KEEP_THE_GRID = frozenset((
    "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Slice", "Split", "Concat",
    "MaxPool", "GlobalMaxPool", "Relu",
))  # fmt: skip
"""Their values are values of their inputs, or 0."""


def inputs_of(node: NodeProto) -> list[str]:
    """Return a node's inputs by position; behind them what its branches' bodies take from around them."""
    captured: dict[str, None] = {}
    for attribute in node.attribute:
        if attribute.HasField("g"):
            captured |= dict.fromkeys(captured_by(attribute.g))
    return [*node.input, *captured]


def captured_by(body: GraphProto) -> list[str]:
    """Return the tensors that a branch's body reads and does not make."""
    made = {tensor.name for tensor in body.initializer} | {value.name for value in body.input}
    made.update(name for node in body.node for name in node.output)
    names = [name for node in body.node for name in inputs_of(node) if name]
    return list(dict.fromkeys(name for name in (*names, *(v.name for v in body.output)) if name not in made))


def _followed(node: NodeProto) -> set[str]:
    """Return what a node reads, of its branches only what their outputs follow by differentiable operators."""
    if node.op_type != "If":
        return set(reads(node))
    followed: set[str] = set()
    for attribute in node.attribute:
        useful = {value.name for value in attribute.g.output}
        for inner in reversed(attribute.g.node):
            if inner.op_type not in _WITHOUT_DERIVATIVE and not useful.isdisjoint(inner.output):
                useful |= _followed(inner)
        followed |= useful
    return followed


@dataclass(frozen=True)
class ForwardGraph:
    """The graph that is differentiated.

    Attributes:
        nodes: in order, fused ones replaced by what they stand for.
        index: of these nodes and the file's constants.
        virtual: tensors of the decomposed nodes, which the file does not hold.
        types: ONNX element type of each tensor that is known.
        shapes: of each tensor that is known.
        image: name of the input.
        logits: name of the tensor that is explained.
        opset: of ai.onnx.
        measured: what a run showed of tensors that are computed of the input's shape, and do not follow its batch.
        ends: where gradients start, if not at the logits: the outputs of a branch.
    """

    nodes: tuple[NodeProto, ...]
    index: GraphIndex
    virtual: frozenset[str]
    types: dict[str, int]
    shapes: dict[str, tuple[Dimension, ...]]
    image: str
    logits: str
    opset: int
    measured: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    ends: frozenset[str] = frozenset()

    @cached_property
    def varying(self) -> frozenset[str]:
        """Tensors that depend on an input of the model; every other one is a constant."""
        constant = self.index.initializers.keys() | self.index.producers.keys()
        varying: set[str] = set()
        for node in self.nodes:
            if not (varying.isdisjoint(reads(node)) and constant.issuperset(reads(node))):
                varying.update(node.output)
        return frozenset(varying | {self.image})

    @cached_property
    def active(self) -> frozenset[str]:
        """Tensors that carry a gradient: they depend on the image, and the logits on them, through real values."""
        from_image = {self.image}
        for node in self.nodes:
            if not from_image.isdisjoint(reads(node)):
                from_image.update(self._differentiable_outputs(node, from_image))
        active = {name for name in self.ends or (self.logits,) if name in from_image}
        for node in reversed(self.nodes):
            if not active.isdisjoint(node.output):
                active.update(from_image.intersection(_followed(node)))
        return frozenset(active)

    def _differentiable_outputs(self, node: NodeProto, from_image: set[str]) -> list[str]:
        if node.op_type in _NUMBERS_AT:
            # What stands at these positions is copied into the output, which then has no rule.
            return list(node.output) if from_image.intersection(node.input[_NUMBERS_AT[node.op_type] :]) else []
        if node.op_type in _WITHOUT_DERIVATIVE:
            return []
        if node.op_type == "Cast" and self.types.get(node.input[0]) not in INTEGER_TYPES:
            return [name for name in node.output if self.types.get(name) not in INTEGER_TYPES]
        if node.op_type == "If":
            return [name for name in node.output if name and self.types.get(name) not in INTEGER_TYPES]
        outputs = node.output[:1] if node.op_type in _FIRST_OUTPUT_ALONE else node.output
        return [name for name in outputs if name]

    def shape(self, name: str) -> tuple[Dimension, ...]:
        """Return a tensor's shape.

        Raises:
            UsageError: not even its rank can be inferred.
        """
        if name not in self.shapes:
            raise UsageError(
                f"expected a tensor whose shape can be inferred, found `{name}`{self._made_by(name)}. "
                f"{self._way_out()}"
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
                f"{self._way_out()}"
            )
        return found

    def _way_out(self) -> str:
        if all(isinstance(size, int) for size in self.shapes.get(self.image, (None, None))[1:]):
            return "The image's own sizes are fixed; explain it by occlusion, which needs no gradient."
        return (
            "Export the model with fixed image sizes (only the batch may be dynamic), or explain it by occlusion, "
            "which needs no gradient."
        )

    def _made_by(self, name: str) -> str:
        node = self.index.producers.get(name)
        return "" if node is None else f" (output of {node.op_type} `{node.name}`)"

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the content of a small constant, or None where the tensor is no constant that stands in the file."""
        found = self.measured.get(name)
        found = self.index.constant(name) if found is None else found
        if found is not None or name in self.varying:
            return found
        # Made of others, step by step: a chain of them may be longer than Python's stack.
        known: dict[str, NDArray[Any] | None] = {}
        waiting = [name]
        while waiting:
            last = waiting[-1]
            node = self.index.producers.get(last)
            if node is None or node.op_type not in _FOLDED or last in self.varying:
                known[last] = self.index.constant(last)
            elif missing := [read for read in node.input if read not in known]:
                waiting += missing
                continue
            else:
                inputs = [value for value in (known[read] for read in node.input) if value is not None]
                known[last] = _evaluated(node, inputs, self.opset) if len(inputs) == len(node.input) else None
            waiting.pop()
        return known[name]

    @cached_property
    def hidden(self) -> frozenset[str]:
        """Tensors that a rule must not read themselves, but compute anew.

        They do not exist in the file, or stand in front of a quantizer, where a reader more would keep ONNX Runtime
        from running the node before it in integers: the logits would be others.
        """
        hidden = set(self.virtual)
        for node in reversed(self.nodes):
            if node.op_type == "QuantizeLinear":
                names = reads(node)
            else:
                names = node.input[:1] if node.op_type in _FOLLOWED_BY_QUANTIZER and node.output[0] in hidden else []
            hidden.update(
                name for name in names if name in self.index.producers and self.types.get(name) not in INTEGER_TYPES
            )
        return frozenset(hidden)

    def slack(self, name: str) -> float:
        """Return by how much a value of this tensor may leave a quantizer's range and still count as inside.

        0 but on the image itself, which fills its range up to both ends by construction, and whose zero point's
        rounding moves that range by up to half a step: there, one step.

        Args:
            name: what a QuantizeLinear reads.
        """
        readers = self.index.readers.get(name, [])
        steps = [self.constant(node.input[1]) for node in readers if node.op_type == "QuantizeLinear"]
        if not steps or not self._is_pixels(name) or any(step is None or step.size != 1 for step in steps):
            return 0.0
        return max(float(step.reshape(())) for step in steps if step is not None)

    def _is_pixels(self, name: str) -> bool:
        """Return whether a tensor is the image, cast, shifted, scaled and bounded, and nothing more."""
        while name != self.image:
            node = self.index.producers.get(name)
            if node is None or node.op_type not in _ON_PIXELS:
                return False
            varying = [read for read in node.input if read in self.varying]
            if len(varying) != 1:
                return False
            name = varying[0]
        return True


def read_graph(model: ModelProto, image: str, logits: str) -> ForwardGraph:
    """Return what differentiation has to know of a checked model.

    Args:
        model: opset 13 or more.
        image: name of the input.
        logits: name of the tensor to explain.

    Raises:
        UsageError: the graph contradicts itself.
    """
    return inferred(model, [part for node in model.graph.node for part in decompose(node)], image, logits)


def inferred(model: ModelProto, nodes: list[NodeProto], image: str, logits: str) -> ForwardGraph:
    """Return the graph of these nodes in place of a model's own.

    Args:
        model: with the constants, inputs and outputs.
        nodes: in order; they make all that the model's own nodes make.
        image: name of the input.
        logits: name of the tensor to explain.

    Raises:
        UsageError: the graph contradicts itself.
    """
    in_file = {name for node in model.graph.node for name in node.output}
    virtual = frozenset(name for node in nodes for name in node.output if name and name not in in_file)
    plain = ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:]
    plain.graph.node.extend(nodes)
    # What a converter noted may be stale, or name a fused node's form.
    del plain.graph.value_info[:]
    index = GraphIndex.of(plain.graph)
    graph = with_shapes(plain, values=True).graph
    types, shapes = _noted(graph)
    types |= {name: tensor.data_type for name, tensor in index.initializers.items()}
    shapes |= {name: tuple(tensor.dims) for name, tensor in index.initializers.items()}
    return ForwardGraph(tuple(plain.graph.node), index, virtual, types, shapes, image, logits, opset_of(model))


def continued(forward: ForwardGraph, nodes: list[NodeProto], ends: frozenset[str]) -> ForwardGraph:
    """Return a graph with more nodes at its end, whose tensors the file does not hold; gradients start at `ends`.

    Raises:
        UsageError: the nodes contradict what is known of the tensors that they read.
    """
    made = {name for node in nodes for name in node.output if name}
    read = dict.fromkeys(name for node in nodes for name in reads(node) if name not in made)
    known = [name for name in read if name in forward.types]
    contents = {name: forward.constant(name) for name in known}
    constants = {
        name: value for name, value in contents.items() if value is not None and value.size <= _MOST_OF_SIZES
    }
    graph = helper.make_graph(
        nodes,
        "continued",
        [
            helper.make_tensor_value_info(name, forward.types[name], forward.shapes.get(name))
            for name in known
            if name not in constants
        ],
        [helper.make_empty_tensor_value_info(name) for name in sorted(ends & made)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", forward.opset)])
    types, shapes = _noted(with_shapes(model, values=True).graph)
    together = helper.make_graph([*forward.nodes, *nodes], "all", [], [])
    index = replace(GraphIndex.of(together), initializers=forward.index.initializers)
    return replace(
        forward,
        nodes=(*forward.nodes, *nodes),
        index=index,
        virtual=forward.virtual | made,
        types=types | forward.types,
        shapes=shapes | forward.shapes,
        ends=ends,
    )


def _noted(graph: GraphProto) -> tuple[dict[str, int], dict[str, tuple[Dimension, ...]]]:
    noted = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in noted}
    shapes = {
        value.name: tuple(_dimension(d) for d in value.type.tensor_type.shape.dim)
        for value in noted
        if value.type.tensor_type.HasField("shape")
    }
    return types, shapes


def _dimension(dimension: Any) -> Dimension:
    if dimension.HasField("dim_value"):
        return int(dimension.dim_value)
    return dimension.dim_param or None


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
