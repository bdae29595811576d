"""Fused operators as the plain ONNX that they stand for.

The file's own nodes stay as they are. Only the differentiation looks at this form: its integer tensors are those of
the file, its float tensors exist nowhere and are computed anew where a rule asks for their value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from onnx import AttributeProto, NodeProto, TensorProto, helper

from onnx_files.graph import attributes_of

Decomposition = Callable[[NodeProto], list[NodeProto]]
"""From one node to nodes of the domain ai.onnx that compute its first output."""

_MICROSOFT = "com.microsoft"


def operator_key(node: NodeProto) -> str:
    """Return an operator's name in the tables; those outside of ai.onnx have their domain before it."""
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def decompose(node: NodeProto) -> list[NodeProto]:
    """Return the nodes that stand for this one; itself where it is not fused."""
    decomposition = DECOMPOSITIONS.get(operator_key(node))
    return [node] if decomposition is None else decomposition(node)


def _input(node: NodeProto, position: int) -> str:
    return str(node.input[position]) if position < len(node.input) else ""


def _attributes(node: NodeProto, *left_out: str) -> list[AttributeProto]:
    return [attribute for attribute in node.attribute if attribute.name not in left_out]


def _node(
    op_type: str, inputs: list[str], output: str, like: NodeProto, attributes: list[AttributeProto]
) -> NodeProto:
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    node = helper.make_node(op_type, inputs, [output], name=like.name)
    node.attribute.extend(attributes)
    return node


def _value(node: NodeProto, name: str, default: float) -> float:
    return float(attributes_of(node).get(name, default))


class _Real:
    """Names of the real values behind a node's integers, with the nodes that give them."""

    def __init__(self, node: NodeProto) -> None:
        self.node = node
        self.nodes: list[NodeProto] = []

    def name(self, part: str) -> str:
        return f"{self.node.output[0]}/real/{part}"

    def add(self, op_type: str, inputs: list[str], part: str, attributes: list[AttributeProto] | None = None) -> str:
        self.nodes.append(_node(op_type, inputs, self.name(part), self.node, attributes or []))
        return self.name(part)

    def constant(self, value: float, part: str) -> str:
        return self.add("Constant", [], part, [helper.make_attribute("value_float", float(value))])

    def dequantized(self, position: int, part: str, axis: int | None = None) -> str:
        # A tensor, its scale and its zero point stand next to each other in every one of these operators.
        inputs = [_input(self.node, position + offset) for offset in range(3)]
        attributes = [] if axis is None else [helper.make_attribute("axis", axis)]
        return self.add("DequantizeLinear", inputs, part, attributes)

    def quantized(self, real: str, scale: int, zero_point: int) -> list[NodeProto]:
        inputs = [real, _input(self.node, scale), _input(self.node, zero_point)]
        return [*self.nodes, _node("QuantizeLinear", inputs, self.node.output[0], self.node, [])]


def _integer_bias(real: _Real, position: int, factors: tuple[int, int]) -> str:
    # int32 on the grid input scale × weight scale.
    if not _input(real.node, position):
        return ""
    scale = real.add("Mul", [_input(real.node, factor) for factor in factors], "bias_scale")
    axis = helper.make_attribute("axis", 0)
    return real.add("DequantizeLinear", [_input(real.node, position), scale], "bias", [axis])


def _qlinear_conv(node: NodeProto) -> list[NodeProto]:
    """Inputs x, s_x, z_x, w, s_w, z_w, s_y, z_y, bias."""
    real = _Real(node)
    x, w = real.dequantized(0, "x"), real.dequantized(3, "w", axis=0)
    y = real.add("Conv", [x, w, _integer_bias(real, 8, (1, 4))], "y", _attributes(node))
    return real.quantized(y, 6, 7)


