"""Static int8: weights and activations as integers, the activations' ranges fixed by calibration images.

Calibration runs batch by batch, so that no more than one batch's tensors are in memory. ONNX Runtime's own
`quantize_static` either keeps them all (percentile and entropy) or, with `CalibMaxIntermediateOutputs`, throws away
what it has seen so far; its histogram of 128 bins for 128 levels leaves entropy with one single candidate, the whole
range. So the ranges are collected here, with ONNX Runtime's calibrators, and handed to its graph writers.

A Clip or ReLU after a layer disappears under asymmetric activation types, and rightly so: the layer's output takes
the range of what came out of the clip, and saturates where it clipped.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from calibration_data.prepared import PreparedData
from calibration_data.readers import ArrayCalibrationReader
from calibration_data.sampling import choose_calibration_images
from pipeline.artifacts import OnnxModel
from pipeline.errors import StageError
from pipeline.processor import IntegerTypes, choose_integer_types, detect_cpu
from pipeline.settings import Settings
from stages.quantize.graph import (
    Progress,
    float_layers,
    input_name_of,
    layers,
    load,
    no_progress,
    normalisation_nodes,
    preprocessing_of,
    publish,
)

if TYPE_CHECKING:
    from onnx import ModelProto

_BATCH_SIZE = 16
_ENTROPY_BINS = 512  # 192 candidate ranges for 128 levels; the search's cost grows with the square


class StaticSettings(Settings):
    """Static int8 by ONNX Runtime's quantizer."""

    method: Literal["static"] = Field("static", description="weights and activations int8, ranges from calibration")
    format: Literal["QDQ", "QOperator"] = Field(
        "QDQ", description="QDQ: float operators between QuantizeLinear and DequantizeLinear; QOperator: QLinearConv…"
    )
    calibration: Literal["minmax", "percentile", "entropy"] = Field("minmax", description="how ranges are chosen")
    percentile: float = Field(
        99.99, gt=50, le=100, description="share of the values inside the range, in percent (calibration: percentile)"
    )
    per_channel: bool = Field(True, description="one weight scale per output channel instead of one per tensor")
    activation_type: Literal["auto", "uint8", "int8"] = Field("auto", description="auto: what suits this processor")
    weight_type: Literal["auto", "uint8", "int8"] = Field("auto", description="auto: what suits this processor")
    reduce_range: Literal["auto"] | bool = Field(
        "auto", description="weights of seven bits, against saturation on x86 without VNNI"
    )
    images: int = Field(128, ge=1, description="number of calibration images, from the training split")
    seed: int = Field(0, ge=0, description="seed of their choice")

    @model_validator(mode="after")
    def _qoperator_has_signed_channels(self) -> Self:
        # ONNX Runtime's writer takes int8 there, whatever it was asked for.
        if self.format == "QOperator" and self.per_channel and self.weight_type == "uint8":
            raise ValueError("format QOperator stores per-channel weights as int8; set weight_type or per_channel")
        return self


def quantize_static(
    model: OnnxModel,
    variant: str,
    settings: StaticSettings,
    data: PreparedData,
    path: Path,
    progress: Progress = no_progress,
) -> OnnxModel:
    """Quantize weights and activations; the normalisation before the first layer stays in float.

    Args:
        model: the float file.
        variant: name of the result.
        settings: types, format and calibration.
        data: its training split gives the calibration images.
        path: the file to write; its record goes beside it.
        progress: called after each batch of calibration images.

    Raises:
        UsageError: no ONNX model, nothing to quantize in it, or fewer training images than asked.
        StageError: an activation is not finite on the calibration images.
    """
    types = choose_integer_types(detect_cpu(), settings.activation_type, settings.weight_type, settings.reduce_range)
    proto = load(model)
    float_graph_layers = layers(proto, model)
    chosen = choose_calibration_images(data, settings.images, settings.seed, key="images")
    reader = ArrayCalibrationReader(
        data.train.images[chosen], preprocessing_of(proto, model), _BATCH_SIZE, input_name_of(proto, model, data)
    )
    ranges = collect_ranges(proto, settings, reader, progress)
    quantized = write_integers(proto, settings, types, ranges)
    notes = {
        "activation_type": types.activation,
        "weight_type": types.weight,
        "reduce_range": types.reduce_range,
        "layers": len(float_graph_layers),
        "float_layers": float_layers(quantized, float_graph_layers),
        "calibration_images": [data.train.image_ids[index] for index in chosen],
    }
    return publish(quantized, model, variant, settings, "static", notes, path)


