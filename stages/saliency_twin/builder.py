"""The backward half under construction: new nodes, new constants, and forward values for the rules to read.

Every gradient is float32, also in a float16 file: gradients of late layers fall below float16's smallest number
(6e-8), and ONNX Runtime's CPU kernels compute in float32 anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from foundation.errors import UsageError
from onnx_files.graph import attributes_of
from stages.saliency_twin.forward_graph import Dimension, ForwardGraph
from stages.saliency_twin.recomputation import FLOATS_TO_CAST, Computed, value_of

PREFIX = "twin/"
"""Of every new tensor's name."""


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
"""From an input's position, as in `forward_graph.inputs_of`, to the name of its gradient, empty where another's holds
it."""

Rule = Callable[["Backward", Step], Gradients]
"""Appends what computes the gradients of a node's wanted inputs and returns their names by position."""


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
        rules: by operator.
        nodes: new nodes, in order.
        constants: new initializers.
        around: what a branch's body stands in; None for the graph itself.
    """

    forward: ForwardGraph
    rules: Mapping[str, Rule]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    around: Backward | None = None
    _known_constants: dict[tuple[bytes, str, tuple[int, ...]], str] = field(default_factory=dict)
    _values: dict[str, str] = field(default_factory=dict)
    _scaled: dict[str, tuple[str, float]] = field(default_factory=dict)
    _vanishing: set[tuple[str, str]] = field(default_factory=set)
    _count: int = 0

    # --- nodes and constants ---

    def op(self, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None) -> str:
        """Append a node with one output and return the output's name."""
        return self.outputs(op_type, inputs, 1, attributes)[0]

    def outputs(
        self, op_type: str, inputs: Sequence[str], count: int, attributes: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        ready = [self.materialised(name) for name in inputs]
        names = [self._new_name(op_type) for _ in range(count)]
        self.nodes.append(helper.make_node(op_type, ready, names, **(attributes or {})))
        return names

    def name_output(self, name: str, output: str) -> None:
        """Give a tensor of this half the name of an output."""
        ready = self.materialised(name)
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [output if known == ready else known for known in names]

    def constant(self, content: NDArray[Any]) -> str:
        """Return the name of a constant; the same content is stored once."""
        if self.around is not None:
            return self.around.constant(content)
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
        if self.around is not None:
            return self.around._new_name(op_type)
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

    def materialised(self, name: str) -> str:
        """Return a tensor's name once there is a node that makes it."""
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

    def where_positive(self, y: str, gradient: str) -> str:
        """Return the gradient where y > 0 and 0 elsewhere."""
        return self.masked(self.op("Greater", [y, self.scalar(0)]), gradient)

    def between(self, x: str, low: str | None, high: str | None) -> str | None:
        """Return the condition low < x < high, both strict; None without bounds."""
        above = None if low is None else self.op("Greater", [x, low])
        below = None if high is None else self.op("Less", [x, high])
        if above is None or below is None:
            return above or below
        return self.op("And", [above, below])

    def rectified(self, gradient: str, name: str) -> str:
        """Return the gradient where a forward tensor is above 0 and 0 elsewhere; it may be so already."""
        if (self.peeled(gradient)[0], name) in self._vanishing:
            return gradient
        return self.where_positive(self.value(name), gradient)

    def note_rectified(self, gradient: str, name: str) -> None:
        """Note that a gradient is 0 wherever the forward tensor is not above 0."""
        self._vanishing.add((self.peeled(gradient)[0], name))

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
        for axis, length in enumerate(inner):
            if not isinstance(length, int) and length != outer[lead + axis]:
                # It may be 1, and the gradient a sum, or not.
                raise UsageError(
                    f"expected tensors of known sizes where they broadcast, found {list(inner)} to {list(outer)}. "
                    "Export the model with fixed image sizes, or explain it by occlusion, which needs no gradient."
                )
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
        if self.around is not None and name not in self.made_here:
            return self.around.value(name)
        running: list[tuple[str, Computed[str]]] = []
        wanted, found = name, self._values.get(name)
        while found is None or running:
            if found is None:
                running.append((wanted, value_of(self, wanted)))
            try:
                wanted = running[-1][1].send(found)  # type: ignore[arg-type]
                found = self._found(wanted)
            except StopIteration as done:
                found = self._values[running.pop()[0]] = str(done.value)
        return found

    def _found(self, name: str) -> str | None:
        if self.around is not None and name not in self.made_here:
            return self.around.value(name)
        return self._values.get(name)

    def note_value(self, name: str, value: str) -> None:
        """Note that a tensor of this half holds a forward tensor's value."""
        self._values.setdefault(name, value)

    @cached_property
    def made_here(self) -> frozenset[str]:
        """Tensors of a branch's body; what it takes from around it is computed there."""
        if self.around is None:
            return frozenset()
        inner = self.forward.nodes[len(self.around.forward.nodes) :]
        return frozenset(name for node in inner for name in node.output)

    def inside(self, forward: ForwardGraph) -> Backward:
        """Return what collects the nodes of a branch's body; its constants stand in the graph itself.

        Args:
            forward: this one's, continued by the body.
        """
        return Backward(forward, self.rules, around=self)

    def real(self, name: str) -> str:
        """Return a forward tensor's value as float32, also where it is an integer."""
        value = self.value(name)
        if self.forward.types.get(name) in (TensorProto.FLOAT, *FLOATS_TO_CAST, None):
            return value
        return self.op("Cast", [value], {"to": TensorProto.FLOAT})
