"""The backward half under construction: new nodes, new constants, and forward values for the rules to read.

Every gradient is float32, also in a float16 file: gradients of late layers fall below float16's smallest number
(6e-8), and ONNX Runtime's CPU kernels compute in float32 anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pipeline.errors import UsageError
from stages.saliency_twin.forward_graph import KEEP_THE_GRID, Dimension, ForwardGraph, attributes_of

PREFIX = "twin/"
"""Of every new tensor's name."""
_FLOATS_TO_CAST = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Step:
    """One node on the way back.

    Attributes:
        node: of the forward graph.
        gradients: name of the gradient of each output, None where there is none.
        wanted: positions of the inputs whose gradient is asked for.
    """

    node: NodeProto
    gradients: tuple[str | None, ...]
    wanted: frozenset[int]

    @property
    def gradient(self) -> str:
        """The first output's gradient."""
        assert self.gradients[0] is not None
        return self.gradients[0]

    @property
    def x(self) -> str:
        """Name of the first input."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """Name of the first output."""
        return str(self.node.output[0])

    def input(self, position: int) -> str | None:
        """Return the name of an input, or None where it is left out."""
        given = position < len(self.node.input) and self.node.input[position]
        return str(given) if given else None

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value."""
        return attributes_of(self.node).get(name, default)


Gradients = Mapping[int, str]
"""From an input's position to the name of its gradient."""


def refusal(node: NodeProto, expected: str, found: str) -> UsageError:
    """Return the error of a rule that does not cover a node."""
    return UsageError(
        f"saliency of {node.op_type} `{node.name}`: expected {expected}, found {found}. Explain this file by "
        "occlusion, which needs no gradient, or name a tensor behind this node's part with --input or --logits."
    )


