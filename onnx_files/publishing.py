"""How a compiled graph becomes a file: its source's metadata, checked, in an order that is always the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.files import sha256_of_file, write_bytes
from foundation.notes import Notes
from foundation.settings import Settings

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


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
    made_with = {name: version(name) for name in ("onnx", "onnxruntime")} | dict(tools or {})
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
    _sort_topologically(proto)
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
    compiled = OnnxModel(
        variant, path, sha256_of_file(path), notes.method, source.sha256, settings.model_dump(mode="json"), notes
    )
    compiled.write_record()
    return compiled


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


def _sort_topologically(proto: ModelProto) -> None:
    # Some converters append their nodes at the end; ONNX wants every node after those it reads. Nodes that are in
    # order already stay so.
    waiting = list(proto.graph.node)
    made = {value.name for value in (*proto.graph.input, *proto.graph.initializer)} | {""}
    ordered: list[NodeProto] = []
    while waiting:
        ready, later = [], []
        for node in waiting:
            if made.issuperset(node.input):
                ready.append(node)
                made.update(node.output)
            else:
                later.append(node)
        if not ready:
            raise StageError(
                f"expected a graph without cycles, found {len(later)} nodes that wait for each other, "
                f"{later[0].name} among them. Report this with the model."
            )
        ordered += ready
        waiting = later
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
