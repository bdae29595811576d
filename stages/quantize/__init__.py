"""From the float export to compiled files: one table of quantizers, all called alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from calibration_data.prepared import PreparedData
from pipeline.artifacts import OnnxModel
from pipeline.settings import Settings
from stages.quantize.dynamic import DynamicSettings, quantize_dynamic
from stages.quantize.fp16 import Fp16Settings, quantize_fp16
from stages.quantize.graph import Progress, no_progress
from stages.quantize.neural_compressor.adapter import (
    GraphOptimizedSettings,
    NeuralCompressorSettings,
    optimize_graph,
    quantize_with_neural_compressor,
)
from stages.quantize.static import StaticSettings, quantize_static
from stages.quantize.weight_only import WeightOnlySettings, quantize_weights_only


class QuantizeFunction(Protocol):
    """Compiles a float file to `path`, writes the record beside it, and returns the artifact.

    Calibration images come from the data's training split, accuracy for tuning from its validation split; the test
    split is never looked at. The same arguments give the same bytes.
    """

    def __call__(
        self,
        model: OnnxModel,
        variant: str,
        settings: Any,
        data: PreparedData,
        path: Path,
        progress: Progress = no_progress,
    ) -> OnnxModel:
        """Args: float file, name of the result, the row's settings, prepared data, file to write, (done, total)."""


@dataclass(frozen=True)
class Quantizer:
    """One way to compile a float file.

    Attributes:
        settings: its settings; their field `method` holds the row's key.
        quantize: the function.
        description: one line for the command line and the schema.
    """

    settings: type[Settings]
    quantize: QuantizeFunction
    description: str


QUANTIZERS: Mapping[str, Quantizer] = {
    "fp16": Quantizer(Fp16Settings, quantize_fp16, "float16 weights and arithmetic: half the size"),
    "dynamic": Quantizer(
        DynamicSettings, quantize_dynamic, "int8 weights without calibration: a quarter of the size at float's speed"
    ),
    "weight_only": Quantizer(
        WeightOnlySettings, quantize_weights_only, "int8 or int4 weights, float arithmetic: the size alone"
    ),
    "static": Quantizer(
        StaticSettings, quantize_static, "int8 weights and activations with calibrated ranges: small and fast"
    ),
    "neural_compressor": Quantizer(
        NeuralCompressorSettings,
        quantize_with_neural_compressor,
        "Intel Neural Compressor: static, dynamic or accuracy-aware tuned int8",
    ),
    "graph_optimized": Quantizer(
        GraphOptimizedSettings, optimize_graph, "float weights in a graph fused by onnxruntime-tools"
    ),
}
