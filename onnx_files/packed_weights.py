"""Store weights of few bits packed: two in a byte up to four bits, four in a byte at two.

A packed layer's weights are unpacked by a few nodes of constants, ending in the same int8 tensor that an unpacked
layer stores. ONNX Runtime folds those nodes away as it loads the file, before it fuses integer convolutions, so a
packed file runs the same kernels at the same speed. (A DequantizeLinear that reads INT4 itself would be a shorter
graph, but its convolution would run in float.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

_PER_BYTE = {4: 2, 2: 4}


@dataclass(frozen=True)
class Packing:
    """Integers as u·stride + offset with u of few bits.

    Attributes:
        values: uint8, the weight's shape; u, each below 2^bits.
        bits: 2 or 4.
        stride: 1 or 2 (a grid of odd integers).
        offset: int8 [out, 1, …].
    """

    values: NDArray[np.uint8]
    bits: int
    stride: int
    offset: NDArray[np.int8]


@dataclass(frozen=True)
class _Unpacking:
    """The constants and the nodes that give one int8 tensor."""

    constants: list[TensorProto]
    nodes: list[NodeProto]


def packing_of(weight: NDArray[np.int8]) -> Packing | None:
    """Return how weights [out, …] can be packed, or None where a channel takes more than 16 steps."""
    wide = weight.reshape(len(weight), -1).astype(np.int16)
    offset = wide.min(axis=1, keepdims=True) if wide.size else wide
    counts = wide - offset
    # DoReFa's and SAWB's integers are all odd; their difference is even, and half of it fits one bit less.
    stride = 2 if bool((counts % 2 == 0).all()) else 1
    counts //= stride
    greatest = int(counts.max(initial=0))
    if not wide.size or greatest > 15:
        return None
    bits = 2 if greatest <= 3 and counts.size % _PER_BYTE[2] == 0 else 4
    shape = (-1, *[1] * (weight.ndim - 1))
    return Packing(counts.reshape(weight.shape).astype(np.uint8), bits, stride, offset.astype(np.int8).reshape(shape))


def pack_weights(model: onnx.ModelProto) -> None:
    """Pack every weight that allows it, in place.

    Args:
        model: weights are int8 initializers with two or more dimensions that a DequantizeLinear reads.
    """
    graph = model.graph
    dequantized = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[NodeProto] = []
    for number, initializer in enumerate(list(graph.initializer)):
        is_weight = initializer.data_type == TensorProto.INT8 and len(initializer.dims) > 1
        packing = packing_of(numpy_helper.to_array(initializer)) if is_weight else None
        if packing is not None and initializer.name in dequantized:
            unpacking = _unpacking(initializer.name, packing, f"w{number}")
            graph.initializer.remove(initializer)
            graph.initializer.extend(unpacking.constants)
            nodes += unpacking.nodes
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def _unpacking(name: str, packing: Packing, prefix: str) -> _Unpacking:
    """Return what unpacks the int8 tensor `name`; every other name starts with `prefix`, short to save space."""
    packed = f"{prefix}.packed"
    if packing.bits == 2:
        first = _two_bits(packing.values, packed, prefix)
    else:
        integers = packing.values.astype(np.int16) * packing.stride + packing.offset
        if packing.stride == 1 and integers.min() >= -8 and integers.max() <= 7:
            cast = helper.make_node("Cast", [packed], [name], to=TensorProto.INT8)
            return _Unpacking([_nibbles(packed, TensorProto.INT4, integers & 15)], [cast])
        first = _Unpacking([_nibbles(packed, TensorProto.UINT4, packing.values)], [])
    counts = first.nodes[-1].output[0] if first.nodes else packed
    # In float, because ONNX Runtime does not add int8.
    offset, stride = packing.offset.astype(np.float32), np.float32(packing.stride)
    floats, steps, moved = f"{prefix}.float", f"{prefix}.steps", f"{prefix}.sum"
    constants = [
        numpy_helper.from_array(offset, f"{prefix}.offset"),
        numpy_helper.from_array(np.array(stride), f"{prefix}.stride"),
    ]
    nodes = [
        helper.make_node("Cast", [counts], [floats], to=TensorProto.FLOAT),
        helper.make_node("Mul", [floats, f"{prefix}.stride"], [steps]),
        helper.make_node("Add", [steps, f"{prefix}.offset"], [moved]),
        helper.make_node("Cast", [moved], [name], to=TensorProto.INT8),
    ]
    return _Unpacking([*first.constants, *constants], [*first.nodes, *nodes])


def _nibbles(name: str, data_type: int, values: NDArray[np.integer[Any]]) -> TensorProto:
    flat = values.astype(np.uint8).ravel()
    flat = np.append(flat, np.zeros(flat.size % 2, dtype=np.uint8))
    return helper.make_tensor(name, data_type, values.shape, (flat[0::2] | flat[1::2] << 4).tobytes(), raw=True)


def _two_bits(values: NDArray[np.uint8], packed: str, prefix: str) -> _Unpacking:
    # ONNX has INT2 only from opset 25 on; shifts and masks do the same from 18 on. Byte i holds the values i, i + n,
    # i + 2n and i + 3n.
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(4, 1)
    content = np.bitwise_or.reduce(values.reshape(4, -1) << shifts, axis=0, dtype=np.uint8)
    constants = [
        numpy_helper.from_array(content, packed),
        numpy_helper.from_array(shifts, f"{prefix}.shifts"),
        numpy_helper.from_array(np.array(3, dtype=np.uint8), f"{prefix}.mask"),
        numpy_helper.from_array(np.array(values.shape, dtype=np.int64), f"{prefix}.shape"),
    ]
    shifted, masked, counts = f"{prefix}.shifted", f"{prefix}.masked", f"{prefix}.counts"
    nodes = [
        helper.make_node("BitShift", [packed, f"{prefix}.shifts"], [shifted], direction="RIGHT"),
        helper.make_node("BitwiseAnd", [shifted, f"{prefix}.mask"], [masked]),
        helper.make_node("Reshape", [masked, f"{prefix}.shape"], [counts]),
    ]
    return _Unpacking(constants, nodes)
