"""The main environment's side: settings, the worker's process, and its result as an artifact of ours."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.prepared import PreparedData
from calibration_data.sampling import choose_calibration_images
from foundation.artifacts import OnnxModel
from foundation.child import child_command, child_environment
from foundation.errors import StageError
from foundation.files import JSON
from foundation.note_parts import AccuracyTuningNote
from foundation.notes import GraphOptimizedNotes, NeuralCompressorNotes
from foundation.processor import choose_integer_types, detect_cpu
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import float_layers, layers, normalisation_nodes
from onnx_files.image_input import input_name_of, preprocessing_of
from onnx_files.loading import load
from onnx_files.publishing import publish
from stages.quantize.neural_compressor.environment import worker_python, worker_versions

if TYPE_CHECKING:
    from onnx import ModelProto

_WORKER = Path(__file__).with_name("worker.py")
_THREADS = 1  # sums in the same order on every machine, and no quarrel with what runs beside
_BATCH_SIZE = 16


class NeuralCompressorSettings(Settings):
    """Int8 by Intel Neural Compressor, in its own environment."""

    method: Literal["neural_compressor"] = Field("neural_compressor", description="Intel Neural Compressor")
    mode: Literal["static", "dynamic", "tuned"] = Field(
        "tuned", description="tuned: static, layers put back to float until the validation accuracy is kept"
    )
    format: Literal["QDQ", "QOperator"] = Field("QDQ", description="form of static and tuned files")
    reduce_range: Literal["auto"] | bool = Field(
        "auto", description="weights of seven bits, against saturation on x86 without VNNI"
    )
    images: int = Field(128, ge=1, description="number of calibration images, from the training split")
    seed: int = Field(0, ge=0, description="seed of their choice")
    tolerable_loss: float = Field(
        0.01, ge=0, le=1, description="validation accuracy that may be lost, as a share of all images (mode: tuned)"
    )
    max_trials: int = Field(20, ge=1, description="configurations to try (mode: tuned)")
    timeout_s: int = Field(1800, ge=1, description="seconds after which the worker is stopped")


class GraphOptimizedSettings(Settings):
    """A float graph optimized offline by onnxruntime-tools, in Neural Compressor's environment."""

    method: Literal["graph_optimized"] = Field("graph_optimized", description="float, fused by onnxruntime-tools")
    level: Literal["basic", "extended"] = Field(
        "extended", description="basic: standard operators only; extended: also ONNX Runtime's fused ones"
    )
    timeout_s: int = Field(600, ge=1, description="seconds after which the worker is stopped")


def quantize_with_neural_compressor(
    model: OnnxModel,
    variant: str,
    settings: NeuralCompressorSettings,
    data: PreparedData,
    path: Path,
    progress: Progress = no_progress,
) -> OnnxModel:
    """Quantize with Intel Neural Compressor; the notes record its versions, trials and layers left in float.

    Args:
        model: the float file.
        variant: name of the result.
        settings: mode, format, calibration and tuning.
        data: its training split gives the calibration images, its validation split the accuracy.
        path: the file to write; its record goes beside it.
        progress: called once.

    Raises:
        NotMeasuredError: the worker's environment is missing.
        UsageError: no ONNX model, nothing to quantize in it, or fewer training images than asked.
        StageError: Neural Compressor failed, took too long, or no configuration kept the accuracy.
    """
    types = choose_integer_types(detect_cpu(), "uint8", "int8", settings.reduce_range)
    proto = load(model)
    float_graph_layers = layers(proto, model)
    input_name_of(proto, model, data.train.images.shape[1:])  # refuses images of another form
    preprocessing = preprocessing_of(proto, model)
    indices = choose_calibration_images(data, settings.images, settings.seed, key="images")
    chosen = indices if settings.mode != "dynamic" else indices[:0]
    # Only tuning asks for the accuracy; the images may be many.
    tuned_on = slice(None) if settings.mode == "tuned" else slice(0)
    arrays: dict[str, NDArray[np.generic]] = {
        "images": preprocessing.to_input(data.train.images[chosen]),
        "validation_images": preprocessing.to_input(data.validation.images[tuned_on]),
        "validation_labels": data.validation.labels[tuned_on],
    }
    job = {
        "task": "quantize",
        "mode": settings.mode,
        "format": settings.format,
        "reduce_range": types.reduce_range,
        "nodes_in_float": list(normalisation_nodes(proto)),
        "batch_size": _BATCH_SIZE,
        "tolerable_loss": settings.tolerable_loss,
        "max_trials": settings.max_trials,
    }
    answer = _run_worker(job, proto, arrays, settings.timeout_s)
    progress(1, 1)
    result, compiled = answer.result, answer.compiled
    if compiled is None:
        raise StageError(
            f"{variant}: expected a configuration that loses at most {settings.tolerable_loss:g} of the validation "
            f"accuracy {result['baseline_accuracy']:.4f}, found none in {len(result['trial_accuracies'])} trials "
            f"(best {max(result['trial_accuracies']):.4f}). Raise max_trials or tolerable_loss."
        )
    tuning = None
    if settings.mode == "tuned":
        accuracies = result["trial_accuracies"]
        tuning = AccuracyTuningNote(
            trials=len(accuracies), baseline_accuracy=result["baseline_accuracy"], tuned_accuracy=accuracies[-1]
        )
    notes = NeuralCompressorNotes(
        worker=answer.versions,
        reduce_range=types.reduce_range,
        layers=len(float_graph_layers),
        calibration_images=tuple(data.train.handle(index) for index in chosen),
        float_layers=None if settings.mode == "dynamic" else tuple(float_layers(compiled, float_graph_layers)),
        tuning=tuning,
    )
    return publish(compiled, model, variant, settings, notes, path, answer.versions)


