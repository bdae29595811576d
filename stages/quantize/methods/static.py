"""Static int8: weights and activations as integers, the activations' ranges fixed by calibration images.

The ranges come from `ranges`, not from ONNX Runtime's calibrators, and are handed to its graph writers.

A Clip or ReLU after a layer disappears under asymmetric activation types, and rightly so: the layer's output takes
the range of what came out of the clip, and saturates where it clipped.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from calibration_data.prepared import PreparedData
from calibration_data.sampling import choose_calibration_images
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.notes import StaticNotes
from foundation.processor import CpuTarget, IntegerTypes, choose_integer_types, cpu_of
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import GraphIndex, answer_nodes, float_layers, layers, normalisation_nodes
from onnx_files.image_input import input_name_of, preprocessing_of
from onnx_files.loading import load
from onnx_files.preprocessing import Preprocessing
from onnx_files.probes import Batches, Memory, image_batches
from onnx_files.publishing import publish
from onnx_files.shapes import with_shapes
from stages.quantize.calibration.ranges import Calibration, CalibrationMethod, as_tensors_data, find_ranges
from stages.quantize.float_regions import nodes_faster_float
from stages.quantize.four_bits import cut_to_steps, four_bit_overrides, pack_four_bits, refuse_opset_without_four_bits
from stages.quantize.kept_float import nodes_kept_float
from stages.quantize.recovery.steps import Recovered, RecoverySettings, first_layer, recover
from stages.quantize.rewrites.depthwise import with_depthwise_convolutions
from stages.quantize.rewrites.fences import with_fences
from stages.quantize.rewrites.global_average_pool import with_global_average_pool
from stages.quantize.rewrites.integer_elementwise import with_integer_elementwise
from stages.quantize.rewrites.space_to_depth import with_space_to_depth
from stages.quantize.saturation import saturating_layers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

_SATURATION_IMAGES = 2  # of how often a layer at risk truly saturates; which are at risk needs none


class StaticSettings(Settings):
    """Static int8 by ONNX Runtime's quantizer."""

    method: Literal["static"] = Field("static", description="weights and activations int8, ranges from calibration")
    format: Literal["QDQ", "QOperator"] = Field(
        "QDQ", description="QDQ: float operators between QuantizeLinear and DequantizeLinear; QOperator: QLinearConv…"
    )
    calibration: CalibrationMethod = Field(
        "minmax",
        description="how ranges are chosen: minmax, moving_average (mean of each image's extremes), percentile, "
        "entropy (least Kullback-Leibler divergence as ONNX Runtime searches it, which often cuts too much) or mse "
        "(least squared error)",
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="share of the values inside the range, in percent (calibration: percentile)"
    )
    bits: Literal[8, 4] = Field(
        8,
        description="of a weight, in all layers but the first; 4: half the size at the speed of 8, and answers lost, "
        "part of which recovery.compensated_rounding wins back",
    )
    per_channel: bool = Field(True, description="one weight scale per output channel instead of one per tensor")
    target: Literal["auto", CpuTarget] = Field(
        "auto", description="processor that the types below are chosen for; auto: the one at hand"
    )
    activation_type: Literal["auto", "uint8", "int8", "uint16"] = Field(
        "auto", description="auto: what suits the target; uint16: for NPUs that compute so, slow on processors"
    )
    weight_type: Literal["auto", "uint8", "int8"] = Field("auto", description="auto: what suits the target")
    reduce_range: Literal["auto"] | bool = Field(
        "auto", description="weights of seven bits, against saturation on x86 without VNNI"
    )
    recovery: RecoverySettings = Field(
        RecoverySettings(), description="steps against the loss of accuracy, each with its measured effect"
    )
    float_layers: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="names of layers that stay in float, such as the ones that suffer most"
    )
    space_to_depth: bool = Field(
        True, description="on x86, a first convolution of stride 2 sees blocks of 2 × 2 pixels: the same sums, faster"
    )
    float_regions: bool = Field(
        False,
        description="leave regions in float where turning to integers and back takes more than it saves",
    )
    images: int = Field(128, ge=1, description="number of calibration images, from the training split")
    seed: int = Field(0, ge=0, description="seed of their choice")

    @model_validator(mode="after")
    def _qoperator_has_signed_channels(self) -> Self:
        # ONNX Runtime's writer takes int8 there, whatever it was asked for.
        if self.format == "QOperator" and self.per_channel and self.weight_type == "uint8":
            raise ValueError("format QOperator stores per-channel weights as int8; set weight_type or per_channel")
        return self

    @model_validator(mode="after")
    def _qoperator_has_eight_bits(self) -> Self:
        if self.format == "QOperator" and self.activation_type == "uint16":
            raise ValueError("format QOperator has no operators of 16 bits; set format to QDQ")
        return self

    @model_validator(mode="after")
    def _four_bits_are_signed_and_in_qdq(self) -> Self:
        if self.bits == 4 and (self.format == "QOperator" or self.weight_type == "uint8"):
            raise ValueError("bits 4 needs format QDQ and signed weights; set format and weight_type, or bits to 8")
        return self

    @model_validator(mode="after")
    def _qoperator_keeps_no_activations(self) -> Self:
        if self.format == "QOperator" and self.recovery.keep_activations:
            raise ValueError("recovery.keep_activations needs format QDQ; set format, or leave keep_activations out")
        return self