class _OneBatch:
    """A reader of one single batch: after it, a calibrator merges what it saw and forgets the tensors."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self._batch: dict[str, Any] | None = batch

    def get_next(self) -> dict[str, Any] | None:
        batch, self._batch = self._batch, None
        return batch


def collect_ranges(
    proto: ModelProto, settings: StaticSettings, reader: ArrayCalibrationReader, progress: Progress = no_progress
) -> Any:
    """Run the calibration images through the float graph and choose a range for each activation.

    Args:
        proto: the float graph.
        settings: the method and its percentile.
        reader: the calibration images.
        progress: called after each batch.

    Returns:
        ONNX Runtime's `TensorsData`: from each tensor's name to its lowest and highest value.

    Raises:
        StageError: an activation is not finite.
    """
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    method, options = {
        "minmax": (CalibrationMethod.MinMax, {}),
        # ONNX Runtime's own default is a range symmetric about zero, which wastes half the levels after a ReLU.
        "percentile": (CalibrationMethod.Percentile, {"symmetric": False, "percentile": settings.percentile}),
        "entropy": (CalibrationMethod.Entropy, {"num_bins": _ENTROPY_BINS}),
    }[settings.calibration]
    unfit = "Check the network's weights for a layer that overflows."
    # The calibrators print, they write their graphs beside the one that they are given, and numpy warns in them of
    # what is an error below.
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        np.errstate(all="ignore"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)
        float_path = Path(folder, "float.onnx")
        onnx.save_model(proto, float_path)
        calibrator = create_calibrator(
            float_path, _operators(), str(Path(folder, "augmented.onnx")), method, extra_options=options
        )
        done = 0
        try:
            while (batch := reader.get_next()) is not None:
                calibrator.collect_data(_OneBatch(batch))
                done += 1
                progress(done, len(reader))
            ranges = calibrator.compute_data()
        except ValueError as error:  # of numpy.histogram, which wants a finite range
            raise StageError(
                f"expected finite activations on the calibration images, found others ({error}). {unfit}"
            ) from error
    for tensor, values in ranges.items():
        if not np.all(np.isfinite(values.range_value)):
            low, high = values.range_value
            raise StageError(
                f"expected finite activations on the calibration images, found {low} to {high} in `{tensor}`. {unfit}"
            )
    return ranges


def write_integers(proto: ModelProto, settings: StaticSettings, types: IntegerTypes, ranges: Any) -> ModelProto:
    """Return the graph with integer weights and activations, written by ONNX Runtime's quantizers.

    Args:
        proto: the float graph; taken apart in the process.
        settings: format and granularity.
        types: of activations and weights.
        ranges: ONNX Runtime's `TensorsData`.
    """
    from onnx import shape_inference
    from onnxruntime.quantization import QDQQuantizer, QuantizationMode, QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer

    by_name = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    weight, activation = by_name[types.weight], by_name[types.activation]
    excluded = list(normalisation_nodes(proto))
    inferred = shape_inference.infer_shapes(proto)
    # Logits in 256 steps would tie images that the network tells apart, and with them every ranking metric.
    options = {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]}
    if settings.format == "QOperator":
        quantizer = ONNXQuantizer(
            inferred, settings.per_channel, types.reduce_range, QuantizationMode.QLinearOps, True,
            weight, activation, ranges, [], excluded, _operators(), {},
        )  # fmt: skip
    else:
        quantizer = QDQQuantizer(
            inferred, settings.per_channel, types.reduce_range,
            weight, activation, ranges, [], excluded, _operators(), options,
        )  # fmt: skip
    quantizer.quantize_model()
    return quantizer.model.model


def _operators() -> list[str]:
    # Every operator that either writer knows, in an order that does not change from run to run.
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted(set(QDQRegistry) | set(QLinearOpsRegistry))
