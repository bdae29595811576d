"""The one table of compilers: every way to make a variant, PACT's own integers, the search and given files included.

A row says all that the rest of the house needs to know: the settings, what the compiler starts from, which images it
takes, which code it is, and what else its result depends on. The configuration, the command line, the cache, the
report and the contract tests read this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foundation.artifacts import Checkpoint, OnnxModel
from foundation.files import JSON
from foundation.notes import (
    DynamicNotes,
    Fp16Notes,
    GivenNotes,
    GraphOptimizedNotes,
    NeuralCompressorNotes,
    PactNotes,
    StaticNotes,
    TunedNotes,
    WeightOnlyNotes,
)
from foundation.processor import detect_cpu
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from foundation.versions import versions_of
from stages.export.settings import ExportSettings, PactExportSettings
from stages.given.settings import GivenSettings
from stages.quantize.methods.dynamic import DynamicSettings
from stages.quantize.methods.fp16 import Fp16Settings
from stages.quantize.methods.static import StaticSettings
from stages.quantize.methods.weight_only import WeightOnlySettings
from stages.quantize.neural_compressor.adapter import GraphOptimizedSettings, NeuralCompressorSettings
from stages.search.study import TunedSettings

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData

Start = Literal["checkpoint", "float_file", "given_file"]
_DEFAULT_EXPORT = ExportSettings()


@dataclass(frozen=True)
class CompileTask:
    """One variant to be made.

    Attributes:
        variant: its name.
        settings: of the row.
        float_file: the baseline.
        data: the images; training images calibrate, validation images score, test images are never looked at.
        path: the file to write; its record goes beside it.
        checkpoint: the trained network; None where the model is a file from elsewhere.
        export: the form of exported files.
        identity: of everything that decides the result, for what is resumed.
        progress: called with what is done and the total.
    """

    variant: str
    settings: Any
    float_file: OnnxModel
    data: PreparedData
    path: Path
    checkpoint: Checkpoint | None = None
    export: ExportSettings = _DEFAULT_EXPORT
    identity: str = ""
    progress: Progress = no_progress


@dataclass(frozen=True)
class Compiler:
    """One row.

    Attributes:
        settings: their field `method` holds the row's key.
        notes: what it finds out; their field `method` likewise.
        compile: makes the file and its record; the same task gives the same bytes.
        modules: where the code lies; a result's key covers all that they import.
        description: one line for the command line and the documentation.
        starts_from: what the variant is made of.
        depends_on: what else a result depends on, beside code, settings and inputs.
    """

    settings: type[Settings]
    notes: type[Settings]
    compile: Callable[[CompileTask], OnnxModel]
    modules: tuple[str, ...]
    description: str
    starts_from: Start = "float_file"
    depends_on: Callable[[], Mapping[str, JSON]] = dict


def _processor() -> dict[str, JSON]:
    return {"processor": detect_cpu().target}


def _worker() -> dict[str, JSON]:
    from stages.quantize.neural_compressor.environment import worker_versions

    return {**_processor(), "neural_compressor": worker_versions()}


def _sampler() -> dict[str, JSON]:
    return {**_processor(), **versions_of(("optuna",))}


def _pact(task: CompileTask) -> OnnxModel:
    from stages.export.pact_to_qdq import export_pact

    assert task.checkpoint is not None, "the configuration refuses pact without training"
    images = task.data.validation.images
    return export_pact(task.checkpoint, task.variant, task.settings, task.export, images, task.path)


def _static(task: CompileTask) -> OnnxModel:
    from stages.quantize.methods.static import quantize_static

    return quantize_static(task.float_file, task.variant, task.settings, task.data, task.path, task.progress)


def _dynamic(task: CompileTask) -> OnnxModel:
    from stages.quantize.methods.dynamic import quantize_dynamic

    return quantize_dynamic(task.float_file, task.variant, task.settings, task.data, task.path, task.progress)


def _weight_only(task: CompileTask) -> OnnxModel:
    from stages.quantize.methods.weight_only import quantize_weights_only

    return quantize_weights_only(task.float_file, task.variant, task.settings, task.data, task.path, task.progress)


def _fp16(task: CompileTask) -> OnnxModel:
    from stages.quantize.methods.fp16 import quantize_fp16

    return quantize_fp16(task.float_file, task.variant, task.settings, task.data, task.path, task.progress)


def _neural_compressor(task: CompileTask) -> OnnxModel:
    from stages.quantize.neural_compressor.adapter import quantize_with_neural_compressor

    return quantize_with_neural_compressor(
        task.float_file, task.variant, task.settings, task.data, task.path, task.progress
    )


def _graph_optimized(task: CompileTask) -> OnnxModel:
    from stages.quantize.neural_compressor.adapter import optimize_graph

    return optimize_graph(task.float_file, task.variant, task.settings, task.data, task.path, task.progress)


def _given(task: CompileTask) -> OnnxModel:
    from stages.given.variant import take_given

    return take_given(task.float_file, task.variant, task.settings, task.path)


def _tuned(task: CompileTask) -> OnnxModel:
    from stages.search.tuned import tune

    return tune(task.float_file, task.variant, task.settings, task.data, task.path, task.identity, task.progress)


COMPILERS: Mapping[str, Compiler] = {
    "pact": Compiler(
        PactExportSettings,
        PactNotes,
        _pact,
        ("stages.export.pact_to_qdq",),
        "PACT's own integers: what was trained is what ships",
        "checkpoint",
        _processor,
    ),
    "fp16": Compiler(
        Fp16Settings,
        Fp16Notes,
        _fp16,
        ("stages.quantize.methods.fp16",),
        "float16 weights and arithmetic: half the size",
    ),
    "dynamic": Compiler(
        DynamicSettings,
        DynamicNotes,
        _dynamic,
        ("stages.quantize.methods.dynamic",),
        "int8 weights without calibration: a quarter of the size at float's speed",
        depends_on=_processor,
    ),
    "weight_only": Compiler(
        WeightOnlySettings,
        WeightOnlyNotes,
        _weight_only,
        ("stages.quantize.methods.weight_only",),
        "int8 or int4 weights, float arithmetic: the size alone",
    ),
    "static": Compiler(
        StaticSettings,
        StaticNotes,
        _static,
        ("stages.quantize.methods.static",),
        "int8 weights and activations with calibrated ranges: small and fast",
        depends_on=_processor,
    ),
    "tuned": Compiler(
        TunedSettings,
        TunedNotes,
        _tuned,
        ("stages.search.tuned",),
        "searches the fastest static file that keeps limits on accuracy, agreement and saliency",
        depends_on=_sampler,
    ),
    "neural_compressor": Compiler(
        NeuralCompressorSettings,
        NeuralCompressorNotes,
        _neural_compressor,
        ("stages.quantize.neural_compressor.adapter", "stages.quantize.neural_compressor.worker"),
        "Intel Neural Compressor: static, dynamic or accuracy-aware tuned int8",
        depends_on=_worker,
    ),
    "graph_optimized": Compiler(
        GraphOptimizedSettings,
        GraphOptimizedNotes,
        _graph_optimized,
        ("stages.quantize.neural_compressor.adapter", "stages.quantize.neural_compressor.worker"),
        "float weights in a graph fused by onnxruntime-tools",
        depends_on=_worker,
    ),
    "given": Compiler(
        GivenSettings,
        GivenNotes,
        _given,
        ("stages.given.variant",),
        "a file that another tool compiled, judged like ours",
        "given_file",
    ),
}
