"""What ONNX Runtime's graph optimizer makes of neighbours in float: their plain form again."""

from __future__ import annotations

import math

from onnx import NodeProto

from onnx_files.graph import attributes_of
from stages.saliency_twin.parts import Parts, input_of


def gelu(node: NodeProto) -> list[NodeProto]:
    """x · (1 + erf(x / √2)) / 2, after a bias if there is one; `Gelu` itself is younger than opset 20."""
    parts, x = _with_bias(node)
    error = parts.op("Erf", [parts.op("Mul", [x, parts.real(math.sqrt(0.5))])])
    twice = parts.op("Mul", [x, parts.op("Add", [error, parts.real(1)])])
    return parts.finished("Mul", [twice, parts.real(0.5)])


def fast_gelu(node: NodeProto) -> list[NodeProto]:
    """x · (1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2, after a bias if there is one."""
    parts, x = _with_bias(node)
    cubic = parts.op("Mul", [parts.op("Mul", [x, x]), parts.real(0.044715)])
    scaled = parts.op("Mul", [x, parts.op("Add", [cubic, parts.real(1)])])
    bend = parts.op("Tanh", [parts.op("Mul", [scaled, parts.real(math.sqrt(2 / math.pi))])])
    twice = parts.op("Mul", [x, parts.op("Add", [bend, parts.real(1)])])
    return parts.finished("Mul", [twice, parts.real(0.5)])


def quick_gelu(node: NodeProto) -> list[NodeProto]:
    """x · σ(alpha · x)."""
    parts, x = Parts(node), str(node.input[0])
    alpha = parts.real(attributes_of(node).get("alpha", 1.702))
    return parts.finished("Mul", [x, parts.op("Sigmoid", [parts.op("Mul", [x, alpha])])])


def skip_layer_normalization(node: NodeProto) -> list[NodeProto]:
    """Layer normalisation of x + skip + bias, and that sum; the node itself where it hands out statistics."""
    if any(node.output[1:3]):
        return [node]
    parts = Parts(node)
    total = parts.op("Add", [node.input[0], node.input[1]])
    if input_of(node, 4):
        total = parts.op("Add", [total, node.input[4]])
    scales = [node.input[2], *([node.input[3]] if input_of(node, 3) else [])]
    epsilon = attributes_of(node).get("epsilon", 1e-12)
    normalised = parts.op("LayerNormalization", [total, *scales], {"axis": -1, "epsilon": epsilon})
    return parts.done({0: normalised, 3: total})


def fused_conv(node: NodeProto) -> list[NodeProto]:
    """Convolution, addition of a fourth input, activation."""
    parts = Parts(node)
    given = {name: value for name, value in attributes_of(node).items() if not name.startswith("activation")}
    y = parts.op("Conv", list(node.input[:3]), given)
    if input_of(node, 3):
        y = parts.op("Add", [y, node.input[3]])
    return _activated(parts, y)


def fused_gemm(node: NodeProto) -> list[NodeProto]:
    """Matrix product and activation."""
    parts = Parts(node)
    given = {name: value for name, value in attributes_of(node).items() if not name.startswith("activation")}
    return _activated(parts, parts.op("Gemm", list(node.input), given))


def _with_bias(node: NodeProto) -> tuple[Parts, str]:
    parts = Parts(node)
    return parts, parts.op("Add", list(node.input)) if input_of(node, 1) else str(node.input[0])


def _activated(parts: Parts, y: str) -> list[NodeProto]:
    given = attributes_of(parts.node)
    activation = given.get("activation", b"").decode()
    parameters = list(given.get("activation_params", []))
    for name in ("alpha", "beta"):
        parameters += [given[f"activation_{name}"]] if f"activation_{name}" in given else []
    if activation == "Clip":
        return parts.finished("Clip", [y, *(parts.real(bound) for bound in parameters)])
    return parts.finished(activation or "Identity", [y], dict(zip(("alpha", "beta"), parameters, strict=False)))