@dataclass
class Backward:
    """Collects the nodes and constants of the backward half.

    Attributes:
        forward: the graph that is differentiated.
        nodes: new nodes, in order.
        constants: new initializers.
    """

    forward: ForwardGraph
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    _known_constants: dict[tuple[bytes, str, tuple[int, ...]], str] = field(default_factory=dict)
    _values: dict[str, str] = field(default_factory=dict)
    _scaled: dict[str, tuple[str, float]] = field(default_factory=dict)
    _count: int = 0

    # --- nodes and constants ---

    def op(self, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None) -> str:
        """Append a node with one output and return the output's name."""
        ready = [self._materialised(name) for name in inputs]
        output = self._new_name(op_type)
        self.nodes.append(helper.make_node(op_type, ready, [output], **(attributes or {})))
        return output

    def name_output(self, name: str, output: str) -> None:
        """Give a tensor the name of an output."""
        self.nodes.append(helper.make_node("Identity", [self._materialised(name)], [output]))

    def constant(self, content: NDArray[Any]) -> str:
        """Return the name of a constant; the same content is stored once."""
        array = np.asarray(content, order="C")
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._known_constants:
            name = f"{PREFIX}constant_{len(self._known_constants)}"
            self.constants.append(numpy_helper.from_array(array, name))
            self._known_constants[key] = name
        return self._known_constants[key]

    def scalar(self, value: float) -> str:
        """Return the name of a float32 scalar."""
        return self.constant(np.array(value, dtype=np.float32))

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of an int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def _new_name(self, op_type: str) -> str:
        self._count += 1
        return f"{PREFIX}{op_type}_{self._count}"

    # --- multiples, written down only where something reads them ---

    def times(self, gradient: str, factor: float) -> str:
        """Return factor · gradient; DequantizeLinear's scale and QuantizeLinear's cancel without a node."""
        base, before = self.peeled(gradient)
        if abs(before * factor - 1) < 1e-12:
            return base
        name = self._new_name("times")
        self._scaled[name] = (base, before * factor)
        return name

    def peeled(self, gradient: str) -> tuple[str, float]:
        """Return a tensor and the factor that makes it the gradient; linear rules may pass the factor on."""
        return self._scaled.get(gradient, (gradient, 1.0))

    def _materialised(self, name: str) -> str:
        if name not in self._scaled:
            return name
        base, factor = self._scaled.pop(name)
        self.nodes.append(helper.make_node("Mul", [base, self.scalar(factor)], [name]))
        return name

    # --- what rules often need ---

    def masked(self, condition: str, gradient: str) -> str:
        """Return the gradient where the condition holds and 0 elsewhere."""
        base, factor = self.peeled(gradient)
        # A product, because ONNX Runtime's Where takes three passes over memory.
        mask = self.op("Cast", [condition], {"to": TensorProto.FLOAT})
        return self.times(self.op("Mul", [base, mask]), factor)

    def between(self, x: str, low: str | None, high: str | None) -> str | None:
        """Return the condition low < x < high, both strict; None without bounds."""
        above = None if low is None else self.op("Greater", [x, low])
        below = None if high is None else self.op("Less", [x, high])
        if above is None or below is None:
            return above or below
        return self.op("And", [above, below])

    def shaped_like(self, gradient: str, name: str) -> str:
        """Return the gradient in the shape of a forward tensor with as many values."""
        base, factor = self.peeled(gradient)
        dimensions = self.forward.shape(name)
        if sum(not isinstance(d, int) for d in dimensions) <= 1 and 0 not in dimensions:
            target = self.integers([d if isinstance(d, int) else -1 for d in dimensions])
        else:
            target = self.op("Shape", [self.value(name)])
        return self.times(self.op("Reshape", [base, target]), factor)

    def summed_to(self, gradient: str, output: str, name: str) -> str:
        """Return the gradient of an input that was broadcast: the sum over the axes that it was repeated along."""
        return self.summed(gradient, self.forward.shape(output), self.forward.shape(name))

    def summed(self, gradient: str, outer: tuple[Dimension, ...], inner: tuple[Dimension, ...]) -> str:
        """Return a gradient of shape `outer`, summed to the shape `inner` that broadcast to it."""
        lead = len(outer) - len(inner)
        repeated = [lead + axis for axis, d in enumerate(inner) if d == 1 and outer[lead + axis] != 1]
        if repeated:
            gradient = self.op("ReduceSum", [gradient, self.integers(repeated)], {"keepdims": 1})
        if lead:
            gradient = self.op("ReduceSum", [gradient, self.integers(range(lead))], {"keepdims": 0})
        return gradient

    def mapped(self, gradient: str, change: Callable[[str], str]) -> str:
        """Apply a linear change to a gradient and pass its factor on."""
        base, factor = self.peeled(gradient)
        return self.times(change(base), factor)

    # --- values of the forward half ---

    def value(self, name: str) -> str:
        """Return the name of a forward tensor's value, float32 if it is real.

        What does not stand in the file, or must not be read there, is computed anew.
        """
        if name not in self._values:
            self._values[name] = self._value(name)
        return self._values[name]

    def real(self, name: str) -> str:
        """Return a forward tensor's value as float32, also where it is an integer."""
        value = self.value(name)
        if self.forward.types.get(name) in (TensorProto.FLOAT, *_FLOATS_TO_CAST, None):
            return value
        return self.op("Cast", [value], {"to": TensorProto.FLOAT})

    def _value(self, name: str) -> str:
        producer = self.forward.producers.get(name)
        if producer is not None and producer.op_type == "DequantizeLinear":
            return self._dequantized(producer)
        if producer is None or not self.forward.hidden(name):
            casts = self.forward.types.get(name) in _FLOATS_TO_CAST
            return self.op("Cast", [name], {"to": TensorProto.FLOAT}) if casts else name
        exact = self._in_integers(producer)
        if exact is not None:
            return exact
        inputs = [self.value(read) if read else "" for read in producer.input]
        return self.op(producer.op_type, inputs, attributes_of(producer))

    def _dequantized(self, node: NodeProto) -> str:
        scale = self.value(node.input[1])
        if node.input[0] not in self.forward.varying:
            return self.op("Mul", [self.counts(node), self._along(scale, node.input[1], node)])
        # The axis says nothing about one single scale. It keeps ONNX Runtime from merging this node with the file's
        # own, whose readers decide what runs in integers.
        return self.op("DequantizeLinear", [node.input[0], scale, *node.input[2:]], {"axis": 0})

    def counts(self, node: NodeProto) -> str:
        """Return q − z of a DequantizeLinear with constant q, float32; ONNX Runtime computes it once, at load."""
        counts = self.op("Cast", [self.value(node.input[0])], {"to": TensorProto.FLOAT})
        if len(node.input) < 3 or not node.input[2]:
            return counts
        zero = self.op("Cast", [node.input[2]], {"to": TensorProto.FLOAT})
        return self.op("Sub", [counts, self._along(zero, node.input[2], node)])

    def _along(self, vector: str, original: str, node: NodeProto) -> str:
        # A scale or zero point per channel, shaped so that it broadcasts along its axis.
        shape, rank = self.forward.shape(original), len(self.forward.shape(node.input[0]))
        if len(shape) != 1 or shape == (1,) or rank == 1:
            return vector
        axis = attributes_of(node).get("axis", 1) % rank
        return self.op("Reshape", [vector, self.integers([-1 if a == axis else 1 for a in range(rank)])])

    def _in_integers(self, node: NodeProto) -> str | None:
        """Return a layer between integers computed as s_x·s_w·(conv(q_x − z_x, q_w − z_w) + q_b).

        The sum is exact in float32 up to 2^24, like the integer kernel's, so that a value on a bound of the clip
        behind it (0, often) lies on that bound and not beside it.
        """
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            return None
        x, w = self._grid_of(node.input[0]), self._dequantizer(node.input[1])
        attributes = attributes_of(node)
        per_tensor = x is not None and self.forward.shape(x.input[1]) in ((), (1,))
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
        if x is None or w is None or not per_tensor or not plain or w.input[0] in self.forward.varying:
            return None
        inputs = [self._in_steps(node.input[0]), self.counts(w)]
        channels = len(self.forward.shape(w.input[1])) == 1
        step = self.op("Mul", [self.value(x.input[1]), self.value(w.input[1])])
        if len(node.input) > 2 and node.input[2]:
            bias = self._dequantizer(node.input[2])
            inputs.append(
                self.op("Div", [self.value(node.input[2]), step])
                if bias is None
                else self.op("Cast", [bias.input[0]], {"to": TensorProto.FLOAT})
            )
        if channels and node.op_type == "Conv":
            spatial = len(self.forward.shape(w.input[0])) - 2
            step = self.op("Reshape", [step, self.integers([-1, *[1] * spatial])])
        # Divided, because ONNX Runtime moves a product behind a convolution into its weights: no integers any more.
        return self.op("Div", [self.op(node.op_type, inputs, attributes), self.op("Reciprocal", [step])])

    def _grid_of(self, name: str) -> NodeProto | None:
        """Return the DequantizeLinear on whose grid every value of a tensor lies, or None."""
        producer = self.forward.producers.get(name)
        while producer is not None and producer.op_type in KEEP_THE_GRID and producer.op_type != "Concat":
            producer = self.forward.producers.get(producer.input[0])
        return producer if producer is not None and producer.op_type == "DequantizeLinear" else None

    def _in_steps(self, name: str) -> str:
        # Values on a grid, counted in its steps: whole numbers.
        node = self.forward.producers[name]
        if node.op_type == "DequantizeLinear":
            return self.op("DequantizeLinear", [node.input[0], self.scalar(1), *node.input[2:]])
        inputs = [self._in_steps(node.input[0]), *(self.value(read) for read in node.input[1:])]
        return self.op(node.op_type, inputs, attributes_of(node))

    def _dequantizer(self, name: str) -> NodeProto | None:
        node = self.forward.producers.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None
