"""How a compiled graph becomes a file: its source's metadata, checked, in an order that is always the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.files import sha256_of_file, write_bytes
from foundation.notes import Notes
from foundation.settings import Settings
from foundation.versions import versions_of
from onnx_files.graph import reads

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


def publish(
    proto: ModelProto,
    source: OnnxModel,
    variant: str,
    settings: Settings,
    notes: Notes,
    path: Path,
    tools: Mapping[str, str] | None = None,
) -> OnnxModel:
    """Write a compiled graph and its record, and return the artifact.

    The source's metadata is carried over, but for the variant, the parent and the tools. The same graph always gives
    the same bytes.

    Args:
        proto: the compiled graph; changed in place.
        source: the file it was made from.
        variant: its name.
        settings: how it was made, for the record.
        notes: what the method found out, for the record.
        path: the file to write.
        tools: versions of what made it, beside onnx and onnxruntime.

    Raises:
        StageError: the graph breaks ONNX's rules or lost the form of its source's input and output.
        UsageError: the file could not be written.
    """
    import onnx

    method = notes.method
    original = onnx.load_model(source.path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in original.metadata_props}
    made_with = versions_of(("onnx", "onnxruntime")) | dict(tools or {})
    all_tools = {**json.loads(metadata.get("edgeproof.tools", "{}")), **made_with}
    metadata["edgeproof.variant"] = variant
    metadata["edgeproof.parent_sha256"] = source.sha256
    metadata["edgeproof.tools"] = json.dumps(all_tools, sort_keys=True)
    proto.ClearField("metadata_props")
    onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
    proto.producer_name, proto.producer_version = original.producer_name, original.producer_version
    proto.graph.name = original.graph.name
    del proto.graph.value_info[:]
    _keep_used_opsets(proto)
    sort_topologically(proto.graph)
    _leave_nameless(proto, original)
    if _interface(proto) != _interface(original):
        raise StageError(
            f"{variant}: expected the inputs and outputs of {source.path.name} ({_interface(original)}), found "
            f"{_interface(proto)} after `{method}`. Report this with the model; another method may do meanwhile."
        )
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageError(
            f"{variant}: `{method}` wrote a graph that onnx.checker refuses ({error}). Try another method or format."
        ) from error
    write_bytes(path, proto.SerializeToString(deterministic=True))
    compiled = OnnxModel(variant, path, sha256_of_file(path), source.sha256, settings.model_dump(mode="json"), notes)
    compiled.write_record()
    return compiled


def _leave_nameless(proto: ModelProto, original: ModelProto) -> None:
    # Shape inference calls a size that the file leaves open and nameless `unk__0`.
    for mine, theirs in zip(proto.graph.output, original.graph.output, strict=False):
        for size, given in zip(mine.type.tensor_type.shape.dim, theirs.type.tensor_type.shape.dim, strict=False):
            if not given.WhichOneof("value"):
                size.Clear()


def _interface(proto: ModelProto) -> list[tuple[str, int, list[int | str]]]:
    # Name, element type and shape (a name where a dimension is dynamic) of each input and output.
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim],
        )
        for value in (*proto.graph.input, *proto.graph.output)
    ]


def _keep_used_opsets(proto: ModelProto) -> None:
    # ONNX Runtime lists every domain that it knows of; a reader that lacks one would refuse the file for nothing.
    used = {node.domain for node in proto.graph.node} | {""}
    kept = sorted((entry for entry in proto.opset_import if entry.domain in used), key=lambda entry: entry.domain)
    listed = {entry.domain for entry in kept}
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    proto.opset_import.extend(_opset(domain) for domain in sorted(used - listed))


def _opset(domain: str) -> object:
    import onnx

    return onnx.helper.make_opsetid(domain, 1)


def sort_topologically(graph: GraphProto) -> None:
    """Put every node of a graph after those that it reads from, in place; nodes that are in order already stay so.

    Round after round takes, in their order, the nodes that read nothing of a later one: what a converter appended at
    the end stands together before its first reader.

    Args:
        graph: what the bodies of its branches and loops read counts as read by their node.

    Raises:
        StageError: nodes wait for each other.
    """
    nodes = list(graph.node)
    producers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    before = {
        place: {producers[name] for name in reads(node) if name in producers} for place, node in enumerate(nodes)
    }
    rounds: dict[int, int] = {}
    try:
        for place in TopologicalSorter(before).static_order():
            rounds[place] = max((rounds[other] + (other > place) for other in before[place]), default=0)
    except CycleError as error:
        waiting = set(error.args[1])
        raise StageError(
            f"expected a graph without cycles, found {len(waiting)} nodes that wait for each other, "
            f"{nodes[min(waiting)].name} among them. Report this with the model."
        ) from error
    del graph.node[:]
    graph.node.extend(nodes[place] for place in sorted(rounds, key=lambda place: (rounds[place], place)))
