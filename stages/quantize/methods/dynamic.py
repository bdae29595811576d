"""Dynamic int8: integer weights everywhere, and activations quantized on the fly where that pays.

A convolution with dynamically quantized activations (`ConvInteger`) is slower than float or not there at all, so
convolutions keep float arithmetic on int8 weights, which are multiplied out when the file is loaded: a quarter of the
size at float's speed. That is what TFLite's "dynamic range" does to a convolutional network. Linear layers become
`MatMulInteger` with activations quantized per batch.

The weights are written as Cast and Mul, not as DequantizeLinear: ONNX Runtime folds the former into a constant at
load and computes the latter anew for every image (ResNet-18's form at 112 px, one thread, AVX2: float 17.8 ms, Cast
and Mul 17.6 ms, DequantizeLinear 22.0 ms).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.notes import DynamicNotes
from foundation.processor import choose_integer_types, detect_cpu
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import GraphIndex, layers
from onnx_files.loading import load
from onnx_files.publishing import publish
from onnx_files.shapes import with_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


class DynamicSettings(Settings):
    """Int8 weights; activations of linear layers quantized on the fly, convolutions in float arithmetic."""

    method: Literal["dynamic"] = Field("dynamic", description="int8 weights, no calibration images")
    per_channel: bool = Field(True, description="one weight scale per output channel instead of one per tensor")
    reduce_range: Literal["auto"] | bool = Field(
        "auto", description="weights of linear layers of seven bits, against saturation on x86 without VNNI"
    )


def quantize_dynamic(
    model: OnnxModel,
    variant: str,
    settings: DynamicSettings,
    data: PreparedData,
    path: Path,
    progress: Progress = no_progress,
) -> OnnxModel:
    """Store weights as int8 and quantize the linear layers' activations at run time.

    Args:
        model: the float file.
        variant: name of the result.
        settings: granularity and range of the weights.
        data: not looked at; dynamic quantization needs no images.
        path: the file to write; its record goes beside it.
        progress: called once.

    Raises:
        UsageError: no ONNX model, or nothing to quantize in it.
    """
    proto = load(model)
    layers(proto, model)  # refuses a model without any
    # What multiplies is uint8 by int8 on every processor here: DynamicQuantizeLinear knows no other type.
    types = choose_integer_types(detect_cpu(), "uint8", "int8", settings.reduce_range)
    convolutions = store_convolutions_as_int8(proto, settings.per_channel)
    linear = _linear_layers(proto)
    compiled = _quantize_linear_layers(proto, settings.per_channel, types.reduce_range)
    notes = DynamicNotes(
        linear_layers=tuple(linear),
        convolutions_in_float_arithmetic=tuple(convolutions),
        reduce_range=types.reduce_range,
    )
    progress(1, 1)
    return publish(compiled, model, variant, settings, notes, path)


def store_convolutions_as_int8(proto: ModelProto, per_channel: bool) -> list[str]:
    """Replace the weight w of each convolution and stack of matrices by int8 q and s with w ≈ s·q, s = max|w| / 127.

    Args:
        proto: the graph; changed in place. A weight that several convolutions share is stored once.
        per_channel: one s per output channel instead of one per tensor.

    Returns:
        Names of the convolutions.
    """
    from onnx import TensorProto, helper, numpy_helper

    initializers = GraphIndex.of(proto.graph).initializers
    weights = {name: tensor for name, tensor in initializers.items() if tensor.data_type == TensorProto.FLOAT}
    stored: dict[str, str] = {}
    names: list[str] = []
    new_nodes = []
    for node in proto.graph.node:
        if not _is_multiplied_out(node, weights):
            continue
        weight_name = node.input[1]
        if weight_name not in stored:
            weight = numpy_helper.to_array(weights[weight_name])
            # The output channel is a Conv's first axis; a ConvTranspose's second holds it only within one group.
            axis = 0 if per_channel and node.op_type == "Conv" else None
            integers, scale = _symmetric_int8(weight, axis)
            integer_name, scale_name = f"{weight_name}_int8", f"{weight_name}_scale"
            cast_name, float_name = f"{weight_name}_cast", f"{weight_name}_float"
            proto.graph.initializer.append(numpy_helper.from_array(integers, integer_name))
            proto.graph.initializer.append(numpy_helper.from_array(scale, scale_name))
            new_nodes += [
                helper.make_node("Cast", [integer_name], [cast_name], name=cast_name, to=TensorProto.FLOAT),
                helper.make_node("Mul", [cast_name, scale_name], [float_name], name=float_name),
            ]
            stored[weight_name] = float_name
        node.input[1] = stored[weight_name]
        names.append(node.name)
    still_read = GraphIndex.of(proto.graph)
    for name in stored:
        if name not in still_read.readers and name not in still_read.outputs:
            proto.graph.initializer.remove(weights[name])
    proto.graph.node.extend(new_nodes)  # `publish` puts them before their readers
    return names


def _is_multiplied_out(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    # ONNX Runtime multiplies no stack of integer matrices by one scale per column, and no integers by a vector.
    if len(node.input) < 2 or node.input[1] not in weights:
        return False
    no_matrix = node.op_type == "MatMul" and len(weights[node.input[1]].dims) != 2
    return no_matrix or node.op_type in ("Conv", "ConvTranspose")


def _symmetric_int8(weight: NDArray[np.float32], axis: int | None) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    reduced = None if axis is None else tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.max(np.abs(weight), axis=reduced, keepdims=True)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def _linear_layers(proto: ModelProto) -> list[str]:
    constants = GraphIndex.of(proto.graph).initializers
    return [n.name for n in proto.graph.node if n.op_type in ("Gemm", "MatMul") and n.input[1] in constants]


def _quantize_linear_layers(proto: ModelProto, per_channel: bool, reduce_range: bool) -> ModelProto:
    from onnxruntime.quantization import QuantizationMode, QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

    quantizer = ONNXQuantizer(
        with_shapes(proto), per_channel, reduce_range, QuantizationMode.IntegerOps, False,
        QuantType.QInt8, QuantType.QUInt8, None, [], [], ["MatMul", "Gemm"], {"MatMulConstBOnly": True},
    )  # fmt: skip
    quantizer.quantize_model()
    return quantizer.model.model
