"""PReLU and batch norm that no layer takes in, written as convolutions of one weight a channel: integers have those.

ONNX Runtime has no integer kernel for either, so between two integer layers each is an island of floats; and its
float kernel of PReLU is slow. Where every slope s lies below 1, s·x + ReLU((1 − s)·x) is PReLU, since (1 − s)·x is
positive where x is. A batch norm behind its convolution is folded into it before; one behind a ReLU or a
concatenation is not.

Measured on an AMD EPYC with VNNI (seven convolutions, with what stands here between them, one thread, interleaved
queries, medians; logits SQNR behind the times):

| | float | static, island | static, as convolutions |
| --- | --- | --- | --- |
| PReLU, 64 channels, 28 px | 12.6 ms | 6.7 ms, 32.1 dB | 1.2 ms, 33.5 dB |
| PReLU, 16 channels, 56 px | 6.1 ms | 4.0 ms, 34.0 dB | 0.92 ms, 36.5 dB |
| PReLU, 16 channels, 28 px | 0.52 ms | 0.52 ms, 38.7 dB | 0.24 ms, 38.3 dB |
| ReLU and batch norm, 64 channels, 28 px | 8.1 ms | 1.25 ms, 33.3 dB | 1.04 ms, 33.3 dB |
| ReLU and batch norm, 16 channels, 56 px | 0.95 ms | 0.73 ms, 45.0 dB | 0.65 ms, 45.0 dB |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnx_files.graph import GraphIndex, attributes_of
from stages.quantize.rewrites.node_by_node import Rewritten, Types, node_by_node

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def with_depthwise_convolutions(proto: ModelProto, float_layers: Sequence[str] = ()) -> ModelProto:
    """Return the graph without PReLU and BatchNormalization of images, as far as integers can take their place.

    The answers differ by rounding alone. What stands beside a layer that stays in float stays as it is.

    Args:
        proto: the float graph, with names on its nodes; left as it is.
        float_layers: names of layers that will not compute in integers.
    """

    def rewrite(node: NodeProto, index: GraphIndex, types: Types) -> Rewritten | None:
        channels = _channels(node, types)
        if not channels or not _neighbours(node, index).isdisjoint(float_layers):
            return None
        return (_prelu if node.op_type == "PRelu" else _batch_norm)(node, index, channels)

    return node_by_node(proto, ("PRelu", "BatchNormalization"), rewrite)


def _channels(node: NodeProto, types: Types) -> int:
    """Return how many channels a node's image has; 0 where it is none to rewrite."""
    from onnx import TensorProto

    read = types.get(node.input[0])
    if read is None or read.elem_type != TensorProto.FLOAT or len(read.shape.dim) != 4:
        return 0
    return int(read.shape.dim[1].dim_value)


def _neighbours(node: NodeProto, index: GraphIndex) -> set[str]:
    maker = index.producers.get(node.input[0])
    return {reader.name for reader in index.readers.get(node.output[0], [])} | ({maker.name} if maker else set())


def _prelu(node: NodeProto, index: GraphIndex, channels: int) -> Rewritten | None:
    from onnx import helper

    given = index.constant(node.input[1])
    if given is None or given.size not in (1, channels) or (given.size > 1 and _axis(given) != -3):
        return None
    slopes = np.broadcast_to(given.reshape(-1), channels)
    if not np.isfinite(slopes).all() or (slopes >= 1).any():
        return None
    output = node.output[0]
    through, scaled, bent = (f"{output}/{name}" for name in ("through", "scaled", "bent"))
    first, second = (
        _convolution(node.input[0], weight, None, target, target)
        for target, weight in ((through, slopes), (scaled, 1 - slopes))
    )
    nodes = [
        *first[0],
        *second[0],
        helper.make_node("Relu", [scaled], [bent], bent),
        helper.make_node("Add", [through, bent], [output], node.name),
    ]
    return nodes, [*first[1], *second[1]]


def _axis(slopes: NDArray[np.float32]) -> int:
    """Return the axis, counted from the last, that slopes differ along."""
    return int(np.argmax(slopes.shape)) - slopes.ndim


def _batch_norm(node: NodeProto, index: GraphIndex, channels: int) -> Rewritten | None:
    given = attributes_of(node)
    values = [index.constant(name) for name in node.input[1:5]]
    if given.get("training_mode", 0) or len([name for name in node.output if name]) > 1:
        return None
    scale, offset, mean, variance = (None if value is None else value.astype(np.float64) for value in values)
    if scale is None or offset is None or mean is None or variance is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = scale / np.sqrt(variance + given.get("epsilon", 1e-5))
        bias = offset - mean * weight
    if weight.shape != (channels,) or not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return None
    return _convolution(node.input[0], weight, bias, node.output[0], node.name)


def _convolution(
    image: str, weight: NDArray[np.floating], bias: NDArray[np.floating] | None, output: str, name: str
) -> Rewritten:
    """Return a convolution that multiplies each channel by its weight, and adds its bias."""
    from onnx import helper, numpy_helper

    named = {f"{output}/weight": weight.reshape(-1, 1, 1, 1)} | ({} if bias is None else {f"{output}/bias": bias})
    node = helper.make_node("Conv", [image, *named], [output], name, group=len(weight), kernel_shape=[1, 1])
    return [node], [numpy_helper.from_array(value.astype(np.float32), key) for key, value in named.items()]