def quantize_static(
    model: OnnxModel,
    variant: str,
    settings: StaticSettings,
    data: PreparedData,
    path: Path,
    progress: Progress = no_progress,
    *,
    check_saturation: bool = True,
    memory: Memory | None = None,
) -> OnnxModel:
    """Quantize weights and activations; the normalisation before the first layer stays in float.

    The notes say under `saturation` which layers would go wrong on x86 without VNNI.

    Args:
        model: the float file.
        variant: name of the result.
        settings: types, format and calibration.
        data: its training split gives the calibration images.
        path: the file to write; its record goes beside it, and the ranges into `ranges/` there, for the next
            variant that calibrates alike.
        progress: called with the calibration images that are done and all; then, where the rounding is chosen, with
            the layers.
        check_saturation: whether to look for layers that would go wrong, and to say what each recovery step does; a
            search leaves both to the file it chooses.
        memory: what float graphs gave before, on the same calibration images; grows.

    Raises:
        UsageError: no ONNX model, nothing to quantize in it, fewer training images than asked, a layer that stays in
            float is none of the model's, or weights of 4 bits in an opset before 21.
        StageError: an activation is not finite on the calibration images.
    """
    cpu = cpu_of(settings.target)
    types = choose_integer_types(cpu, settings.activation_type, settings.weight_type, settings.reduce_range)
    proto = with_fences(with_global_average_pool(load(model)))
    regions = _float_regions(proto, model, settings) if settings.float_regions else ()
    in_float = (*settings.float_layers, *regions)
    proto = with_integer_elementwise(proto, in_float)
    if settings.bits == 4:
        refuse_opset_without_four_bits(proto, str(model.path))
    if settings.space_to_depth and cpu.target in (None, "x86-vnni", "x86-avx2"):
        proto = with_space_to_depth(proto, in_float)
    float_graph_layers = layers(proto, model)
    _refuse_unknown(settings.float_layers, [node.name for node in float_graph_layers], model)
    if settings.per_channel:  # one scale for all channels would round the small ones away
        proto = with_depthwise_convolutions(proto, in_float)
    chosen = choose_calibration_images(data, settings.images, settings.seed, key="images").tolist()
    input_name = input_name_of(proto, model, data.train.images.shape[1:])
    shown = _Shown(data.train.images, chosen, preprocessing_of(proto, model), input_name)
    kept = tuple(dict.fromkeys((*nodes_kept_float(proto, shown.few_by_one(proto)), *regions)))
    shown = replace(shown, excluded=kept)

    def write_qdq(graph: ModelProto, ranges: Any, options: Mapping[str, Any]) -> ModelProto:
        return write_integers(graph, settings.model_copy(update={"format": "QDQ"}), types, ranges, options, kept)

    recovered = recover(
        proto,
        settings.recovery,
        lambda graph: shown.ranges(graph, settings, path.parent / "ranges", progress),
        write_qdq,
        shown.batches(proto),
        per_channel=settings.per_channel,
        progress=progress,
        measured=check_saturation,
        width_axis=3 if shown.preprocessing.layout == "NCHW" else 2,
        memory=memory,
    )
    quantized = _in_its_format(recovered, settings, types, kept)
    notes = StaticNotes(
        activation_type=types.activation,
        weight_type=types.weight,
        reduce_range=types.reduce_range,
        bits=settings.bits,
        layers=len(float_graph_layers),
        float_layers=tuple(float_layers(quantized, float_graph_layers)),
        calibration_images=tuple(data.train.handle(index) for index in chosen),
        saturation=saturating_layers(quantized, shown.few_by_one(proto)()) if check_saturation else None,
        recovery=recovered.notes,
    )
    if settings.bits == 4:
        pack_four_bits(quantized)
    return publish(quantized, model, variant, settings, notes, path)


def _in_its_format(
    recovered: Recovered, settings: StaticSettings, types: IntegerTypes, kept: Sequence[str]
) -> ModelProto:
    if recovered.written is not None and settings.format == "QDQ":
        return recovered.written
    quantized = write_integers(recovered.model, settings, types, recovered.ranges, recovered.options, kept)
    recovered.check(quantized)
    return quantized


