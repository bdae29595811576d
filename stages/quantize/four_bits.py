"""Weights of four bits in a file whose arithmetic is of eight: half the size, at the same speed.

A weight takes one of the integers −7…7 and a step for each output channel, the one that loses least: a few weights
beyond the range are better cut than all others rounded coarsely. The first layer, which is small and sees the image,
keeps eight bits. Stored are two integers in a byte, behind a Cast that ONNX Runtime folds as it loads the file.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from onnx_files.graph import LAYER_TYPES, GraphIndex, attributes_of, opset_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

GREATEST = 7
"""Of the integers; the lowest is as far from zero, so that the kernels of symmetric weights apply."""
_SHARES = np.linspace(1.0, 0.4, 31)
"""Of the greatest weight that the range of integers reaches to."""
_LEAST_OPSET, _LEAST_IR_VERSION = 21, 10


def refuse_opset_without_four_bits(proto: ModelProto, name: str) -> None:
    """Refuse a model whose opset knows no integers of four bits.

    Raises:
        UsageError: it is older than opset 21.
    """
    if opset_of(proto) < _LEAST_OPSET:
        raise UsageError(
            f"{name}: expected opset {_LEAST_OPSET} or later for weights of 4 bits, found {opset_of(proto)}. "
            "Convert the model (onnx.version_converter), or set bits to 8."
        )


def four_bit_overrides(
    proto: ModelProto, first: NodeProto, *, per_channel: bool, excluded: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the option of ONNX Runtime's writers that gives every layer but the first weights of four bits.

    A weight that something else reads as well, and the stacked matrices of a MatMul, keep eight.

    Args:
        proto: the float graph.
        first: its first layer.
        per_channel: one step for each output channel.
        excluded: names of the nodes that stay in float.
    """
    index = GraphIndex.of(proto.graph)
    overrides: dict[str, list[dict[str, Any]]] = {}
    for node in proto.graph.node:
        if node.op_type not in LAYER_TYPES or node.input[1] not in index.initializers:
            continue
        name, readers = node.input[1], index.readers[node.input[1]]
        left_alone = any(reader.op_type != node.op_type or reader.name in excluded for reader in readers)
        weight = index.constant(name)
        if left_alone or first in readers or weight is None or not _takes_four_bits(node, weight):
            continue
        axis = channel_axis(node, weight.ndim) if per_channel else None
        steps = least_losing_steps(weight, axis)
        overrides[name] = [
            {"scale": step, "zero_point": 0} | ({} if axis is None else {"axis": axis}) for step in steps
        ]
    return overrides


def _takes_four_bits(layer: NodeProto, weight: NDArray[Any]) -> bool:
    # ONNX Runtime's writer has no channels for a MatMul by several matrices.
    return weight.dtype == np.float32 and (weight.ndim == 2 if layer.op_type == "MatMul" else weight.ndim >= 2)


def cut_to_steps(proto: ModelProto, overrides: dict[str, list[dict[str, Any]]]) -> None:
    """Cut weights off where their integers end, in place: ONNX Runtime's writers would go on to 127.

    Args:
        proto: a float graph.
        overrides: from `four_bit_overrides`.
    """
    from onnx import numpy_helper

    initializers = GraphIndex.of(proto.graph).initializers
    for name, channels in overrides.items():
        weight = numpy_helper.to_array(initializers[name])
        shape = [1] * weight.ndim
        if "axis" in channels[0]:
            shape[channels[0]["axis"]] = -1
        most = GREATEST * np.array([channel["scale"] for channel in channels], np.float32).reshape(shape)
        initializers[name].CopyFrom(numpy_helper.from_array(np.clip(weight, -most, most), name))


def channel_axis(layer: NodeProto, dimensions: int) -> int:
    """Return which axis of a layer's weights is that of its output channels, as ONNX Runtime's writers see it."""
    if layer.op_type == "Conv" or (layer.op_type == "Gemm" and attributes_of(layer).get("transB", 0)):
        return 0
    return dimensions - 1 if layer.op_type == "MatMul" else 1


def least_losing_steps(weight: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
    """Return the steps between a weight's integers with the least squared error, one or one per channel.

    Args:
        weight: of any shape.
        axis: of the output channels; None for one step.
    """
    rows = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    greatest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    greatest[greatest == 0] = GREATEST  # of a channel of zeros: any step will do
    steps = (_SHARES[:, None, None] * greatest / GREATEST).astype(np.float32)
    losses = [
        np.sum((np.clip(np.rint(rows / step), -GREATEST, GREATEST) * step - rows) ** 2, axis=1) for step in steps
    ]
    best = np.argmin(losses, axis=0)
    return np.asarray(steps[best, np.arange(len(rows)), 0])


def pack_four_bits(quantized: ModelProto) -> None:
    """Store a graph's weights of four bits two in a byte, in place."""
    from onnx_files.packed_weights import pack_weights

    pack_weights(quantized)
    quantized.ir_version = max(quantized.ir_version, _LEAST_IR_VERSION)
