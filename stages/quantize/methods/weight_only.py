"""Weight-only: integers of 8 or 4 bits in the file, float arithmetic when it runs. No activation is rounded.

That is what TFLite's "dynamic range" does to a convolutional network, down to 4 bits. The integers are multiplied
out by nodes of constants, Cast and Mul, and not by DequantizeLinear: ONNX Runtime folds the former when it loads the
file, so that it runs at float's speed, and computes the latter anew for every image (MobileNetV2 at 224 px, one
thread, AVX-512: float 6.1 ms; Cast and Mul 6.0 ms at 8 and at 4 bits; DequantizeLinear 15.1 ms at 8 bits, 17.5 ms at
4). Four bits are stored as ONNX's INT4, two in a byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.notes import WeightOnlyNotes
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import GraphIndex, attributes_of, layers, opset_of
from onnx_files.loading import load
from onnx_files.publishing import publish

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_INT4_OPSET = 21
_INT4_IR_VERSION = 10
_GRID = np.linspace(0.4, 1.0, 31)
"""Shares of the greatest magnitude that are tried as an end of the range."""
_LIMITS = {8: (-127, 127), 4: (-8, 7)}


class WeightOnlySettings(Settings):
    """Weights of 8 or 4 bits and float arithmetic."""

    method: Literal["weight_only"] = Field("weight_only", description="integer weights, float arithmetic, no images")
    bits: Literal[8, 4] = Field(8, description="bits of a weight")
    block_size: int = Field(
        32,
        ge=0,
        description="most weights of a channel that share a scale at 4 bits; 0: all of them. At 8 bits all do",
    )
    clipping: Literal["max", "mse"] = Field(
        "mse", description="what a scale spans: the greatest weight, or the range with the least squared error"
    )
    smallest_layer: int = Field(
        1024, ge=0, description="layers with fewer weights stay float, since they save nothing to speak of"
    )


@dataclass(frozen=True)
class IntegerWeight:
    """w ≈ scale·(integers − zero).

    Attributes:
        integers: int8, the weight's shape, or [output channels, blocks, block size], or of a
            matrix with outputs last [blocks, block size, output channels].
        scale: float32, in a form that multiplies the integers.
        zero: int8, of the scale's shape: the integer that stands for 0. None at 8 bits, where it is 0.
    """

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]
    zero: NDArray[np.int8] | None

    def restored(self) -> NDArray[np.float32]:
        """Return the weight that the integers stand for, in their shape, as the file computes it."""
        steps = self.integers.astype(np.float32)
        return (steps if self.zero is None else steps - self.zero.astype(np.float32)) * self.scale


def quantize_weights_only(
    model: OnnxModel,
    variant: str,
    settings: WeightOnlySettings,
    data: PreparedData,
    path: Path,
    progress: Progress = no_progress,
) -> OnnxModel:
    """Store the weights of convolutions and linear layers as integers.

    Args:
        model: the float file.
        variant: name of the result.
        settings: bits and granularity.
        data: not looked at; weights need no images.
        path: the file to write; its record goes beside it.
        progress: called once.

    Raises:
        UsageError: no ONNX model, nothing to quantize in it, no layer of the smallest size, or an opset that knows no
            integers of 4 bits.
    """
    proto = load(model)
    found = layers(proto, model)
    if settings.bits == 4 and opset_of(proto) < _INT4_OPSET:
        raise UsageError(
            f"{model.path}: expected opset {_INT4_OPSET} or later for weights of 4 bits, found {opset_of(proto)}. "
            "Convert the model (onnx.version_converter), or set bits to 8."
        )
    initializers = GraphIndex.of(proto.graph).initializers
    sizes = {node.name: math.prod(initializers[node.input[1]].dims) for node in found}
    large = [node for node in found if sizes[node.name] >= settings.smallest_layer]
    if not large:
        raise UsageError(
            f"{model.path}: expected a layer of {settings.smallest_layer} weights or more, found at most "
            f"{max(sizes.values())}. So small a network "
            "gains nothing by it; use another method, or lower smallest_layer in a configuration."
        )
    errors_db = store_integer_weights(proto, large, settings)
    if settings.bits == 4:
        proto.ir_version = max(proto.ir_version, _INT4_IR_VERSION)
    stored = {node.name for node in large}
    notes = WeightOnlyNotes(
        layers=tuple(node.name for node in large),
        float_layers=tuple(node.name for node in found if node.name not in stored),
        weight_sqnr_db=errors_db,
    )
    progress(1, 1)
    return publish(proto, model, variant, settings, notes, path)


def store_integer_weights(
    proto: ModelProto, of: list[NodeProto], settings: WeightOnlySettings
) -> dict[str, float | None]:
    """Replace the weights of some layers by integers and what multiplies them out, in place.

    Args:
        proto: the graph. A weight that several layers read is stored once.
        of: its layers, with float initializers as weights.
        settings: bits and granularity.

    Returns:
        Power of each weight over the power of its error, in dB, by the weight's name; None where there is no error.
    """
    from onnx import numpy_helper

    initializers = GraphIndex.of(proto.graph).initializers
    stored: dict[str, str] = {}
    errors: dict[str, float | None] = {}
    nodes = []
    for node in of:
        name = node.input[1]
        if name not in stored:
            weight = numpy_helper.to_array(initializers[name])
            quantized = quantize_weight(weight, _output_axis(node), settings)
            restored = quantized.restored().reshape(weight.shape)
            noise, power = np.sum((weight - restored) ** 2, dtype=np.float64), np.sum(weight**2, dtype=np.float64)
            errors[name] = 10 * float(np.log10(power / noise)) if noise > 0 else None
            stored[name] = f"{name}_float"
            made, constants = _multiplied_out(name, quantized, weight.shape, settings.bits)
            nodes += made
            proto.graph.initializer.extend(constants)
        node.input[1] = stored[name]
    still_read = GraphIndex.of(proto.graph).readers
    for name in stored:
        if name not in still_read:
            proto.graph.initializer.remove(initializers[name])
    proto.graph.node.extend(nodes)  # `publish` puts them before their readers
    return errors


def _multiplied_out(
    name: str, quantized: IntegerWeight, shape: tuple[int, ...], bits: int
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes and constants that give a weight as float, under its name and `_float`."""
    from onnx import TensorProto, helper, numpy_helper

    blocks = quantized.integers.shape != shape
    integer, scale, cast, product = (f"{name}_{part}" for part in ("integers", "scale", "cast", "product"))
    nodes = [helper.make_node("Cast", [integer], [cast], name=cast, to=TensorProto.FLOAT)]
    constants = [numpy_helper.from_array(quantized.scale, scale), _tensor(integer, quantized.integers, bits)]
    steps = cast
    if quantized.zero is not None:
        zero, zero_cast, steps = (f"{name}_{part}" for part in ("zero", "zero_cast", "steps"))
        nodes += [
            helper.make_node("Cast", [zero], [zero_cast], name=zero_cast, to=TensorProto.FLOAT),
            helper.make_node("Sub", [cast, zero_cast], [steps], name=steps),
        ]
        constants.append(_tensor(zero, quantized.zero, bits))
    nodes.append(helper.make_node("Mul", [steps, scale], [product if blocks else f"{name}_float"], name=product))
    if blocks:
        wanted = f"{name}_shape"
        nodes.append(helper.make_node("Reshape", [product, wanted], [f"{name}_float"], name=f"{name}_float"))
        constants.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), wanted))
    return nodes, constants


