"""Half precision: float16 weights and arithmetic, half the size. On a CPU that is smaller, not faster.

float16 ends at 65,504. Where an activation of the float graph goes beyond it on calibration images, the node that
makes it and those that read it stay in float32, an island; a tensor between two such nodes is never rounded.
Operators that a processor has no float16 kernel for are no islands of the file's: ONNX Runtime computes them in
float32 by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from calibration_data.prepared import PreparedData
from calibration_data.sampling import choose_calibration_images
from foundation.artifacts import OnnxModel
from foundation.errors import StageError, UsageError
from foundation.notes import Fp16Notes
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import GraphIndex, attributes_of, normalisation_nodes, opset_of
from onnx_files.image_input import input_name_of, preprocessing_of
from onnx_files.loading import load
from onnx_files.probes import Batches, answers, image_batches, runner, sqnr_db
from onnx_files.publishing import publish

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_LARGEST = 65504.0  # of float16
_GREATEST = float(np.finfo(np.float32).max)
_SMALLEST = 5.96e-08  # float16's least positive number; the converter raises smaller ones to it
_WRITTEN_OUT = frozenset(("AffineGrid", "MeanVarianceNormalization"))
"""Their definitions in the standard, which ONNX Runtime takes, hold numbers of float32."""
_READS_FLOAT32 = ("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "ZipMap")


class Fp16Settings(Settings):
    """Half precision by ONNX Runtime's converter."""

    method: Literal["fp16"] = Field("fp16", description="float16 weights and arithmetic")
    images: int = Field(
        8,
        ge=0,
        description="training images on which activations that float16 cannot hold are looked for, or as many as "
        "there are; 0: don't look",
    )
    seed: int = Field(0, ge=0, description="seed of their choice")


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
    its smallest, with the tensors they stand in; and they name the nodes that stay in float32, each with the largest
    activation that it makes or reads.

    Args:
        model: the float file.
        variant: name of the result.
        settings: on how many images to look for activations that overflow.
        data: its training split gives those images.
        path: the file to write; its record goes beside it.
        progress: called once.

    Raises:
        UsageError: no ONNX model, or no float constants in it.
        StageError: an activation of the float file is not finite.
    """
    proto = load(model)
    if not _constants(proto, frozenset()).total:
        raise UsageError(
            f"{model.path}: expected float weights, found none to convert. Give the float export of a network."
        )
    batches = None
    if settings.images:
        images = min(settings.images, len(data.train))
        chosen = choose_calibration_images(data, images, settings.seed, key="images").tolist()
        name = input_name_of(proto, model, data.train.images.shape[1:])
        batches = image_batches(proto, data.train.images, chosen, preprocessing_of(proto, model), name, size=1)
    islands = float_islands(proto, batches) if batches else {}
    # In float16 the normalisation's two roundings would cost as much as the whole network's first layer.
    kept = [*normalisation_nodes(proto), *islands, *without_half(proto)]
    constants = _constants(proto, frozenset(kept))
    reference = answers(proto, batches) if batches else None
    compiled = convert(proto, kept)
    logits_sqnr_db = sqnr_db(reference, answers(compiled, batches)) if batches and reference is not None else None
    notes = Fp16Notes(
        constants=constants.total,
        clipped_constants=constants.clipped,
        raised_constants=constants.raised,
        tensors_with_changed_constants=constants.changed_tensors,
        float_islands=islands,
        logits_sqnr_db=logits_sqnr_db,
    )
    progress(1, 1)
    return publish(compiled, model, variant, settings, notes, path)


def float_islands(proto: ModelProto, batches: Batches) -> dict[str, float]:
    """Return the nodes that cannot run in float16, with the largest magnitude that each makes or reads.

    Args:
        proto: the float graph, with names on its nodes.
        batches: calibration images.

    Raises:
        StageError: an activation is not finite.
    """
    names = [name for node in proto.graph.node for name in node.output if name]
    run = runner(proto, names)
    peaks: dict[str, float] = {}
    masked = _infinite_by_constants(proto)
    for feeds in batches():
        for name, value in run(feeds).items():
            # A sequence, which no float16 holds, is no array.
            if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.size:
                # A mask of infinity is an island; what overflows is not in order.
                infinite = np.isinf(value) & (name in masked)
                peak = float(np.max(np.where(infinite, _GREATEST, np.abs(value))))
                peaks[name] = max(peaks.get(name, 0.0), peak)
                if not np.isfinite(peak):
                    raise StageError(
                        f"expected finite activations on the training images, found {peak} in `{name}`. "
                        "Check the network's weights for a layer that overflows."
                    )
    beyond = {name: peak for name, peak in peaks.items() if peak > _LARGEST}
    return {
        node.name: max(beyond[name] for name in (*node.input, *node.output) if name in beyond)
        for node in proto.graph.node
        if beyond.keys() & {*node.input, *node.output}
    }


def without_half(proto: ModelProto) -> list[str]:
    """Return the names of the nodes that ONNX, or ONNX Runtime on a processor, does not let read float16 at all.

    Of others without a kernel the runtime makes float32 by itself.
    """
    import onnx

    version = opset_of(proto)

    def takes_no_half(node: NodeProto) -> bool:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, version):
            return False
        types = [value.types for value in onnx.defs.get_schema(node.op_type, version).inputs]
        return any("tensor(float)" in allowed and "tensor(float16)" not in allowed for allowed in types)

    return [
        node.name
        for node in proto.graph.node
        if takes_no_half(node) or node.op_type in _WRITTEN_OUT or "reduction" in attributes_of(node)
    ]


def _infinite_by_constants(proto: ModelProto) -> set[str]:
    """Return the tensors that a constant with infinity in it is added to, or chosen for."""
    index = GraphIndex.of(proto.graph)
    found = set()
    for node in proto.graph.node:
        values = [index.constant(name) for name in node.input if name]
        if any(value is not None and value.dtype == np.float32 and np.isinf(value).any() for value in values):
            found.update(node.output)
    return found


def convert(proto: ModelProto, kept: list[str]) -> ModelProto:
    """Return the graph in float16, but for its inputs and outputs and the named nodes.

    Args:
        proto: the float graph; taken apart in the process.
        kept: names of nodes that stay in float32; what one of them hands to another is not rounded.
    """
    import onnxruntime  # noqa: F401 - its import makes onnxruntime.transformers importable without torch
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    _separate_constants(proto, set(kept))
    compiled: ModelProto = convert_float_to_float16(
        proto,
        min_positive_val=_SMALLEST,
        max_finite_val=_LARGEST,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_READS_FLOAT32],
        node_block_list=kept,
    )
    _join_islands(compiled)
    return compiled


def _separate_constants(proto: ModelProto, kept: set[str]) -> None:
    """Give the kept nodes constants of their own, in place: one that other nodes read as well would be rounded."""
    from onnx import TensorProto

    index = GraphIndex.of(proto.graph)
    floats = {name: tensor for name, tensor in index.initializers.items() if tensor.data_type == TensorProto.FLOAT}
    copied: set[str] = set()
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if node.name not in kept or name not in floats or all(r.name in kept for r in index.readers[name]):
                continue
            copy = f"{name}/float32"
            if copy not in copied:
                tensor = proto.graph.initializer.add()
                tensor.CopyFrom(floats[name])
                tensor.name = copy
                copied.add(copy)
            node.input[place] = copy


def _join_islands(proto: ModelProto) -> None:
    """Take out what rounds a tensor between two float32 nodes: a Cast to float16 and one back behind it, in place.

    The converter puts them there, and a number that float16 cannot hold would be infinite on the other side.
    """
    from onnx import TensorProto

    def casts(to: int) -> dict[str, str]:
        return {
            node.output[0]: node.input[0]
            for node in proto.graph.node
            if node.op_type == "Cast" and attributes_of(node)["to"] == to
        }

    halves, wholes = casts(TensorProto.FLOAT16), casts(TensorProto.FLOAT)
    outputs = {value.name for value in proto.graph.output}
    floats = {whole: halves[half] for whole, half in wholes.items() if half in halves}
    # Cast to float16 of what is float32, and no other type: the converter's own.
    own = {f"{half}_cast_to_fp16" for half in halves}
    floats = {whole: source for whole, source in floats.items() if source in own}
    # What a float32 node hands out of the graph keeps the output's name, and its maker takes it.
    handed_out = {source: whole for whole, source in floats.items() if whole in outputs}
    kept = [node for node in proto.graph.node if node.op_type != "Cast" or node.output[0] not in handed_out.values()]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    inside = {whole: source for whole, source in floats.items() if whole not in outputs}
    floats = {whole: handed_out.get(source, source) for whole, source in inside.items()} | handed_out
    for node in proto.graph.node:
        node.output[:] = [handed_out.get(name, name) for name in node.output]
        for index, name in enumerate(node.input):
            node.input[index] = floats.get(name, name)
    for dead in (set(floats), set(halves)):
        read = {name for node in proto.graph.node for name in node.input} | outputs
        left = [node for node in proto.graph.node if not (node.output[0] in dead and node.output[0] not in read)]
        del proto.graph.node[:]
        proto.graph.node.extend(left)


@dataclass(frozen=True)
class _Constants:
    """How many numbers are converted, how many of them float16 cannot hold, and in which tensors these stand."""

    total: int
    clipped: int
    raised: int
    changed_tensors: tuple[str, ...]


def _constants(proto: ModelProto, kept: frozenset[str]) -> _Constants:
    """Count the constants that some node outside `kept` reads, and those among them that float16 cannot hold."""
    from onnx import TensorProto, numpy_helper

    converted = {name for node in proto.graph.node if node.name not in kept for name in node.input}
    total = clipped = raised = 0
    tensors: list[str] = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name not in converted:
            continue
        magnitude = np.abs(numpy_helper.to_array(tensor))
        too_large = int(np.count_nonzero((magnitude > _LARGEST) & np.isfinite(magnitude)))
        too_small = int(np.count_nonzero((magnitude > 0) & (magnitude < _SMALLEST)))
        total += magnitude.size
        clipped += too_large
        raised += too_small
        if too_large or too_small:
            tensors.append(tensor.name)
    return _Constants(total, clipped, raised, tuple(tensors))
