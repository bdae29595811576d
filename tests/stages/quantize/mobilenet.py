"""MobileNetV2 in ONNX, written node by node with random weights, and the same function made hard to quantize."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, outputs, repeats, stride of the first (arXiv 1801.04381, table 2)."""


class _Network:
    def __init__(self, activation: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes = [helper.make_node("Cast", ["image"], ["pixels"], name="cast", to=TensorProto.FLOAT)]
        self.constants: dict[str, NDArray[np.float32]] = {
            "slope": np.full((1, 3, 1, 1), 1 / 64, dtype=np.float32),
            "offset": np.full((1, 3, 1, 1), -2, dtype=np.float32),
        }
        if activation == "Clip":
            self.constants |= {"zero": np.array(0, dtype=np.float32), "six": np.array(6, dtype=np.float32)}
        self.nodes.append(helper.make_node("Mul", ["pixels", "slope"], ["scaled"], name="mul"))
        self.nodes.append(helper.make_node("Add", ["scaled", "offset"], ["x"], name="add"))
        self.activation = activation
        self.tensor = "x"
        self.channels = 3
        self.convolutions = 0

    def conv(
        self, outputs: int, kernel: int, stride: int = 1, *, depthwise: bool = False, active: bool = True
    ) -> None:
        name = f"c{self.convolutions}"
        self.convolutions += 1
        inputs = 1 if depthwise else self.channels
        fan_in = inputs * kernel**2
        weight = self.rng.normal(0, np.sqrt((2 if active else 1) / fan_in), (outputs, inputs, kernel, kernel))
        self.constants[f"{name}.w"] = weight.astype(np.float32)
        self.constants[f"{name}.b"] = self.rng.uniform(-0.3, 0.3, outputs).astype(np.float32)
        self.nodes.append(
            helper.make_node(
                "Conv",
                [self.tensor, f"{name}.w", f"{name}.b"],
                [name],
                name=name,
                strides=[stride] * 2,
                pads=[kernel // 2] * 4,
                group=self.channels if depthwise else 1,
            )
        )
        self.tensor, self.channels = name, outputs
        if active:
            bounds = ["zero", "six"] if self.activation == "Clip" else []
            self.nodes.append(helper.make_node(self.activation, [name, *bounds], [f"{name}.a"], name=f"{name}.a"))
            self.tensor = f"{name}.a"


def mobilenet_v2(size: int = 32, classes: int = 10, activation: str = "Relu", seed: int = 0) -> onnx.ModelProto:
    """Return MobileNetV2 with folded batch norms: 52 convolutions and a Gemm.

    Args:
        size: of the image, uint8 [batch, 3, size, size].
        classes: number of logits.
        activation: Relu, or Clip from 0 to 6.
        seed: of the weights.
    """
    net = _Network(activation, seed)
    net.conv(32, 3, 2)
    for expansion, outputs, repeats, first_stride in BLOCKS:
        for repeat in range(repeats):
            before, inputs = net.tensor, net.channels
            stride = first_stride if repeat == 0 else 1
            if expansion > 1:
                net.conv(inputs * expansion, 1)
            net.conv(net.channels, 3, stride, depthwise=True)
            net.conv(outputs, 1, active=False)
            if stride == 1 and inputs == outputs:
                total = f"{net.tensor}.sum"
                net.nodes.append(helper.make_node("Add", [before, net.tensor], [total], name=total))
                net.tensor = total
    net.conv(1280, 1)
    net.constants["head.w"] = net.rng.normal(0, np.sqrt(1 / 1280), (classes, 1280)).astype(np.float32)
    net.constants["head.b"] = net.rng.normal(0, 0.1, classes).astype(np.float32)
    net.nodes += [
        helper.make_node("GlobalAveragePool", [net.tensor], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"),
        helper.make_node("Gemm", ["features", "head.w", "head.b"], ["logits"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        net.nodes,
        "mobilenet_v2",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in net.constants.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def spread_channels(proto: onnx.ModelProto, largest: float, seed: int = 1) -> onnx.ModelProto:
    """Return the same function with the channels around each depthwise convolution divided by 1 to `largest`.

    A channel that is only ever made smaller stays below a Clip's bound where it was below, so that with activations
    below 6 this keeps a network of ReLU6 as well.
    """
    rng = np.random.default_rng(seed)
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}

    def scale(name: str, factor: NDArray[np.float64], axis: int) -> None:
        value = numpy_helper.to_array(constants[name])
        shape = [1] * value.ndim
        shape[axis] = -1
        constants[name].CopyFrom(numpy_helper.from_array((value * factor.reshape(shape)).astype(np.float32), name))

    convolutions = [node for node in result.graph.node if node.op_type == "Conv"]
    for first, second in itertools.pairwise(convolutions):
        if second.input[0] != f"{first.name}.a":
            continue
        outputs = constants[first.input[1]].dims[0]
        divisors = np.exp(rng.uniform(0, np.log(largest), outputs))
        scale(first.input[1], 1 / divisors, 0)
        scale(first.input[2], 1 / divisors, 0)
        scale(second.input[1], divisors, 0 if constants[second.input[1]].dims[1] == 1 else 1)
    return result