def quantize_weight(weight: NDArray[np.float32], output_axis: int, settings: WeightOnlySettings) -> IntegerWeight:
    """Round a weight to integers, zero to zero, with scales per output channel or block of it.

    At 4 bits the integers lie where the weights do: zero is any of them, and what was rounded has next to no error in
    common.

    Args:
        weight: of two or more dimensions.
        output_axis: the axis of output channels. Blocks are taken of what is summed: of all else where the outputs
            stand first, of a matrix's rows where they stand last.
        settings: bits and granularity.
    """
    groups, axes = weight, tuple(axis for axis in range(weight.ndim) if axis != output_axis)
    if settings.bits == 4 and settings.block_size and output_axis == 1 and weight.ndim == 2:
        block = block_of(len(weight), settings.block_size)
        if block < len(weight):
            groups, axes = weight.reshape(-1, block, weight.shape[1]), (1,)
    if settings.bits == 4 and settings.block_size and output_axis == 0:
        block = block_of(weight[0].size, settings.block_size)
        if block < weight[0].size:
            groups, axes = weight.reshape(len(weight), -1, block), (2,)
    shares = tuple(_GRID[::-1]) if settings.clipping == "mse" else (1.0,)
    if settings.bits == 4:
        return _of_four_bits(groups, axes, shares)
    lowest, highest = _LIMITS[8]
    greatest = np.max(np.abs(groups), axis=axes, keepdims=True).astype(np.float64)
    # Weights whose scale float32 cannot hold are zeros.
    greatest = np.where(greatest > highest * np.finfo(np.float32).tiny, greatest, highest)
    best = np.full(greatest.shape, np.inf)
    scale = greatest / highest
    for share in shares:
        candidate = (greatest * share / highest).astype(np.float32)
        rounded = np.clip(np.rint(groups / candidate), lowest, highest) * candidate
        error = np.sum((groups - rounded) ** 2, axis=axes, keepdims=True, dtype=np.float64)
        scale = np.where(error < best, candidate, scale)
        best = np.minimum(best, error)
    stored = scale.astype(np.float32)
    return IntegerWeight(np.clip(np.rint(groups / stored), lowest, highest).astype(np.int8), stored, None)