def _qlinear_matmul(node: NodeProto) -> list[NodeProto]:
    """Inputs a, s_a, z_a, b, s_b, z_b, s_y, z_y."""
    real = _Real(node)
    y = real.add("MatMul", [real.dequantized(0, "a"), real.dequantized(3, "b", axis=-1)], "y")
    return real.quantized(y, 6, 7)


def _qgemm(node: NodeProto) -> list[NodeProto]:
    """Inputs a, s_a, z_a, b, s_b, z_b, c, s_y, z_y; without s_y the output is float."""
    real = _Real(node)
    axis = 0 if _value(node, "transB", 0) else 1
    inputs = [real.dequantized(0, "a"), real.dequantized(3, "b", axis=axis), _integer_bias(real, 6, (1, 4))]
    if _input(node, 7):
        return real.quantized(real.add("Gemm", inputs, "y", _attributes(node)), 7, 8)
    return [*real.nodes, _node("Gemm", inputs, node.output[0], node, _attributes(node))]


def _binary(op_type: str) -> Decomposition:
    def decomposition(node: NodeProto) -> list[NodeProto]:
        """Inputs a, s_a, z_a, b, s_b, z_b, s_y, z_y."""
        real = _Real(node)
        return real.quantized(real.add(op_type, [real.dequantized(0, "a"), real.dequantized(3, "b")], "y"), 6, 7)

    return decomposition


def _unary(op_type: str, *left_out: str) -> Decomposition:
    def decomposition(node: NodeProto) -> list[NodeProto]:
        """Inputs x, s_x, z_x, s_y, z_y."""
        if _value(node, "channels_last", 0):
            return [node]  # no operator of ai.onnx pools that order
        real = _Real(node)
        return real.quantized(real.add(op_type, [real.dequantized(0, "x")], "y", _attributes(node, *left_out)), 3, 4)

    return decomposition


def _qlinear_concat(node: NodeProto) -> list[NodeProto]:
    """Inputs s_y, z_y and then x, s_x, z_x of each part."""
    real = _Real(node)
    parts = [real.dequantized(position, f"x{position}") for position in range(2, len(node.input), 3)]
    return real.quantized(real.add("Concat", parts, "y", _attributes(node)), 0, 1)


def _microsoft_quantizer(op_type: str) -> Decomposition:
    # The same operator, from before ai.onnx knew 16 bits.
    def decomposition(node: NodeProto) -> list[NodeProto]:
        return [_node(op_type, list(node.input), node.output[0], node, _attributes(node))]

    return decomposition


def _gelu(node: NodeProto) -> list[NodeProto]:
    """x · (1 + erf(x / √2)) / 2, after a bias if there is one; `Gelu` itself is younger than opset 20."""
    real = _Real(node)
    x = real.add("Add", list(node.input), "x") if _input(node, 1) else node.input[0]
    error = real.add("Erf", [real.add("Mul", [x, real.constant(math.sqrt(0.5), "slope")], "scaled")], "erf")
    twice = real.add("Mul", [x, real.add("Add", [error, real.constant(1, "one")], "gate")], "twice")
    half = real.constant(0.5, "half")
    return [*real.nodes, _node("Mul", [twice, half], node.output[0], node, [])]


def _quick_gelu(node: NodeProto) -> list[NodeProto]:
    """x · σ(alpha · x)."""
    real = _Real(node)
    alpha = real.constant(_value(node, "alpha", 1.702), "alpha")
    gate = real.add("Sigmoid", [real.add("Mul", [node.input[0], alpha], "scaled")], "gate")
    return [*real.nodes, _node("Mul", [node.input[0], gate], node.output[0], node, [])]


def _fused_conv(node: NodeProto) -> list[NodeProto]:
    """Convolution, addition of a fourth input, activation."""
    real = _Real(node)
    y = real.add("Conv", list(node.input[:3]), "conv", _attributes(node, "activation", "activation_params"))
    if _input(node, 3):
        y = real.add("Add", [y, _input(node, 3)], "sum")
    return [*real.nodes, *_activation(node, y)]