def optimize_graph(
    model: OnnxModel,
    variant: str,
    settings: GraphOptimizedSettings,
    data: PreparedData,
    path: Path,
    progress: Progress = no_progress,
) -> OnnxModel:
    """Fuse a float graph offline with onnxruntime-tools; its weights stay as they are.

    Args:
        model: the float file.
        variant: name of the result.
        settings: how far to fuse.
        data: not looked at.
        path: the file to write; its record goes beside it.
        progress: called once.

    Raises:
        NotMeasuredError: the worker's environment is missing.
        UsageError: no ONNX model.
        StageError: the worker failed or took too long.
    """
    proto = load(model)
    answer = _run_worker({"task": "graph_optimized", "level": settings.level}, proto, {}, settings.timeout_s)
    progress(1, 1)
    if answer.compiled is None:
        raise StageError(f"{variant}: expected an optimized model from onnxruntime-tools, found none. Report this.")
    notes = GraphOptimizedNotes(
        worker=answer.versions,
        nodes_before=len(proto.graph.node),
        nodes_after=len(answer.compiled.graph.node),
    )
    return publish(answer.compiled, model, variant, settings, notes, path, answer.versions)


@dataclass(frozen=True)
class _Answer:
    result: Mapping[str, JSON]
    compiled: ModelProto | None
    versions: dict[str, str]


def _run_worker(
    job: Mapping[str, JSON], proto: ModelProto, arrays: Mapping[str, NDArray[np.generic]], timeout_s: int
) -> _Answer:
    import onnx

    python = worker_python()
    versions = {f"worker-{name}": found for name, found in (worker_versions() or {}).items()}
    with tempfile.TemporaryDirectory(prefix="edgeproof-worker-") as name:
        folder = Path(name)
        onnx.save_model(proto, folder / "float.onnx")
        np.savez(folder / "images.npz", allow_pickle=False, **arrays)
        (folder / "job.json").write_text(json.dumps({**job, "threads": _THREADS}), encoding="utf-8")
        limits = {"OMP_NUM_THREADS": str(_THREADS), "CUDA_VISIBLE_DEVICES": "", "TMPDIR": name}
        environment = child_environment(
            {
                **limits,
                "PYTHONPATH": "",  # our packages are not the worker's
                "PYTHONNOUSERSITE": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONHASHSEED": "0",  # Neural Compressor walks through sets
            }
        )
        try:
            answer = subprocess.run(
                child_command(_WORKER, folder, python=python),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StageError(
                f"Neural Compressor's worker: expected an answer within {timeout_s} s, found none. "
                "Raise timeout_s, or lower images or max_trials."
            ) from error
        if answer.returncode != 0:
            tail = "\n".join(answer.stdout.strip().splitlines()[-15:])
            raise StageError(
                f"Neural Compressor's worker: expected exit code 0, found {answer.returncode}. Its last lines:\n"
                f"{tail}\nTry mode static or another format, or leave this variant out."
            )
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        compiled = onnx.load_model(folder / "compiled.onnx") if result["met"] else None
    return _Answer(result, compiled, versions)