def _of_four_bits(groups: NDArray[np.float32], axes: tuple[int, ...], shares: tuple[float, ...]) -> IntegerWeight:
    """Return the integers whose scale and zero lose the least squares in each group.

    Args:
        groups: the weight, cut into what shares a scale.
        axes: along which it shares one.
        shares: of the range from the least to the greatest weight, 0 among them; tried as what the scale spans.
    """
    lowest, highest = _LIMITS[4]
    least = np.minimum(groups.min(axis=axes, keepdims=True), 0).astype(np.float64)
    greatest = np.maximum(groups.max(axis=axes, keepdims=True), 0).astype(np.float64)
    width, middle = greatest - least, (greatest + least) / 2
    width = np.where(width > (highest - lowest) * np.finfo(np.float32).tiny, width, highest - lowest)
    best = np.full(width.shape, np.inf)
    scale, zero = width.astype(np.float32), np.zeros(width.shape, np.float32)
    for share in shares:
        candidate = (width * share / (highest - lowest)).astype(np.float32)
        exact = groups / candidate
        # Halfway between two integers lies the range's middle; zero is one of them, so it lies a little to one side.
        between = (lowest + highest) / 2 - middle / candidate
        for side in (np.floor(between), np.ceil(between)):
            shift = np.clip(side, lowest, highest).astype(np.float32)
            lost = exact + shift - np.clip(np.rint(exact + shift), lowest, highest)
            error = np.sum(lost**2, axis=axes, keepdims=True, dtype=np.float64) * candidate.astype(np.float64) ** 2
            better = error < best
            scale, zero, best = (
                np.where(better, candidate, scale),
                np.where(better, shift, zero),
                np.minimum(best, error),
            )
    exact = groups / scale + zero
    nearest = np.clip(np.rint(exact), lowest, highest)
    integers = _without_common_error(exact, nearest, axes, (lowest, highest))
    return IntegerWeight(integers.astype(np.int8), scale, zero.astype(np.int8))


def _without_common_error(
    exact: NDArray[np.floating], integers: NDArray[np.floating], axes: tuple[int, ...], limits: tuple[int, int]
) -> NDArray[np.floating]:
    """Return integers whose errors add up to half a step at most in each group that shares a scale, where they can.

    What follows a ReLU is never negative, so errors of one sign add up in every answer, while those that cancel out
    hardly show. As many weights as it takes are rounded the other way, those first that lie nearest to the middle.

    Args:
        exact: the weight in steps of its scale, from its zero.
        integers: nearest to it, of the same shape.
        axes: of what shares a scale.
        limits: the lowest and the highest integer.

    Source: Guo et al., SQuant, ICLR 2022, the flipping of section 3.3, in groups that share a scale.
    """
    kept = tuple(axis for axis in range(exact.ndim) if axis not in axes)
    order = (*kept, *axes)
    groups = math.prod(exact.shape[axis] for axis in kept)
    found = integers.transpose(order).reshape(groups, -1)
    error = (exact - integers).transpose(order).reshape(groups, -1)
    total = np.rint(error.sum(axis=1, keepdims=True))
    step = np.sign(total)
    fits = (found + step >= limits[0]) & (found + step <= limits[1])
    gain = np.where(fits, error * step, -1.0)
    rank = np.argsort(np.argsort(-gain, axis=1, kind="stable"), axis=1, kind="stable")
    turned = found + step * ((rank < np.abs(total)) & (gain > 0))
    shape = [exact.shape[axis] for axis in order]
    return np.asarray(turned.reshape(shape).transpose(np.argsort(order)), dtype=np.float64)


def block_of(weights: int, largest: int) -> int:
    """Return the size of equal blocks that an output channel's weights are cut into.

    The largest divisor up to `largest`, but all weights in one where no divisor reaches half of that: smaller blocks
    would take more room for scales than they are worth.
    """
    divisor = next(size for size in range(min(largest, weights), 0, -1) if weights % size == 0)
    return divisor if 2 * divisor >= largest else weights


def _output_axis(node: NodeProto) -> int:
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attributes_of(node).get("transB", 0)):
        return 0
    # A ConvTranspose's second axis holds the output channels of one group; the groups share their scales.
    return 1


def _tensor(name: str, integers: NDArray[np.int8], bits: int) -> TensorProto:
    from onnx import TensorProto, helper, numpy_helper

    if bits == 8:
        return numpy_helper.from_array(integers, name)
    flat = integers.ravel().view(np.uint8) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, dtype=np.uint8))
    packed = (flat[0::2] | flat[1::2] << 4).tobytes()
    return helper.make_tensor(name, TensorProto.INT4, integers.shape, packed, raw=True)
