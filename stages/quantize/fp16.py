"""Half precision: float16 weights and arithmetic, half the size. On a CPU that is smaller, not faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from calibration_data.prepared import PreparedData
from pipeline.artifacts import JSON, OnnxModel
from pipeline.errors import UsageError
from pipeline.settings import Settings
from stages.quantize.graph import Progress, load, no_progress, normalisation_nodes, publish

if TYPE_CHECKING:
    from onnx import ModelProto

_LARGEST = 65504.0  # of float16
_SMALLEST = 5.96e-08  # float16's least positive number; the converter raises smaller ones to it


class Fp16Settings(Settings):
    """Half precision by ONNX Runtime's converter."""

    method: Literal["fp16"] = Field("fp16", description="float16 weights and arithmetic, no calibration images")


def quantize_fp16(
    model: OnnxModel,
    variant: str,
    settings: Fp16Settings,
    data: PreparedData,
    path: Path,
    progress: Progress = no_progress,
) -> OnnxModel:
    """Convert a float file to float16; its input, its logits and its normalisation keep their types.

    The notes count the constants that float16 cannot hold: those clipped to its largest number and those raised to
    its smallest, with the tensors they stand in.

    Args:
        model: the float file.
        variant: name of the result.
        settings: has no choices.
        data: not looked at; half precision needs no images.
        path: the file to write; its record goes beside it.
        progress: called once.

    Raises:
        UsageError: no ONNX model, or no float constants in it.
    """
    import onnxruntime  # noqa: F401 - its import makes onnxruntime.transformers importable without torch
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = load(model)
    notes = _unrepresentable_constants(proto)
    if notes["constants"] == 0:
        raise UsageError(
            f"{model.path}: expected float weights, found none to convert. Give the float export of a network."
        )
    compiled = convert_float_to_float16(
        proto,
        min_positive_val=_SMALLEST,
        max_finite_val=_LARGEST,
        keep_io_types=True,
        # In float16 its two roundings would cost as much as the whole network's first layer.
        node_block_list=list(normalisation_nodes(proto)),
    )
    progress(1, 1)
    return publish(compiled, model, variant, settings, "fp16", notes, path)


def _unrepresentable_constants(proto: ModelProto) -> dict[str, JSON]:
    from onnx import TensorProto, numpy_helper

    constants = clipped = raised = 0
    tensors: list[str] = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        magnitude = np.abs(numpy_helper.to_array(tensor))
        too_large = int(np.count_nonzero((magnitude > _LARGEST) & np.isfinite(magnitude)))
        too_small = int(np.count_nonzero((magnitude > 0) & (magnitude < _SMALLEST)))
        constants += magnitude.size
        clipped += too_large
        raised += too_small
        if too_large or too_small:
            tensors.append(tensor.name)
    return {
        "constants": constants,
        "clipped_constants": clipped,
        "raised_constants": raised,
        "tensors_with_changed_constants": tensors,
    }
