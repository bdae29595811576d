"""ONNX Runtime's fused attention and matrix products as plain ones."""

from __future__ import annotations

import math

from onnx import NodeProto

from onnx_files.graph import attributes_of
from stages.saliency_twin.forward_graph import ForwardGraph
from stages.saliency_twin.parts import Parts, input_of


def attention(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """com.microsoft.Attention: x [batch, places, features], one matrix and one bias for queries, keys and values.

    Vaswani et al., arXiv 1706.03762. With a mask, a past, or places that see none behind them it stays itself.
    """
    attributes = attributes_of(node)
    shape = forward.shapes.get(node.input[1], ())
    unusual = any(input_of(node, position) for position in (3, 4, 6)) or any(node.output[1:])
    width = shape[-1] if shape else None
    if unusual or _masked(node) or not isinstance(width, int):
        return [node]
    sizes = list(attributes.get("qkv_hidden_sizes", [])) or [width // 3] * 3
    parts = Parts(node)
    product = parts.op("MatMul", [node.input[0], node.input[1]])
    if input_of(node, 2):
        product = parts.op("Add", [product, node.input[2]])
    q, k, v = parts.split(product, sizes, 2)
    return parts.done({0: _attended(parts, (q, k, v), sizes[0], input_of(node, 5))})


def multi_head_attention(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """com.microsoft.MultiHeadAttention: queries, keys and values [batch, places, features] apart from each other.

    As `attention`; packed or per-head inputs stay themselves, too.
    """
    shapes = [forward.shapes.get(input_of(node, position), ()) for position in range(3)]
    unusual = any(input_of(node, position) for position in (4, *range(6, len(node.input)))) or any(node.output[1:])
    sizes = [shape[2] for shape in shapes if len(shape) == 3 and isinstance(shape[2], int)]
    if unusual or _masked(node) or len(sizes) != 3:
        return [node]
    parts = Parts(node)
    q, k, v = node.input[:3]
    if input_of(node, 3):
        biases = parts.split(node.input[3], sizes, 0)
        q, k, v = (parts.op("Add", [name, bias]) for name, bias in zip((q, k, v), biases, strict=True))
    return parts.done({0: _attended(parts, (q, k, v), sizes[0], input_of(node, 5))})


def fused_matmul(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """com.microsoft.FusedMatMul: α·A'·B' with A' = A or Aᵀ, B' = B or Bᵀ; other batch axes stay itself."""
    attributes = attributes_of(node)
    ranks = [len(forward.shapes.get(name, ())) for name in node.input[:2]]
    if attributes.get("transBatchA", 0) or attributes.get("transBatchB", 0) or min(ranks) < 2:
        return [node]
    parts, factors = Parts(node), list(node.input[:2])
    for position, name in enumerate(("transA", "transB")):
        if attributes.get(name, 0):
            factors[position] = _transposed(parts, factors[position], ranks[position])
    product = parts.op("MatMul", factors)
    return parts.done({0: parts.op("Mul", [product, parts.real(attributes.get("alpha", 1.0))])})


def vector_matmul(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """MatMul of a vector: the product of a matrix of one row or one column; one of matrices stays itself."""
    ranks = [len(forward.shapes.get(name, (0, 0))) for name in node.input]
    if min(ranks) != 1:
        return [node]
    parts, factors, left_out = Parts(node), list(node.input), []
    for position, axis in enumerate((0, 1)):
        if ranks[position] == 1:
            factors[position] = parts.op("Unsqueeze", [factors[position], parts.integers([axis])])
            left_out.append(axis - 2)
    return parts.finished("Squeeze", [parts.op("MatMul", factors), parts.integers(left_out)])


def _masked(node: NodeProto) -> bool:
    given = attributes_of(node)
    return bool(given.get("unidirectional", 0) or given.get("do_rotary", 0))


def _transposed(parts: Parts, name: str, rank: int) -> str:
    return parts.op("Transpose", [name], {"perm": [*range(rank - 2), rank - 1, rank - 2]})


def _attended(parts: Parts, qkv: tuple[str, str, str], width: int, bias: str) -> str:
    """Return softmax(q·kᵀ/√d + bias)·v, head by head, [batch, places, features]."""
    attributes = attributes_of(parts.node)
    heads = attributes["num_heads"]
    scale = attributes.get("scale", 0.0) or 1 / math.sqrt(width // heads)
    apart = parts.integers([0, 0, heads, -1])
    q, k, v = (
        parts.op("Transpose", [parts.op("Reshape", [name, apart])], {"perm": perm})
        for name, perm in zip(qkv, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scores = parts.op("Mul", [parts.op("MatMul", [q, k]), parts.real(scale)])
    if bias:
        scores = parts.op("Add", [scores, bias])
    mixed = parts.op("MatMul", [parts.op("Softmax", [scores], {"axis": -1}), v])
    together = parts.op("Transpose", [mixed], {"perm": [0, 2, 1, 3]})
    return parts.op("Reshape", [together, parts.integers([0, 0, -1])])
