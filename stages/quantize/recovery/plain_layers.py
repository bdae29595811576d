"""Layers whose integers can be chosen anew: what their weights are in the float graph, and how a file stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnx_files.graph import GraphIndex, attributes_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_INT32 = (-(2**31), 2**31 - 1)
_RANKS = {"Conv": 4, "Gemm": 2, "MatMul": 2}


@dataclass(frozen=True)
class StoredWeight:
    """How a quantized graph stores one layer's weights: scale·(integers − zero_point).

    Attributes:
        initializer: name of the integers.
        integers: in the weight's shape.
        scale: in a form that multiplies the weight, one value or one per output channel.
        zero_point: likewise.
    """

    initializer: str
    integers: NDArray[np.generic]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest integer; one of them is attained, also where the range is reduced."""
        high = int(np.abs(self.integers.astype(np.int32)).max())
        return (-high if np.issubdtype(self.integers.dtype, np.signedinteger) else 0), high

    def on_grid(self, integers: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the weights that other integers stand for."""
        return self.scale * (integers.astype(np.int32) - self.zero_point).astype(np.float32)


def is_plain(node: NodeProto, index: GraphIndex) -> bool:
    """Return whether a node is a layer of the plain kind: a linear map of what it reads, by weights of its own.

    That is a Conv of two spatial dimensions with explicit padding, a Gemm without factors or a MatMul, whose weights
    are constant and read by nobody else, and whose bias, if any, is one constant per output channel.

    Args:
        node: of the float graph.
        index: of that graph.
    """
    if node.op_type not in _RANKS:
        return False
    given = attributes_of(node)
    if node.op_type == "Conv":
        fits = given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    else:
        fits = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
    ranks = {name: len(index.initializers[name].dims) for name in node.input[1:3] if name in index.initializers}
    bias = node.input[2] if len(node.input) > 2 else ""
    return (
        fits
        and len(index.readers[node.input[1]]) == 1
        and ranks.get(node.input[1]) == _RANKS[node.op_type]
        and (not bias or ranks.get(bias) == 1)
    )


def stored_weight(quantized: GraphIndex, layer: NodeProto) -> StoredWeight | None:
    """Return how a layer's weight is stored, None where the layer is left in float."""
    from onnx import numpy_helper

    maker = quantized.producers.get(layer.input[1])
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in quantized.initializers:
        return None
    integers, scale = (numpy_helper.to_array(quantized.initializers[name]) for name in maker.input[:2])
    zero = quantized.constant(maker.input[2]) if len(maker.input) > 2 else None
    zero = np.zeros_like(scale) if zero is None else zero
    shape = [1] * integers.ndim
    if scale.size > 1:
        shape[attributes_of(maker).get("axis", 1)] = -1
    return StoredWeight(
        maker.input[0], integers, scale.reshape(shape).astype(np.float32), zero.reshape(shape).astype(np.int32)
    )


@dataclass(frozen=True)
class LayerGraphs:
    """The float graph that is being changed and the quantized one beside it."""

    result: ModelProto
    simulated: ModelProto
    floats: GraphIndex
    written: GraphIndex

    @classmethod
    def of(cls, result: ModelProto, simulated: ModelProto) -> LayerGraphs:
        """Return the graphs with an index of each as they are now."""
        return cls(result, simulated, GraphIndex.of(result.graph), GraphIndex.of(simulated.graph))

    def stored_layers(self, proto: ModelProto) -> list[tuple[NodeProto, StoredWeight]]:
        """Return the layers of the plain kind that are stored as integers, in the order of a graph."""
        layers = []
        for node in proto.graph.node:
            twin = self.written.nodes.get(node.name)
            if twin is not None and is_plain(node, self.floats):
                stored = stored_weight(self.written, twin)
                if stored is not None:
                    layers.append((node, stored))
        return layers

    def weight(self, node: NodeProto) -> NDArray[np.float32]:
        """Return a layer's weights in the float graph."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self.floats.initializers[node.input[1]]), np.float32)

    def replace(
        self, node: NodeProto, stored: StoredWeight, integers: NDArray[np.generic], bias: NDArray[np.float32] | None
    ) -> None:
        """Put integers and a bias into both graphs."""
        from onnx import numpy_helper

        self.floats.initializers[node.input[1]].CopyFrom(
            numpy_helper.from_array(stored.on_grid(integers), node.input[1])
        )
        self.written.initializers[stored.initializer].CopyFrom(
            numpy_helper.from_array(np.ascontiguousarray(integers), stored.initializer)
        )
        if bias is None:
            return
        name = f"{node.name}/fitted_bias"
        _put(self.result, self.floats, numpy_helper.from_array(bias, name))
        _read_bias(self.floats.nodes[node.name], name)
        twin = self.written.nodes[node.name]
        maker = self.written.producers.get(twin.input[2]) if len(twin.input) > 2 else None
        if maker is not None and maker.op_type == "DequantizeLinear" and self.written.only_reader(maker.output[0]):
            scale = numpy_helper.to_array(self.written.initializers[maker.input[1]])
            steps = np.clip(np.rint(bias / scale.astype(np.float64)), *_INT32).astype(np.int32)
            self.written.initializers[maker.input[0]].CopyFrom(numpy_helper.from_array(steps, maker.input[0]))
        else:
            _put(self.simulated, self.written, numpy_helper.from_array(bias, name))
            _read_bias(twin, name)

    def without_unread(self, before: ModelProto) -> ModelProto:
        """Return the float graph without the biases that were read before and no longer are."""
        layers = [node for node in before.graph.node if node.op_type in ("Conv", "Gemm")]
        biases = {node.input[2] for node in layers if len(node.input) > 2}
        readers = GraphIndex.of(self.result.graph).readers
        for tensor in [t for t in self.result.graph.initializer if t.name in biases and t.name not in readers]:
            self.result.graph.initializer.remove(tensor)
        return self.result


def _put(proto: ModelProto, index: GraphIndex, tensor: TensorProto) -> None:
    if tensor.name in index.initializers:  # of an earlier step
        index.initializers[tensor.name].CopyFrom(tensor)
    else:
        proto.graph.initializer.append(tensor)


def _read_bias(layer: NodeProto, name: str) -> None:
    del layer.input[2:]
    layer.input.append(name)
