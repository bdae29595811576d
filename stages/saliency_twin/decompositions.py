"""Fused operators as the plain ONNX that they stand for.

The file's own nodes stay as they are. Only the differentiation looks at this form: its integer tensors are those of
the file, its float tensors exist nowhere and are computed anew where a rule asks for their value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx import AttributeProto, NodeProto, TensorProto, helper

from onnx_files.graph import attributes_of
from stages.saliency_twin import decompositions_fused as fused
from stages.saliency_twin.parts import input_of

Decomposition = Callable[[NodeProto], list[NodeProto]]
"""From one node to nodes of the domain ai.onnx that compute its outputs."""

_MICROSOFT = "com.microsoft"


def operator_key(node: NodeProto) -> str:
    """Return an operator's name in the tables; those outside of ai.onnx have their domain before it."""
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def decompose(node: NodeProto) -> list[NodeProto]:
    """Return the nodes that stand for this one; itself where it is not fused."""
    decomposition = DECOMPOSITIONS.get(operator_key(node))
    return [node] if decomposition is None else decomposition(node)


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
        inputs = [input_of(self.node, position + offset) for offset in range(3)]
        attributes = [] if axis is None else [helper.make_attribute("axis", axis)]
        return self.add("DequantizeLinear", inputs, part, attributes)

    def quantized(self, real: str, scale: int, zero_point: int) -> list[NodeProto]:
        inputs = [real, input_of(self.node, scale), input_of(self.node, zero_point)]
        return [*self.nodes, _node("QuantizeLinear", inputs, self.node.output[0], self.node, [])]


def _integer_bias(real: _Real, position: int, factors: tuple[int, int]) -> str:
    # int32 on the grid input scale × weight scale.
    if not input_of(real.node, position):
        return ""
    scale = real.add("Mul", [input_of(real.node, factor) for factor in factors], "bias_scale")
    axis = helper.make_attribute("axis", 0)
    return real.add("DequantizeLinear", [input_of(real.node, position), scale], "bias", [axis])


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
    if input_of(node, 7):
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


def _cast_to_float(integers: str, output: str, like: NodeProto) -> NodeProto:
    return _node("Cast", [integers], output, like, [helper.make_attribute("to", TensorProto.FLOAT)])


def _matmul_integer_to_float(node: NodeProto) -> list[NodeProto]:
    """Inputs a, b, s_a, s_b, z_a, z_b, bias."""
    real = _Real(node)
    integers = [node.input[0], node.input[1], input_of(node, 4), input_of(node, 5)]
    sums = real.add("MatMulInteger", integers, "sums")
    real.nodes.append(_cast_to_float(sums, real.name("float"), node))
    scale = real.add("Mul", [node.input[2], node.input[3]], "scale")
    if not input_of(node, 6):
        return [*real.nodes, _node("Mul", [real.name("float"), scale], node.output[0], node, [])]
    product = real.add("Mul", [real.name("float"), scale], "product")
    return [*real.nodes, _node("Add", [product, input_of(node, 6)], node.output[0], node, [])]


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
    f"{_MICROSOFT}.Gelu": fused.gelu,
    f"{_MICROSOFT}.BiasGelu": fused.gelu,
    f"{_MICROSOFT}.FastGelu": fused.fast_gelu,
    f"{_MICROSOFT}.QuickGelu": fused.quick_gelu,
    f"{_MICROSOFT}.SkipLayerNormalization": fused.skip_layer_normalization,
    f"{_MICROSOFT}.FusedConv": fused.fused_conv,
    f"{_MICROSOFT}.FusedGemm": fused.fused_gemm,
}
"""By domain and operator; what ONNX Runtime's quantizers and graph optimizers write."""
