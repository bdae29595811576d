"""ONNX files as the quantizers read and write them: checked, named, with their metadata carried over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from calibration_data.prepared import PreparedData
from calibration_data.preprocessing import METADATA_KEY, Preprocessing
from pipeline.artifacts import JSON, OnnxModel, sha256_of_file, write_bytes
from pipeline.errors import StageError, UsageError
from pipeline.model_file import read_model
from pipeline.settings import Settings

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Progress = Callable[[int, int], None]
"""Called with what is done and the total."""

LAYER_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose weights make a network's size and most of its work."""

_ANSWERING = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "Reshape", "Flatten", "Squeeze", "Identity", "Transpose",
                        "GlobalAveragePool", "AveragePool", "ReduceMean"))  # fmt: skip


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


def load(model: OnnxModel) -> ModelProto:
    """Read a float ONNX file for quantization.

    Every node gets a name of its own (quantizers address nodes by it), and what shape inference had noted is
    forgotten (quantizers rewrite weights, and a stale shape stops them).

    Raises:
        UsageError: the file is missing, is no ONNX model, or keeps weights outside its folder.
    """
    proto = read_model(model.path)
    del proto.graph.value_info[:]
    _name_nodes(proto)
    return proto


def preprocessing_of(proto: ModelProto, model: OnnxModel) -> Preprocessing:
    """Return how images become the model's input.

    Raises:
        UsageError: the file's metadata does not say.
    """
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in metadata:
        raise UsageError(
            f"{model.path}: expected `{METADATA_KEY}` in the model's metadata, found none. "
            "Export the model with `edgeproof export`, which writes it."
        )
    try:
        return Preprocessing.from_metadata(metadata)
    except ValueError as error:
        raise UsageError(f"{model.path}: {error} in the model's metadata. Export the model anew.") from error


def input_name_of(proto: ModelProto, model: OnnxModel, data: PreparedData) -> str:
    """Return the name of the model's input, which takes the images of a data set.

    Raises:
        UsageError: the model has several inputs, or takes images of another form.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise UsageError(
            f"{model.path}: expected a model with one input, found {len(inputs)}. Give an image classifier."
        )
    expected = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim]
    channels, height, width = data.train.images.shape[1:]
    layout = preprocessing_of(proto, model).layout
    found = [channels, height, width] if layout == "NCHW" else [height, width, channels]
    if len(expected) != 4 or any(e and e != f for e, f in zip(expected[1:], found, strict=True)):
        raise UsageError(
            f"{model.path}: expected images of shape {expected[1:]} (channels, height, width), found {found} in "
            f"the data set {data.dataset}. Prepare the data with the model's image size and channels."
        )
    name: str = inputs[0].name
    return name


def normalisation_nodes(proto: ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes that turn pixels into a network's input: Cast, Mul, Add… on one single path."""
    names: list[str] = []
    tensor = proto.graph.input[0].name
    while True:
        readers = [node for node in proto.graph.node if tensor in node.input]
        if len(readers) != 1 or readers[0].op_type not in ("Cast", "Sub", "Mul", "Div", "Add"):
            return tuple(names)
        names.append(readers[0].name)
        tensor = readers[0].output[0]


def answer_nodes(proto: ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes between the last layer and the answers: an average over positions, a Softmax…

    In 256 steps the answers of many classes would tie, probabilities above all. A layer at the end is none of them.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    names: list[str] = []
    for value in proto.graph.output:
        node = makers.get(value.name)
        while node is not None and node.op_type in _ANSWERING:
            names.append(node.name)
            node = makers.get(node.input[0])
    return tuple(names)


def layers(proto: ModelProto, model: OnnxModel) -> list[NodeProto]:
    """Return the nodes with float weights of their own, in order.

    Raises:
        UsageError: there are none, so there is nothing to quantize, or a weight is infinite or no number.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    weights = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    found = [node for node in proto.graph.node if node.op_type in LAYER_TYPES and node.input[1] in weights]
    for name in (name for node in found for name in node.input[1:3] if name in weights):
        wrong = int(np.count_nonzero(~np.isfinite(numpy_helper.to_array(weights[name]))))
        if wrong:
            raise UsageError(
                f"{model.path}: expected finite weights, found {wrong} that are not in `{name}`. "
                "Train the network anew with a lower learning rate, or choose an earlier checkpoint."
            )
    if not found:
        raise UsageError(
            f"{model.path}: expected convolutions or linear layers with float weights, found none to quantize. "
            "Give the float export of a network."
        )
    return found


def float_layers(proto: ModelProto, of: Iterable[NodeProto]) -> list[str]:
    """Return the names of those layers whose arithmetic a quantizer has left in float.

    Args:
        proto: the quantized graph, in QDQ or QOperator form.
        of: the layers of the float graph.
    """
    makers = {output: node.op_type for node in proto.graph.node for output in node.output}
    still_float = {
        node.name
        for node in proto.graph.node
        if node.op_type in LAYER_TYPES and {makers.get(name) for name in node.input[:2]} != {"DequantizeLinear"}
    }
    return [node.name for node in of if node.name in still_float]


def publish(
    proto: ModelProto,
    source: OnnxModel,
    variant: str,
    settings: Settings,
    method: str,
    notes: Mapping[str, JSON],
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
        method: key of the quantizer in `QUANTIZERS`.
        notes: what the quantizer found out, for the record.
        path: the file to write.
        tools: versions of what made it, beside onnx and onnxruntime.

    Raises:
        StageError: the graph breaks ONNX's rules or lost the form of its source's input and output.
        UsageError: the file could not be written.
    """
    import onnx

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
        variant, path, sha256_of_file(path), method, source.sha256, settings.model_dump(mode="json"), dict(notes)
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


def _name_nodes(proto: ModelProto) -> None:
    taken = {node.name for node in proto.graph.node}
    seen: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)


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