def _fused_gemm(node: NodeProto) -> list[NodeProto]:
    real = _Real(node)
    kept = [attribute for attribute in node.attribute if not attribute.name.startswith("activation")]
    y = real.add("Gemm", list(node.input), "gemm", kept)
    return [*real.nodes, *_activation(node, y)]


def _activation(node: NodeProto, y: str) -> list[NodeProto]:
    given = attributes_of(node)
    activation = given.get("activation", b"").decode()
    parameters = list(given.get("activation_params", []))
    for name in ("alpha", "beta"):
        parameters += [given[f"activation_{name}"]] if f"activation_{name}" in given else []
    if activation == "Clip":
        bounds = [f"{node.output[0]}/real/bound{number}" for number in range(2)]
        constants = [
            helper.make_node("Constant", [], [name], value_float=value)
            for name, value in zip(bounds, parameters, strict=True)
        ]
        return [*constants, _node("Clip", [y, *bounds], node.output[0], node, [])]
    attributes = [
        helper.make_attribute(name, value) for name, value in zip(("alpha", "beta"), parameters, strict=False)
    ]
    return [_node(activation or "Identity", [y], node.output[0], node, attributes)]


def _cast_to_float(integers: str, output: str, like: NodeProto) -> NodeProto:
    return _node("Cast", [integers], output, like, [helper.make_attribute("to", TensorProto.FLOAT)])


def _matmul_integer_to_float(node: NodeProto) -> list[NodeProto]:
    """Inputs a, b, s_a, s_b, z_a, z_b, bias."""
    real = _Real(node)
    integers = [node.input[0], node.input[1], _input(node, 4), _input(node, 5)]
    sums = real.add("MatMulInteger", integers, "sums")
    real.nodes.append(_cast_to_float(sums, real.name("float"), node))
    scale = real.add("Mul", [node.input[2], node.input[3]], "scale")
    if not _input(node, 6):
        return [*real.nodes, _node("Mul", [real.name("float"), scale], node.output[0], node, [])]
    product = real.add("Mul", [real.name("float"), scale], "product")
    return [*real.nodes, _node("Add", [product, _input(node, 6)], node.output[0], node, [])]


DECOMPOSITIONS: Mapping[str, Decomposition] = {
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    f"{_MICROSOFT}.QGemm": _qgemm,
    f"{_MICROSOFT}.QLinearAdd": _binary("Add"),
    f"{_MICROSOFT}.QLinearMul": _binary("Mul"),
    f"{_MICROSOFT}.QLinearConcat": _qlinear_concat,
    f"{_MICROSOFT}.QLinearGlobalAveragePool": _unary("GlobalAveragePool", "channels_last"),
    f"{_MICROSOFT}.QLinearAveragePool": _unary("AveragePool", "channels_last"),
    f"{_MICROSOFT}.QLinearLeakyRelu": _unary("LeakyRelu"),
    f"{_MICROSOFT}.QLinearSigmoid": _unary("Sigmoid"),
    f"{_MICROSOFT}.QLinearSoftmax": _unary("Softmax", "opset"),
    f"{_MICROSOFT}.QuantizeLinear": _microsoft_quantizer("QuantizeLinear"),
    f"{_MICROSOFT}.DequantizeLinear": _microsoft_quantizer("DequantizeLinear"),
    f"{_MICROSOFT}.MatMulIntegerToFloat": _matmul_integer_to_float,
    f"{_MICROSOFT}.Gelu": _gelu,
    f"{_MICROSOFT}.BiasGelu": _gelu,
    f"{_MICROSOFT}.QuickGelu": _quick_gelu,
    f"{_MICROSOFT}.FusedConv": _fused_conv,
    f"{_MICROSOFT}.FusedGemm": _fused_gemm,
}
"""By domain and operator; what ONNX Runtime's quantizers and graph optimizers write."""