def _float_regions(proto: ModelProto, model: OnnxModel, settings: StaticSettings) -> tuple[str, ...]:
    """Return the nodes that are faster in float; refuse where that is none, or every layer."""
    kept = {*settings.float_layers, *normalisation_nodes(proto), *answer_nodes(proto)}
    found = nodes_faster_float(proto, kept)
    in_float = {node.name for node in layers(proto, model)} - set(found)
    told = "none: without it the file is the same" if set(found) <= kept else "every layer is" if not in_float else ""
    if told:
        raise UsageError(
            f"{model.path}: expected some regions that are faster in float, and others in integers; found {told}. "
            "Use --method static, or weight-only."
        )
    return found


@dataclass(frozen=True)
class _Shown:
    """The calibration images, as a model takes them."""

    images: NDArray[np.uint8]
    chosen: list[int]
    preprocessing: Preprocessing
    input_name: str
    excluded: tuple[str, ...] = ()

    def batches(self, proto: ModelProto) -> Batches:
        return image_batches(proto, self.images, self.chosen, self.preprocessing, self.input_name)

    def few_by_one(self, proto: ModelProto) -> Batches:
        few = self.chosen[:_SATURATION_IMAGES]
        return image_batches(proto, self.images, few, self.preprocessing, self.input_name, 1)

    def ranges(self, proto: ModelProto, settings: StaticSettings, cache: Path, progress: Progress) -> Any:
        """Return ONNX Runtime's `TensorsData` of a graph's activations."""
        found = find_ranges(
            proto,
            self.images,
            self.preprocessing,
            self.input_name,
            quantized_operators(),
            Calibration(settings.calibration, settings.percentile),
            cache,
            progress,
            self.chosen,
            self.excluded,
        )
        return as_tensors_data(found)


def write_integers(
    proto: ModelProto,
    settings: StaticSettings,
    types: IntegerTypes,
    ranges: Any,
    recovery_options: Mapping[str, Any] | None = None,
    kept: Sequence[str] = (),
) -> ModelProto:
    """Return the graph with integer weights and activations, written by ONNX Runtime's quantizers.

    Args:
        proto: the float graph; left as it is.
        settings: format and granularity.
        types: of activations and weights.
        ranges: ONNX Runtime's `TensorsData`.
        recovery_options: options of ONNX Runtime's writers that a recovery step asks for.
        kept: names of nodes that stay in float, beside the normalisation, the answers and the settings' layers.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantizationMode, QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

    by_name = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8, "uint16": QuantType.QUInt16}
    weight, activation = by_name[types.weight], by_name[types.activation]
    excluded = [*normalisation_nodes(proto), *answer_nodes(proto), *settings.float_layers, *kept]
    inferred = with_shapes(proto)
    # Logits in 256 steps would tie images that the network tells apart, and with them every ranking metric.
    in_float = [] if types.answers else ["Gemm", "MatMul"]
    options = {"OpTypesToExcludeOutputQuantization": in_float, **(recovery_options or {})}
    stacks = {name: [{"quant_type": weight}] for name in _stacked_weights(proto)} if settings.per_channel else {}
    options["TensorQuantOverrides"] = {**stacks, **options.get("TensorQuantOverrides", {})}
    if settings.bits == 4:
        few = four_bit_overrides(
            proto, first_layer(proto), per_channel=settings.per_channel, excluded=frozenset(excluded)
        )
        cut_to_steps(inferred, few)
        options["TensorQuantOverrides"] |= {**few, **options["TensorQuantOverrides"]}
    if settings.format == "QOperator":
        quantizer = ONNXQuantizer(
            inferred, settings.per_channel, types.reduce_range, QuantizationMode.QLinearOps, True,
            weight, activation, ranges, [], excluded, list(quantized_operators()), dict(recovery_options or {}),
        )  # fmt: skip
    else:
        quantizer = QDQQuantizer(
            inferred, settings.per_channel, types.reduce_range,
            weight, activation, ranges, [], excluded, list(quantized_operators()), options,
        )  # fmt: skip
    quantizer.quantize_model()
    return quantizer.model.model


def _stacked_weights(proto: ModelProto) -> list[str]:
    """Return weights that are matrices on top of each other: ONNX Runtime takes one scale for all of those."""
    index = GraphIndex.of(proto.graph)
    weights = [node.input[1] for node in proto.graph.node if node.op_type == "MatMul"]
    return [name for name in weights if name in index.initializers and len(index.initializers[name].dims) > 2]


def _refuse_unknown(named: Sequence[str], known: Sequence[str], model: OnnxModel) -> None:
    unknown = [name for name in named if name not in known]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.0)
        raise UsageError(
            f"float_layers: expected names of layers of {model.path.name}, found {unknown[0]!r}; did you mean "
            f"{nearest[0]!r}?"
        )


def quantized_operators() -> tuple[str, ...]:
    """Return every operator that either writer knows, in an order that does not change from run to run."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return tuple(sorted(set(QDQRegistry) | set(QLinearOpsRegistry)))
